"""reduce_window and select_and_scatter."""

from __future__ import annotations

from collections.abc import Sequence

from pai.compiler.codegen.cpu.emit.builder import Index
from pai.compiler.codegen.cpu.emit.convert import convert, load, store
from pai.compiler.codegen.cpu.emit.emitter import Indices, unflatten
from pai.compiler.codegen.cpu.emit.graph import Node
from pai.compiler.codegen.cpu.emit.kernel import StageContext
from pai.compiler.codegen.cpu.emit.reduction import accumulator_types, combine
from pai.compiler.codegen.cpu.emit.stage import stage_rule
from pai.compiler.codegen.cpu.emit.types import Scalar, elem_type, reg_types


@stage_rule("reduce_window", rows=lambda node: len(node.results[0].shape), last=lambda node: True)
def reduce_window(e: StageContext, node: Node) -> None:
    """Write a loop nest over the result with a loop over the window inside."""
    count = len(node.results)
    kinds = accumulator_types(node, count)
    window = node.ints("window_dimensions")

    def point(index: Indices) -> None:
        inits = [
            convert(e.b, e.element(v, ()), k)
            for v, k in zip(node.operands[count:], kinds, strict=True)
        ]

        def step(inner: Indices, total: list[Scalar]) -> list[Scalar]:
            return _window_step(e, node, index, inner, total)

        for value, x in zip(node.results, e.fold(window, inits, step), strict=True):
            e.write(value, index, convert(e.b, x, value.type))

    e.free_loops(node.results[0].shape, point)


def _window_step(
    e: StageContext, node: Node, index: Indices, inner: Indices, total: list[Scalar]
) -> list[Scalar]:
    """Return the totals with one window element added, if it falls on an operand element."""
    b = e.b
    count = len(node.results)
    inputs = node.operands[:count]
    shape = inputs[0].shape
    rank = len(shape)
    strides, dilate = (
        node.ints("window_strides", [1] * rank),
        node.ints("window_dilations", [1] * rank),
    )
    base = node.ints("base_dilations", [1] * rank)
    padding = node.ints("padding", [0] * (2 * rank))
    window = node.ints("window_dimensions")
    out = node.results[0].shape
    place: list[Index] = []
    tests: list[str] = []
    for i in range(rank):
        at = b.add(b.mul(index[i], strides[i]), b.mul(inner[i], dilate[i]))
        at = b.sub(at, padding[2 * i])
        span = (shape[i] - 1) * base[i] + 1
        last = (out[i] - 1) * strides[i] + (window[i] - 1) * dilate[i] - padding[2 * i]
        if padding[2 * i] > 0 or last >= span:
            tests.append(b.cmp("ult", b.index(at), b.index(max(0, span)), "i64"))
        if base[i] > 1:
            at = b.clamp(at, 0, max(0, span - 1))
            tests.append(b.icmp("eq", b.rem(at, base[i]), 0))
            at = b.div(at, base[i])
        place.append(at)

    def add() -> list[Scalar]:
        x = [e.element(v, tuple(place)) for v in inputs]
        x = [Scalar(t.type, *v.parts) for t, v in zip(total, x, strict=True)]
        return combine(e, node.regions[0], total, x)

    if not tests:
        return add()
    return _choose_all(e, b.all_of(tests), add, total)


def _choose_all(e: StageContext, test: str, then: object, otherwise: list[Scalar]) -> list[Scalar]:
    kinds = [x.type for x in otherwise]

    def inside() -> list[str]:
        with e.layer():
            return [p for x in then() for p in x.parts]  # type: ignore[operator]

    flat = [t for k in kinds for t in reg_types(k)]
    return unflatten(
        kinds, e.b.cond(test, inside, lambda: [p for x in otherwise for p in x.parts], flat)
    )


@stage_rule("select_and_scatter")
def select_and_scatter(e: StageContext, node: Node) -> None:
    """For every window, find the element the first region selects and add the source to it."""
    b = e.b
    x, source, init = node.operands
    (result,) = node.results
    rank = len(x.shape)
    window = node.ints("window_dimensions", [1] * rank)
    strides = node.ints("window_strides", [1] * rank)
    padding = node.ints("padding", [0] * (2 * rank))
    select, scatter = node.regions
    start = e.element(init, ())
    e.free_loops(result.shape, lambda index: e.write(result, index, start))
    place_kind, flag = elem_type("i64"), elem_type("i1")

    def one(index: Indices) -> Sequence[str]:
        first = [
            b.sub(b.mul(i, s), p) for i, s, p in zip(index, strides, padding[::2], strict=True)
        ]

        def step(inner: Indices, total: list[Scalar]) -> list[Scalar]:
            at = [b.add(f, k) for f, k in zip(first, inner, strict=True)]
            tests = [
                b.cmp("ult", b.index(p), b.index(n), "i64")
                for p, n in zip(at, x.shape, strict=True)
            ]

            def look() -> list[Scalar]:
                found, best, where = total
                new = e.element(x, tuple(at))
                (keep,) = e.apply(select, [best, new])
                stay = b.bin("andi", found.re, keep.re, "i1")
                value = [
                    b.select(stay, p, q, x.type.reg)
                    for p, q in zip(best.parts, new.parts, strict=True)
                ]
                position = b.select(stay, where.re, b.index(b.linear(at, x.shape)), "i64")
                return [
                    Scalar(flag, b.const(True, "i1")),
                    Scalar(x.type, *value),
                    Scalar(place_kind, position),
                ]

            return _choose_all(e, b.all_of(tests), look, total)

        blank = [Scalar(flag, b.const(False, "i1")), start, Scalar(place_kind, b.const(0, "i64"))]
        with e.layer():
            found, _, where = e.fold(window, blank, step)

        def add() -> Sequence[str]:
            with e.layer():
                buffer = e.buffers[result]
                old = load(b, buffer.pointer, where.re, buffer.type)
                (new,) = combine(e, scatter, [old], [e.element(source, index)])
                store(b, Scalar(result.type, *new.parts), buffer.pointer, where.re)
            return ()

        b.cond(found.re, add)
        return ()

    b.loops(source.shape, one)
