"""gather and scatter, with all their dimension numbers."""

from __future__ import annotations

from collections.abc import Sequence

from pai.compiler.codegen.cpu.emit.builder import Index
from pai.compiler.codegen.cpu.emit.convert import load
from pai.compiler.codegen.cpu.emit.dimensions import gather_dimensions, scatter_dimensions
from pai.compiler.codegen.cpu.emit.emitter import Emitter, Indices, element_rule
from pai.compiler.codegen.cpu.emit.graph import Node, Value
from pai.compiler.codegen.cpu.emit.kernel import StageContext
from pai.compiler.codegen.cpu.emit.reduction import combine
from pai.compiler.codegen.cpu.emit.stage import stage_rule
from pai.compiler.codegen.cpu.emit.types import Scalar


def _vector_index(batch: Sequence[Index], at: Index, vector_dim: int, rank: int) -> Indices:
    """Return the index into the start indices: ``at`` inserted at the index vector's dimension."""
    if vector_dim == rank:
        return tuple(batch)
    return (*batch[:vector_dim], at, *batch[vector_dim:])


@element_rule("gather")
def gather(e: Emitter, node: Node, number: int, index: Indices) -> Scalar:
    """Operand element at the clamped start index plus the offset inside the slice."""
    x, starts = node.operands
    d = gather_dimensions(node)
    sizes = node.ints("slice_sizes")
    b = e.b
    offsets = [index[i] for i in d.offset]
    batch = [i for n, i in enumerate(index) if n not in d.offset]
    rank = len(starts.shape)
    batch_of = [n for n in range(rank) if n != d.vector]
    source: list[Index] = []
    free = iter(offsets)
    for k, (extent, size) in enumerate(zip(x.shape, sizes, strict=True)):
        place: Index = 0
        if k in d.start_map:
            at = _vector_index(batch, d.start_map.index(k), d.vector, rank)
            place = b.clamp(e.position(starts, at), 0, extent - size)
        elif k in d.batch:
            where = d.indices_batch[d.batch.index(k)]
            place = batch[batch_of.index(where)]
        if k not in d.collapsed and k not in d.batch:
            place = b.add(place, next(free))
        source.append(place)
    return e.element(x, tuple(source))


@stage_rule("scatter")
def scatter(e: StageContext, node: Node) -> None:
    """Copy the operands, then apply the body at every update; windows that stick out are skipped.

    Skipping whole windows is what XLA does and JAX relies on.
    """
    count = len(node.results)
    inputs, updates = node.operands[:count], node.operands[count + 1 :]
    copy_unless_aliased(e, node, inputs)
    shape = updates[0].shape
    d = scatter_dimensions(node)
    outer = [n for n in range(len(shape)) if n not in d.window]
    b = e.b

    def one(batch: Indices) -> Sequence[str]:
        with e.layer():
            starts = _starts(e, node, batch)

            def window(inner: Indices) -> Sequence[str]:
                with e.layer():
                    _update(e, node, batch, inner, starts)
                return ()

            def all_windows() -> Sequence[str]:
                b.loops([shape[n] for n in d.window], window)
                return ()

            tests = _fits(e, node, starts)
            if tests:
                b.cond(b.all_of(tests), all_windows)
            else:
                all_windows()
        return ()

    b.loops([shape[n] for n in outer], one)


def copy_unless_aliased(e: StageContext, node: Node, inputs: Sequence[Value]) -> None:
    """Store the inputs into the results' buffers where these do not start out as copies."""
    graph = e.graph
    for value, source in zip(node.results, inputs, strict=True):
        if value in graph.results:
            place = graph.results.index(value)
            operand = graph.alias.get(place)
            if operand is not None and graph.arguments[operand] is source:
                continue
        e.copy(source, e.buffers[value])


def _starts(e: Emitter, node: Node, batch: Indices) -> dict[int, Index]:
    """Return the start index along each operand dimension that has one."""
    d = scatter_dimensions(node)
    indices = node.operands[len(node.results)]
    rank = len(indices.shape)
    batch_of = [n for n in range(rank) if n != d.vector]
    starts: dict[int, Index] = {}
    for j, k in enumerate(d.to_operand):
        starts[k] = e.position(indices, _vector_index(batch, j, d.vector, rank))
    for k, where in zip(d.batch, d.indices_batch, strict=True):
        starts[k] = batch[batch_of.index(where)]
    return starts


def _update(
    e: StageContext, node: Node, batch: Indices, inner: Indices, starts: dict[int, Index]
) -> None:
    b = e.b
    count = len(node.results)
    d = scatter_dimensions(node)
    updates = node.operands[count + 1 :]
    outer, window = iter(batch), iter(inner)
    at = tuple(next(window) if n in d.window else next(outer) for n in range(len(updates[0].shape)))
    free = iter(inner)
    place: list[Index] = []
    for k in range(len(node.results[0].shape)):
        offset = 0 if k in d.inserted or k in d.batch else next(free)
        place.append(b.add(starts.get(k, 0), offset))
    buffers = [e.buffers[v] for v in node.results]
    old = [load(b, f.pointer, b.linear(place, f.shape), f.type) for f in buffers]
    new = [e.element(v, at) for v in updates]
    for value, x in zip(node.results, combine(e, node.regions[0], old, new), strict=True):
        e.write(value, tuple(place), x)


def _fits(e: Emitter, node: Node, starts: dict[int, Index]) -> list[str]:
    """Return the tests that a whole window lies inside the operand."""
    b = e.b
    d = scatter_dimensions(node)
    shape = node.operands[len(node.results) + 1].shape
    sizes = iter([shape[n] for n in d.window])
    tests = []
    for k, extent in enumerate(node.results[0].shape):
        size = 1 if k in d.inserted or k in d.batch else next(sizes)
        if k in d.to_operand:
            count = b.index(max(0, extent - size + 1))
            tests.append(b.cmp("ult", b.index(starts[k]), count, "i64"))
    return tests


@stage_rule("dynamic_update_slice")
def dynamic_update_slice(e: StageContext, node: Node) -> None:
    """Copy the operand, then the update over it."""
    x, update, *starts = node.operands
    b = e.b
    copy_unless_aliased(e, node, [x])
    first = [
        b.clamp(e.position(s, ()), 0, n - k)
        for s, n, k in zip(starts, x.shape, update.shape, strict=True)
    ]

    def one(index: Indices) -> Sequence[str]:
        with e.layer():
            place = tuple(b.add(i, s) for i, s in zip(index, first, strict=True))
            e.write(node.results[0], place, e.element(update, index))
        return ()

    b.loops(update.shape, one)
