"""Operations that compute one element from the elements at the same index."""

from __future__ import annotations

from collections.abc import Callable

from pai.compiler.codegen.cpu.emit import complexmath, integers, math64
from pai.compiler.codegen.cpu.emit.builder import Builder
from pai.compiler.codegen.cpu.emit.convert import convert, from_bits, rounded, to_bits
from pai.compiler.codegen.cpu.emit.graph import Node
from pai.compiler.codegen.cpu.emit.types import ElemType, Scalar, elem_type

Rule = Callable[[Builder, Node, list[Scalar], ElemType], Scalar]
RULES: dict[str, Rule] = {}

# StableHLO's name to libm's.
_FUNCTIONS = {
    "exponential": "exp",
    "exponential_minus_one": "expm1",
    "log": "log",
    "log_plus_one": "log1p",
    "logistic": "logistic",
    "tanh": "tanh",
    "tan": "tan",
    "sine": "sin",
    "cosine": "cos",
    "cbrt": "cbrt",
    "chlo.erf": "erf",
}
_ROUNDING = {
    "ceil": "math.ceil",
    "floor": "math.floor",
    "round_nearest_afz": "math.round",
    "round_nearest_even": "math.roundeven",
}
_FLOAT_BINARY = {
    "add": "addf",
    "subtract": "subf",
    "multiply": "mulf",
    "divide": "divf",
    "remainder": "remf",
    "maximum": "maximumf",
    "minimum": "minimumf",
}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register how the operations ``names`` compute an element."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def _wide(b: Builder, x: Scalar) -> tuple[str, str]:
    y = convert(b, x, elem_type("complex<f64>"))
    return y.re, y.im


def _narrow(b: Builder, pair: tuple[str, str], kind: ElemType) -> Scalar:
    return convert(b, Scalar(elem_type("complex<f64>"), *pair), kind)


@rule(*_FUNCTIONS, "sqrt", "rsqrt", "sign")
def function(b: Builder, node: Node, args: list[Scalar], kind: ElemType) -> Scalar:
    """Elementary functions of one argument."""
    (x,) = args
    if kind.is_complex:
        return _narrow(b, complexmath.UNARY[node.name](b, _wide(b, x)), kind)
    if kind.is_int:
        return Scalar(kind, integers.sign(b, x))
    own = {"sqrt": math64.sqrt, "rsqrt": math64.rsqrt, "sign": math64.sign}.get(node.name)
    if own is not None:
        return rounded(b, kind, own(b, x.re, kind.reg))
    return rounded(b, kind, math64.call(b, _FUNCTIONS[node.name], x.re, kind.reg))


@rule(*_ROUNDING)
def rounding(b: Builder, node: Node, args: list[Scalar], kind: ElemType) -> Scalar:
    """Round to an integer; the result is a value of the type again, or too large for it."""
    return rounded(b, kind, b.un(_ROUNDING[node.name], args[0].re, kind.reg))


@rule("negate")
def negate(b: Builder, node: Node, args: list[Scalar], kind: ElemType) -> Scalar:
    """Return -x."""
    (x,) = args
    if kind.is_int:
        return Scalar(kind, b.bin("subi", b.const(0, kind.reg), x.re, kind.reg))
    parts = [b.op(f"arith.negf {p} : {kind.reg}") for p in x.parts]
    # Formats without -0 or without a sign have something else there.
    return Scalar(kind, *parts) if kind.is_complex else rounded(b, kind, parts[0])


@rule("abs")
def absolute(b: Builder, node: Node, args: list[Scalar], kind: ElemType) -> Scalar:
    """Return |x|; of a complex number, a real."""
    (x,) = args
    if x.type.is_complex:
        size = Scalar(elem_type("f64"), complexmath.absolute(b, _wide(b, x)))
        return convert(b, size, kind)
    if kind.is_int:
        return Scalar(kind, b.un("math.absi", x.re, kind.reg) if kind.signed else x.re)
    return Scalar(kind, b.un("math.absf", x.re, kind.reg))


@rule("add", "subtract", "multiply", "divide", "remainder", "maximum", "minimum")
def arithmetic(b: Builder, node: Node, args: list[Scalar], kind: ElemType) -> Scalar:
    """The arithmetic of two operands."""
    x, y = args
    if kind.is_float:
        return rounded(b, kind, b.bin(_FLOAT_BINARY[node.name], x.re, y.re, kind.reg))
    if kind.is_complex:
        return _complex_arithmetic(b, node.name, x, y)
    return Scalar(kind, integers.binary(b, node.name, x, y))


