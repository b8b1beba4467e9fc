"""Elementary functions of an f32 register without branches or calls, so that loops vectorize.

The polynomials were fitted by iteratively reweighted least squares (Lawson) at Chebyshev nodes
against 120-bit arithmetic; their errors are below 1e-8 relative. Measured errors of the whole
functions are in ``tests/unit/test_math_accuracy.py``.
"""

from __future__ import annotations

import functools
import struct
from fractions import Fraction

from pai.compiler.codegen.cpu.emit.builder import Builder

# (exp(r) - 1 - r) / r^2 on |r| <= ln(2)/2.
_EXP = (1.991782652e-04, 1.394608404e-03, 8.333265424e-03, 4.166626973e-02, 1.666666686e-01, 5.000000078e-01)  # noqa: E501  # fmt: skip
# (log(1+f) - f + f^2/2) / f^3 on sqrt(1/2)-1 <= f <= sqrt(2)-1.
_LOG = (6.746601240e-02, -1.167564127e-01, 1.188817462e-01, -1.240559142e-01, 1.421955091e-01, -1.666799567e-01, 2.000211873e-01, -2.500000960e-01, 3.333331260e-01)  # noqa: E501  # fmt: skip
# (tanh(x)/x - 1) / x^2 in x^2, |x| <= 0.625.
_TANH = (-5.717036548e-03, 2.065057899e-02, -5.374349526e-02, 1.333149125e-01, -3.333328392e-01)
# erf(x)/x in x^2, |x| <= 1; and -log(erfc(x)) in x, 1 <= x <= 4.
_ERF = (-9.680135901e-06, 1.127054432e-04, -8.484711426e-04, 5.221074877e-03, -2.686544582e-02, 1.128378275e-01, -3.761263848e-01, 1.128379167e00)  # noqa: E501  # fmt: skip
_ERFC = (2.168684988e-05, -4.413363761e-04, 4.204561868e-03, -2.520825672e-02, 1.084185773e-01, 6.332198931e-01, 1.129578424e00, -1.880402236e-04)  # noqa: E501  # fmt: skip
# (sin(x)/x - 1) / x^2 and (cos(x) - 1 + x^2/2) / x^4 in x^2, |x| <= pi/4, in f64.
_SIN = (2.718302551e-06, -1.983933391e-04, 8.333329383e-03, -1.666666664e-01)
_COS = (-2.721015306e-07, 2.479951899e-05, -1.388888375e-03, 4.166666662e-02)

_LOG2E = 1.4426950408889634
_LN2_HI, _LN2_LO = 0.693359375, -2.12194440054690583e-4
_ROUND32 = 12582912.0  # 1.5 * 2^23: adding it leaves the nearest integer in the low bits
_ROUND64 = 6755399441055744.0  # 1.5 * 2^52
_INF = float("inf")


def _below(b: Builder, x: str, bound: float) -> str:
    """Return min(x, bound), NaN staying NaN."""
    limit = b.const(bound, "f32")
    return b.select(b.cmp("ogt", x, limit, "f32"), limit, x, "f32")


def _above(b: Builder, x: str, bound: float) -> str:
    limit = b.const(bound, "f32")
    return b.select(b.cmp("olt", x, limit, "f32"), limit, x, "f32")


def _power_of_two(b: Builder, n: str) -> str:
    """Return 2^n for an i32 in the range of normal numbers."""
    biased = b.bin("addi", n, b.const(127, "i32"), "i32")
    return b.op(f"arith.bitcast {b.bin('shli', biased, b.const(23, 'i32'), 'i32')} : i32 to f32")


