"""Operations that give one of their operands, or a simpler operation, whatever the data is.

Only what holds bit for bit: ``x + 0.0`` stays, since it turns -0.0 into +0.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pai.dialects.mlir import ir, stablehlo
from pai.dialects.types import dtype_name, shape_of
from pai.passes.rewrite import building_before
from pai.passes.simplify.build import i64s
from pai.passes.simplify.fold_evaluate import ints, is_splat, one

Known = Mapping[ir.Value, np.ndarray]
Identity = Callable[[ir.Operation, Known], ir.Value | None]

_FLOATS = {"f16": 11, "bf16": 8, "f32": 24, "f64": 53}  # bits of the significand
_EXPONENTS = {"f16": 5, "bf16": 8, "f32": 8, "f64": 11}


def simplify_op(op: ir.Operation, known: Known) -> ir.Value | None:
    """Return a value equal to the only result of ``op``, perhaps built before it, or None."""
    rule = _RULES.get(op.name)
    return rule(op, known) if rule is not None else None


def _uniform(value: ir.Value, known: Known) -> float | int | None:
    """Return the number that all elements of a real value are, or None."""
    array = known.get(value)
    if array is None or not is_splat(array) or array.dtype.kind == "c":
        return None
    number = one(array).astype(np.float64) if array.dtype.kind not in "iub" else one(array)
    return number.item()


def _is_float(value: ir.Value) -> bool:
    return not dtype_name(value.type).startswith(("i", "ui"))


def _is_negative_zero(value: ir.Value, known: Known) -> bool:
    number = _uniform(value, known)
    return number == 0 and bool(np.signbit(np.float64(number)))


def _add(op: ir.Operation, known: Known) -> ir.Value | None:
    for value, other in (op.operands, reversed(list(op.operands))):
        if _uniform(other, known) == 0 and (
            not _is_float(value) or _is_negative_zero(other, known)
        ):
            return value
    return None


def _subtract(op: ir.Operation, known: Known) -> ir.Value | None:
    value, other = op.operands
    if _uniform(other, known) != 0:
        return None
    return value if not _is_float(value) or not _is_negative_zero(other, known) else None


def _multiply(op: ir.Operation, known: Known) -> ir.Value | None:
    for value, other in (op.operands, reversed(list(op.operands))):
        number = _uniform(other, known)
        if number == 1:
            return value
        if number == 0 and not _is_float(value):
            return other
    return None


def _divide(op: ir.Operation, known: Known) -> ir.Value | None:
    return op.operands[0] if _uniform(op.operands[1], known) == 1 else None


def _and(op: ir.Operation, known: Known) -> ir.Value | None:
    return _bitwise(op, known, neutral=-1, absorbing=0)


def _or(op: ir.Operation, known: Known) -> ir.Value | None:
    return _bitwise(op, known, neutral=0, absorbing=-1)


def _bitwise(op: ir.Operation, known: Known, neutral: int, absorbing: int) -> ir.Value | None:
    lhs, rhs = op.operands
    if lhs == rhs:
        return lhs
    for value, other in ((lhs, rhs), (rhs, lhs)):
        array = known.get(other)
        if array is None or not is_splat(array) or array.dtype.kind not in "iub":
            continue
        element = one(array)
        ones = bool(element == ~np.zeros_like(element))
        zeros = not element.any()
        if (neutral == -1 and ones) or (neutral == 0 and zeros):
            return value
        if (absorbing == -1 and ones) or (absorbing == 0 and zeros):
            return other
    return None


def _shift(op: ir.Operation, known: Known) -> ir.Value | None:
    return op.operands[0] if _uniform(op.operands[1], known) == 0 else None


def _self_inverse(op: ir.Operation, known: Known) -> ir.Value | None:
    inner = _producer(op.operands[0], op.name)
    return inner.operands[0] if inner is not None else None


def _idempotent(op: ir.Operation, known: Known) -> ir.Value | None:
    return op.operands[0] if op.operands[0] == op.operands[1] else None


def _producer(value: ir.Value, name: str) -> ir.Operation | None:
    owner = value.owner
    if isinstance(owner, ir.Block) or owner.operation.name != name:
        return None
    return owner.operation


def _same_type(op: ir.Operation) -> ir.Value | None:
    return op.operands[0] if op.operands[0].type == op.results[0].type else None


def _convert(op: ir.Operation, known: Known) -> ir.Value | None:
    if same := _same_type(op):
        return same
    inner = _producer(op.operands[0], "stablehlo.convert")
    if inner is None:
        return None
    names = [dtype_name(value.type) for value in (inner.operands[0], inner.results[0])]
    target = dtype_name(op.results[0].type)
    if not _is_lossless(*names) or (names[1] in _FLOATS and target not in _FLOATS):
        return None
    if inner.operands[0].type == op.results[0].type:
        return inner.operands[0]
    with building_before(op):
        return stablehlo.ConvertOp(op.results[0].type, inner.operands[0]).result


def _is_lossless(source: str, target: str) -> bool:
    """Whether every value of type ``source`` is a value of type ``target``."""
    if target in _FLOATS:
        if source in _FLOATS:
            return _FLOATS[source] <= _FLOATS[target] and _EXPONENTS[source] <= _EXPONENTS[target]
        width, _ = _integer(source)
        return 0 < width <= _FLOATS[target] and target != "f16"
    width, signed = _integer(source)
    room, target_signed = _integer(target)
    if not width or not room:
        return False
    if source == "i1":
        return target != "i1"
    if signed == target_signed:
        return width <= room
    return not signed and width < room


def _integer(name: str) -> tuple[int, bool]:
    """Return (bits, signed) of an integer type, (0, False) for others."""
    digits = name.removeprefix("ui").removeprefix("i")
    if not digits.isdigit():
        return 0, False
    return int(digits), not name.startswith("ui") and name != "i1"


def _reshape(op: ir.Operation, known: Known) -> ir.Value | None:
    if same := _same_type(op):
        return same
    inner = _producer(op.operands[0], "stablehlo.reshape")
    if inner is None:
        return None
    if inner.operands[0].type == op.results[0].type:
        return inner.operands[0]
    with building_before(op):
        return stablehlo.ReshapeOp(op.results[0].type, inner.operands[0]).result


def _transpose(op: ir.Operation, known: Known) -> ir.Value | None:
    order = ints(op, "permutation")
    if order == sorted(order):
        return op.operands[0]
    inner = _producer(op.operands[0], "stablehlo.transpose")
    if inner is None:
        return None
    first = ints(inner, "permutation")
    combined = [first[dim] for dim in order]
    if combined == sorted(combined):
        return inner.operands[0]
    with building_before(op):
        return stablehlo.TransposeOp(inner.operands[0], i64s(combined)).result


def _broadcast(op: ir.Operation, known: Known) -> ir.Value | None:
    dims = ints(op, "broadcast_dimensions")
    if dims == list(range(len(dims))) and (same := _same_type(op)):
        return same
    inner = _producer(op.operands[0], "stablehlo.broadcast_in_dim")
    if inner is None:
        return None
    combined = [dims[dim] for dim in ints(inner, "broadcast_dimensions")]
    with building_before(op):
        return stablehlo.BroadcastInDimOp(
            op.results[0].type, inner.operands[0], i64s(combined)
        ).result


def _slice(op: ir.Operation, known: Known) -> ir.Value | None:
    return _same_type(op)


def _pad(op: ir.Operation, known: Known) -> ir.Value | None:
    names = ("edge_padding_low", "edge_padding_high", "interior_padding")
    return op.operands[0] if not any(any(ints(op, name)) for name in names) else None


def _concatenate(op: ir.Operation, known: Known) -> ir.Value | None:
    kept = [value for value in op.operands if 0 not in shape_of(value.type)]
    if len(op.operands) == 1 or len(kept) == 1:
        return (kept or list(op.operands))[0]
    if not kept or len(kept) == len(op.operands):
        return None
    with building_before(op):
        return stablehlo.ConcatenateOp(kept, op.attributes["dimension"]).result


def _reverse(op: ir.Operation, known: Known) -> ir.Value | None:
    shape = shape_of(op.operands[0].type)
    return op.operands[0] if all(shape[dim] <= 1 for dim in ints(op, "dimensions")) else None


def _select(op: ir.Operation, known: Known) -> ir.Value | None:
    predicate, on_true, on_false = op.operands
    if on_true == on_false:
        return on_true
    chosen = _uniform(predicate, known)
    return None if chosen is None else (on_true if chosen else on_false)


def _dynamic_slice(op: ir.Operation, known: Known) -> ir.Value | None:
    if same := _same_type(op):
        return same
    operand, *starts = op.operands
    values = [known.get(start) for start in starts]
    if any(value is None for value in values):
        return None
    shape, sizes = shape_of(operand.type), ints(op, "slice_sizes")
    begin = _clamped([value for value in values if value is not None], shape, sizes)
    end = [start + size for start, size in zip(begin, sizes, strict=True)]
    with building_before(op):
        return stablehlo.SliceOp(operand, i64s(begin), i64s(end), i64s([1] * len(begin))).result


def _clamped(values: Sequence[np.ndarray], shape: Sequence[int], sizes: Sequence[int]) -> list[int]:
    return [
        min(max(int(value), 0), whole - size)
        for value, whole, size in zip(values, shape, sizes, strict=True)
    ]


def _dynamic_update_slice(op: ir.Operation, known: Known) -> ir.Value | None:
    return op.operands[1] if op.operands[1].type == op.operands[0].type else None


_RULES: dict[str, Identity] = {
    f"stablehlo.{name}": rule
    for name, rule in {
        "add": _add,
        "and": _and,
        "bitcast_convert": lambda op, known: _same_type(op),
        "broadcast_in_dim": _broadcast,
        "concatenate": _concatenate,
        "convert": _convert,
        "divide": _divide,
        "dynamic_slice": _dynamic_slice,
        "dynamic_update_slice": _dynamic_update_slice,
        "maximum": _idempotent,
        "minimum": _idempotent,
        "multiply": _multiply,
        "negate": _self_inverse,
        "not": _self_inverse,
        "or": _or,
        "pad": _pad,
        "reshape": _reshape,
        "reverse": _reverse,
        "select": _select,
        "shift_left": _shift,
        "shift_right_arithmetic": _shift,
        "shift_right_logical": _shift,
        "slice": _slice,
        "subtract": _subtract,
        "transpose": _transpose,
    }.items()
}
