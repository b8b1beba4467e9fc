"""select_and_scatter: the gradient of pooling, along split dimensions.

A shard computes every window that touches its elements, whole, so that ties and sums are those of
one device, and keeps its own part of the result. With shards of L elements, windows of n elements
and stride s, its first window is o = min(ceil((d L - n + 1) / s), floor(d L / s)); it needs the
elements from o * s on and the sources from o on. Windows that do not exist get a neutral source.
"""

from __future__ import annotations

from dataclasses import dataclass

from pai.dialects.mlir import ir
from pai.passes.partition.cutting import cut, dynamic_cut, entry, pad_edges
from pai.passes.partition.emit import identity, tensor
from pai.passes.partition.fetch import fetch
from pai.passes.partition.handlers.base import Handler, Site, register, shape
from pai.passes.partition.handlers.reductions import region_kind
from pai.passes.partition.handlers.shapes import ints
from pai.passes.partition.handlers.windows import Window, windows_of
from pai.passes.partition.rule import Rule, whole


def _windows(op: ir.Operation) -> list[Window]:
    return windows_of(op, ints(op, "window_dimensions"), {"stride": "window_strides"})


def select_and_scatter_rule(op: ir.Operation) -> Rule:
    """Share the dimensions; those with padding of the operation's own are whole.

    What is chosen in a window must not depend on padding, which fetching would fill in with
    values; JAX pads the operand before.
    """
    out = Rule()
    kind = region_kind(op.regions[1])
    rank = op.operands[0].type.rank
    operand, source = whole(rank), whole(rank)
    for dim, window in enumerate(_windows(op)):
        size, count = shape(op.operands[0])[dim], shape(op.operands[1])[dim]
        if 0 in (size, count):
            continue
        if window.trivial or (kind and not window.low and not window.high):
            operand[dim] = source[dim] = (out.factor(size),)
            if not window.trivial:
                out.follow |= set(operand[dim])
    out.operands = [operand, source, whole(0)]
    out.results = [operand]
    return out


@dataclass(frozen=True)
class Touched:
    """The windows that touch each shard's elements.

    Args:
        firsts: per shard, the number of its first window.
        count: how many windows, the same for every shard.
        own: per shard, where its own elements begin among those of its windows.
        width: elements from the first window's begin to the last one's end.
    """

    firsts: list[int]
    count: int
    own: list[int]
    width: int


def touched(window: Window, shards: int, local: int) -> Touched:
    """Return the windows that touch shards of ``local`` elements."""
    size, stride = window.size, window.stride
    begins = [shard * local for shard in range(shards)]
    firsts = [min(-(-(b - size + 1) // stride), b // stride) for b in begins]
    lasts = [(b + local - 1) // stride for b in begins]
    count = max(last - first for first, last in zip(firsts, lasts, strict=True)) + 1
    own = [b - first * stride for b, first in zip(begins, firsts, strict=True)]
    return Touched(firsts, count, own, (count - 1) * stride + size)


def build_select_and_scatter(site: Site) -> list[ir.Value]:
    """Scatter the sources of the windows that touch a shard, and keep the shard's elements."""
    kind = region_kind(site.op.regions[1])
    element = site.operands[0].type.element_type
    emit, sizes = site.emit, shape(site.operands[0])
    done: list[tuple[int, Touched]] = []
    for dim, window in enumerate(_windows(site.op)):
        atoms = site.split(0, dim)
        if window.trivial or not atoms:
            continue
        neutral = emit.constant(tensor([], element), identity(str(kind), element))
        part = touched(window, emit.grid.count(atoms), sizes[dim])
        starts = [first * window.stride for first in part.firsts]
        for operand, begins, length, fill in (
            (0, starts, part.width, None),
            (1, part.firsts, part.count, neutral),
        ):
            size = shape(site.op.operands[operand])[dim]
            value = site.operands[operand]
            site.operands[operand] = fetch(emit, value, dim, atoms, size, begins, length, fill)
        done.append((dim, part))
    (out,) = site.clone(types=[site.operands[0].type])
    for dim, part in done:
        missing = max(0, max(part.own) + sizes[dim] - part.width)
        out = pad_edges(emit, out, dim, 0, missing, site.operands[2])
        if len(set(part.own)) == 1:
            out = cut(emit, out, dim, part.own[0], part.own[0] + sizes[dim])
        else:
            place = entry(emit, part.own, site.split(0, dim))
            out = dynamic_cut(emit, out, dim, place, sizes[dim])
    return [out]


register(
    Handler(select_and_scatter_rule, build_select_and_scatter, through=(0, 1)),
    "stablehlo.select_and_scatter",
)
