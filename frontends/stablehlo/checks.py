"""Turn the checks of a self-checking module into extra boolean results of its main function.

StableHLO's own tests are functions without arguments that compare what they compute with what
they expect, through the ``check`` dialect or through custom calls named after it. Each becomes an
i1 result ``check_N``: true when the check holds. What each one means is fixed by that project:
``expect_eq`` compares exactly (here a NaN equals a NaN), ``expect_almost_eq`` allows an absolute
difference, ``expect_close`` bounds the number of floating-point values between the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import numpy as np

from pai.dialects.constants import constant, scalar
from pai.dialects.mlir import ir, run_pipeline, stablehlo
from pai.dialects.pai import NAME, ROLE
from pai.dialects.program import Role
from pai.dialects.types import dtype_name, element_type, numpy_dtype, shape_of, tensor_type
from pai.passes.rewrite import building_before, collect, main_function, walk, where
from pai.passes.simplify.build import full, i64s
from pai.passes.simplify.inline import Inline
from pai.runtime.dtypes import DTYPES
from pai.runtime.errors import UnsupportedOp

Compare = Callable[[ir.Value, ir.Value], ir.Value]  # elementwise, two real tensors to i1

_CUSTOM_CALL_TOLERANCE = 1e-3
_CUSTOM_CALL_ULPS = 3
_DEFAULT_TOLERANCE = 1e-4
_SHAPE_OPS = ("stablehlo.dynamic_", "stablehlo.real_dynamic_slice", "stablehlo.set_dimension_size")
_DYNAMIC_DATA = ("stablehlo.dynamic_slice", "stablehlo.dynamic_update_slice")
_DIALECT = "pai.check_dialect"  # on a custom call that was an operation of the check dialect
_OPTIONS = ("tolerance", "max_ulp_difference", "min_ulp_difference")
_CAST = "builtin.unrealized_conversion_cast"
_VALUE = re.compile(r"\bvalue = (dense<.*> : tensor<[\w<>]*>)", re.DOTALL)
_UNSUPPORTED = ("interpreter.", "check.expect_serialized_eq")


def has_checks(module: ir.Module) -> bool:
    """Whether any function of the module checks its own results."""
    return any(_check_name(op) for op in walk(module.operation))


def lower_checks(module: ir.Module) -> int:
    """Replace the checks in ``@main`` by i1 results at the end of its results.

    Returns:
        The number of checks.

    Raises:
        UnsupportedOp: for checks inside loops or branches, of serialized files, or probes.
    """
    for op in walk(module.operation):
        if op.name.startswith(_UNSUPPORTED):
            raise UnsupportedOp(
                f"{op.name} drives the StableHLO interpreter and is no part of a program",
                where(op),
                "remove it",
            )
    Inline().run(module)
    _refine_shapes(module)
    main = main_function(module)
    _hide_constants(main)
    checks = [op for op in walk(main) if _check_name(op)]
    flags = [_lower(op, main) for op in checks]
    if flags:
        _append_results(main, flags)
    return len(flags)


def _hide_constants(main: ir.OpView) -> None:
    """Put the tensors of a self-checking program behind barriers.

    Otherwise constant folding could answer what the program is to compute. Operands that must be
    constant (of random numbers, of dynamic shapes) stay as they are.
    """
    operations = list(walk(main))
    if any(op.name.startswith(_SHAPE_OPS) and op.name not in _DYNAMIC_DATA for op in operations):
        return
    for op in operations:
        if op.name != "stablehlo.constant" or op.parent.operation != main.operation:
            continue
        type_ = op.results[0].type
        users = {use.owner.operation.name for use in op.results[0].uses}
        if not type_.rank or str(element_type(type_)) not in DTYPES or "stablehlo.rng" in users:
            continue
        with op.context, op.location, ir.InsertionPoint.after(op):
            hidden = stablehlo.OptimizationBarrierOp([op.results[0]])
        op.results[0].replace_all_uses_except(hidden.results[0], hidden.operation)


def _check_name(op: ir.Operation) -> str:
    """Return ``eq``, ``expect_close``… for a check, else the empty string."""
    name = op.name
    if name == "stablehlo.custom_call":
        name = str(ir.StringAttr(op.attributes["call_target_name"]).value)
    return name.removeprefix("check.") if name.startswith("check.") else ""


def _lower(op: ir.Operation, main: ir.OpView) -> ir.Value:
    """Build the flag of one check before it, and erase it."""
    if op.parent.operation != main.operation:
        raise UnsupportedOp("a check inside a loop or branch is not supported", where(op))
    compare = _comparison(op)
    with op.context, op.location, ir.InsertionPoint(op):
        actual = _refined(op.operands[0])
        expected = _expected(op) if "value" in op.attributes else _refined(op.operands[1])
        flag = _all(_on_parts(compare, actual, expected))
    for result in op.results:
        result.replace_all_uses_with(flag)
    op.erase()
    return flag


def _expected(op: ir.Operation) -> ir.Value:
    """Build the constant that a check holds; by text, as the bindings have no complex elements."""
    text = op.get_asm(print_generic_op_form=True, use_local_scope=True)
    found = _VALUE.search(text)
    if found is None:
        raise UnsupportedOp("the expected value of this check is not a dense literal", where(op))
    constant_op = ir.Operation.parse(f"%0 = stablehlo.constant {found[1]}")
    ir.InsertionPoint.current.insert(constant_op)
    return constant_op.results[0]


def _refined(value: ir.Value) -> ir.Value:
    """Look through the cast that shape refinement leaves before operations it does not know."""
    if not isinstance(value.owner, ir.Block) and value.owner.name == _CAST:
        return value.owner.operands[0]
    return value


def _is_check_op(op: ir.Operation) -> bool:
    return bool(op.name.startswith("check."))


def _as_call(op: ir.Operation) -> None:
    """Write a check as the custom call of its name: shape refinement needs operations it knows."""
    ctx = op.context
    attributes = {
        "call_target_name": ir.StringAttr.get(op.name, ctx),
        "has_side_effect": ir.BoolAttr.get(True, ctx),
        _DIALECT: ir.UnitAttr.get(ctx),
    }
    with building_before(op):
        expected = [_expected(op)] if "value" in op.attributes else []
        attributes |= {name: op.attributes[name] for name in _OPTIONS if name in op.attributes}
        operands = [*op.operands, *expected]
        ir.Operation.create("stablehlo.custom_call", operands=operands, attributes=attributes)
    op.erase()


def _refine_shapes(module: ir.Module) -> None:
    """Carry constant shapes through a program whose types leave dimensions open."""
    types = {result.type for op in walk(module.operation) for result in op.results}
    tensors = [t for t in types if isinstance(t, ir.RankedTensorType)]
    if all(t.has_static_shape for t in tensors):
        return
    for op in collect(module, *{op.name for op in walk(module.operation) if _is_check_op(op)}):
        _as_call(op)
    run_pipeline(module, "stablehlo-refine-shapes,func.func(stablehlo-canonicalize-dynamism)")


def _comparison(op: ir.Operation) -> Compare:
    name = _check_name(op).removesuffix("_const")
    is_call = op.name == "stablehlo.custom_call" and _DIALECT not in op.attributes
    is_float = dtype_name(op.operands[0].type).startswith(("f", "bf", "complex"))
    if name == "expect_eq" or (name == "eq" and not is_float):
        return _equal
    if name in {"expect_almost_eq", "almost_eq", "eq"}:
        default = _CUSTOM_CALL_TOLERANCE if is_call and name != "eq" else _DEFAULT_TOLERANCE
        return partial(_almost_equal, tolerance=_number(op, "tolerance", default))
    if name == "expect_close":
        most = int(_number(op, "max_ulp_difference", _CUSTOM_CALL_ULPS if is_call else 1))
        least = int(_number(op, "min_ulp_difference", 0))
        return partial(_close, least=least, most=most)
    raise UnsupportedOp(f"check.{name} is not supported", where(op))


def _number(op: ir.Operation, name: str, default: float) -> float:
    if name not in op.attributes:
        return default
    attr = op.attributes[name]
    return float(attr.value) if isinstance(attr, ir.FloatAttr) else int(attr.value)


def _on_parts(compare: Compare, actual: ir.Value, expected: ir.Value) -> ir.Value:
    """Compare real tensors, or both the real and the imaginary parts of complex ones."""
    if not dtype_name(actual.type).startswith("complex"):
        return compare(actual, expected)
    real = compare(stablehlo.real(actual), stablehlo.real(expected))
    imaginary = compare(stablehlo.imag(actual), stablehlo.imag(expected))
    return stablehlo.and_(real, imaginary)


def _compared(direction: str, lhs: ir.Value, rhs: ir.Value) -> ir.Value:
    return stablehlo.compare(lhs, rhs, stablehlo.ComparisonDirectionAttr.get(direction))


def _is_float(value: ir.Value) -> bool:
    return dtype_name(value.type).startswith(("f", "bf"))


def _equal(actual: ir.Value, expected: ir.Value) -> ir.Value:
    same = _compared("EQ", actual, expected)
    return stablehlo.or_(same, _both_nan(actual, expected)) if _is_float(actual) else same


def _both_nan(lhs: ir.Value, rhs: ir.Value) -> ir.Value:
    return stablehlo.and_(_compared("NE", lhs, lhs), _compared("NE", rhs, rhs))


def _almost_equal(actual: ir.Value, expected: ir.Value, tolerance: float) -> ir.Value:
    """|actual - expected| <= tolerance in f64, or the same infinity, or both NaN."""
    exact = _equal(actual, expected)
    wide = tensor_type(shape_of(actual.type), "f64")
    distance = stablehlo.abs(
        stablehlo.subtract(
            stablehlo.ConvertOp(wide, actual).result, stablehlo.ConvertOp(wide, expected).result
        )
    )
    return stablehlo.or_(exact, _compared("LE", distance, full(tolerance, distance)))


def _close(actual: ir.Value, expected: ir.Value, least: int, most: int) -> ir.Value:
    """Bound the count of floating-point values between the two; see the module's docstring.

    The distance is taken on sign and magnitude of the bit patterns: equal signs subtract the
    magnitudes, different signs add them. A NaN equals a NaN; a finite value is as far as can be
    from a value that is not.
    """
    bits = numpy_dtype(actual.type).itemsize * 8
    unsigned = tensor_type(shape_of(actual.type), f"ui{bits}")
    top = (1 << bits) - 1

    def number(value: int) -> ir.Value:
        return constant(np.array(value, f"u{bits // 8}"), unsigned)

    patterns = [stablehlo.BitcastConvertOp(unsigned, v).result for v in (actual, expected)]
    mine, other = (stablehlo.and_(p, number(top >> 1)) for p in patterns)
    same_sign = _compared("LE", stablehlo.xor(*patterns), number(top >> 1))
    gap = stablehlo.subtract(stablehlo.maximum(mine, other), stablehlo.minimum(mine, other))
    distance = stablehlo.select(same_sign, gap, stablehlo.add(mine, other))
    finite = stablehlo.and_(stablehlo.is_finite(actual), stablehlo.is_finite(expected))
    distance = stablehlo.select(finite, distance, number(top))
    distance = stablehlo.select(_equal(actual, expected), number(0), distance)
    low = _compared("GE", distance, number(min(least, top)))
    return stablehlo.and_(low, _compared("LE", distance, number(min(most, top))))


def _all(flags: ir.Value) -> ir.Value:
    """Reduce a tensor of i1 to one."""
    rank = len(shape_of(flags.type))
    if rank == 0:
        return flags
    element = ir.IntegerType.get_signless(1)
    bit = ir.RankedTensorType.get([], element)
    reduce = stablehlo.ReduceOp([bit], [flags], [scalar(True, element)], i64s(range(rank)))
    block = reduce.regions[0].blocks.append(bit, bit)
    with ir.InsertionPoint(block):
        stablehlo.return_([stablehlo.and_(*block.arguments)])
    return reduce.results[0]


def _append_results(main: ir.OpView, flags: list[ir.Value]) -> None:
    """Return the flags from ``@main``, after its own results, named check_0 and so on."""
    (terminator,) = collect(main, "func.return")
    values = [*terminator.operands, *flags]
    count = len(terminator.operands)
    ctx = main.operation.context
    with ctx, terminator.location, ir.InsertionPoint(terminator):
        ir.Operation.create("func.return", operands=values)
        terminator.erase()
        function_type = ir.FunctionType.get(
            main.type.inputs, [*main.type.results, *(flag.type for flag in flags)]
        )
        main.attributes["function_type"] = ir.TypeAttr.get(function_type)
        old = (
            list(ir.ArrayAttr(main.attributes["res_attrs"]))
            if "res_attrs" in main.attributes
            else []
        )
        old = old or [ir.DictAttr.get({})] * count
        named = [
            ir.DictAttr.get(
                {
                    NAME: ir.StringAttr.get(f"check_{index}"),
                    ROLE: ir.StringAttr.get(Role.CHECK),
                }
            )
            for index in range(len(flags))
        ]
        main.attributes["res_attrs"] = ir.ArrayAttr.get([*old, *named])
