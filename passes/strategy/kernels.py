"""Seconds of kernels: a roofline whose efficiency depends on the shape.

A matrix product is cut into tiles, one for each processor at a time; the last wave is as long as
the others (NVIDIA, "Matrix Multiplication Background User's Guide": tile and wave quantization).
Its result is written after its arithmetic, which hides a part of that only. Fused attention is a
product at a rate of its own (T. Dao et al., "FlashAttention", 2022). Everything else streams.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from pai.passes.strategy.calibration import Calibration, constants_of
from pai.passes.strategy.workload import Attention, Collective, Dot, Stream, Task
from pai.runtime.topology import DeviceSpec

TILES = ((256, 128, 1.0), (128, 256, 1.0), (128, 128, 0.93), (128, 64, 0.8), (64, 64, 0.65))
"""Rows, columns, and part of the best rate: smaller tiles read operands more often."""

NARROW = 16
"""Products with fewer rows or columns fill no matrix instruction: kernels of them use the vector
units, whose rate is the f32 one, and no tiles."""

BYTES = {"f64": 8, "f32": 4, "bf16": 2, "f16": 2, "f8E4M3FN": 1, "f8E5M2": 1, "i8": 1}


@dataclass(frozen=True)
class KernelTime:
    """Seconds of kernels.

    Args:
        compute: bound by arithmetic.
        memory: bound by memory bandwidth.
        launch: between kernels.
        count: how many kernels.
    """

    compute: float = 0.0
    memory: float = 0.0
    launch: float = 0.0
    count: float = 0

    @property
    def total(self) -> float:
        """Seconds of all three."""
        return self.compute + self.memory + self.launch

    def __add__(self, other: KernelTime) -> KernelTime:
        return KernelTime(
            self.compute + other.compute,
            self.memory + other.memory,
            self.launch + other.launch,
            self.count + other.count,
        )

    def __mul__(self, times: float) -> KernelTime:
        return KernelTime(
            self.compute * times, self.memory * times, self.launch * times, self.count * times
        )


@dataclass(frozen=True)
class Kernels:
    """The clock of one kind of device."""

    device: DeviceSpec
    constants: Calibration
    peaks: dict[str, float] = field(default_factory=dict, compare=False)
    known: dict[Task, KernelTime] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, device: DeviceSpec, constants: Calibration | None = None) -> Kernels:
        """Return the clock of ``device`` with its calibrated constants.

        A kind without a set of its own has the A100's, which are relative to the data sheet, and
        the efficiencies and launch time that its cluster file gives.
        """
        return cls(device, constants or constants_of(device), dict(device.peak_flops))

    def seconds(self, tasks: Iterable[Task]) -> KernelTime:
        """Return the time of the kernels among ``tasks``; collectives are left out."""
        times = [self.task(task) for task in tasks if not isinstance(task, Collective)]
        return KernelTime(
            sum(time.compute for time in times),
            sum(time.memory for time in times),
            sum(time.launch for time in times),
            sum(time.count for time in times),
        )

    def task(self, task: Dot | Attention | Stream) -> KernelTime:
        """Return the time of one task with its count."""
        if task not in self.known:
            self.known[task] = self._task(task)
        return self.known[task]

    def _task(self, task: Dot | Attention | Stream) -> KernelTime:
        if isinstance(task, Dot):
            return self.dot(task)
        if isinstance(task, Attention):
            return self.attention(task)
        return self.stream(task)

    def peak(self, dtype: str) -> float:
        """Return the data sheet's FLOP/s for ``dtype``; types without one run as f32."""
        return self.peaks.get(dtype, self.peaks["f32"])

    @property
    def bandwidth(self) -> float:
        """Bytes/s of a streaming kernel."""
        return self.device.memory_bandwidth * self.constants.memory

    def dot(self, dot: Dot) -> KernelTime:
        """Return the time of matrix products: tiles in waves, then the part of the output left."""
        constants, size = self.constants, BYTES.get(dot.dtype, 4)
        tiles = min(
            math.ceil(count * dot.batch / constants.units) * rows * columns / rate
            for rows, columns, rate in TILES
            for count in [math.ceil(dot.m / rows) * math.ceil(dot.n / columns)]
        )
        arithmetic = 2 * tiles * constants.units * dot.k / (self.peak(dot.dtype) * constants.gemm)
        if min(dot.m, dot.n) < NARROW:
            rate = min(self.peak(dot.dtype), self.peaks["f32"]) * constants.gemm
            arithmetic = min(arithmetic, 2.0 * dot.batch * dot.m * dot.n * dot.k / rate)
        written = dot.batch * dot.m * dot.n * size / self.bandwidth
        read = dot.batch * (dot.m + dot.n) * dot.k * size / self.bandwidth
        busy = arithmetic + constants.epilogue * written
        if read + written > busy:
            return KernelTime(0, read + written, constants.launch_s, 1) * dot.count
        return KernelTime(busy, 0, constants.launch_s, 1) * dot.count

    def attention(self, attention: Attention) -> KernelTime:
        """Return the time of fused attention: two products forward, five backward."""
        constants, size = self.constants, BYTES.get(attention.dtype, 4)
        scores = float(attention.batch * attention.query * attention.keys)
        if attention.causal:
            scores *= 1 - (attention.query - 1) / (2 * attention.keys)
        products, rate = 2, constants.attention_forward
        if attention.backward:
            products, rate = 5, constants.attention_backward
        arithmetic = (
            products
            * 2
            * scores
            * attention.head
            / (self.peak(attention.dtype) * rate * attention.speed)
        )
        kv = attention.kv_batch or attention.batch
        moved = 2 * attention.head * (attention.batch * attention.query + kv * attention.keys)
        memory = moved * size * (2 if attention.backward else 1) / self.bandwidth
        if memory > arithmetic:
            return KernelTime(0, memory, constants.launch_s, 1)
        return KernelTime(arithmetic, 0, constants.launch_s, 1)

    def stream(self, stream: Stream) -> KernelTime:
        """Return the time of kernels bound by memory."""
        one = stream.num_bytes / self.bandwidth
        return KernelTime(0, one, self.constants.launch_s, 1) * stream.count
