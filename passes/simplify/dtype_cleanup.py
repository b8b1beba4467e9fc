"""pai-dtype-cleanup: compute in 32 bits what is only widened and narrowed again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pai.dialects.constants import constant, constant_value, splat_value
from pai.dialects.mlir import ir, stablehlo
from pai.dialects.types import dtype_name, num_elements, shape_of
from pai.passes.base import Pass
from pai.passes.rewrite import building_before, collect, is_unused

_NARROW = {"i64": "i32", "f64": "f32"}
_MOVES = frozenset(
    f"stablehlo.{name}"
    for name in ("broadcast_in_dim", "concatenate", "reshape", "reverse", "slice", "transpose")
)
# Rounding to f32 (or dropping high bits) before or after these gives the same.
_COMMUTE = {
    "f64": _MOVES | {"stablehlo.negate", "stablehlo.abs", "stablehlo.select"},
    "i64": _MOVES
    | {f"stablehlo.{name}" for name in ("add", "subtract", "multiply", "negate", "select")}
    | {f"stablehlo.{name}" for name in ("and", "or", "xor", "not")},
}
# One such operation on f32 values, done in f64 and rounded, is the f32 operation: the f64 sum,
# difference or product is either exact or too close for the second rounding to matter
# (S. Figueroa, "When is double rounding innocuous?", 1995: 53 >= 2 * 24 + 2).
_ROUNDED_ONCE = frozenset({"stablehlo.add", "stablehlo.subtract", "stablehlo.multiply"})
_SMALL = {
    "i64": frozenset({"i32", "i16", "i8", "i4", "i2", "ui16", "ui8", "ui4", "ui2", "i1"}),
    "f64": frozenset({"f32", "bf16", "f16", "i16", "i8", "ui16", "ui8", "i1"}),
}
_MAX_DEPTH = 16
_MAX_CONSTANT = 4096


@dataclass(frozen=True)
class DtypeCleanup(Pass):
    """Narrow i64 and f64 islands whose inputs and outputs are 32 bits wide, bit for bit.

    A ``convert`` to i32 moves up through integer arithmetic (which wraps); one to f32 through
    movement, negation, and one sum, difference or product of values that are f32 already. A
    ``compare`` of two widened values compares the narrow ones.

    Before::

        %0 = stablehlo.convert %i : (tensor<4xi32>) -> tensor<4xi64>
        %c = stablehlo.constant dense<7> : tensor<4xi64>
        %1 = stablehlo.add %0, %c : tensor<4xi64>
        %2 = stablehlo.convert %1 : (tensor<4xi64>) -> tensor<4xi32>

    After::

        %c = stablehlo.constant dense<7> : tensor<4xi32>
        %2 = stablehlo.add %i, %c : tensor<4xi32>
    """

    name: ClassVar[str] = "pai-dtype-cleanup"

    def run(self, module: ir.Module) -> None:
        """Narrow ``module`` in place."""
        for op in reversed(collect(module, "stablehlo.convert", "stablehlo.compare")):
            if op.name == "stablehlo.compare":
                _narrow_compare(op)
            elif is_unused(op):
                op.erase()
            else:
                _narrow_convert(op)


def _narrow_convert(op: ir.Operation) -> None:
    source = dtype_name(op.operands[0].type)
    if _NARROW.get(source) != dtype_name(op.results[0].type):
        return
    value = op.operands[0]
    if not isinstance(value.owner, ir.Block) and _narrows(value, source, _MAX_DEPTH):
        new = _build(value, op)
        op.results[0].replace_all_uses_with(new)
        op.erase()


def _narrow_compare(op: ir.Operation) -> None:
    wide = dtype_name(op.operands[0].type)
    if wide not in _NARROW or "TOTALORDER" in str(op.attributes.get("compare_type")):
        return
    if not all(_is_small(value, wide, _MAX_DEPTH) for value in op.operands):
        return
    if all(_producer(value) == "stablehlo.constant" for value in op.operands):
        return
    operands = [_build(value, op) for value in op.operands]
    with building_before(op):
        new = stablehlo.compare(
            *operands,
            op.attributes["comparison_direction"],
            compare_type=op.attributes.get("compare_type"),
        )
    op.results[0].replace_all_uses_with(new)
    op.erase()


def _producer(value: ir.Value) -> str:
    return "" if isinstance(value.owner, ir.Block) else str(value.owner.operation.name)


def _narrows(value: ir.Value, wide: str, depth: int) -> bool:
    """Whether the narrowed value can be computed in the narrow type."""
    name = _producer(value)
    if _is_small(value, wide, depth) or (wide == "i64" and _is_narrow_leaf(value, wide)):
        return True
    if not depth or not _used_once(value):
        return False
    operands = _data_operands(value.owner.operation) if name else []
    if wide == "f64" and name in _ROUNDED_ONCE:
        return all(_is_small(operand, wide, depth - 1) for operand in operands)
    if name not in _COMMUTE[wide]:
        return False
    return all(_narrows(operand, wide, depth - 1) for operand in operands)


def _is_small(value: ir.Value, wide: str, depth: int) -> bool:
    """Whether every element surely is a value of the narrow type."""
    name = _producer(value)
    if not name or not depth:
        return False
    op = value.owner.operation
    if name == "stablehlo.convert":
        return dtype_name(op.operands[0].type) in _SMALL[wide]
    if name == "stablehlo.constant":
        return _constant_is_small(op)
    if name == "stablehlo.iota":
        return wide == "i64" and max(shape_of(op.results[0].type), default=0) < 2**31
    if name in _MOVES or name == "stablehlo.select":
        operands = _data_operands(op)
        return _used_once(value) and all(_is_small(v, wide, depth - 1) for v in operands)
    return False


def _is_narrow_leaf(value: ir.Value, wide: str) -> bool:
    return _producer(value) == "stablehlo.constant" and _readable(value.owner.operation)


def _constant_is_small(op: ir.Operation) -> bool:
    if not _readable(op):
        return False
    value = constant_value(op)
    if value.dtype == np.int64:
        return bool((value == value.astype(np.int32)).all())
    with np.errstate(over="ignore"):
        return bool((value == value.astype(np.float32)).all())


def _readable(op: ir.Operation) -> bool:
    return num_elements(op.results[0].type) <= _MAX_CONSTANT or splat_value(op) is not None


def _data_operands(op: ir.Operation) -> list[ir.Value]:
    operands = list(op.operands)
    return operands[1:] if op.name == "stablehlo.select" else operands


def _used_once(value: ir.Value) -> bool:
    uses = iter(value.uses)
    return next(uses, None) is not None and next(uses, None) is None


def _build(value: ir.Value, before: ir.Operation) -> ir.Value:
    """Return ``value`` computed in the narrow type, built before ``before``."""
    op = value.owner.operation
    narrow = _NARROW[dtype_name(value.type)]
    with building_before(before):
        type_ = ir.RankedTensorType.get(list(value.type.shape), ir.Type.parse(narrow))
        if op.name == "stablehlo.convert":
            source = op.operands[0]
            return source if source.type == type_ else stablehlo.ConvertOp(type_, source).result
        if op.name == "stablehlo.constant":
            dtype = np.int32 if narrow == "i32" else np.float32
            return constant(constant_value(op).astype(dtype), type_)
        if op.name == "stablehlo.iota":
            return stablehlo.IotaOp(type_, op.attributes["iota_dimension"]).result
    head = list(op.operands)[:1] if op.name == "stablehlo.select" else []
    operands = head + [_build(operand, before) for operand in _data_operands(op)]
    with building_before(before):
        return ir.Operation.create(
            op.name,
            results=[type_],
            operands=operands,
            attributes={name: op.attributes[name] for name in op.attributes},
        ).results[0]
