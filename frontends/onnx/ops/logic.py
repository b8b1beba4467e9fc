"""Comparisons, boolean logic, tests for NaN and infinity, and selection."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from jax import numpy as jnp

from pai.frontends.onnx.arrays import is_concrete, old_broadcast, xp
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.registry import op

_BINARY = {
    "Equal": "equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
    "And": "logical_and",
    "Or": "logical_or",
    "Xor": "logical_xor",
}


def _binary(function: str, node: Node, a: Any, b: Any) -> Any:
    b = old_broadcast(node, a, b)
    return getattr(xp(a, b), function)(a, b)


for _name, _function in _BINARY.items():
    op(_name)(functools.partial(_binary, _function))


@op("Not")
def logical_not(_node: Node, x: Any) -> Any:
    """Negation."""
    return xp(x).logical_not(x)


@op("IsNaN")
def is_nan(_node: Node, x: Any) -> Any:
    """Whether each element is not a number."""
    return jnp.isnan(x)


@op("IsInf")
def is_inf(node: Node, x: Any) -> Any:
    """Whether each element is an infinity of a wanted sign."""
    found = jnp.zeros(x.shape, bool)
    if node.attr("detect_positive", 1):
        found |= jnp.isposinf(x)
    if node.attr("detect_negative", 1):
        found |= jnp.isneginf(x)
    return found


@op("Where")
def where(_node: Node, condition: Any, a: Any, b: Any) -> Any:
    """Elements of a where the condition holds, else of b."""
    if is_concrete(condition, a, b):
        return np.where(condition, a, b)
    return jnp.where(condition, a, b)
