"""Functions of complex numbers, as pairs of registers.

Transcendental ones are computed in f64 whatever the type: single-precision results are then
right to rounding, and neither overflow nor cancellation needs care beyond f64's own.
Formulas follow W. Kahan, "Branch Cuts for Complex Elementary Functions" (1987).
"""

from __future__ import annotations

from collections.abc import Callable

from pai.compiler.codegen.cpu.emit import math64
from pai.compiler.codegen.cpu.emit.builder import Builder

Pair = tuple[str, str]
_W = "f64"


def _c(b: Builder, value: float) -> str:
    return b.const(value, _W)


def _bin(b: Builder, name: str, x: str, y: str) -> str:
    return b.bin(name, x, y, _W)


def neg(b: Builder, x: str, kind: str = _W) -> str:
    """Return -x."""
    return b.op(f"arith.negf {x} : {kind}")


def multiply(b: Builder, x: Pair, y: Pair, kind: str) -> Pair:
    """Return x*y by the plain formula."""
    ac, bd = b.bin("mulf", x[0], y[0], kind), b.bin("mulf", x[1], y[1], kind)
    ad, bc = b.bin("mulf", x[0], y[1], kind), b.bin("mulf", x[1], y[0], kind)
    return b.bin("subf", ac, bd, kind), b.bin("addf", ad, bc, kind)


def divide(b: Builder, x: Pair, y: Pair) -> Pair:
    """Return x/y by Smith's method."""
    (p, q), (c, d) = x, y
    swap = b.cmp("olt", b.un("math.absf", c, _W), b.un("math.absf", d, _W), _W)
    big, small = b.select(swap, d, c, _W), b.select(swap, c, d, _W)
    first, second = b.select(swap, q, p, _W), b.select(swap, p, q, _W)
    ratio = _bin(b, "divf", small, big)
    scale = _bin(b, "addf", big, _bin(b, "mulf", small, ratio))
    re = _bin(b, "divf", _bin(b, "addf", first, _bin(b, "mulf", second, ratio)), scale)
    im = _bin(b, "divf", _bin(b, "subf", second, _bin(b, "mulf", first, ratio)), scale)
    im = b.select(swap, neg(b, im), im, _W)
    return _divide_edges(b, x, y, (re, im))


def _divide_edges(b: Builder, x: Pair, y: Pair, value: Pair) -> Pair:
    """Division by zero is infinite, by infinity zero, part by part."""
    zero = b.all_of([b.cmp("oeq", part, _c(b, 0.0), _W) for part in y])
    signed = b.bin("math.copysign", _c(b, 0.0), y[0], _W)
    inf = _c(b, float("inf"))
    over = [b.cmp("oeq", b.un("math.absf", p, _W), inf, _W) for p in y]
    y_inf = b.bin("ori", over[0], over[1], "i1")
    finite = [b.cmp("olt", b.un("math.absf", p, _W), inf, _W) for p in x]
    vanish = b.all_of([y_inf, *finite])
    parts = []
    for part, own in zip(value, x, strict=True):
        result = b.select(zero, _bin(b, "divf", own, signed), part, _W)
        parts.append(b.select(vanish, _c(b, 0.0), result, _W))
    return parts[0], parts[1]


def absolute(b: Builder, x: Pair) -> str:
    """Return |x|."""
    return b.call("hypot", [x[0], x[1]], [_W, _W], _W)


def exp(b: Builder, x: Pair) -> Pair:
    """Return e^x; a real argument stays real."""
    size = math64.call(b, "exp", x[0], _W)
    return _scale_angle(b, size, x[1])


def _scale_angle(b: Builder, size: str, angle: str) -> Pair:
    c, s = math64.call(b, "cos", angle, _W), math64.call(b, "sin", angle, _W)
    real = b.cmp("oeq", angle, _c(b, 0.0), _W)
    gone = b.cmp("oeq", size, _c(b, 0.0), _W)
    re = b.select(gone, _c(b, 0.0), _bin(b, "mulf", size, c), _W)
    im = b.select(gone, _c(b, 0.0), _bin(b, "mulf", size, s), _W)
    return b.select(real, size, re, _W), b.select(real, angle, im, _W)


