"""The instruction list of a package: what every device runs, and where its buffers lie.

The compiler (``passes/schedule``) makes a ``ProgramCode``; ``programs/main.json`` holds it; the
executor runs it. This is the one definition of that format.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pai.runtime.errors import PackageError

ALIGNMENT = 64  # bytes; of every buffer
SPACES = ("arena", "argument", "result", "constant", "device")


@dataclass(frozen=True)
class Buffer:
    """Memory that instructions name by its number.

    Args:
        space: ``arena`` (of the device), ``argument`` or ``result`` of the program, ``constant``
            (read-only, shared by all devices), ``device`` (the device number, one ui32).
        offset: bytes from the start of the arena; for other spaces the number of the argument,
            result or constant.
        size: bytes.
    """

    space: str
    offset: int
    size: int


@dataclass(frozen=True)
class Call:
    """Run a kernel; ``buffers`` are its operands, then its results."""

    kernel: str
    buffers: tuple[int, ...]


@dataclass(frozen=True)
class Copy:
    """Copy all bytes of buffer ``source`` to buffer ``target``."""

    source: int
    target: int


@dataclass(frozen=True)
class Fill:
    """Repeat the bytes of ``pattern`` over buffer ``target``."""

    target: int
    pattern: bytes


@dataclass(frozen=True)
class While:
    """Run ``condition``; while the byte in buffer ``predicate`` is not zero, ``body`` and again."""

    predicate: int
    condition: tuple[Instruction, ...]
    body: tuple[Instruction, ...]


@dataclass(frozen=True)
class Case:
    """Run the branch whose number buffer ``index`` holds (1 or 4 bytes), else the last."""

    index: int
    branches: tuple[tuple[Instruction, ...], ...]


@dataclass(frozen=True)
class Collective:
    """Exchange data between devices.

    Args:
        kind: all_reduce, all_gather, reduce_scatter, all_to_all, collective_permute or
            collective_broadcast.
        sources: operand buffers.
        targets: result buffers, one per operand.
        dtypes: element type per operand, MLIR spelling.
        shapes: local shape per operand.
        groups: device numbers that take part together; every device is in one group
            (empty for collective_permute).
        reductions: per operand add, max, min, mul, and, or, xor (reducing kinds only).
        dims: the dimension gathered or scattered, or (split, concat) of all_to_all.
        pairs: (sender, receiver) devices of collective_permute; who receives nothing gets zeros.
    """

    kind: str
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    groups: tuple[tuple[int, ...], ...] = ()
    reductions: tuple[str, ...] = ()
    dims: tuple[int, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()


Instruction = Call | Copy | Fill | While | Case | Collective


@dataclass(frozen=True)
class Constant:
    """A constant too large to be inside a kernel; its value is in a weights file.

    Args:
        name: of the tensor in the file.
        dtype: MLIR spelling of the element type.
        shape: of the tensor.
        value: the elements, while the package is being made; None in a program read from one.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    value: np.ndarray | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class ProgramCode:
    """What every device runs.

    Args:
        buffers: all buffers; instructions name them by position.
        arguments: buffer per argument of the program.
        results: buffer per result; may be an argument, a constant or another result's buffer.
        constants: large constants; the ``offset`` of a constant buffer is a position here.
        arena_bytes: memory each device needs for its arena buffers.
        code: the instructions.
    """

    buffers: tuple[Buffer, ...]
    arguments: tuple[int, ...]
    results: tuple[int, ...]
    constants: tuple[Constant, ...]
    arena_bytes: int
    code: tuple[Instruction, ...]


def walk(code: tuple[Instruction, ...]) -> Iterator[Instruction]:
    """Yield every instruction, those inside blocks after the one that holds them."""
    for instruction in code:
        yield instruction
        if isinstance(instruction, While):
            yield from walk(instruction.condition)
            yield from walk(instruction.body)
        elif isinstance(instruction, Case):
            for branch in instruction.branches:
                yield from walk(branch)