def _reduce_exp(b: Builder, x: str) -> tuple[str, str]:
    """Return (n, exp(r) - 1) with x = n ln 2 + r."""
    magic = b.const(_ROUND32, "f32")
    shifted = b.bin("addf", b.bin("mulf", x, b.const(_LOG2E, "f32"), "f32"), magic, "f32")
    n = b.bin("subf", shifted, magic, "f32")
    r = b.mul_add(n, b.const(-_LN2_HI, "f32"), x, "f32")
    r = b.mul_add(n, b.const(-_LN2_LO, "f32"), r, "f32")
    p = b.polynomial(r, _EXP, "f32")
    rest = b.mul_add(b.bin("mulf", r, r, "f32"), p, r, "f32")
    bits = b.op(f"arith.bitcast {shifted} : f32 to i32")
    base = b.op(f"arith.bitcast {magic} : f32 to i32")
    return b.bin("subi", bits, base, "i32"), rest


def exp(b: Builder, x: str) -> str:
    """Return e^x; denormal results included."""
    n, rest = _reduce_exp(b, _above(b, _below(b, x, 89.0), -104.0))
    y = b.bin("addf", rest, b.const(1.0, "f32"), "f32")
    half = b.bin("shrsi", n, b.const(1, "i32"), "i32")
    y = b.bin("mulf", y, _power_of_two(b, half), "f32")
    return b.bin("mulf", y, _power_of_two(b, b.bin("subi", n, half, "i32")), "f32")


def expm1(b: Builder, x: str) -> str:
    """Return e^x - 1."""
    n, rest = _reduce_exp(b, _above(b, _below(b, x, 89.0), -25.0))
    scale = _power_of_two(b, b.bin("subi", n, b.const(1, "i32"), "i32"))
    offset = b.bin("subf", scale, b.const(0.5, "f32"), "f32")
    half = b.mul_add(scale, rest, offset, "f32")
    y = b.bin("addf", half, half, "f32")
    return b.select(b.cmp("oeq", x, b.const(0.0, "f32"), "f32"), x, y, "f32")


def log(b: Builder, x: str) -> str:
    """Return the natural logarithm."""
    tiny = b.cmp("olt", x, b.const(2.0**-126, "f32"), "f32")
    scaled = b.bin("mulf", x, b.const(2.0**23, "f32"), "f32")
    bits = b.op(f"arith.bitcast {b.select(tiny, scaled, x, 'f32')} : f32 to i32")
    offset = b.bin("subi", bits, b.const(0x3F3504F3, "i32"), "i32")
    exponent = b.bin("shrsi", offset, b.const(23, "i32"), "i32")
    mantissa = b.bin("subi", bits, b.bin("shli", exponent, b.const(23, "i32"), "i32"), "i32")
    f = b.op(f"arith.bitcast {mantissa} : i32 to f32")
    f = b.bin("subf", f, b.const(1.0, "f32"), "f32")
    lowered = b.bin("subi", exponent, b.const(23, "i32"), "i32")
    e = b.op(f"arith.sitofp {b.select(tiny, lowered, exponent, 'i32')} : i32 to f32")
    square = b.bin("mulf", f, f, "f32")
    tail = b.bin("mulf", b.bin("mulf", f, square, "f32"), b.polynomial(f, _LOG, "f32"), "f32")
    tail = b.mul_add(e, b.const(_LN2_LO, "f32"), tail, "f32")
    tail = b.mul_add(square, b.const(-0.5, "f32"), tail, "f32")
    y = b.mul_add(e, b.const(_LN2_HI, "f32"), b.bin("addf", f, tail, "f32"), "f32")
    return _log_edges(b, x, y)


def _log_edges(b: Builder, x: str, y: str) -> str:
    zero, inf = b.const(0.0, "f32"), b.const(_INF, "f32")
    y = b.select(b.cmp("oeq", x, zero, "f32"), b.const(-_INF, "f32"), y, "f32")
    y = b.select(b.cmp("olt", x, zero, "f32"), b.const(float("nan"), "f32"), y, "f32")
    return b.select(b.cmp("ueq", x, inf, "f32"), x, y, "f32")