def log(b: Builder, x: Pair) -> Pair:
    """Return the principal logarithm; near |x| = 1 through log1p."""
    size = absolute(b, x)
    far = math64.call(b, "log", size, _W)
    u, v = b.un("math.absf", x[0], _W), b.un("math.absf", x[1], _W)
    swap = b.cmp("olt", u, v, _W)
    big, small = b.select(swap, v, u, _W), b.select(swap, u, v, _W)
    near = _half_log1p(b, _bin(b, "subf", big, _c(b, 1.0)), _bin(b, "addf", big, _c(b, 1.0)), small)
    is_near = b.bin(
        "andi", b.cmp("ogt", size, _c(b, 0.7), _W), b.cmp("olt", size, _c(b, 1.5), _W), "i1"
    )
    return b.select(is_near, near, far, _W), math64.call2(b, "atan2", x[1], x[0], _W)


def _half_log1p(b: Builder, p: str, q: str, y: str) -> str:
    """Return log1p(p*q + y*y) / 2."""
    inner = _bin(b, "addf", _bin(b, "mulf", p, q), _bin(b, "mulf", y, y))
    return _bin(b, "mulf", math64.call(b, "log1p", inner, _W), _c(b, 0.5))


def log1p(b: Builder, x: Pair) -> Pair:
    """Return log(1 + x)."""
    one = _bin(b, "addf", x[0], _c(b, 1.0))
    far = log(b, (one, x[1]))
    near = _half_log1p(b, x[0], _bin(b, "addf", x[0], _c(b, 2.0)), x[1])
    size = absolute(b, x)
    is_near = b.cmp("olt", size, _c(b, 0.5), _W)
    return b.select(is_near, near, far[0], _W), math64.call2(b, "atan2", x[1], one, _W)


def expm1(b: Builder, x: Pair) -> Pair:
    """Return e^x - 1."""
    m = math64.call(b, "expm1", x[0], _W)
    c = math64.call(b, "cos", x[1], _W)
    s = math64.call(b, "sin", _bin(b, "mulf", x[1], _c(b, 0.5)), _W)
    drop = _bin(b, "mulf", _bin(b, "mulf", s, s), _c(b, 2.0))
    re = _bin(b, "subf", _bin(b, "mulf", m, c), drop)
    real = b.cmp("oeq", x[1], _c(b, 0.0), _W)
    return b.select(real, m, re, _W), exp(b, x)[1]


def sqrt(b: Builder, x: Pair) -> Pair:
    """Return the principal square root."""
    size = absolute(b, x)
    half = _bin(b, "mulf", _bin(b, "addf", size, b.un("math.absf", x[0], _W)), _c(b, 0.5))
    root = math64.sqrt(b, half, _W)
    other = _bin(b, "divf", _bin(b, "mulf", b.un("math.absf", x[1], _W), _c(b, 0.5)), root)
    other = b.select(b.cmp("oeq", root, _c(b, 0.0), _W), _c(b, 0.0), other, _W)
    inf = _c(b, float("inf"))
    im_inf = b.cmp("oeq", b.un("math.absf", x[1], _W), inf, _W)
    re_inf = b.cmp("oeq", b.un("math.absf", x[0], _W), inf, _W)
    finite_im = b.bin("andi", re_inf, b.cmp("olt", b.un("math.absf", x[1], _W), inf, _W), "i1")
    other = b.select(finite_im, _c(b, 0.0), other, _W)
    right = b.cmp("oge", x[0], _c(b, 0.0), _W)
    re, im = b.select(right, root, other, _W), b.select(right, other, root, _W)
    re, im = b.select(im_inf, inf, re, _W), b.select(im_inf, inf, im, _W)
    return re, b.bin("math.copysign", im, x[1], _W)


def rsqrt(b: Builder, x: Pair) -> Pair:
    """Return one over the principal square root."""
    return divide(b, (_c(b, 1.0), _c(b, 0.0)), sqrt(b, x))


def cbrt(b: Builder, x: Pair) -> Pair:
    """Return the principal cube root."""
    size = b.call("cbrt", [absolute(b, x)], [_W], _W)
    angle = _bin(b, "divf", math64.call2(b, "atan2", x[1], x[0], _W), _c(b, 3.0))
    return _scale_angle(b, size, angle)


