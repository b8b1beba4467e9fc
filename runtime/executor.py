"""Running a package: bind its memory, hand inputs to the devices, collect the outputs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pai.runtime import _core, memory
from pai.runtime.build import build_program
from pai.runtime.dtypes import DTYPES, NAMES
from pai.runtime.errors import InvalidInput, PackageError, TransportError
from pai.runtime.manifest import TensorSpec
from pai.runtime.package import Package, open_package
from pai.runtime.program import ALIGNMENT, ProgramCode
from pai.runtime.trace import write_trace

DEADLINE_S = 30.0
_STAGGER = 65 * ALIGNMENT  # devices' arenas start in different sets of the caches
_HANGING: list[Any] = []  # memory that a kernel which never returned may still write to


def load(
    path: str | Path,
    *,
    threads: int | None = None,
    verify: bool = True,
    deadline_s: float = DEADLINE_S,
    stateful: bool = False,
) -> LoadedPackage:
    """Open a package and make it ready to run.

    Args:
        path: a package directory or a stored zip.
        threads: worker threads; None takes the cores this process may use.
        verify: compare checksums first.
        deadline_s: seconds that devices wait for another one in a collective.
        stateful: keep states between runs, instead of starting each run from the given or the
            packed ones.

    Raises:
        PackageError: when it is missing, damaged, foreign, or for another processor.
    """
    package = open_package(path, verify=verify)
    return LoadedPackage(
        package, threads or len(os.sched_getaffinity(0)), deadline_s, stateful=stateful
    )


class LoadedPackage:
    """A package in memory, ready to run. One run at a time.

    Args:
        package: the opened package.
        threads: worker threads.
        deadline_s: seconds that devices wait for another one in a collective.
        stateful: keep states between runs.
    """

    def __init__(
        self, package: Package, threads: int, deadline_s: float, *, stateful: bool = False
    ) -> None:
        self._package = package
        self._mesh = package.manifest.mesh
        self._code = package.code
        self._stateful = stateful
        self._has_state = False
        self._where = str(package.files.path)
        arguments = package.manifest.arguments
        self._program = build_program(
            package.code, package.manifest.kernels, package.objects(), self.num_devices, self._where
        )
        try:
            self._core = _core.Executor(self._program, threads, deadline_s)
        except _core.CorePackageError as error:
            raise PackageError(str(error), self._where) from error
        # Memory of the buffers outside the arenas and of results, by (device, buffer).
        self._memory: dict[tuple[int, int], np.ndarray] = {}
        self._packed = {
            i: [self._shard(spec, device) for device in range(self.num_devices)]
            for i, spec in enumerate(arguments)
            if spec.role != "input" and f"{spec.name}#0" in package.tensors
        }
        self._check_buffers()
        self._bind_fixed()

    @property
    def num_devices(self) -> int:
        """The number of devices the program runs on."""
        return self._mesh.num_devices

    @property
    def threads(self) -> int:
        """The number of threads that compute."""
        return self._core.workers

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What ``run`` wants: the inputs, and states that the package holds no value for."""
        return tuple(
            spec
            for i, spec in enumerate(self._package.manifest.arguments)
            if i not in self._packed and spec.role != "parameter"
        )

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What ``run`` returns."""
        return self._package.manifest.results

    @property
    def code(self) -> ProgramCode:
        """What every device runs."""
        return self._code

    def run(
        self, inputs: Mapping[str, Any] | None = None, /, **named: Any
    ) -> dict[str, np.ndarray]:
        """Run the program once.

        Args:
            inputs: global arrays by name, for names that are no Python identifiers.
            named: global arrays by name.

        Returns:
            Global arrays by the names of the outputs.

        Raises:
            InvalidInput: for a wrong name, shape or dtype.
            TransportError: when a collective cannot complete.
        """
        return self.run_repeated(1, {**(inputs or {}), **named})[0]

    def run_repeated(
        self, repeat: int, inputs: Mapping[str, Any]
    ) -> tuple[dict[str, np.ndarray], list[float]]:
        """Run ``repeat`` times on the same inputs; states advance when they are kept.

        Returns:
            The outputs of the last run, and the seconds of each run without moving data in and out.
        """
        arrays = self._check_inputs(inputs)
        results: dict[str, np.ndarray] = {}
        seconds = []
        held = self._bind_inputs(arrays)
        for number in range(repeat):
            if number == 0 or not self._stateful:
                self._set_states(arrays)
            outputs = self._bind_outputs()
            begin = time.perf_counter()
            self._run_core([held, outputs])
            seconds.append(time.perf_counter() - begin)
            results = self._collect(outputs)
            if self._stateful:
                self._keep_states()
        return results, seconds

    def trace(self, path: str | Path, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Run once and write a Chrome trace (one row per device) to ``path``."""
        self._core.set_tracing(True)
        try:
            results = self.run(inputs)
        finally:
            self._core.set_tracing(False)
        write_trace(Path(path), self._package.manifest.name, self._program, self._core,
                    self.num_devices)  # fmt: skip
        return results

    def _run_core(self, held: Any) -> None:
        try:
            self._core.run()
        except _core.CoreTransportError as error:
            raise TransportError(
                str(error), self._where, "a longer --deadline helps only when devices are slow"
            ) from error
        except _core.CorePackageError as error:
            raise PackageError(str(error), self._where) from error
        finally:
            if self._core.hangs:
                _HANGING.append((self, held))

    def _shard(self, spec: TensorSpec, device: int) -> np.ndarray:
        name = f"{spec.name}#{memory.shard_number(spec, self._mesh, device)}"
        data = self._package.tensors.get(name)
        if data is None or data.size != spec.local_bytes(self._mesh):
            raise PackageError(f"the weight '{name}' is missing or damaged", self._where)
        if data.ctypes.data % ALIGNMENT:
            aligned = memory.allocate(data.size)
            aligned[:] = data
            return aligned
        return data

    def _check_buffers(self) -> None:
        """Raise PackageError when an argument or result has not the bytes the program thinks."""
        manifest = self._package.manifest
        for specs, numbers in (
            (manifest.arguments, self._code.arguments),
            (manifest.results, self._code.results),
        ):
            for spec, number in zip(specs, numbers, strict=True):
                if self._code.buffers[number].size != spec.local_bytes(self._mesh):
                    raise PackageError(f"'{spec.name}' does not fit the program", self._where)
        for i, spec in enumerate(manifest.arguments):
            if spec.role == "parameter" and i not in self._packed:
                raise PackageError(f"has no weights for '{spec.name}'", self._where)

    def _bind_fixed(self) -> None:
        """Give memory to the arena, constants, weights, states, device numbers and results."""
        self._bind_arenas()
        constants = [self._constant(i) for i in range(len(self._code.constants))]
        for number, buffer in enumerate(self._code.buffers):
            if buffer.space == "arena":
                continue
            for device in range(self.num_devices):
                where = (device, number)
                if buffer.space == "constant":
                    self._bind(where, constants[buffer.offset])
                elif buffer.space == "device":
                    own = memory.allocate(4)
                    own[:] = np.frombuffer(np.uint32(device).tobytes(), np.uint8)
                    self._bind(where, own)
                elif buffer.space == "result":
                    self._bind(where, memory.allocate(buffer.size))
                elif self._package.manifest.arguments[buffer.offset].role == "parameter":
                    self._bind(where, self._packed[buffer.offset][device])
                elif self._package.manifest.arguments[buffer.offset].role == "state":
                    self._bind(where, memory.allocate(buffer.size))

    def _bind_arenas(self) -> None:
        size = -(-self._code.arena_bytes // ALIGNMENT) * ALIGNMENT + _STAGGER
        arenas = memory.allocate(size * self.num_devices).reshape(self.num_devices, size)
        numbers = [i for i, buffer in enumerate(self._code.buffers) if buffer.space == "arena"]
        offsets = [self._code.buffers[i].offset for i in numbers]
        for device, arena in enumerate(arenas):
            self._core.bind_all(device, arena.ctypes.data, numbers, offsets)
            for i in set(numbers).intersection(self._code.results):
                buffer = self._code.buffers[i]
                self._memory[device, i] = arena[buffer.offset : buffer.offset + buffer.size]
        self._arenas = arenas

    def _constant(self, number: int) -> np.ndarray:
        constant = self._code.constants[number]
        data = self._package.tensors.get(constant.name)
        if data is None or data.ctypes.data % ALIGNMENT:
            raise PackageError(f"the constant '{constant.name}' is missing or damaged", self._where)
        return data

    def _bind(self, where: tuple[int, int], data: np.ndarray) -> None:
        size = self._code.buffers[where[1]].size
        if data.size != size:
            raise PackageError(f"buffer {where[1]} does not fit the program", self._where)
        self._memory[where] = data
        self._core.bind(*where, data.ctypes.data)

    def _check_inputs(self, inputs: Mapping[str, Any]) -> dict[int, np.ndarray]:
        """Return the given arrays by argument number; raises InvalidInput."""
        numbers = {
            spec.name: i
            for i, spec in enumerate(self._package.manifest.arguments)
            if spec.role != "parameter"
        }
        expected = "expected " + (", ".join(map(_describe, self.inputs)) or "no inputs")
        unknown = [name for name in inputs if name not in numbers]
        if unknown:
            raise InvalidInput(f"there is no input '{unknown[0]}'", self._where, expected)
        held = self._stateful and self._has_state
        for spec in self.inputs:
            if spec.name not in inputs and not (held and spec.role == "state"):
                raise InvalidInput(f"input '{spec.name}' is missing", self._where, expected)
        return {numbers[name]: self._check(numbers[name], v) for name, v in inputs.items()}

    def _check(self, number: int, value: Any) -> np.ndarray:
        spec = self._package.manifest.arguments[number]
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise InvalidInput(f"is not an array ({error})", f"input '{spec.name}'") from error
        if array.dtype != DTYPES[spec.dtype] or array.shape != spec.shape:
            given = f"{NAMES.get(array.dtype, array.dtype)}{list(array.shape)}"
            raise InvalidInput(
                f"input '{spec.name}' is {given}, expected {spec.dtype}{list(spec.shape)}",
                self._where,
            )
        return array

    def _bind_inputs(self, arrays: dict[int, np.ndarray]) -> list[np.ndarray]:
        """Bind the shards of the inputs; devices with the same shard share it."""
        held: list[np.ndarray] = []
        for i, array in arrays.items():
            spec = self._package.manifest.arguments[i]
            if spec.role != "input":
                continue
            shards: dict[int, np.ndarray] = {}
            for device in range(self.num_devices):
                number = memory.shard_number(spec, self._mesh, device)
                if number not in shards:
                    shards[number] = self._cut(array, spec, device)
                self._core.bind(device, self._code.arguments[i], shards[number].ctypes.data)
                self._memory[device, self._code.arguments[i]] = shards[number]
            held += shards.values()
        return held

    def _cut(self, array: np.ndarray, spec: TensorSpec, device: int) -> np.ndarray:
        local = spec.local_shape(self._mesh)
        usable = array.flags.c_contiguous and array.ctypes.data % ALIGNMENT == 0
        usable = usable and memory.canonical(array) is array
        if local == spec.shape and usable and array.size:
            return array.reshape(-1).view(np.uint8)
        shard = memory.allocate(spec.local_bytes(self._mesh))
        memory.cut(array, spec, self._mesh, device, memory.typed(shard, spec.dtype, local))
        return shard

    def _set_states(self, arrays: dict[int, np.ndarray]) -> None:
        """Write the given states, else (unless kept) the packed ones, to the devices' memory."""
        keeps = self._stateful and self._has_state
        for i, spec in enumerate(self._package.manifest.arguments):
            if spec.role != "state" or (i not in arrays and keeps):
                continue
            for device in range(self.num_devices):
                target = self._memory[device, self._code.arguments[i]]
                if i in arrays:
                    shard = memory.typed(target, spec.dtype, spec.local_shape(self._mesh))
                    memory.cut(arrays[i], spec, self._mesh, device, shard)
                else:
                    target[:] = self._packed[i][device]

    def _bind_outputs(self) -> dict[int, np.ndarray]:
        """Let device 0 write those results straight to new arrays that it holds whole.

        Returns:
            The new arrays (bytes) by result number.
        """
        fresh: dict[int, np.ndarray] = {}
        bound: set[int] = set()
        for i, spec in enumerate(self.outputs):
            number = self._code.results[i]
            whole = spec.local_shape(self._mesh) == spec.shape and not spec.updates
            if self._code.buffers[number].space == "result" and whole and number not in bound:
                bound.add(number)
                fresh[i] = memory.allocate(self._code.buffers[number].size)
                self._bind((0, number), fresh[i])
        return fresh

    def _collect(self, fresh: dict[int, np.ndarray]) -> dict[str, np.ndarray]:
        results = {}
        for i, spec in enumerate(self.outputs):
            if i in fresh:
                results[spec.name] = memory.typed(fresh[i], spec.dtype, spec.shape)
                continue
            array = np.empty(spec.shape, DTYPES[spec.dtype])
            done: set[int] = set()
            for device in range(self.num_devices):
                number = memory.shard_number(spec, self._mesh, device)
                if number not in done:
                    done.add(number)
                    data = self._memory[device, self._code.results[i]]
                    shard = memory.typed(data, spec.dtype, spec.local_shape(self._mesh))
                    memory.paste(shard, spec, self._mesh, device, array)
            results[spec.name] = array
        return results

    def _keep_states(self) -> None:
        """Make the new value of every updated state its value in the next run."""
        self._has_state = True
        arguments = {spec.name: i for i, spec in enumerate(self._package.manifest.arguments)}
        updates = [(i, arguments[s.updates]) for i, s in enumerate(self.outputs) if s.updates]
        for device in range(self.num_devices):
            moves = []
            for result, argument in updates:
                source = self._memory[device, self._code.results[result]]
                target = self._memory[device, self._code.arguments[argument]]
                if source is not target:
                    moves.append((target, source.copy() if len(updates) > 1 else source))
            for target, source in moves:
                target[:] = source


def _describe(spec: TensorSpec) -> str:
    return f"{spec.name}: {spec.dtype}{list(spec.shape)}"
