"""dynamic_slice and dynamic_update_slice, whose starts are known only at run time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pai.dialects.mlir import ir
from pai.dialects.types import numpy_dtype
from pai.passes.partition.cutting import pad_edges
from pai.passes.partition.emit import Emitter, array_attr, tensor
from pai.passes.partition.handlers.base import Handler, Site, first_before_reshards, register, shape
from pai.passes.partition.rule import Factors, Rule, whole


def slice_rule(op: ir.Operation) -> Rule:
    """Share dimensions taken whole; of others each device adds what it holds of the slice."""
    source, target = shape(op.operands[0]), shape(op.results[0])
    out = Rule()
    operand: list[Factors] = [
        (out.factor(size),) if size == part or 0 < 2 * part <= size else ()
        for size, part in zip(source, target, strict=True)
    ]
    out.operands = [operand] + [whole(0)] * len(source)
    out.results = [
        [dims if a == b else () for dims, a, b in zip(operand, source, target, strict=True)]
    ]
    return out


def build_slice(site: Site) -> list[ir.Value]:
    """Slice the shard between zeros, and add over the devices that split the dimension."""
    emit = site.emit
    sizes = list(site.type().shape)
    zero = emit.constant(tensor([], site.operands[0].type.element_type), 0)
    split: list[int] = []
    for dim, factor in _partial_dims(site):
        split.append(factor)
        site.mask(0, [factor], zero)
        at = _local_start(site, 1 + dim, dim, sizes[dim])
        site.operands[0] = pad_edges(emit, site.operands[0], dim, sizes[dim], sizes[dim])
        site.operands[1 + dim] = at
    _same_type(emit, site.operands, 1)
    out = site.clone(slice_sizes=array_attr(sizes))
    kind = "or" if str(out[0].type.element_type) == "i1" else "add"
    return emit.all_reduce(out, kind, site.atoms(split))


def update_rule(op: ir.Operation) -> Rule:
    """Split every dimension; the update is whole along those it covers in part."""
    source, update = shape(op.operands[0]), shape(op.operands[1])
    out = Rule()
    dims = out.dims(source)
    same = [a == b for a, b in zip(source, update, strict=True)]
    part = [d if keep else () for d, keep in zip(dims, same, strict=True)]
    out.operands = [dims, part] + [whole(0)] * len(source)
    out.results = [dims]
    return out


def build_update(site: Site) -> list[ir.Value]:
    """Write what falls into the shard: the rest goes to a margin that is cut off again."""
    emit = site.emit
    cuts: list[tuple[int, int, int]] = []
    for dim, _ in _partial_dims(site, updates=True):
        width = shape(site.operands[1])[dim]
        local = shape(site.operands[0])[dim]
        at = _local_start(site, 2 + dim, dim, width)
        site.operands[0] = pad_edges(emit, site.operands[0], dim, width, width)
        site.operands[2 + dim] = at
        cuts.append((dim, width, local))
    _same_type(emit, site.operands, 2)
    (out,) = site.clone(types=[site.operands[0].type])
    for dim, width, local in cuts:
        out = _middle(emit, out, dim, width, local)
    return [out]


def _partial_dims(site: Site, *, updates: bool = False) -> Iterator[tuple[int, int]]:
    """Yield (dimension, factor) of split dimensions that are not taken whole."""
    part = shape(site.op.operands[1]) if updates else shape(site.op.results[0])
    for dim, size in enumerate(shape(site.op.operands[0])):
        factors = site.rule.operands[0][dim]
        if size != part[dim] and factors and site.axes[factors[0]]:
            yield dim, factors[0]


def _local_start(site: Site, operand: int, dim: int, width: int) -> ir.Value:
    """Return where the slice begins in a shard that has ``width`` more elements on each side."""
    emit, start = site.emit, site.operands[operand]
    size, local = shape(site.op.operands[0])[dim], shape(site.operands[0])[dim]
    limit = min(size - width, int(np.iinfo(numpy_dtype(start.type)).max))
    i32 = ir.IntegerType.get_signless(32)
    start = _clamp(emit, start, 0, limit)
    if start.type.element_type != i32:
        start = emit.unary("convert", start, tensor([], i32))
    (factor,) = site.rule.operands[0][dim]
    begin = emit.binary("subtract", start, emit.offset(site.axes[factor], local))
    return _clamp(emit, emit.binary("add", begin, emit.scalar(width)), 0, local + width)


def _clamp(emit: Emitter, value: ir.Value, low: int, high: int) -> ir.Value:
    bounds = [emit.constant(value.type, bound) for bound in (low, high)]
    return emit.op("stablehlo.clamp", [value.type], [bounds[0], value, bounds[1]]).result


def _same_type(emit: Emitter, operands: list[ir.Value], first: int) -> None:
    """Convert the starts, from operand ``first`` on, to one type: that of a changed one is i32.

    Unchanged starts of a wider or unsigned type keep their meaning: those of dimensions taken
    whole can only be zero, and those of unsplit ones are below the dimension after clamping.
    """
    types = {str(value.type) for value in operands[first:]}
    if len(types) < 2:
        return
    i64 = tensor([], ir.IntegerType.get_signless(64))
    for index in range(first, len(operands)):
        value = operands[index]
        if str(value.type) == "tensor<ui64>":
            value = _clamp(emit, value, 0, (1 << 63) - 1)
        operands[index] = value if value.type == i64 else emit.unary("convert", value, i64)


def _middle(emit: Emitter, value: ir.Value, dim: int, width: int, local: int) -> ir.Value:
    """Cut ``width`` elements off both sides of a dimension."""
    sizes = shape(value)
    begin = [0] * len(sizes)
    begin[dim] = width
    limits = list(sizes)
    limits[dim] = width + local
    sizes[dim] = local
    attributes = {
        "start_indices": array_attr(begin),
        "limit_indices": array_attr(limits),
        "strides": array_attr([1] * len(sizes)),
    }
    type_ = tensor(sizes, value.type.element_type)
    return emit.op("stablehlo.slice", [type_], [value], attributes).result


register(Handler(slice_rule, build_slice, first_before_reshards), "stablehlo.dynamic_slice")
register(
    Handler(update_rule, build_update, first_before_reshards), "stablehlo.dynamic_update_slice"
)