def tanh(b: Builder, x: Pair) -> Pair:
    """Return the hyperbolic tangent."""
    t = math64.call(b, "tan", x[1], _W)
    size = b.un("math.absf", x[0], _W)
    bounded = b.bin("minnumf", size, _c(b, 30.0), _W)
    s = b.call("sinh", [b.bin("math.copysign", bounded, x[0], _W)], [_W], _W)
    square = _bin(b, "mulf", s, s)
    beta = _bin(b, "addf", _c(b, 1.0), _bin(b, "mulf", t, t))
    rho = math64.sqrt(b, _bin(b, "addf", _c(b, 1.0), square), _W)
    scale = _bin(b, "addf", _c(b, 1.0), _bin(b, "mulf", beta, square))
    re = _bin(b, "divf", _bin(b, "mulf", _bin(b, "mulf", beta, rho), s), scale)
    im = _bin(b, "divf", t, scale)
    far = b.cmp("ogt", size, _c(b, 22.0), _W)
    decay = math64.call(b, "exp", _bin(b, "mulf", size, _c(b, -2.0)), _W)
    twice = math64.call(b, "sin", _bin(b, "addf", x[1], x[1]), _W)
    far_im = _bin(b, "mulf", _bin(b, "mulf", twice, _c(b, 2.0)), decay)
    far_re = b.bin("math.copysign", _c(b, 1.0), x[0], _W)
    return b.select(far, far_re, re, _W), b.select(far, far_im, im, _W)


def tan(b: Builder, x: Pair) -> Pair:
    """Return the tangent, -i tanh(ix)."""
    re, im = tanh(b, (neg(b, x[1]), x[0]))
    return im, neg(b, re)


def _sinh_cosh(b: Builder, y: str) -> Pair:
    return b.call("sinh", [y], [_W], _W), b.call("cosh", [y], [_W], _W)


def sin(b: Builder, x: Pair) -> Pair:
    """Return the sine."""
    sh, ch = _sinh_cosh(b, x[1])
    s, c = math64.call(b, "sin", x[0], _W), math64.call(b, "cos", x[0], _W)
    return _bin(b, "mulf", s, ch), _bin(b, "mulf", c, sh)


def cos(b: Builder, x: Pair) -> Pair:
    """Return the cosine."""
    sh, ch = _sinh_cosh(b, x[1])
    s, c = math64.call(b, "sin", x[0], _W), math64.call(b, "cos", x[0], _W)
    return _bin(b, "mulf", c, ch), neg(b, _bin(b, "mulf", s, sh))


def logistic(b: Builder, x: Pair) -> Pair:
    """Return 1 / (1 + e^-x)."""
    e = exp(b, (neg(b, x[0]), neg(b, x[1])))
    return divide(b, (_c(b, 1.0), _c(b, 0.0)), (_bin(b, "addf", _c(b, 1.0), e[0]), e[1]))


def power(b: Builder, x: Pair, y: Pair) -> Pair:
    """Return x^y = e^(y log x); 0^0 is 1 and 0 to anything else 0."""
    value = exp(b, multiply(b, y, log(b, x), _W))
    zero = [b.all_of([b.cmp("oeq", p, _c(b, 0.0), _W) for p in pair]) for pair in (x, y)]
    one = b.select(zero[1], _c(b, 1.0), _c(b, 0.0), _W)
    re = b.select(zero[0], one, value[0], _W)
    im = b.select(zero[0], _c(b, 0.0), value[1], _W)
    return b.select(zero[1], _c(b, 1.0), re, _W), b.select(zero[1], _c(b, 0.0), im, _W)


def sign(b: Builder, x: Pair) -> Pair:
    """Return x/|x|, zero for zero, NaN when a part is NaN."""
    size = absolute(b, x)
    zero = b.cmp("oeq", size, _c(b, 0.0), _W)
    safe = b.select(zero, _c(b, 1.0), size, _W)
    nan = b.cmp("uno", x[0], x[1], _W)
    parts = [b.select(nan, _c(b, float("nan")), _bin(b, "divf", p, safe), _W) for p in x]
    return parts[0], parts[1]


def atan2(b: Builder, y: Pair, x: Pair) -> Pair:
    """Return -i log((x + iy) / sqrt(x^2 + y^2))."""
    xx, yy = multiply(b, x, x, _W), multiply(b, y, y, _W)
    root = sqrt(b, (_bin(b, "addf", xx[0], yy[0]), _bin(b, "addf", xx[1], yy[1])))
    top = (_bin(b, "subf", x[0], y[1]), _bin(b, "addf", x[1], y[0]))
    re, im = log(b, divide(b, top, root))
    return im, neg(b, re)


UNARY: dict[str, Callable[[Builder, Pair], Pair]] = {
    "exponential": exp,
    "exponential_minus_one": expm1,
    "log": log,
    "log_plus_one": log1p,
    "logistic": logistic,
    "sqrt": sqrt,
    "rsqrt": rsqrt,
    "cbrt": cbrt,
    "tanh": tanh,
    "tan": tan,
    "sine": sin,
    "cosine": cos,
    "sign": sign,
}
BINARY: dict[str, Callable[[Builder, Pair, Pair], Pair]] = {
    "divide": divide,
    "power": power,
    "atan2": atan2,
}
