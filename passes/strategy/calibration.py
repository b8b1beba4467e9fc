"""Constants of the cost model: one set per kind of device, relative to its data sheet.

``python -m benchmarks.published --fit`` fits them to the fitted half of the published tables (see
there) and prints them. Only the A100's are needed: ``transferred`` gives those of another GPU from
its data sheet alone, and the H100's fitted set refines what that predicts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pai.runtime.topology import DeviceSpec


@dataclass(frozen=True)
class Sheet:
    """Facts of a data sheet that a cluster profile does not have.

    Args:
        units: processors (SMs, CUs) that tiles of a product are spread over.
        clock: boost clock, Hz.
        watts: board power.
        peak: dense f16 FLOP/s of matrix units.
        energy: energy of an operation in its process node, relative to TSMC's N7.
        source: where the numbers are from.
    """

    units: int
    clock: float
    watts: float
    peak: float
    energy: float
    source: str


_N5 = 0.70  # TSMC's announcement of N5: 30 % less power than N7 at the same speed
_N12 = 1.9  # TSMC: 12FFC 25 % below 16FFC, N10 35 % below 16FF+, N7 40 % below N10: 0.75/(0.65·0.6)

SHEETS: dict[str, Sheet] = {
    "a100": Sheet(108, 1.41e9, 400, 312e12, 1.0, "NVIDIA A100 data sheet (SXM), 2021; N7"),
    "h100": Sheet(132, 1.83e9, 700, 989e12, _N5, "NVIDIA H100 data sheet (SXM), 2023; 4N"),
    "h200": Sheet(132, 1.83e9, 700, 989e12, _N5, "NVIDIA H200 data sheet, 2024; 4N"),
    "h20": Sheet(78, 1.83e9, 400, 148e12, _N5, "as an H100 with 78 of its 132 SMs; 4N"),
    "b200": Sheet(148, 1.85e9, 1000, 2250e12, _N5, "NVIDIA B200 data sheet, 2024; 4NP"),
    "v100": Sheet(80, 1.53e9, 300, 125e12, _N12, "NVIDIA V100 data sheet (SXM2), 2018; 12FFN"),
    "mi300x": Sheet(304, 2.1e9, 750, 1307e12, _N5, "AMD MI300X data sheet, 2023; N5"),
}


@dataclass(frozen=True)
class Calibration:
    """How much of its data sheet a device reaches.

    Args:
        units: processors that tiles of a matrix product are spread over.
        gemm: part of the peak rate that full tiles of a long product reach.
        epilogue: idle arithmetic at the ends of a tile (its first operands, its result), as a
            multiple of the time to stream the result to memory.
        memory: part of the peak bandwidth that streaming kernels reach.
        attention_forward: part of the peak rate that fused attention reaches.
        attention_backward: the same for its gradient.
        launch_s: seconds from one kernel to the next.
        host_s: seconds that the host needs to launch a kernel, beside the device's work.
        contention: seconds that kernels lose for each second of a collective beside them.
        source: what the set was fitted to.
    """

    units: int
    gemm: float
    epilogue: float
    memory: float
    attention_forward: float
    attention_backward: float
    launch_s: float
    host_s: float
    contention: float
    source: str = ""


A100 = Calibration(
    units=108,
    gemm=0.767,
    epilogue=1.26,
    memory=0.843,
    attention_forward=0.584,
    attention_backward=0.248,
    launch_s=4e-6,
    host_s=8e-6,
    contention=0.251,
    source="fitted to rows 0, 2, 4, … of sc21.csv, korthikanti.csv and llmfoundry_fsdp.csv (A100); "
    "launch_s and host_s are assumptions: kernels follow each other within 3 to 5 us, and eager "
    "PyTorch launches one in about 8 us",
)


def transferred(source: Calibration, old: Sheet, new: Sheet) -> Calibration:
    """Return the constants of a device from those of another and the two data sheets.

    Products run at the same part of the peak unless power forbids it: the source is taken to be
    at its power limit, so that the rate is at most proportional to power over energy. Attention
    is products plus work that a processor does at a fixed rate for each clock (exponentials,
    operands through shared memory).
    """
    power = (new.watts / new.peak / new.energy) / (old.watts / old.peak / old.energy)
    gemm = source.gemm * min(1.0, power)

    def attention(rate: float) -> float:
        beside = (1 / rate - 1 / source.gemm) * (old.units * old.clock / old.peak)
        return 1 / (1 / gemm + beside * new.peak / (new.units * new.clock))

    return replace(
        source,
        units=new.units,
        gemm=gemm,
        attention_forward=attention(source.attention_forward),
        attention_backward=attention(source.attention_backward),
        source=f"transferred from the A100: {new.source}",
    )


TABLE: dict[str, Calibration] = {
    kind: transferred(A100, SHEETS["a100"], sheet) for kind, sheet in SHEETS.items()
}
TABLE["a100"] = A100
TABLE["h100"] = replace(
    TABLE["h100"],
    gemm=0.593,
    attention_forward=0.295,
    attention_backward=0.143,
    source="rates of products fitted to rows 0, 2, 4, … of llmfoundry_fsdp.csv (H100), the rest "
    "the A100's",
)
TABLE["h200"] = TABLE["h100"]
TABLE["b200"] = replace(
    TABLE["h100"],
    units=SHEETS["b200"].units,
    source="assumption: the H100's parts of the peaks; no table has its step times, and its data "
    "sheet's power alone (0.38 for products) leaves out what Blackwell's units save",
)
TABLE["core"] = Calibration(
    units=1,
    gemm=0.85,
    epilogue=1.0,
    memory=0.85,
    attention_forward=0.6,
    attention_backward=0.6,
    launch_s=1e-6,
    host_s=1e-6,
    contention=0.2,
    source="assumptions about one core of a server CPU",
)


def calibration(kind: str) -> Calibration:
    """Return the constants of a device kind by the longest name in the table that starts it.

    A kind that is not there has those of the A100: they are relative to the data sheet.
    """
    names = [name for name in TABLE if kind.startswith(name)]
    return TABLE[max(names, key=len)] if names else A100


def constants_of(device: DeviceSpec) -> Calibration:
    """Return the constants of a device.

    What a cluster file says about a kind that the table does not have replaces the A100's.
    """
    found = calibration(device.kind)
    if any(device.kind.startswith(name) for name in TABLE):
        return found
    gemm = device.compute_efficiency if device.compute_efficiency < 1 else found.gemm
    return replace(
        found,
        gemm=gemm,
        attention_forward=found.attention_forward * gemm / found.gemm,
        attention_backward=found.attention_backward * gemm / found.gemm,
        memory=device.memory_efficiency if device.memory_efficiency < 1 else found.memory,
        launch_s=device.launch_overhead_s or found.launch_s,
        source=device.source,
    )
