"""Elementary functions of real registers: f32 by our own polynomials, f64 and rare ones by libm."""

from __future__ import annotations

from collections.abc import Callable

from pai.compiler.codegen.cpu.emit import math32
from pai.compiler.codegen.cpu.emit.builder import Builder

_OWN: dict[str, Callable[[Builder, str], str]] = {
    name: getattr(math32, name)
    for name in ("exp", "expm1", "log", "log1p", "tanh", "erf", "sin", "cos", "tan", "logistic")
}


def call(b: Builder, name: str, x: str, kind: str) -> str:
    """Return the elementary function ``name`` (libm's name, or ``logistic``) of ``x``."""
    if kind == "f32" and name in _OWN:
        return _OWN[name](b, x)
    if name == "logistic":
        one = b.const(1.0, kind)
        e = call(b, "exp", b.op(f"arith.negf {b.un('math.absf', x, kind)} : {kind}"), kind)
        top = b.select(b.cmp("olt", x, b.const(0.0, kind), kind), e, one, kind)
        return b.bin("divf", top, b.bin("addf", one, e, kind), kind)
    return b.call(name + ("f" if kind == "f32" else ""), [x], [kind], kind)


def call2(b: Builder, name: str, x: str, y: str, kind: str) -> str:
    """Return a function of two arguments from libm."""
    return b.call(name + ("f" if kind == "f32" else ""), [x, y], [kind, kind], kind)


def sqrt(b: Builder, x: str, kind: str) -> str:
    """Return the square root."""
    return b.un("math.sqrt", x, kind)


def rsqrt(b: Builder, x: str, kind: str) -> str:
    """Return one over the square root."""
    return b.bin("divf", b.const(1.0, kind), sqrt(b, x, kind), kind)


def sign(b: Builder, x: str, kind: str) -> str:
    """Return -1, 1, or x itself for zeros and NaN."""
    one = b.bin("math.copysign", b.const(1.0, kind), x, kind)
    return b.select(b.cmp("ueq", x, b.const(0.0, kind), kind), x, one, kind)