def _complex_arithmetic(b: Builder, name: str, x: Scalar, y: Scalar) -> Scalar:
    kind = x.type
    if name in ("add", "subtract"):
        parts = [
            b.bin(_FLOAT_BINARY[name], p, q, kind.reg)
            for p, q in zip(x.parts, y.parts, strict=True)
        ]
        return Scalar(kind, *parts)
    if name == "multiply":
        return Scalar(kind, *complexmath.multiply(b, (x.re, x.im), (y.re, y.im), kind.reg))
    if name == "divide":
        return _narrow(b, complexmath.divide(b, _wide(b, x), _wide(b, y)), kind)
    # Maximum and minimum order by real, then imaginary part.
    first = "ogt" if name == "maximum" else "olt"
    tie = b.all_of([b.cmp("oeq", x.re, y.re, kind.reg), b.cmp(first, x.im, y.im, kind.reg)])
    take = b.bin("ori", b.cmp(first, x.re, y.re, kind.reg), tie, "i1")
    take = b.bin("ori", take, b.cmp("uno", x.re, x.im, kind.reg), "i1")
    return Scalar(
        kind, *(b.select(take, p, q, kind.reg) for p, q in zip(x.parts, y.parts, strict=True))
    )


@rule("power")
def power(b: Builder, node: Node, args: list[Scalar], kind: ElemType) -> Scalar:
    """Return x^y; small constant exponents become products."""
    x, y = args
    if kind.is_complex:
        return _narrow(b, complexmath.power(b, _wide(b, x), _wide(b, y)), kind)
    if kind.is_int:
        return Scalar(kind, integers.power(b, x, y))
    exponent = _constant_exponent(node)
    if exponent in _PRODUCTS:
        return rounded(b, kind, _product(b, x.re, int(exponent), kind.reg))
    return rounded(b, kind, math64.call2(b, "pow", x.re, y.re, kind.reg))


_PRODUCTS = (1.0, 2.0, 3.0, 4.0, -1.0, -2.0)


def _constant_exponent(node: Node) -> float:
    """Return the exponent if it is the same constant for all elements, else NaN."""
    from pai.compiler.codegen.cpu.emit.constants import splat  # noqa: PLC0415  (a cycle)

    value = node.operands[1]
    while value.node is not None and value.node.name in ("broadcast_in_dim", "reshape"):
        value = value.node.operands[0]
    if value.node is None or value.node.name != "constant":
        return float("nan")
    found = splat(value.node)
    return float("nan") if found is None else float(found)


def _product(b: Builder, x: str, exponent: int, kind: str) -> str:
    power = x
    if abs(exponent) > 1:
        square = b.bin("mulf", x, x, kind)
        power = {2: square}.get(abs(exponent)) or b.bin(
            "mulf", square, x if abs(exponent) == 3 else square, kind
        )
    return b.bin("divf", b.const(1.0, kind), power, kind) if exponent < 0 else power


@rule("atan2")
def atan2(b: Builder, node: Node, args: list[Scalar], kind: ElemType) -> Scalar:
    """Return the angle of the point (second, first)."""
    y, x = args
    if kind.is_complex:
        return _narrow(b, complexmath.atan2(b, _wide(b, y), _wide(b, x)), kind)
    return rounded(b, kind, math64.call2(b, "atan2", y.re, x.re, kind.reg))


@rule("and", "or", "xor", "shift_left", "shift_right_arithmetic", "shift_right_logical")
def bitwise(b: Builder, node: Node, args: list[Scalar], kind: ElemType) -> Scalar:
    """Bit operations."""
    return Scalar(kind, integers.binary(b, node.name, *args))


@rule("not", "popcnt", "count_leading_zeros")
def bits_of_one(b: Builder, node: Node, args: list[Scalar], kind: ElemType) -> Scalar:
    """Bit operations of one operand."""
    (x,) = args
    if node.name == "not":
        return Scalar(
            kind, b.bin("xori", x.re, b.const(-1 if kind.is_int else True, kind.reg), kind.reg)
        )
    return Scalar(
        kind, b.un("math.ctpop" if node.name == "popcnt" else "math.ctlz", x.re, kind.reg)
    )


@rule("compare")
def compare(b: Builder, node: Node, args: list[Scalar], kind: ElemType) -> Scalar:
    """Compare; floats as IEEE does, or by total order."""
    x, y = args
    direction = node.text("comparison_direction")
    source = x.type
    if source.is_complex:
        tests = [
            b.cmp("oeq" if direction == "EQ" else "une", p, q, source.reg)
            for p, q in zip(x.parts, y.parts, strict=True)
        ]
        return Scalar(kind, b.bin("andi" if direction == "EQ" else "ori", tests[0], tests[1], "i1"))
    if source.is_float and node.text("compare_type") != "TOTALORDER":
        predicate = "une" if direction == "NE" else f"o{direction.lower()}"
        return Scalar(kind, b.cmp(predicate, x.re, y.re, source.reg))
    names = [x.re, y.re]
    reg, signed = source.reg, source.signed
    if source.is_float:
        reg, signed = f"i{source.reg[1:]}", True
        names = [total_order(b, value, source.reg) for value in names]
    predicate = direction.lower()
    if predicate not in ("eq", "ne"):
        predicate = ("s" if signed else "u") + predicate
    return Scalar(kind, b.cmp(predicate, names[0], names[1], reg))


