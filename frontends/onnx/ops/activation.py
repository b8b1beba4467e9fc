"""Activations, and softmax with its version differences."""

from __future__ import annotations

from math import prod
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from pai.frontends.onnx.arrays import axis_of
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.registry import op


@op("Relu")
def relu(_node: Node, x: Any) -> Any:
    """Rectifier; its gradient at zero is zero."""
    return jax.nn.relu(x)


@op("LeakyRelu")
def leaky_relu(node: Node, x: Any) -> Any:
    """x, or alpha·x where negative."""
    return jnp.where(x < 0, x * node.attr("alpha", 0.01), x)


@op("PRelu")
def prelu(node: Node, x: Any, slope: Any) -> Any:
    """x, or slope·x where negative; before opset 7 there is one slope per channel."""
    if node.version < 7 and slope.ndim == 1:
        slope = slope.reshape((-1,) + (1,) * (x.ndim - 2))
    return jnp.where(x < 0, x * slope, x)


@op("ThresholdedRelu")
def thresholded_relu(node: Node, x: Any) -> Any:
    """X where it exceeds alpha, else zero."""
    return jnp.where(x > node.attr("alpha", 1.0), x, jnp.zeros_like(x))


@op("Elu")
def elu(node: Node, x: Any) -> Any:
    """x, or alpha·(exp(x)-1) where negative."""
    return jnp.where(x < 0, jnp.expm1(jnp.minimum(x, 0)) * node.attr("alpha", 1.0), x)


@op("Celu")
def celu(node: Node, x: Any) -> Any:
    """max(0, x) + min(0, alpha·(exp(x/alpha)-1))."""
    alpha = node.attr("alpha", 1.0)
    return jnp.where(x < 0, alpha * jnp.expm1(jnp.minimum(x, 0) / alpha), x)


@op("Selu")
def selu(node: Node, x: Any) -> Any:
    """gamma·(x, or alpha·(exp(x)-1) where not positive)."""
    alpha = node.attr("alpha", 1.67326319217681884765625)
    gamma = node.attr("gamma", 1.05070102214813232421875)
    return gamma * jnp.where(x > 0, x, alpha * jnp.expm1(jnp.minimum(x, 0)))


@op("Gelu")
def gelu(node: Node, x: Any) -> Any:
    """Gaussian error linear unit, exact or with tanh."""
    if node.attr("approximate", "none") == "tanh":
        return jax.nn.gelu(x, approximate=True)
    return x * 0.5 * (1 + lax.erf(x * np.asarray(0.5**0.5, x.dtype)))


@op("Sigmoid")
def sigmoid(_node: Node, x: Any) -> Any:
    """The logistic function."""
    return lax.logistic(jnp.asarray(x))


@op("HardSigmoid")
def hard_sigmoid(node: Node, x: Any) -> Any:
    """alpha·x + beta limited to [0, 1]."""
    return jnp.clip(node.attr("alpha", 0.2) * x + node.attr("beta", 0.5), 0, 1)


@op("HardSwish")
def hard_swish(_node: Node, x: Any) -> Any:
    """x·max(0, min(1, x/6 + 0.5))."""
    return x * jnp.clip(x * (1 / 6) + 0.5, 0, 1)


@op("Swish")
def swish(node: Node, x: Any) -> Any:
    """x·sigmoid(alpha·x)."""
    return x * lax.logistic(jnp.asarray(x * node.attr("alpha", 1.0)))


@op("Mish")
def mish(_node: Node, x: Any) -> Any:
    """x·tanh(softplus(x))."""
    return x * jnp.tanh(jax.nn.softplus(x))


@op("Softplus")
def softplus(_node: Node, x: Any) -> Any:
    """log(1 + exp(x))."""
    return jax.nn.softplus(x)


@op("Softsign")
def softsign(_node: Node, x: Any) -> Any:
    """x/(1 + |x|)."""
    return x / (1 + jnp.abs(x))


@op("Shrink")
def shrink(node: Node, x: Any) -> Any:
    """Shrink toward zero by ``bias`` outside [-lambd, lambd], zero inside."""
    bias, lambd = node.attr("bias", 0.0), node.attr("lambd", 0.5)
    zero = jnp.zeros_like(x)
    low = (x + np.asarray(bias).astype(x.dtype)).astype(x.dtype)
    high = (x - np.asarray(bias).astype(x.dtype)).astype(x.dtype)
    return jnp.where(x < -lambd, low, jnp.where(x > lambd, high, zero))


def _over_rows(node: Node, x: Any, function: Any) -> Any:
    """Apply a function along ``axis``; before opset 13 over all dimensions from it on."""
    if node.version >= 13:
        return function(x, axis_of(node.attr("axis", -1), x.ndim))
    axis = axis_of(node.attr("axis", 1), x.ndim) if node.attr("axis", 1) < x.ndim else x.ndim
    rows = jnp.reshape(x, (prod(x.shape[:axis]), prod(x.shape[axis:])))
    return jnp.reshape(function(rows, 1), x.shape)


@op("Softmax")
def softmax(node: Node, x: Any) -> Any:
    """exp(x) over its sum."""
    return _over_rows(node, x, lambda v, axis: jax.nn.softmax(v, axis=axis))


@op("LogSoftmax")
def log_softmax(node: Node, x: Any) -> Any:
    """Logarithm of softmax."""
    return _over_rows(node, x, lambda v, axis: jax.nn.log_softmax(v, axis=axis))


@op("Hardmax")
def hardmax(node: Node, x: Any) -> Any:
    """One at the first maximum, zero elsewhere."""

    def largest(v: Any, axis: int) -> Any:
        best = jnp.argmax(v, axis=axis, keepdims=True)
        return (lax.broadcasted_iota(best.dtype, v.shape, axis) == best).astype(v.dtype)

    return _over_rows(node, x, largest)