def log1p(b: Builder, x: str) -> str:
    """Return log(1 + x), correcting for what the sum loses."""
    one = b.const(1.0, "f32")
    u = b.bin("addf", one, x, "f32")
    lost = b.bin("subf", x, b.bin("subf", u, one, "f32"), "f32")
    y = log(b, u)
    fixed = b.bin("addf", y, b.bin("divf", lost, u, "f32"), "f32")
    plain = b.cmp("ole", u, b.const(0.0, "f32"), "f32")
    plain = b.bin("ori", plain, b.cmp("oeq", u, b.const(_INF, "f32"), "f32"), "i1")
    y = b.select(plain, y, fixed, "f32")
    return b.select(b.cmp("oeq", x, b.const(0.0, "f32"), "f32"), x, y, "f32")


def tanh(b: Builder, x: str) -> str:
    """Return the hyperbolic tangent."""
    size = b.un("math.absf", x, "f32")
    u = b.bin("mulf", size, size, "f32")
    cubic = b.bin("mulf", b.bin("mulf", size, u, "f32"), b.polynomial(u, _TANH, "f32"), "f32")
    near = b.bin("addf", size, cubic, "f32")
    e = exp(b, b.bin("addf", size, size, "f32"))
    one = b.const(1.0, "f32")
    quotient = b.bin("divf", b.const(2.0, "f32"), b.bin("addf", e, one, "f32"), "f32")
    far = b.bin("subf", one, quotient, "f32")
    y = b.select(b.cmp("olt", size, b.const(0.625, "f32"), "f32"), near, far, "f32")
    return b.bin("math.copysign", y, x, "f32")


def logistic(b: Builder, x: str) -> str:
    """Return 1 / (1 + e^-x), without overflow on either side."""
    negative = b.op(f"arith.negf {b.un('math.absf', x, 'f32')} : f32")
    e = exp(b, negative)
    one = b.const(1.0, "f32")
    top = b.select(b.cmp("olt", x, b.const(0.0, "f32"), "f32"), e, one, "f32")
    return b.bin("divf", top, b.bin("addf", one, e, "f32"), "f32")


def erf(b: Builder, x: str) -> str:
    """Return the error function."""
    size = b.un("math.absf", x, "f32")
    near = b.bin("mulf", x, b.polynomial(b.bin("mulf", x, x, "f32"), _ERF, "f32"), "f32")
    bounded = _below(b, size, 4.0)
    exponent = b.op(f"arith.negf {b.polynomial(bounded, _ERFC, 'f32')} : f32")
    far = b.bin("subf", b.const(1.0, "f32"), exp(b, exponent), "f32")
    far = b.bin("math.copysign", far, x, "f32")
    return b.select(b.cmp("olt", size, b.const(1.0, "f32"), "f32"), near, far, "f32")


def sin(b: Builder, x: str) -> str:
    """Return the sine; arguments of any size are reduced exactly."""
    return _keep_zero(b, x, _sin_cos(b, x)[0])


def cos(b: Builder, x: str) -> str:
    """Return the cosine."""
    return _sin_cos(b, x)[1]


def tan(b: Builder, x: str) -> str:
    """Return the tangent."""
    s, c = _sin_cos(b, x, wide=True)
    return _keep_zero(b, x, b.op(f"arith.truncf {b.bin('divf', s, c, 'f64')} : f64 to f32"))


def _keep_zero(b: Builder, x: str, y: str) -> str:
    """Return y, or x where that is a zero of either sign."""
    return b.select(b.cmp("oeq", x, b.const(0.0, "f32"), "f32"), x, y, "f32")


