"""Arithmetic, elementary functions, bits: everything with numpy-style broadcasting."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from pai.frontends.onnx.arrays import is_concrete, old_broadcast, xp
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.registry import op

_UNARY: dict[str, Callable[[Any], Any]] = {
    "Acos": jnp.arccos,
    "Acosh": jnp.arccosh,
    "Asin": jnp.arcsin,
    "Asinh": jnp.arcsinh,
    "Atan": jnp.arctan,
    "Atanh": jnp.arctanh,
    "BitwiseNot": jnp.bitwise_not,
    "Ceil": jnp.ceil,
    "Cos": jnp.cos,
    "Cosh": jnp.cosh,
    "Exp": jnp.exp,
    "Floor": jnp.floor,
    "Log": jnp.log,
    "Neg": jnp.negative,
    "Round": jnp.round,
    "Sign": jnp.sign,
    "Sin": jnp.sin,
    "Sinh": jnp.sinh,
    "Sqrt": jnp.sqrt,
    "Tan": jnp.tan,
    "Tanh": jnp.tanh,
}


def _unary(function: Callable[[Any], Any], _node: Node, x: Any) -> Any:
    return function(x)


for _name, _function in _UNARY.items():
    op(_name)(functools.partial(_unary, _function))


@op("Abs")
def absolute(_node: Node, x: Any) -> Any:
    """Absolute value; its gradient at zero is zero."""
    return x if x.dtype.kind == "u" else xp(x).abs(x)


@op("Reciprocal")
def reciprocal(_node: Node, x: Any) -> Any:
    """One over x."""
    return lax.div(jnp.ones_like(x), x)


@op("Erf")
def erf(_node: Node, x: Any) -> Any:
    """The error function."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return lax.erf(x)
    return lax.erf(x.astype(jnp.float32)).astype(x.dtype)


@op("Add")
def add(node: Node, a: Any, b: Any) -> Any:
    """Sum of two."""
    b = old_broadcast(node, a, b)
    return xp(a, b).add(a, b)


@op("Sub")
def subtract(node: Node, a: Any, b: Any) -> Any:
    """Difference."""
    b = old_broadcast(node, a, b)
    return xp(a, b).subtract(a, b)


@op("Mul")
def multiply(node: Node, a: Any, b: Any) -> Any:
    """Product of two."""
    b = old_broadcast(node, a, b)
    return xp(a, b).multiply(a, b)


@op("Div")
def divide(node: Node, a: Any, b: Any) -> Any:
    """Quotient; of integers, truncated toward zero."""
    b = old_broadcast(node, a, b)
    if is_concrete(a, b) and a.dtype.kind in "iu":
        quotient = np.abs(a) // np.where(b == 0, 1, np.abs(b))
        return (quotient * np.sign(a) * np.sign(b)).astype(a.dtype)
    a, b = jnp.broadcast_arrays(a, b)
    return lax.div(a, b)


@op("Mod")
def modulo(node: Node, a: Any, b: Any) -> Any:
    """Remainder: the divisor's sign, or with ``fmod`` the dividend's."""
    if node.attr("fmod", 0):
        return jnp.fmod(a, b)
    return xp(a, b).mod(a, b)


@op("Pow")
def power(node: Node, base: Any, exponent: Any) -> Any:
    """Base to a power, in the base's type; small constant powers become products."""
    exponent = old_broadcast(node, base, exponent)
    if is_concrete(exponent) and exponent.size == 1 and not is_concrete(base):
        shape = np.broadcast_shapes(base.shape, exponent.shape)
        if float(exponent.item()) == 0.5 and jnp.issubdtype(base.dtype, jnp.floating):
            return jnp.broadcast_to(jnp.sqrt(base), shape)
        if float(exponent.item()) in (1.0, 2.0, 3.0):
            return jnp.broadcast_to(lax.integer_pow(base, int(exponent.item())), shape)
    if base.dtype != exponent.dtype:
        kind = jnp.promote_types(base.dtype, exponent.dtype)
        return jnp.power(jnp.asarray(base, kind), jnp.asarray(exponent, kind)).astype(base.dtype)
    return jnp.power(base, exponent)


def _variadic(name: str, _node: Node, *values: Any) -> Any:
    return functools.reduce(getattr(xp(*values), name), values)


op("Max")(functools.partial(_variadic, "maximum"))
op("Min")(functools.partial(_variadic, "minimum"))
op("Sum")(functools.partial(_variadic, "add"))


@op("Mean")
def mean(_node: Node, *values: Any) -> Any:
    """Mean of any number of tensors."""
    return functools.reduce(jnp.add, values) / len(values)


def _clamp_forward(x: Any, low: Any, high: Any) -> Any:
    return lax.clamp(low, x, high)


_clamp = jax.custom_jvp(_clamp_forward)


def _clamp_rule(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    """Let the gradient pass at the bounds too, as PyTorch does."""
    x, low, high = primals
    inside = (x >= low) & (x <= high)
    return _clamp(x, low, high), jnp.where(inside, tangents[0], jnp.zeros_like(tangents[0]))


_clamp.defjvp(_clamp_rule)


@op("Clip")
def clip(node: Node, x: Any, low: Any = None, high: Any = None) -> Any:
    """Limit to a range; where the bounds cross, the upper one wins."""
    low, high = (
        None if bound is None else jnp.asarray(bound, x.dtype).reshape(())
        for bound in (node.attr("min", low), node.attr("max", high))
    )
    if low is not None and high is not None:
        clamp = (
            _clamp if jnp.issubdtype(x.dtype, jnp.floating) else lambda v, a, b: lax.clamp(a, v, b)
        )
        return clamp(jnp.asarray(x), low, high)
    if low is not None:
        return jnp.where(x < low, low, x)
    return x if high is None else jnp.where(x > high, high, x)


@op("BitShift")
def bit_shift(node: Node, a: Any, b: Any) -> Any:
    """Shift bits; to the right the sign is kept, and whole widths or more leave only it."""
    a, b = jnp.broadcast_arrays(a, b)
    if node.attr("direction") == "LEFT":
        return lax.shift_left(a, b)
    signed = jnp.issubdtype(a.dtype, jnp.signedinteger)
    return (lax.shift_right_arithmetic if signed else lax.shift_right_logical)(a, b)


@op("BitwiseAnd")
def bitwise_and(_node: Node, a: Any, b: Any) -> Any:
    """And of bits."""
    return xp(a, b).bitwise_and(a, b)


@op("BitwiseOr")
def bitwise_or(_node: Node, a: Any, b: Any) -> Any:
    """Or of bits."""
    return xp(a, b).bitwise_or(a, b)


@op("BitwiseXor")
def bitwise_xor(_node: Node, a: Any, b: Any) -> Any:
    """Exclusive or of bits."""
    return xp(a, b).bitwise_xor(a, b)