def total_order(b: Builder, x: str, reg: str) -> str:
    """Return a signed integer that orders as the float's total order does."""
    kind = f"i{reg[1:]}"
    bits = b.op(f"arith.bitcast {x} : {reg} to {kind}")
    width = int(reg[1:])
    sign = b.bin("shrsi", bits, b.const(width - 1, kind), kind)
    mask = b.bin("andi", sign, b.const((1 << (width - 1)) - 1, kind), kind)
    return b.bin("xori", bits, mask, kind)


@rule("select")
def select(b: Builder, node: Node, args: list[Scalar], kind: ElemType) -> Scalar:
    """Choose by the first operand."""
    p, x, y = args
    return Scalar(
        kind, *(b.select(p.re, s, t, kind.reg) for s, t in zip(x.parts, y.parts, strict=True))
    )


@rule("clamp")
def clamp(b: Builder, node: Node, args: list[Scalar], kind: ElemType) -> Scalar:
    """Return min(max(x, low), high)."""
    low, x, high = args
    node_max = arithmetic(b, _Named("maximum"), [low, x], kind)  # type: ignore[arg-type]
    return arithmetic(b, _Named("minimum"), [node_max, high], kind)  # type: ignore[arg-type]


class _Named:
    """Stands for a node of which only the name counts."""

    def __init__(self, name: str) -> None:
        self.name = name


@rule("is_finite")
def is_finite(b: Builder, node: Node, args: list[Scalar], kind: ElemType) -> Scalar:
    """Return whether x is neither infinite nor NaN."""
    (x,) = args
    size = b.un("math.absf", x.re, x.type.reg)
    return Scalar(kind, b.cmp("olt", size, b.const(float("inf"), x.type.reg), x.type.reg))


@rule("convert")
def convert_rule(b: Builder, node: Node, args: list[Scalar], kind: ElemType) -> Scalar:
    """Convert."""
    return convert(b, args[0], kind)


@rule("real", "imag")
def part(b: Builder, node: Node, args: list[Scalar], kind: ElemType) -> Scalar:
    """Take a part; a real number has imaginary part 0."""
    (x,) = args
    if not x.type.is_complex:
        return x if node.name == "real" else Scalar(kind, b.const(0.0, kind.reg))
    return Scalar(kind, x.re if node.name == "real" else x.im)


@rule("complex")
def complex_(b: Builder, node: Node, args: list[Scalar], kind: ElemType) -> Scalar:
    """Join two parts."""
    return Scalar(kind, args[0].re, args[1].re)


@rule("reduce_precision")
def reduce_precision(b: Builder, node: Node, args: list[Scalar], kind: ElemType) -> Scalar:
    """Round to fewer exponent and mantissa bits; what gets too small is a zero of its sign."""
    (x,) = args
    form = kind.format
    mantissa = form.mantissa if form else 23 if kind.bits == 32 else 52
    exponent = form.exponent if form else 8 if kind.bits == 32 else 11
    reg = f"i{kind.bits}"
    code = to_bits(b, x)
    sign = b.bin("andi", code, b.const(1 << (kind.bits - 1), reg), reg)
    size = b.bin("andi", code, b.const((1 << (kind.bits - 1)) - 1, reg), reg)
    keep = node.int("mantissa_bits")
    value = size
    if keep < mantissa:
        drop = mantissa - keep
        odd = b.bin("andi", b.bin("shrui", value, b.const(drop, reg), reg), b.const(1, reg), reg)
        half = b.bin("addi", odd, b.const((1 << (drop - 1)) - 1, reg), reg)
        value = b.bin("addi", value, half, reg)
        value = b.bin("andi", value, b.const(-(1 << drop), reg), reg)
    if node.int("exponent_bits") < exponent:
        value = _limit_exponent(b, value, exponent, mantissa, node.int("exponent_bits"), reg)
    value = b.bin("ori", value, sign, reg)
    result = from_bits(b, value, kind)
    nan = b.cmp("uno", x.re, x.re, kind.reg)
    return Scalar(kind, b.select(nan, x.re, result.re, kind.reg))


def _limit_exponent(b: Builder, value: str, own: int, mantissa: int, keep: int, reg: str) -> str:
    bias, small = (1 << (own - 1)) - 1, (1 << (keep - 1)) - 1
    top = (bias + small + 1) << mantissa
    low = (bias - small + 1) << mantissa
    inf = ((1 << own) - 1) << mantissa
    value = b.select(b.cmp("uge", value, b.const(top, reg), reg), b.const(inf, reg), value, reg)
    return b.select(b.cmp("ult", value, b.const(low, reg), reg), b.const(0, reg), value, reg)
