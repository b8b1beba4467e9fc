"""Builders of common StableHLO at the current insertion point, with types derived."""

from __future__ import annotations

from collections.abc import Sequence

from pai.dialects.constants import scalar
from pai.dialects.mlir import ir, stablehlo
from pai.dialects.types import shape_of


def like(value: ir.Value, shape: Sequence[int]) -> ir.Type:
    """Return the tensor type of ``shape`` with the element type of ``value``."""
    return ir.RankedTensorType.get(list(shape), value.type.element_type)


def i64s(values: Sequence[int]) -> ir.Attribute:
    """Return ``array<i64: ...>``."""
    return ir.DenseI64ArrayAttr.get(list(values))


def broadcast(value: ir.Value, shape: Sequence[int], dims: Sequence[int] = ()) -> ir.Value:
    """Broadcast ``value`` to ``shape``; its dimension i becomes ``dims[i]``."""
    if tuple(shape) == shape_of(value.type) and list(dims) == list(range(len(shape))):
        return value
    return stablehlo.BroadcastInDimOp(like(value, shape), value, i64s(dims)).result


def full(value: float, like_value: ir.Value) -> ir.Value:
    """Return a tensor like ``like_value`` filled with a number."""
    number = scalar(value, like_value.type.element_type)
    return broadcast(number, shape_of(like_value.type))


def transpose(value: ir.Value, permutation: Sequence[int]) -> ir.Value:
    """Permute dimensions: result dimension i is dimension ``permutation[i]`` of ``value``."""
    if list(permutation) == list(range(len(permutation))):
        return value
    shape = shape_of(value.type)
    type_ = like(value, [shape[dim] for dim in permutation])
    return stablehlo.TransposeOp(value, i64s(permutation), results=[type_]).result


def reshape(value: ir.Value, shape: Sequence[int]) -> ir.Value:
    """Reshape ``value`` to ``shape``."""
    if tuple(shape) == shape_of(value.type):
        return value
    return stablehlo.ReshapeOp(like(value, shape), value).result


def reduce_add(value: ir.Value, dims: Sequence[int]) -> ir.Value:
    """Sum over ``dims`` (removed from the shape)."""
    if not dims:
        return value
    element = value.type.element_type
    shape = [size for dim, size in enumerate(shape_of(value.type)) if dim not in dims]
    reduce = stablehlo.ReduceOp([like(value, shape)], [value], [scalar(0, element)], i64s(dims))
    scalar_type = ir.RankedTensorType.get([], element)
    block = reduce.regions[0].blocks.append(scalar_type, scalar_type)
    with ir.InsertionPoint(block):
        stablehlo.return_([stablehlo.add(*block.arguments)])
    return reduce.results[0]


def dot(
    lhs: ir.Value,
    rhs: ir.Value,
    batch: tuple[Sequence[int], Sequence[int]],
    contract: tuple[Sequence[int], Sequence[int]],
    element: ir.Type | None = None,
    precision: ir.Attribute | None = None,
) -> ir.Value:
    """Return a ``dot_general``: batch dimensions, then the rest of lhs, then the rest of rhs."""
    left, right = shape_of(lhs.type), shape_of(rhs.type)
    shape = [left[dim] for dim in batch[0]]
    shape += [s for dim, s in enumerate(left) if dim not in batch[0] and dim not in contract[0]]
    shape += [s for dim, s in enumerate(right) if dim not in batch[1] and dim not in contract[1]]
    numbers = stablehlo.DotDimensionNumbers.get(
        list(batch[0]), list(batch[1]), list(contract[0]), list(contract[1])
    )
    type_ = ir.RankedTensorType.get(shape, element or lhs.type.element_type)
    return stablehlo.DotGeneralOp(type_, lhs, rhs, numbers, precision_config=precision).result
