"""Integer arithmetic with StableHLO's edge rules; nothing here traps or is undefined."""

from __future__ import annotations

from pai.compiler.codegen.cpu.emit.builder import Builder
from pai.compiler.codegen.cpu.emit.types import Scalar

_PLAIN = {
    "add": "addi",
    "subtract": "subi",
    "multiply": "muli",
    "and": "andi",
    "or": "ori",
    "xor": "xori",
}
_BOOL = {"add": "ori", "maximum": "ori", "multiply": "andi", "minimum": "andi", "subtract": "xori"}


def binary(b: Builder, name: str, x: Scalar, y: Scalar) -> str:
    """Return ``x name y`` for integers and booleans."""
    kind, reg = x.type, x.type.reg
    if kind.kind == "bool":
        return b.bin(_BOOL.get(name) or _PLAIN[name], x.re, y.re, reg)
    if name in _PLAIN:
        return b.bin(_PLAIN[name], x.re, y.re, reg)
    if name in ("maximum", "minimum"):
        return b.bin(f"{name[:3]}{'s' if kind.signed else 'u'}i", x.re, y.re, reg)
    if name in ("divide", "remainder"):
        return _divide(b, name, x, y)
    return _shift(b, name, x, y)


def _divide(b: Builder, name: str, x: Scalar, y: Scalar) -> str:
    """x/0 is all ones, x%0 is x; the least number over -1 is itself, its remainder 0."""
    reg, signed = x.type.reg, x.type.signed
    zero = b.cmp("eq", y.re, b.const(0, reg), reg)
    bad = zero
    minus_one = b.const(-1, reg)
    over = ""
    if signed:
        least = b.cmp("eq", x.re, b.const(-(1 << (x.type.bits - 1)), reg), reg)
        over = b.bin("andi", least, b.cmp("eq", y.re, minus_one, reg), "i1")
        bad = b.bin("ori", zero, over, "i1")
    safe = b.select(bad, b.const(1, reg), y.re, reg)
    if name == "divide":
        quotient = b.bin("divsi" if signed else "divui", x.re, safe, reg)
        return b.select(zero, minus_one, quotient, reg)
    rest = b.bin("remsi" if signed else "remui", x.re, safe, reg)
    return b.select(zero, x.re, rest, reg)


def _shift(b: Builder, name: str, x: Scalar, y: Scalar) -> str:
    """Shifts by the width or more give 0, or copies of the sign."""
    reg, bits = x.type.reg, x.type.bits
    inside = b.cmp("ult", y.re, b.const(bits, reg), reg)
    safe = b.select(inside, y.re, b.const(0, reg), reg)
    if name == "shift_right_arithmetic":
        fill = b.bin("shrsi", x.re, b.const(bits - 1, reg), reg)
        return b.select(inside, b.bin("shrsi", x.re, safe, reg), fill, reg)
    shifted = b.bin("shli" if name == "shift_left" else "shrui", x.re, safe, reg)
    return b.select(inside, shifted, b.const(0, reg), reg)


def sign(b: Builder, x: Scalar) -> str:
    """Return -1, 0 or 1."""
    reg = x.type.reg
    zero, one = b.const(0, reg), b.const(1, reg)
    value = b.select(b.cmp("eq", x.re, zero, reg), zero, one, reg)
    if not x.type.signed:
        return value
    return b.select(b.cmp("slt", x.re, zero, reg), b.const(-1, reg), value, reg)


def power(b: Builder, x: Scalar, y: Scalar) -> str:
    """Return x^y modulo 2^bits by repeated squaring; negative exponents give 0, 1 or -1."""
    reg, bits = x.type.reg, x.type.bits
    one, zero = b.const(1, reg), b.const(0, reg)
    result, base, rest = one, x.re, y.re
    for i in range(bits):
        odd = b.cmp("ne", b.bin("andi", rest, one, reg), zero, reg)
        result = b.select(odd, b.bin("muli", result, base, reg), result, reg)
        if i < bits - 1:
            base = b.bin("muli", base, base, reg)
            rest = b.bin("shrui", rest, one, reg)
    if not x.type.signed:
        return result
    minus = b.const(-1, reg)
    odd = b.cmp("ne", b.bin("andi", y.re, one, reg), zero, reg)
    units = b.select(b.cmp("eq", x.re, one, reg), one, zero, reg)
    units = b.select(b.cmp("eq", x.re, minus, reg), b.select(odd, minus, one, reg), units, reg)
    return b.select(b.cmp("slt", y.re, zero, reg), units, result, reg)
