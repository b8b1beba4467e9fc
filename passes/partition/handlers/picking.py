"""Slices of one element of a dimension: the last token, one layer of many.

Where such a dimension is split, the device that holds the element gives it and the others give
zeros, so that what travels is the slice and not the dimension::

    %0 = stablehlo.slice %x [15:16, 0:8]        on four shards of four rows

    %0 = stablehlo.slice %x [3:4, 0:8]          each shard's last row
    %1 = stablehlo.select %last_shard, %0, %zeros
    %2 = "stablehlo.all_reduce"(%1)
"""

from __future__ import annotations

from pai.dialects.mlir import ir
from pai.passes.partition.emit import array_attr
from pai.passes.partition.handlers import moving
from pai.passes.partition.handlers.base import Handler, Site, register, shape
from pai.passes.partition.handlers.shapes import ints
from pai.passes.partition.rule import Factors, Rule


def _picked(op: ir.Operation) -> list[int]:
    pairs = zip(shape(op.operands[0]), shape(op.results[0]), strict=True)
    return [dim for dim, (size, count) in enumerate(pairs) if count == 1 and size > 1]


def rule(op: ir.Operation) -> Rule:
    """Split every dimension; those that are cut, and not to one element, follow the operand."""
    source, target, picked = shape(op.operands[0]), shape(op.results[0]), _picked(op)
    if not picked:
        return moving.slice_rule(op)
    out = Rule()
    dims: list[Factors] = [
        (out.factor(size if dim in picked else count),) if count else ()
        for dim, (size, count) in enumerate(zip(source, target, strict=True))
    ]
    for dim, (size, count) in enumerate(zip(source, target, strict=True)):
        if size != count and dim not in picked:
            out.follow |= set(dims[dim])
    out.operands = [dims]
    out.results = [[() if dim in picked else factors for dim, factors in enumerate(dims)]]
    return out


def build(site: Site) -> list[ir.Value]:
    """Slice every shard at the element's place in its own, and add what the holder has."""
    picked = _picked(site.op)
    if not picked:
        return moving.build_slice(site)
    emit, local, target = site.emit, shape(site.operands[0]), shape(site.op.results[0])
    begin, limits = ints(site.op, "start_indices"), ints(site.op, "limit_indices")
    sources = shape(site.op.operands[0])
    holds: list[ir.Value] = []
    factors: list[int] = []
    for dim, size in enumerate(sources):
        if size == target[dim]:
            limits[dim] = local[dim]
        atoms = site.split(0, dim)
        if size != target[dim] and dim not in picked and atoms:
            stride = ints(site.op, "strides")[dim]
            begin[dim], limits[dim] = 0, moving.fetch_cut(site, dim, begin[dim], stride)
        if dim in picked and atoms:
            holder, begin[dim] = divmod(begin[dim], local[dim])
            limits[dim] = begin[dim] + 1
            holds.append(emit.compare(emit.shard_index(atoms), "EQ", emit.scalar(holder)))
            factors += site.rule.operands[0][dim]
    (out,) = site.clone(start_indices=array_attr(begin), limit_indices=array_attr(limits))
    for hold in holds:
        out = emit.select(hold, out, emit.constant(out.type, 0))
    kind = "or" if str(out.type.element_type) == "i1" else "add"
    return emit.all_reduce([out], kind, site.atoms(factors))


register(Handler(rule, build), "stablehlo.slice")
