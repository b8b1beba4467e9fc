"""From the instruction list of a package to the core's flat program."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from pai.runtime import _core
from pai.runtime.dtypes import DTYPES, itemsize
from pai.runtime.errors import PackageError
from pai.runtime.manifest import KernelSpec
from pai.runtime.program import (
    Buffer,
    Call,
    Case,
    Collective,
    Copy,
    Fill,
    Instruction,
    ProgramCode,
    While,
)

_Layout = tuple[int, int, int, int, int, int]
_REDUCING = ("all_reduce", "reduce_scatter")


def build_program(
    code: ProgramCode,
    kernels: dict[str, KernelSpec],
    objects: dict[str, bytes],
    num_devices: int,
    where: str = "",
) -> _core.Program:
    """Load the kernels and translate the instructions.

    Args:
        code: the instructions.
        kernels: by name.
        objects: bytes of the object files, by their path in the package.
        num_devices: devices that run the program.
        where: the package, for messages.

    Raises:
        PackageError: when an object or an instruction is damaged.
    """
    try:
        image = _core.load_image(list(objects.items()))
        numbers = {file: number for number, file in enumerate(objects)}
        program = _core.Program(image, len(code.buffers), num_devices)
        builder = _Builder(program, code, num_devices)
        for name, kernel in kernels.items():
            builder.kernels[name] = program.add_kernel(
                name, numbers[kernel.file], kernel.symbol, kernel.grid, kernel.scratch_bytes
            )
        builder.block(code.code)
        program.end()
    except (_core.CorePackageError, ValueError, KeyError, TypeError, IndexError) as error:
        raise PackageError(f"the program is damaged ({error})", where) from error
    return program


class _Builder:
    def __init__(self, program: _core.Program, code: ProgramCode, num_devices: int) -> None:
        self.program = program
        self.buffers = code.buffers
        self.num_devices = num_devices
        self.kernels: dict[str, int] = {}
        self.num_collectives = 0

    def block(self, instructions: tuple[Instruction, ...]) -> None:
        for instruction in instructions:
            match instruction:
                case Call(kernel, buffers):
                    self.program.call(self.kernels[kernel], list(buffers))
                case Copy(source, target):
                    size = self.buffers[source].size
                    if size != self.buffers[target].size:
                        raise ValueError("a copy between buffers of different sizes")
                    self.program.copy(source, target, size)
                case Fill(target, pattern):
                    self.program.fill(target, self.buffers[target].size, pattern)
                case While():
                    self._while(instruction)
                case Case():
                    self._case(instruction)
                case Collective():
                    self._collective(instruction)

    def _while(self, loop: While) -> None:
        top = self.program.position()
        self.block(loop.condition)
        leave = self.program.jump_if_zero(loop.predicate)
        self.block(loop.body)
        self.program.set_target(self.program.jump(), top)
        self.program.set_target(leave, self.program.position())

    def _case(self, case: Case) -> None:
        size = self.buffers[case.index].size
        choice = self.program.choose(case.index, size, len(case.branches))
        ends = []
        for number, branch in enumerate(case.branches):
            self.program.set_target(choice, self.program.position(), number)
            self.block(branch)
            ends.append(self.program.jump())
        for end in ends:
            self.program.set_target(end, self.program.position())

    def _collective(self, collective: Collective) -> None:
        groups = [list(group) for group in collective.groups]
        pairs: list[list[tuple[int, int]]] = []
        if collective.kind == "collective_permute":
            groups, pairs = permute_groups(collective.pairs, self.num_devices)
        sizes = {len(group) for group in groups}
        if len(sizes) > 1 and collective.kind not in ("all_reduce", "collective_permute",
                                                      "collective_broadcast"):  # fmt: skip
            raise ValueError(f"{collective.kind} with groups of different sizes")
        self._check_sizes(collective, max(sizes))
        reductions = [
            (dtype, reduction, small_float(dtype))
            for dtype, reduction in zip(
                collective.dtypes, collective.reductions or [""] * len(collective.dtypes),
                strict=True,
            )
            if collective.kind in _REDUCING
        ]  # fmt: skip
        self.num_collectives += 1
        self.program.collective(
            collective.kind,
            f"{collective.kind} #{self.num_collectives}",
            groups,
            [layout(collective, k, max(sizes)) for k in range(len(collective.sources))],
            reductions,
            pairs,
            list(collective.sources),
            list(collective.targets),
        )

    def _check_sizes(self, collective: Collective, members: int) -> None:
        grows = {"all_gather": (members, 1), "reduce_scatter": (1, members)}
        times, parts = grows.get(collective.kind, (1, 1))
        for source, target, dtype, shape in zip(
            collective.sources, collective.targets, collective.dtypes, collective.shapes,
            strict=True,
        ):  # fmt: skip
            size = itemsize(dtype) * math.prod(shape)
            have: tuple[Buffer, Buffer] = (self.buffers[source], self.buffers[target])
            if have[0].size != size or have[1].size * parts != size * times:
                raise ValueError(f"{collective.kind} between buffers of wrong sizes")


def permute_groups(
    pairs: tuple[tuple[int, int], ...], num_devices: int
) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
    """Return the devices that a permute connects, and per group its pairs as member positions.

    Devices that exchange nothing with each other do not wait for each other.
    """
    group_of = list(range(num_devices))
    for sender, receiver in pairs:
        old, new = group_of[receiver], group_of[sender]
        group_of = [new if group == old else group for group in group_of]
    if len({receiver for _, receiver in pairs}) != len(pairs):
        raise ValueError("a device receives twice in collective_permute")
    groups = [[d for d in range(num_devices) if group_of[d] == g] for g in sorted(set(group_of))]
    positions = [
        [(g.index(sender), g.index(receiver)) for sender, receiver in pairs if sender in g]
        for g in groups
    ]
    return groups, positions


def layout(collective: Collective, operand: int, members: int) -> _Layout:
    """Return the numbers that ``csrc/transport.h`` describes for one operand."""
    shape, size = collective.shapes[operand], itemsize(collective.dtypes[operand])
    if any(not 0 <= dim < len(shape) for dim in collective.dims):
        raise ValueError(f"{collective.kind} along a dimension that is not there")
    match collective.kind:
        case "all_reduce":
            return 1, 1, 1, 1, math.prod(shape), 0
        case "all_gather":
            (dim,) = collective.dims
            return math.prod(shape[:dim]), 1, 1, 1, math.prod(shape[dim:]) * size, 0
        case "reduce_scatter":
            (dim,) = collective.dims
            _divisible(shape[dim], members, collective.kind)
            return math.prod(shape[:dim]), 1, 1, 1, math.prod(shape[dim:]) // members, 0
        case "all_to_all":
            split, concat = collective.dims
            _divisible(shape[split], members, collective.kind)
            first, second = sorted((split, concat))
            inner = math.prod(shape[second + 1 :]) * size
            if split == concat:
                return math.prod(shape[:split]), shape[split], 1, 1, inner, 2
            outer, middle = math.prod(shape[:first]), math.prod(shape[first + 1 : second])
            return outer, shape[first], middle, shape[second], inner, int(split > concat)
    return 1, 1, 1, 1, math.prod(shape) * size, 0


def _divisible(size: int, members: int, kind: str) -> None:
    if size % members:
        raise ValueError(f"{kind} splits {size} elements over {members} devices")


@cache
def small_float(dtype: str) -> _core.SmallFloat | None:
    """Return the tables of a float of at most 8 bits, taken from ml_dtypes; None for others."""
    kind = DTYPES[dtype]
    if not dtype.startswith("f") or kind.itemsize > 1:
        return None
    with np.errstate(all="ignore"):
        decode = np.arange(256, dtype=np.uint8).view(kind).astype(np.float32)
        upper = (np.arange(65536, dtype=np.uint32) << 16).view(np.float32)
        encode = upper.astype(kind).view(np.uint8)
    return _core.SmallFloat(decode.tolist(), encode.tolist())
