"""What an operation gives for operands that are known, in NumPy.

A known value is an array of the operand's shape; one with zero strides is a splat, and then only
its one element is computed. Where NumPy and StableHLO could differ the answer is None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pai.dialects.mlir import ir, stablehlo
from pai.dialects.types import numpy_dtype, shape_of

Evaluator = Callable[[ir.Operation, Sequence[np.ndarray]], np.ndarray | None]

_ARITHMETIC = "iufb"  # NumPy kinds with native arithmetic
_NARROW_FLOATS = frozenset({"bfloat16"})


def evaluate(op: ir.Operation, operands: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return the only result of ``op`` on known operands, or None when it is not foldable."""
    name = op.name.removeprefix("stablehlo.")
    with np.errstate(all="ignore"):
        if name in _MOVES:
            return _MOVES[name](op, operands)
        if name in _ELEMENTWISE and all(_has_arithmetic(value.dtype) for value in operands):
            return _elementwise(op, _ELEMENTWISE[name], operands)
    return None


def is_splat(value: np.ndarray) -> bool:
    """Whether an array has one element, or repeats one by zero strides."""
    return value.size == 1 or (value.size > 0 and not any(value.strides))


def one(value: np.ndarray) -> np.ndarray:
    """Return the element of a splat as an array of rank 0."""
    return np.asarray(value[(0,) * value.ndim])


def _has_arithmetic(dtype: np.dtype) -> bool:
    return dtype.kind in _ARITHMETIC or dtype.name in _NARROW_FLOATS


def _elementwise(
    op: ir.Operation, function: Evaluator, operands: Sequence[np.ndarray]
) -> np.ndarray | None:
    shape = shape_of(op.results[0].type)
    splat = all(is_splat(value) for value in operands)
    values = [one(value) for value in operands] if splat else list(operands)
    if not splat and any(_is_float(value.dtype) for value in values):
        return None  # the kernels compute data; only uniform values are folded
    result = function(op, values)
    if result is None:
        return None
    result = np.asarray(result).astype(numpy_dtype(op.results[0].type))
    return np.broadcast_to(result, shape)


def _is_float(dtype: np.dtype) -> bool:
    return dtype.kind == "f" or dtype.name in _NARROW_FLOATS


# --- elementwise -------------------------------------------------------------------------------


def _plain(function: Callable[..., np.ndarray]) -> Evaluator:
    return lambda op, values: function(*values)