def to_json(code: ProgramCode) -> dict[str, Any]:
    """Return the program as plain lists, numbers and text."""
    return {
        "arena_bytes": code.arena_bytes,
        "arguments": list(code.arguments),
        "buffers": [[b.space, b.offset, b.size] for b in code.buffers],
        "code": [_to_json(i) for i in code.code],
        "constants": [[c.name, c.dtype, list(c.shape)] for c in code.constants],
        "results": list(code.results),
    }


def _to_json(instruction: Instruction) -> list[Any]:
    match instruction:
        case Call(kernel, buffers):
            return ["call", kernel, *buffers]
        case Copy(source, target):
            return ["copy", source, target]
        case Fill(target, pattern):
            return ["fill", target, pattern.hex()]
        case While(predicate, condition, body):
            return ["while", predicate, _block(condition), _block(body)]
        case Case(index, branches):
            return ["case", index, *(_block(branch) for branch in branches)]
        case Collective():
            fields = {k: v for k, v in vars(instruction).items() if k != "kind" and v}
            return [instruction.kind, fields]


def _block(code: tuple[Instruction, ...]) -> list[Any]:
    return [_to_json(instruction) for instruction in code]


def from_json(data: Any, where: str = "") -> ProgramCode:
    """Read what ``to_json`` made and check every number in it.

    Raises:
        PackageError: when it is not such a program; ``where`` names the file.
    """
    try:
        code = ProgramCode(
            tuple(Buffer(str(s), int(o), int(n)) for s, o, n in data["buffers"]),
            tuple(map(int, data["arguments"])),
            tuple(map(int, data["results"])),
            tuple(Constant(str(n), str(d), tuple(map(int, s))) for n, d, s in data["constants"]),
            int(data["arena_bytes"]),
            _parse_block(data["code"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PackageError(f"the program is damaged ({error!r})", where) from error
    _check(code, where)
    return code


def _parse_block(items: Any) -> tuple[Instruction, ...]:
    return tuple(_parse(item) for item in items)


def _parse(item: Any) -> Instruction:
    tag, *rest = item
    match tag:
        case "call":
            return Call(str(rest[0]), tuple(map(int, rest[1:])))
        case "copy":
            source, target = rest
            return Copy(int(source), int(target))
        case "fill":
            target, pattern = rest
            return Fill(int(target), bytes.fromhex(pattern))
        case "while":
            predicate, condition, body = rest
            return While(int(predicate), _parse_block(condition), _parse_block(body))
        case "case":
            return Case(int(rest[0]), tuple(_parse_block(branch) for branch in rest[1:]))
    (fields,) = rest
    return Collective(str(tag), **{name: _tuples(value) for name, value in fields.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _check(code: ProgramCode, where: str) -> None:
    """Raise PackageError when a buffer leaves its space or a number names nothing."""
    limits = {
        "argument": len(code.arguments),
        "result": len(code.results),
        "constant": len(code.constants),
        "device": 1,
    }
    for number, buffer in enumerate(code.buffers):
        fits = buffer.size >= 0 and buffer.offset >= 0
        if buffer.space == "arena":
            fits &= buffer.offset % ALIGNMENT == 0
            fits &= buffer.offset + buffer.size <= code.arena_bytes
        else:
            fits &= buffer.offset < limits.get(buffer.space, 0)
        if not fits:
            raise PackageError(f"buffer {number} of the program is damaged ({buffer})", where)
    numbers = [*code.arguments, *code.results]
    for instruction in walk(code.code):
        numbers += used_buffers(instruction)
    if any(not 0 <= number < len(code.buffers) for number in numbers):
        raise PackageError("the program is damaged (it names a buffer that is not there)", where)


def used_buffers(instruction: Instruction) -> tuple[int, ...]:
    """Return the buffers an instruction itself names, not those inside its blocks."""
    match instruction:
        case Call(_, buffers):
            return buffers
        case Copy(source, target):
            return (source, target)
        case Fill(target, _):
            return (target,)
        case While(predicate, _, _):
            return (predicate,)
        case Case(index, _):
            return (index,)
        case Collective():
            return (*instruction.sources, *instruction.targets)
