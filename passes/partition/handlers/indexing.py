"""gather and scatter, with the indexed dimension whole or split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pai.dialects.mlir import ir, stablehlo
from pai.dialects.types import numpy_dtype
from pai.passes.partition.emit import Emitter, array_attr, identity, tensor
from pai.passes.partition.handlers.base import Handler, Site, first_before_reshards, register, shape
from pai.passes.partition.handlers.reductions import is_neutral, reduction_kind
from pai.passes.partition.handlers.shapes import ints
from pai.passes.partition.rule import Factors, Rule


def _index_dims(out: Rule, op: ir.Operation, operand: int, vector: int) -> list[Factors]:
    """Return factors for the index tensor: its index vector is whole."""
    sizes = shape(op.operands[operand])
    return [() if dim == vector else (out.factor(size),) for dim, size in enumerate(sizes)]


def gather_rule(op: ir.Operation) -> Rule:
    """Share batches and whole windows; a dimension indexed one by one may be split."""
    numbers = stablehlo.GatherDimensionNumbers(op.attributes["dimension_numbers"])
    out = Rule()
    source, slices = shape(op.operands[0]), ints(op, "slice_sizes")
    indices = _index_dims(out, op, 1, numbers.index_vector_dim)
    batching = dict(
        zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)
    )
    operand: list[Factors] = []
    for dim, size in enumerate(source):
        if dim in batching:
            operand.append(indices[batching[dim]])
        elif _is_window(numbers, dim, slices[dim], size) or _is_row(numbers, dim, slices[dim]):
            operand.append((out.factor(size),))
        else:
            operand.append(())
    windows: list[Factors] = [
        operand[dim] if slices[dim] == size else ()
        for dim, size in enumerate(source)
        if dim not in batching and dim not in numbers.collapsed_slice_dims
    ]
    batches = [dims for i, dims in enumerate(indices) if i != numbers.index_vector_dim]
    offsets = set(numbers.offset_dims)
    out.results = [
        [
            windows.pop(0) if dim in offsets else batches.pop(0)
            for dim in range(op.results[0].type.rank)
        ]
    ]
    out.operands = [operand, indices]
    return out


def _is_window(numbers: ir.Attribute, dim: int, width: int, size: int) -> bool:
    """Whether a gather takes a dimension of the operand whole and keeps it."""
    return dim not in numbers.collapsed_slice_dims and width == size


def _is_row(numbers: ir.Attribute, dim: int, width: int) -> bool:
    """Whether a gather takes single elements of a dimension, by index."""
    return width == 1 and dim in numbers.start_index_map


def build_gather(site: Site) -> list[ir.Value]:
    """Gather from this device's rows, zero for others' rows, and add over the devices."""
    numbers = stablehlo.GatherDimensionNumbers(site.op.attributes["dimension_numbers"])
    slices = ints(site.op, "slice_sizes")
    kept = {f for dims in site.rule.results[0] for f in dims}
    split: dict[int, int] = {}
    for dim, factors in enumerate(site.rule.operands[0]):
        if factors and factors[0] in kept and slices[dim] == shape(site.op.operands[0])[dim]:
            slices[dim] = shape(site.operands[0])[dim]
        elif factors and factors[0] not in kept and site.axes[factors[0]]:
            split[dim] = factors[0]
    if not split:
        return site.clone(slice_sizes=array_attr(slices))
    mask = _localize_rows(site, list(numbers.start_index_map), split, numbers.index_vector_dim)
    (out,) = site.clone(slice_sizes=array_attr(slices), indices_are_sorted=ir.BoolAttr.get(False))
    emit = site.emit
    where = [dim for dim in range(out.type.rank) if dim not in numbers.offset_dims]
    mask = emit.broadcast(mask, shape(out), where)
    own = emit.select(mask, out, emit.constant(out.type, 0))
    kind = "or" if str(out.type.element_type) == "i1" else "add"
    return emit.all_reduce([own], kind, site.atoms(list(split.values())))


def _localize_rows(
    site: Site, index_map: Sequence[int], split: dict[int, int], vector: int
) -> ir.Value:
    """Make the row numbers local, and return where the row is on this device."""
    emit = site.emit
    indices = site.operands[1]
    source, local = shape(site.op.operands[0]), shape(site.operands[0])
    element = indices.type.element_type
    low, high = _range(element)
    # The operation clamps rows to the operand: do it before the rows are divided up.
    rows = [(0, min(source[d] - 1, high)) if d in split else (low, high) for d in index_map]
    indices = _clamp(emit, indices, rows, vector)
    indices = _widen(emit, indices)
    indices = _subtract_offsets(site, indices, index_map, split, vector)
    low, high = _range(indices.type.element_type)
    rows = [(0, local[d] - 1) if d in split else (low, high) for d in index_map]
    site.operands[1] = _clamp(emit, indices, rows, vector)
    same = emit.compare(indices, "EQ", site.operands[1])
    return _all_true(emit, same, vector)


def _range(element: ir.Type) -> tuple[int, int]:
    info = np.iinfo(numpy_dtype(element))
    return int(info.min), int(info.max)


def _vector(emit: Emitter, values: Sequence[int], like: ir.Value, vector: int) -> ir.Value:
    """Return a constant that holds ``values`` along the index vector."""
    element = like.type.element_type
    if len(set(values)) == 1:
        return emit.constant(like.type, values[0])
    attrs = [ir.IntegerAttr.get(element, value) for value in values]
    row = tensor([len(values)], element)
    attr = ir.DenseElementsAttr.get(attrs, row)
    constant = emit.op("stablehlo.constant", [row], [], {"value": attr}).result
    return emit.broadcast(constant, shape(like), [vector])


def _clamp(
    emit: Emitter, value: ir.Value, rows: Sequence[tuple[int, int]], vector: int
) -> ir.Value:
    low = _vector(emit, [row[0] for row in rows], value, vector)
    high = _vector(emit, [row[1] for row in rows], value, vector)
    return emit.op("stablehlo.clamp", [value.type], [low, value, high]).result


def _widen(emit: Emitter, indices: ir.Value) -> ir.Value:
    """Convert row numbers to i32, or to i64 where they do not fit."""
    name = str(indices.type.element_type)
    if name in ("i32", "i64"):
        return indices
    width = 64 if name in ("ui32", "ui64") else 32
    element = ir.IntegerType.get_signless(width)
    return emit.unary("convert", indices, tensor(shape(indices), element))


def _subtract_offsets(
    site: Site, indices: ir.Value, index_map: Sequence[int], split: dict[int, int], vector: int
) -> ir.Value:
    emit = site.emit
    local = shape(site.operands[0])
    element = indices.type.element_type
    parts = []
    for dim in index_map:
        offset = emit.scalar(0)
        if dim in split:
            offset = emit.offset(site.axes[split[dim]], local[dim])
        if str(element) != "i32":
            offset = emit.unary("convert", offset, tensor([], element))
        parts.append(offset)
    if len(parts) == 1:
        offsets = emit.broadcast(parts[0], shape(indices), [])
    else:
        rows = [emit.unary("reshape", part, tensor([1], element)) for part in parts]
        i64 = ir.IntegerType.get_signless(64)
        attributes = {"dimension": ir.IntegerAttr.get(i64, 0)}
        joined = emit.op(
            "stablehlo.concatenate", [tensor([len(rows)], element)], rows, attributes
        ).result
        offsets = emit.broadcast(joined, shape(indices), [vector])
    return emit.binary("subtract", indices, offsets)


def _all_true(emit: Emitter, mask: ir.Value, vector: int) -> ir.Value:
    """Combine a mask over the index vector, and drop that dimension."""
    sizes = shape(mask)
    if vector == len(sizes):
        return mask
    element = mask.type.element_type
    out = tensor([size for dim, size in enumerate(sizes) if dim != vector], element)
    if sizes[vector] == 1:
        return emit.unary("reshape", mask, out)
    true = emit.constant(tensor([], element), 1)
    return emit.reduce(mask, true, "and", vector)


def scatter_rule(op: ir.Operation) -> Rule:
    """Share batches and whole windows; rows may be split; updates too, if they can be combined."""
    numbers = stablehlo.ScatterDimensionNumbers(op.attributes["scatter_dimension_numbers"])
    inputs = len(op.operands) // 2
    source, updates = shape(op.operands[0]), shape(op.operands[inputs + 1])
    out = Rule()
    indices = _index_dims(out, op, inputs, numbers.index_vector_dim)
    if inputs > 1 or reduction_kind(op) is None:
        kept = set(numbers.scatter_indices_batching_dims)
        indices = [dims if i in kept else () for i, dims in enumerate(indices)]
    batching = dict(
        zip(numbers.input_batching_dims, numbers.scatter_indices_batching_dims, strict=True)
    )
    windows = list(numbers.update_window_dims)
    rest = [i for i in range(len(source)) if i not in numbers.inserted_window_dims]
    window_of = dict(zip([i for i in rest if i not in batching], windows, strict=True))
    operand: list[Factors] = []
    for dim, size in enumerate(source):
        rows = dim in numbers.scattered_dims_to_operand_dims
        width = updates[window_of[dim]] if dim in window_of else 1
        if dim in batching:
            operand.append(indices[batching[dim]])
        elif (rows and width == 1) or (dim in window_of and not rows and width == size):
            operand.append((out.factor(size),))
        else:
            operand.append(())
    batches = [dims for i, dims in enumerate(indices) if i != numbers.index_vector_dim]
    update: list[Factors] = [
        () if dim in windows else batches.pop(0) for dim in range(len(updates))
    ]
    for dim, window in window_of.items():
        if dim not in numbers.scattered_dims_to_operand_dims:
            update[window] = operand[dim]
    out.operands = [operand] * inputs + [indices] + [update] * inputs
    out.results = [operand] * inputs
    return out


def build_scatter(site: Site) -> list[ir.Value]:
    """Scatter into this device's rows; rows of others are out of bounds here and skipped."""
    numbers = stablehlo.ScatterDimensionNumbers(site.op.attributes["scatter_dimension_numbers"])
    inputs = len(site.op.operands) // 2
    operand = site.rule.operands[0]
    rows = list(numbers.scattered_dims_to_operand_dims)
    split = {dim: operand[dim][0] for dim in rows if operand[dim] and site.axes[operand[dim][0]]}
    attributes: dict[str, ir.Attribute] = {}
    if split:
        indices = _widen(site.emit, site.operands[inputs])
        site.operands[inputs] = _subtract_offsets(
            site, indices, rows, split, numbers.index_vector_dim
        )
        attributes["indices_are_sorted"] = ir.BoolAttr.get(False)
        attributes["unique_indices"] = ir.BoolAttr.get(False)
    kept = {f for dims in operand for f in dims}
    spread = [f for dims in site.rule.operands[inputs] for f in dims if f not in kept]
    reduced = site.split_factors(spread)
    if not reduced:
        return site.clone(**attributes)
    return _combine_updates(site, reduced, attributes)


def _combine_updates(
    site: Site, reduced: list[int], attributes: dict[str, ir.Attribute]
) -> list[ir.Value]:
    """Scatter part of the updates on each device, the first starting from the operand."""
    kind = reduction_kind(site.op)
    if kind is None:
        raise ValueError("the scatter rule split updates that cannot be combined")
    emit, atoms = site.emit, site.atoms(reduced)
    start = site.operands[0]
    neutral = identity(kind, start.type.element_type)
    fill = emit.constant(tensor([], start.type.element_type), neutral)
    site.mask(2, reduced, fill)
    if not is_neutral(site.op.operands[0], kind):
        first = emit.compare(emit.shard_index(atoms), "EQ", emit.scalar(0))
        site.operands[0] = emit.select(first, start, emit.constant(start.type, neutral))
    return emit.all_reduce(site.clone(**attributes), kind, atoms)


register(Handler(gather_rule, build_gather), "stablehlo.gather")
register(Handler(scatter_rule, build_scatter, first_before_reshards), "stablehlo.scatter")
