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
from pai.passes.partition.emit import PAD_VALUE, identity, splat, tensor
from pai.passes.partition.fetch import fetch
from pai.passes.partition.handlers.base import Handler, Site, before_reshards, register, shape
from pai.passes.partition.handlers.reductions import region_kind
from pai.passes.partition.handlers.shapes import ints
from pai.passes.partition.handlers.windows import Window, windows_of
from pai.passes.partition.rule import Rule, whole


def _windows(op: ir.Operation) -> list[Window]:
    return windows_of(op, ints(op, "window_dimensions"), {"stride": "window_strides"})


def select_and_scatter_rule(op: ir.Operation) -> Rule:
    """Share the dimensions; those with padding that holds no value are whole.

    Padding is never selected, so it cannot be filled in; but that of a folded pad is.
    """
    out = Rule()
    kind, valued = region_kind(op.regions[1]), PAD_VALUE in op.attributes
    rank = op.operands[0].type.rank
    operand, source = whole(rank), whole(rank)
    for dim, window in enumerate(_windows(op)):
        size, count = shape(op.operands[0])[dim], shape(op.operands[1])[dim]
        if 0 in (size, count):
            continue
        if window.trivial or (kind and (valued or not (window.low or window.high))):
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
        local: how many own elements.
        width: elements from the first window's begin to the last one's end.
    """

    firsts: list[int]
    count: int
    own: list[int]
    local: int
    width: int


def touched(window: Window, shards: int, local: int) -> Touched:
    """Return the windows that touch shards of ``local`` elements."""
    size, stride = window.size, window.stride
    begins = [shard * local + window.low for shard in range(shards)]
    firsts = [min(-(-(b - size + 1) // stride), b // stride) for b in begins]
    lasts = [(b + local - 1) // stride for b in begins]
    count = max(last - first for first, last in zip(firsts, lasts, strict=True)) + 1
    own = [b - first * stride for b, first in zip(begins, firsts, strict=True)]
    return Touched(firsts, count, own, local, (count - 1) * stride + size)


def build_select_and_scatter(site: Site) -> list[ir.Value]:
    """Scatter the sources of the windows that touch a shard, and keep the shard's elements."""
    emit, fill = site.emit, _pad_value(site)
    done: list[tuple[int, Touched]] = []
    for dim, window in enumerate(_windows(site.op)):
        if window.trivial:
            continue
        if site.split(0, dim):
            done.append((dim, _fetch(site, dim, window, fill)))
        elif fill is not None:
            local = shape(site.operands[0])[dim]
            value = pad_edges(emit, site.operands[0], dim, window.low, window.high, fill)
            site.operands[0] = value
            done.append((dim, Touched([0], 0, [window.low], local, shape(value)[dim])))
    attributes = {}
    if fill is not None:
        edges = ir.DenseIntElementsAttr(site.op.attributes["padding"])
        attributes["padding"] = splat(edges.type, 0)
    (out,) = site.clone(types=[site.operands[0].type], **attributes)
    if fill is not None:
        del out.owner.attributes[PAD_VALUE]
    for dim, part in done:
        out = _own(site, out, dim, part)
    return [out]


def _pad_value(site: Site) -> ir.Value | None:
    """Return what the operation's padding holds, where a pad has been folded into it."""
    if PAD_VALUE not in site.op.attributes:
        return None
    value = site.op.attributes[PAD_VALUE]
    return site.emit.op("stablehlo.constant", [value.type], [], {"value": value}).result


def _fetch(site: Site, dim: int, window: Window, fill: ir.Value | None) -> Touched:
    """Fetch the elements and the sources of the windows that touch a shard."""
    emit, atoms = site.emit, site.split(0, dim)
    element = site.operands[1].type.element_type
    kind = str(region_kind(site.op.regions[1]))
    neutral = emit.constant(tensor([], element), identity(kind, element))
    part = touched(window, emit.grid.count(atoms), shape(site.operands[0])[dim])
    starts = [first * window.stride - window.low for first in part.firsts]
    wishes = ((starts, part.width, fill), (part.firsts, part.count, neutral))
    for operand, (begins, length, outside) in enumerate(wishes):
        size = shape(site.op.operands[operand])[dim]
        value = site.operands[operand]
        site.operands[operand] = fetch(emit, value, dim, atoms, size, begins, length, outside)
    return part


def _own(site: Site, value: ir.Value, dim: int, part: Touched) -> ir.Value:
    """Cut a shard's own elements out of those of its windows."""
    missing = max(0, max(part.own) + part.local - part.width)
    value = pad_edges(site.emit, value, dim, 0, missing, site.operands[2])
    if len(set(part.own)) == 1:
        return cut(site.emit, value, dim, part.own[0], part.own[0] + part.local)
    place = entry(site.emit, part.own, site.split(0, dim))
    return dynamic_cut(site.emit, value, dim, place, part.local)


register(
    Handler(select_and_scatter_rule, build_select_and_scatter, before_reshards),
    "stablehlo.select_and_scatter",
)