def _sin_cos(b: Builder, x: str, wide: bool = False) -> tuple[str, str]:
    """Return sine and cosine, as f32 or (``wide``) f64.

    x times 2/pi modulo 4 is exact: the part of 2/pi that counts for x's exponent comes from a
    table, its first 28 or 29 bits times x's 24 bits fit an f64, and the rest is added.
    """
    quadrant, angle = _reduce_angle(b, x)
    u = b.bin("mulf", angle, angle, "f64")
    cubic = b.bin("mulf", b.bin("mulf", angle, u, "f64"), b.polynomial(u, _SIN, "f64"), "f64")
    s = b.bin("addf", angle, cubic, "f64")
    quartic = b.bin("mulf", b.bin("mulf", u, u, "f64"), b.polynomial(u, _COS, "f64"), "f64")
    c = b.mul_add(u, b.const(-0.5, "f64"), quartic, "f64")
    c = b.bin("addf", c, b.const(1.0, "f64"), "f64")
    return _quadrant(b, quadrant, s, c, wide), _quadrant(
        b, b.bin("addi", quadrant, b.const(1, "i64"), "i64"), s, c, wide
    )


def _quadrant(b: Builder, quadrant: str, s: str, c: str, wide: bool) -> str:
    odd = b.cast("trunci", quadrant, "i64", "i1")
    value = b.select(odd, c, s, "f64")
    back = b.cast("trunci", b.bin("shrui", quadrant, b.const(1, "i64"), "i64"), "i64", "i1")
    value = b.select(back, b.op(f"arith.negf {value} : f64"), value, "f64")
    return value if wide else b.op(f"arith.truncf {value} : f64 to f32")


def _reduce_angle(b: Builder, x: str) -> tuple[str, str]:
    high, low = two_over_pi()
    bits = b.op(f"arith.bitcast {x} : f32 to i32")
    exponent = b.bin("shrui", bits, b.const(23, "i32"), "i32")
    exponent = b.bin("andi", exponent, b.const(255, "i32"), "i32")
    row = b.cast("extui", exponent, "i32", "i64")
    wide = b.op(f"arith.extf {x} : f32 to f64")
    turns = b.bin("mulf", wide, b.load(b.table(high, "i64"), row, "f64"), "f64")
    rest = b.bin("mulf", wide, b.load(b.table(low, "i64"), row, "f64"), "f64")
    magic = b.const(_ROUND64, "f64")
    shifted = b.bin("addf", turns, magic, "f64")
    fraction = b.bin("subf", turns, b.bin("subf", shifted, magic, "f64"), "f64")
    fraction = b.bin("addf", fraction, rest, "f64")
    angle = b.bin("mulf", fraction, b.const(1.5707963267948966, "f64"), "f64")
    return b.op(f"arith.bitcast {shifted} : f64 to i64"), angle


@functools.cache
def two_over_pi() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return, by biased exponent of an f32, (2/pi modulo what cannot count) as two f64 bit rows."""
    ratio = 2 / _pi()
    high, low = [], []
    for exponent in range(255):
        unit = Fraction(2) ** (max(exponent, 1) - 150)  # weight of the last bit of x
        whole = ratio * unit
        part = (whole - 4 * (whole // 4)) / unit
        first = _truncate(part, 28)
        high.append(_bits(float(first)))
        low.append(_bits(float(part - first)))
    return (*high, _bits(float("nan"))), (*low, _bits(float("nan")))


def _bits(value: float) -> int:
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


def _truncate(value: Fraction, bits: int) -> Fraction:
    """Return ``value`` cut to ``bits`` significant bits."""
    shift = value.numerator.bit_length() - value.denominator.bit_length() - bits
    unit = Fraction(2) ** shift
    return Fraction(value // unit) * unit


def _pi() -> Fraction:
    """Return pi to 320 bits, by Machin's formula."""

    def arctan_inverse(n: int) -> Fraction:
        one = 1 << 340
        total, term, k = 0, one // n, 0
        while term:
            total += (-1) ** k * (term // (2 * k + 1))
            term //= n * n
            k += 1
        return Fraction(total, one)

    return 16 * arctan_inverse(5) - 4 * arctan_inverse(239)
