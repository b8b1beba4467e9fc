"""Expansion of dynamic operations that have static result types but data-dependent operands."""

from __future__ import annotations

from collections.abc import Sequence

from pai.dialects.constants import constant_value, scalar
from pai.dialects.mlir import ir, stablehlo
from pai.dialects.types import is_static_tensor, shape_of
from pai.passes.rewrite import constant_operand, where
from pai.passes.simplify.build import i64s, like, reshape
from pai.passes.simplify.expansions import constant_ints, expands, refuse
from pai.runtime.errors import InvalidShape


@expands("stablehlo.real_dynamic_slice")
def real_dynamic_slice(op: ir.Operation) -> Sequence[ir.Value] | None:
    """Write a slice of static size at a dynamic start as dynamic_slice (and a strided slice)."""
    if not is_static_tensor(op.results[0].type):
        return None
    operand, starts = op.operands[0], op.operands[1]
    strides = constant_ints(op, 3, "strides")
    shape = shape_of(op.results[0].type)
    extents = [(s - 1) * stride + 1 if s else 0 for s, stride in zip(shape, strides, strict=True)]
    scalars = [
        reshape(stablehlo.slice(starts, i64s([d]), i64s([d + 1]), i64s([1])), [])
        for d in range(len(shape))
    ]
    value = stablehlo.DynamicSliceOp(operand, scalars, i64s(extents)).result
    if all(stride == 1 for stride in strides):
        return [value]
    zeros = i64s([0] * len(shape))
    return [stablehlo.SliceOp(value, zeros, i64s(extents), i64s(strides)).result]


@expands("stablehlo.get_dimension_size")
def get_dimension_size(op: ir.Operation) -> Sequence[ir.Value] | None:
    """Write the size of a static dimension as a constant."""
    if not is_static_tensor(op.operands[0].type):
        return None
    dim = int(ir.IntegerAttr(op.attributes["dimension"]).value)
    return [scalar(shape_of(op.operands[0].type)[dim], op.results[0].type.element_type)]


@expands("stablehlo.set_dimension_size")
def set_dimension_size(op: ir.Operation) -> Sequence[ir.Value] | None:
    """Drop a size that is the static size; a smaller one makes the shape dynamic: refused."""
    if not is_static_tensor(op.operands[0].type):
        return None
    dim = int(ir.IntegerAttr(op.attributes["dimension"]).value)
    (size,) = constant_ints(op, 1, "dimension size")
    if size != shape_of(op.operands[0].type)[dim]:
        raise refuse(op, "a dimension size that is smaller than the tensor is not supported")
    return [op.operands[0]]


@expands("stablehlo.dynamic_iota")
def dynamic_iota(op: ir.Operation) -> Sequence[ir.Value] | None:
    """Write an iota whose result type is static without its shape operand."""
    if not is_static_tensor(op.results[0].type):
        return None
    return [stablehlo.IotaOp(op.results[0].type, op.attributes["iota_dimension"]).result]


@expands("stablehlo.dynamic_reshape")
def dynamic_reshape(op: ir.Operation) -> Sequence[ir.Value] | None:
    """Write a reshape whose result type is static without its shape operand."""
    if not is_static_tensor(op.results[0].type):
        return None
    return [reshape(op.operands[0], shape_of(op.results[0].type))]


@expands("stablehlo.dynamic_broadcast_in_dim")
def dynamic_broadcast_in_dim(op: ir.Operation) -> Sequence[ir.Value] | None:
    """Write a broadcast whose result type is static without its shape operand."""
    if not is_static_tensor(op.results[0].type) or not is_static_tensor(op.operands[0].type):
        return None
    dims = op.attributes["broadcast_dimensions"]
    shape = shape_of(op.results[0].type)
    return [stablehlo.BroadcastInDimOp(like(op.operands[0], shape), op.operands[0], dims).result]


def check_assertions(module_op: ir.Operation) -> None:
    """Check and erase ``custom_call @shape_assertion``, which JAX exports with symbolic shapes.

    Raises:
        InvalidShape: with the assertion's own message, when it does not hold.
    """
    for region in module_op.regions:
        for block in region.blocks:
            for view in list(block.operations):
                op = view.operation
                if op.name == "stablehlo.custom_call" and _is_assertion(op):
                    _check_assertion(op)
                else:
                    check_assertions(op)


def _is_assertion(op: ir.Operation) -> bool:
    return str(ir.StringAttr(op.attributes["call_target_name"]).value) == "shape_assertion"


def _check_assertion(op: ir.Operation) -> None:
    predicate = constant_operand(op.operands[0])
    if predicate is None:
        raise refuse(op, "a shape assertion that depends on the data is not supported")
    if not constant_value(predicate).all():
        message = op.attributes.get("error_message")
        text = str(ir.StringAttr(message).value) if message else "a shape assertion fails"
        sizes = [constant_operand(value) for value in op.operands[1:]]
        for index, defining in enumerate(sizes):
            number = "?" if defining is None else str(int(constant_value(defining).item()))
            text = text.replace("{" + str(index) + "}", number)
        raise InvalidShape(text.splitlines()[0], where(op), "give shapes that fit with --shape")
    op.erase()