def _in_double(function: Callable[..., np.ndarray]) -> Evaluator:
    """Compute a transcendental function in f64 and round once."""

    def run(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray | None:
        del op
        if not all(_is_float(value.dtype) for value in values):
            return None
        return function(*(value.astype(np.float64) for value in values))

    return run


def _divide(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray | None:
    lhs, rhs = values
    if _is_float(lhs.dtype):
        return np.divide(lhs, rhs)
    if _risky_division(lhs, rhs):
        return None
    magnitude = np.abs(lhs) // np.abs(rhs)
    return np.where((lhs < 0) != (rhs < 0), -magnitude, magnitude).astype(lhs.dtype)


def _remainder(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray | None:
    lhs, rhs = values
    if not _is_float(lhs.dtype) and _risky_division(lhs, rhs):
        return None
    return np.fmod(lhs, rhs) if lhs.dtype.name not in _NARROW_FLOATS else None


def _risky_division(lhs: np.ndarray, rhs: np.ndarray) -> bool:
    if (rhs == 0).any() or lhs.dtype.kind == "b":
        return True
    lowest = np.iinfo(lhs.dtype).min
    return bool(lowest and (lhs == lowest).any())


def _extremum(function: Callable[..., np.ndarray]) -> Evaluator:
    def run(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray | None:
        lhs, rhs = values
        if _is_float(lhs.dtype) and ((lhs == 0) & (rhs == 0)).any():
            return None  # the sign of zero
        return function(lhs, rhs)

    return run


def _integers_only(function: Callable[..., np.ndarray]) -> Evaluator:
    return lambda op, values: None if _is_float(values[0].dtype) else function(*values)


def _sign(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray | None:
    return None if _is_float(values[0].dtype) else np.sign(values[0])


def _compare(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray | None:
    kind = op.attributes.get("compare_type")
    if kind is not None and "TOTALORDER" in str(kind):
        return None
    functions = {
        "EQ": np.equal,
        "NE": np.not_equal,
        "LT": np.less,
        "LE": np.less_equal,
        "GT": np.greater,
        "GE": np.greater_equal,
    }
    direction = stablehlo.ComparisonDirectionAttr(op.attributes["comparison_direction"]).value
    return functions[direction](*values)


def _convert(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray | None:
    (value,) = values
    target = numpy_dtype(op.results[0].type)
    if not _has_arithmetic(target):
        return None
    if _is_float(value.dtype) and target.kind in "iu":
        exact = np.isfinite(value.astype(np.float64)).all()
        bounds = np.iinfo(target)
        wide = value.astype(np.float64)
        if not exact or (wide < bounds.min).any() or (wide >= float(bounds.max)).any():
            return None
    if target.kind == "b":
        return value != 0
    if target.name in _NARROW_FLOATS and not (value.astype(np.float32) == value).all():
        return None  # NumPy would round twice
    return value.astype(target)


def _select(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray:
    return np.where(*values)


def _clamp(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray | None:
    low, value, high = values
    return None if _is_float(value.dtype) else np.minimum(np.maximum(value, low), high)


def _power(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray | None:
    base, exponent = values
    if _is_float(base.dtype):
        return np.power(base.astype(np.float64), exponent.astype(np.float64))
    return None if (exponent < 0).any() or base.dtype.kind == "b" else np.power(base, exponent)


def _add(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray:
    return np.add(*values)


def _subtract(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray | None:
    return None if values[0].dtype.kind == "b" else np.subtract(*values)


def _negate(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray | None:
    return None if values[0].dtype.kind == "b" else np.negative(values[0])


_ELEMENTWISE: dict[str, Evaluator] = {
    "abs": _plain(np.abs),
    "add": _add,
    "and": _integers_only(np.bitwise_and),
    "ceil": _plain(np.ceil),
    "clamp": _clamp,
    "compare": _compare,
    "convert": _convert,
    "cosine": _in_double(np.cos),
    "divide": _divide,
    "exponential": _in_double(np.exp),
    "exponential_minus_one": _in_double(np.expm1),
    "floor": _plain(np.floor),
    "is_finite": _plain(lambda value: np.isfinite(value.astype(np.float64))),
    "log": _in_double(np.log),
    "log_plus_one": _in_double(np.log1p),
    "logistic": _in_double(lambda value: 1 / (1 + np.exp(-value))),
    "maximum": _extremum(np.maximum),
    "minimum": _extremum(np.minimum),
    "multiply": _plain(np.multiply),
    "negate": _negate,
    "not": _integers_only(np.invert),
    "or": _integers_only(np.bitwise_or),
    "power": _power,
    "remainder": _remainder,
    "round_nearest_even": _plain(np.rint),
    "rsqrt": _in_double(lambda value: 1 / np.sqrt(value)),
    "select": _select,
    "sign": _sign,
    "sine": _in_double(np.sin),
    "sqrt": _plain(np.sqrt),
    "subtract": _subtract,
    "tanh": _in_double(np.tanh),
    "xor": _integers_only(np.bitwise_xor),
}


# --- moving elements ---------------------------------------------------------------------------


def ints(op: ir.Operation, name: str) -> list[int]:
    """Return an ``array<i64>`` attribute as a list."""
    return list(ir.DenseI64ArrayAttr(op.attributes[name]))


def integer(op: ir.Operation, name: str) -> int:
    """Return an integer attribute."""
    return int(ir.IntegerAttr(op.attributes[name]).value)


def _reshape(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray:
    shape = shape_of(op.results[0].type)
    if is_splat(values[0]):
        return np.broadcast_to(one(values[0]), shape)
    return values[0].reshape(shape)


def _broadcast(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray:
    shape = shape_of(op.results[0].type)
    if is_splat(values[0]):
        return np.broadcast_to(one(values[0]), shape)
    aligned = [1] * len(shape)
    for size, dim in zip(values[0].shape, ints(op, "broadcast_dimensions"), strict=True):
        aligned[dim] = size
    order = np.argsort(ints(op, "broadcast_dimensions"))
    return np.broadcast_to(values[0].transpose(order).reshape(aligned), shape)


def _transpose(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray:
    return values[0].transpose(ints(op, "permutation"))


def _slice(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray:
    bounds = zip(
        ints(op, "start_indices"), ints(op, "limit_indices"), ints(op, "strides"), strict=True
    )
    return values[0][tuple(slice(*bound) for bound in bounds)]


def _concatenate(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray | None:
    return np.concatenate(values, axis=integer(op, "dimension"))


def _reverse(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray:
    return np.flip(values[0], tuple(ints(op, "dimensions")))


def _iota(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray | None:
    dtype, shape = numpy_dtype(op.results[0].type), shape_of(op.results[0].type)
    if not _has_arithmetic(dtype):
        return None
    dim = integer(op, "iota_dimension")
    line = np.arange(shape[dim]).astype(dtype)
    return np.broadcast_to(line.reshape([-1 if d == dim else 1 for d in range(len(shape))]), shape)


def _reduce(op: ir.Operation, values: Sequence[np.ndarray]) -> np.ndarray | None:
    """Fold an integer reduction by one commutative operation (sizes are products of shapes)."""
    functions = {
        "stablehlo.add": np.add,
        "stablehlo.multiply": np.multiply,
        "stablehlo.maximum": np.maximum,
        "stablehlo.minimum": np.minimum,
        "stablehlo.and": np.bitwise_and,
        "stablehlo.or": np.bitwise_or,
    }
    body = [inner.operation for inner in op.regions[0].blocks[0].operations]
    if len(values) != 2 or len(body) != 2 or body[0].name not in functions:
        return None
    arguments = list(op.regions[0].blocks[0].arguments)
    if set(body[0].operands) != set(arguments) or body[1].operands[0] != body[0].results[0]:
        return None
    data, initial = values
    if data.dtype.kind not in "iub":
        return None
    function = functions[body[0].name]
    axes = tuple(ints(op, "dimensions"))
    reduced = function.reduce(data, axis=axes, dtype=data.dtype, initial=initial[()])
    return np.asarray(reduced, data.dtype)


_MOVES: dict[str, Evaluator] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "iota": _iota,
    "reduce": _reduce,
    "reshape": _reshape,
    "reverse": _reverse,
    "slice": _slice,
    "transpose": _transpose,
}
