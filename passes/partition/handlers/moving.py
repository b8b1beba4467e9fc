"""slice, pad and reverse: along a split dimension, shards fetch what they need."""

from __future__ import annotations

from collections.abc import Sequence

from pai.dialects.mlir import ir
from pai.passes.partition.cutting import cut
from pai.passes.partition.emit import array_attr, tensor
from pai.passes.partition.fetch import fetch
from pai.passes.partition.handlers.base import Handler, Site, register, shape
from pai.passes.partition.handlers.shapes import ints
from pai.passes.partition.handlers.windows import Window, fetch_positions
from pai.passes.partition.rule import Factors, Rule, whole


def moving_rule(
    source: Sequence[int], target: Sequence[int], moved: Sequence[bool]
) -> tuple[Rule, list[Factors]]:
    """Return a rule with one factor per dimension; the moved ones follow the operand's split."""
    out = Rule()
    dims: list[Factors] = []
    for dim, size in enumerate(target):
        if 0 in (source[dim], size):
            dims.append(())
            continue
        dims.append((out.factor(size),))
        if moved[dim]:
            out.follow.add(dims[-1][0])
    out.results = [dims]
    return out, dims


def slice_rule(op: ir.Operation) -> Rule:
    """Split every dimension; the cut ones as their operand is."""
    source, target = shape(op.operands[0]), shape(op.results[0])
    out, dims = moving_rule(source, target, [a != b for a, b in zip(source, target, strict=True)])
    out.operands = [dims]
    return out


def build_slice(site: Site) -> list[ir.Value]:
    """Slice what each shard holds, or fetches."""
    begin, strides = ints(site.op, "start_indices"), ints(site.op, "strides")
    limits = ints(site.op, "limit_indices")
    local = shape_of_result(site)
    source, target = shape(site.op.operands[0]), shape(site.op.results[0])
    for dim, (size, count) in enumerate(zip(source, target, strict=True)):
        if size != count and site.split(0, dim):
            begin[dim], limits[dim] = 0, fetch_cut(site, dim, begin[dim], strides[dim])
    for dim, size in enumerate(source):
        if size == target[dim]:
            limits[dim] = local[dim]
    return site.clone(start_indices=array_attr(begin), limit_indices=array_attr(limits))


def fetch_cut(site: Site, dim: int, begin: int, stride: int) -> int:
    """Fetch what a slice from ``begin`` on reads of a split dimension; return how many elements."""
    local, shards = shape_of_result(site)[dim], site.emit.grid.count(site.split(0, dim))
    window = Window(stride=stride, low=-begin)
    span, count = window.span(local), shape(site.op.results[0])[dim]
    needed = window.needed(shards, local, count)
    fetch_positions(site, 0, dim, window.begins(shards, local), span, 1, None, needed)
    return span


def shape_of_result(site: Site) -> list[int]:
    """Return the local shape of the first result."""
    return list(site.type().shape)


def _pad_windows(op: ir.Operation) -> list[Window]:
    """Return padding as windows of one element over an operand dilated by the interior."""
    columns = (ints(op, name) for name in ("edge_padding_low", "edge_padding_high"))
    interior = ints(op, "interior_padding")
    return [
        Window(low=low, high=high, base_dilation=gap + 1)
        for low, high, gap in zip(*columns, interior, strict=True)
    ]


def pad_rule(op: ir.Operation) -> Rule:
    """Split every dimension; the padded ones as their operand is."""
    moved = [not window.trivial for window in _pad_windows(op)]
    out, dims = moving_rule(shape(op.operands[0]), shape(op.results[0]), moved)
    out.operands = [dims, whole(0)]
    return out


def build_pad(site: Site) -> list[ir.Value]:
    """Fetch with the padding as filling; what is left of it, and other dimensions, are padded."""
    names = ("edge_padding_low", "edge_padding_high", "interior_padding")
    edges = {name: ints(site.op, name) for name in names}
    local = shape_of_result(site)
    for dim, window in enumerate(_pad_windows(site.op)):
        atoms = site.split(0, dim)
        if window.trivial or not atoms:
            continue
        shards = site.emit.grid.count(atoms)
        begins, span = window.begins(shards, local[dim]), window.span(local[dim])
        needed = window.needed(shards, local[dim], shape(site.op.results[0])[dim])
        base, fill = window.base_dilation, site.operands[1]
        left = fetch_positions(site, 0, dim, begins, span, base, fill, needed)
        row = (left.low, left.high, left.base_dilation - 1)
        for name, width in zip(names, row, strict=True):
            edges[name][dim] = width
    return [_pad(site, *edges.values())]


def _pad(site: Site, low: list[int], high: list[int], interior: list[int]) -> ir.Value:
    """Append a pad, and a slice for what negative edges cut."""
    inner = list(site.type().shape)
    for dim, (a, b) in enumerate(zip(low, high, strict=True)):
        inner[dim] += max(0, -a) + max(0, -b)
    names = ("edge_padding_low", "edge_padding_high", "interior_padding")
    columns = ([max(0, a) for a in low], [max(0, b) for b in high], interior)
    attributes = {name: array_attr(row) for name, row in zip(names, columns, strict=True)}
    element = site.operands[0].type.element_type
    (out,) = site.clone(types=[tensor(inner, element)], **attributes)
    for dim, (a, b) in enumerate(zip(low, high, strict=True)):
        out = cut(site.emit, out, dim, max(0, -a), inner[dim] - max(0, -b))
    return out


def reverse_rule(op: ir.Operation) -> Rule:
    """Split every dimension; the reversed ones as their operand is."""
    sizes = shape(op.operands[0])
    reversed_ = ints(op, "dimensions")
    out, dims = moving_rule(sizes, sizes, [dim in reversed_ for dim in range(len(sizes))])
    out.operands = [dims]
    return out


def build_reverse(site: Site) -> list[ir.Value]:
    """Fetch the mirrored interval and reverse it."""
    local, sizes = shape_of_result(site), shape(site.op.operands[0])
    for dim in ints(site.op, "dimensions"):
        atoms = site.split(0, dim)
        if atoms:
            shards = range(1, site.emit.grid.count(atoms) + 1)
            starts = [sizes[dim] - shard * local[dim] for shard in shards]
            value = site.operands[0]
            site.operands[0] = fetch(
                site.emit, value, dim, atoms, sizes[dim], starts, local[dim], None
            )
    return site.clone()


register(Handler(pad_rule, build_pad), "stablehlo.pad")
register(Handler(reverse_rule, build_reverse), "stablehlo.reverse")
