"""reduce: any number of operands and any body.

When the last operand dimension is reduced, each result is a loop with accumulators in registers.
Otherwise whole stretches of the last result dimension are accumulated at once in scratch, row
after row, so that the loop over the stretch is contiguous.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pai.compiler.codegen.cpu.emit.builder import Index
from pai.compiler.codegen.cpu.emit.convert import convert, load, wide_type
from pai.compiler.codegen.cpu.emit.elementwise import RULES
from pai.compiler.codegen.cpu.emit.emitter import Buffer, Emitter, Indices
from pai.compiler.codegen.cpu.emit.graph import Node, Region
from pai.compiler.codegen.cpu.emit.kernel import StageContext
from pai.compiler.codegen.cpu.emit.stage import stage_rule
from pai.compiler.codegen.cpu.emit.types import ElemType, Scalar

_STRETCH = 1024
_REORDERED = {"add": "addf", "multiply": "mulf"}
_SIMPLE = ("add", "multiply", "maximum", "minimum", "and", "or", "xor")


def simple_body(region: Region) -> str:
    """Return the name of the one binary operation a body consists of, else ""."""
    if len(region.nodes) != 1 or len(region.arguments) != 2:
        return ""
    node = region.nodes[0]
    if node.name not in _SIMPLE or region.results != node.results:
        return ""
    return node.name if set(node.operands) == set(region.arguments) else ""


def combine(
    e: Emitter, region: Region, total: Sequence[Scalar], x: Sequence[Scalar]
) -> list[Scalar]:
    """Return the body's results; sums of floats may be reordered and are kept in f32 at least."""
    name = simple_body(region)
    if not name:
        return e.apply(region, [*total, *x])
    kind = total[0].type
    if kind.is_float and name in _REORDERED:
        value = e.b.bin(_REORDERED[name], total[0].re, x[0].re, kind.reg, "fastmath<reassoc>")
        return [Scalar(kind, value)]
    return [RULES[name](e.b, region.nodes[0], [total[0], Scalar(kind, *x[0].parts)], kind)]


def accumulator_types(node: Node, count: int) -> list[ElemType]:
    """Return the types the results are accumulated in."""
    kinds = [v.type for v in node.results[:count]]
    return [wide_type(kinds[0])] if simple_body(node.regions[0]) else kinds


def _is_column(node: Node) -> bool:
    dims = node.ints("dimensions")
    rank = len(node.operands[0].shape)
    return bool(dims) and max(dims) < rank - 1


def _rows(node: Node) -> int:
    if not _is_column(node):
        return len(node.results[0].shape)
    return min(node.ints("dimensions"))


@stage_rule("reduce", _rows, _is_column)
def reduce(e: StageContext, node: Node) -> None:
    """Write a reduce."""
    if _is_column(node):
        _reduce_columns(e, node)
    else:
        _reduce_rows(e, node)


def _source_index(node: Node, kept: Indices, reduced: Indices) -> Indices:
    dims = node.ints("dimensions")
    rank = len(node.operands[0].shape)
    inner, outer = iter(reduced), iter(kept)
    return tuple(next(inner) if d in dims else next(outer) for d in range(rank))


def _inits(e: Emitter, node: Node, kinds: list[ElemType]) -> list[Scalar]:
    count = len(node.results)
    return [
        convert(e.b, e.element(v, ()), k) for v, k in zip(node.operands[count:], kinds, strict=True)
    ]


def _extents(node: Node) -> list[int]:
    return [node.operands[0].shape[d] for d in sorted(node.ints("dimensions"))]


def _reduce_rows(e: StageContext, node: Node) -> None:
    count = len(node.results)
    kinds = accumulator_types(node, count)

    def point(index: Indices) -> None:
        def step(inner: Indices, total: list[Scalar]) -> list[Scalar]:
            place = _source_index(node, index, inner)
            x = [e.element(v, place) for v in node.operands[:count]]
            return combine(
                e,
                node.regions[0],
                total,
                [Scalar(k, *v.parts) for k, v in zip(kinds, x, strict=True)],
            )

        for value, x in zip(
            node.results, e.fold(_extents(node), _inits(e, node, kinds), step), strict=True
        ):
            e.write(value, index, convert(e.b, x, value.type))

    e.free_loops(node.results[0].shape, point)


def _reduce_columns(e: StageContext, node: Node) -> None:
    b = e.b
    count = len(node.results)
    kinds = accumulator_types(node, count)
    shape = node.results[0].shape
    sums = [e.scratch(k, (_STRETCH,)) for k in kinds]
    low, high = e.range or (0, shape[-1])

    def stretch(outer: Indices) -> None:
        def part(start: Index) -> Sequence[str]:
            end = b.add(start, _STRETCH)
            stop = b.bin("minsi", b.index(end), b.index(high), "i64")
            with e.layer():
                _accumulate(e, node, sums, outer, (start, stop))
            return ()

        b.loop(low, high, part, step=_STRETCH)

    e.free_loops(shape[:-1], stretch, last=False)


def _accumulate(
    e: StageContext, node: Node, sums: list[Buffer], outer: Indices, ends: tuple[Index, str]
) -> None:
    """Reduce the results at (outer, start:stop)."""
    b = e.b
    kinds = [s.type for s in sums]
    inits = _inits(e, node, kinds)

    def each(body: Callable[[Index, Index], None]) -> None:
        def run(iv: Index) -> Sequence[str]:
            with e.layer():
                body(iv, b.sub(iv, ends[0]))
            return ()

        b.loop(*ends, run)

    def fill(iv: Index, at: Index) -> None:
        for buffer, x in zip(sums, inits, strict=True):
            e.put(buffer, (at,), x)

    def one(inner: Indices) -> Sequence[str]:
        def add(iv: Index, at: Index) -> None:
            place = _source_index(node, (*outer, iv), inner)
            total = [load(b, s.pointer, at, s.type) for s in sums]
            x = [e.element(v, place) for v in node.operands[: len(sums)]]
            x = [Scalar(k, *v.parts) for k, v in zip(kinds, x, strict=True)]
            for buffer, y in zip(sums, combine(e, node.regions[0], total, x), strict=True):
                e.put(buffer, (at,), y)

        each(add)
        return ()

    def finish(iv: Index, at: Index) -> None:
        for value, buffer in zip(node.results, sums, strict=True):
            x = load(b, buffer.pointer, at, buffer.type)
            e.write(value, (*outer, iv), convert(b, x, value.type))

    each(fill)
    with e.layer():
        b.loops(_extents(node), one)
    each(finish)
