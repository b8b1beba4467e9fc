"""Normalization operators."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from pai.frontends.lowering import norm
from pai.frontends.lowering.convolution import accumulator
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.ops.nn_common import wants
from pai.frontends.onnx.registry import op


def _epsilon(node: Node) -> float:
    return float(node.attr("epsilon", 1e-5))


def _running(node: Node, old: Any, new: Any) -> Any:
    """Move a running statistic towards ``new``; it keeps its own type."""
    momentum = np.array(node.attr("momentum", 0.9), accumulator(old.dtype))
    kept = old.astype(momentum.dtype) * momentum
    return (kept + new.astype(momentum.dtype) * (1 - momentum)).astype(old.dtype)


@op("BatchNormalization", 14)
def batch_norm(node: Node, x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
    """BatchNormalization; with training_mode the batch's own statistics and running ones."""
    if not node.attr("training_mode", 0):
        return norm.batch_norm(x, scale, bias, mean, var, _epsilon(node))
    seen_mean, seen_var = norm.batch_statistics(x)
    y = norm.batch_norm(x, scale, bias, seen_mean, seen_var, _epsilon(node))
    return y, _running(node, mean, seen_mean), _running(node, var, seen_var)


@op("BatchNormalization", 1)
def batch_norm_old(node: Node, x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
    """BatchNormalization of opsets 1 to 13: training is what several outputs mean."""
    if not node.attr("spatial", 1):
        flat = jnp.reshape(x, (x.shape[0], -1))
        gain, shift, centre, spread = (jnp.ravel(v) for v in (scale, bias, mean, var))
        y = norm.batch_norm(flat, gain, shift, centre, spread, _epsilon(node))
        return jnp.reshape(y, x.shape)
    if not any(wants(node, i) for i in range(1, 5)):
        return norm.batch_norm(x, scale, bias, mean, var, _epsilon(node))
    seen_mean, seen_var = norm.batch_statistics(x)
    y = norm.batch_norm(x, scale, bias, seen_mean, seen_var, _epsilon(node))
    running = _running(node, mean, seen_mean), _running(node, var, seen_var)
    return (y, *running, seen_mean.astype(x.dtype), seen_var.astype(x.dtype))


@op("InstanceNormalization", 6)
def instance_norm(node: Node, x: Any, scale: Any, bias: Any) -> Any:
    """InstanceNormalization: each channel of each sample by itself."""
    y, _, _ = norm.standardize(x, range(2, np.ndim(x)), _epsilon(node))
    return norm.channel_affine(y, scale, bias).astype(x.dtype)


@op("LayerNormalization", 17)
def layer_norm(node: Node, x: Any, scale: Any, bias: Any = None) -> Any:
    """LayerNormalization with its mean and inverse deviation."""
    axis = node.attr("axis", -1) % np.ndim(x)
    y, mean, inverse = norm.layer_norm(x, scale, bias, range(axis, np.ndim(x)), _epsilon(node))
    return y, mean.astype(np.float32), inverse.astype(np.float32)


@op("RMSNormalization", 23)
def rms_norm(node: Node, x: Any, scale: Any) -> Any:
    """RMSNormalization: the scale applies after rounding back to the type of ``x``."""
    axis = node.attr("axis", -1) % np.ndim(x)
    y, _ = norm.rms_norm(x, None, range(axis, np.ndim(x)), _epsilon(node))
    return (y.astype(scale.dtype) * scale).astype(scale.dtype)


@op("GroupNormalization", 21)
def group_norm(node: Node, x: Any, scale: Any, bias: Any) -> Any:
    """GroupNormalization: scale and bias per channel."""
    y = norm.group_norm(x, node.attr("num_groups"), _epsilon(node))
    return norm.channel_affine(y, scale, bias).astype(x.dtype)


@op("GroupNormalization", 18)
def group_norm_18(node: Node, x: Any, scale: Any, bias: Any) -> Any:
    """GroupNormalization of opset 18: scale and bias per group."""
    times = x.shape[1] // node.attr("num_groups")
    wide = [jnp.ravel(jnp.broadcast_to(v[:, None], (len(v), times))) for v in (scale, bias)]
    return group_norm(node, x, *wide)


@op("LRN")
def lrn(node: Node, x: Any) -> Any:
    """LRN."""
    return norm.local_response_norm(
        x,
        node.attr("size"),
        alpha=float(node.attr("alpha", 1e-4)),
        beta=float(node.attr("beta", 0.75)),
        bias=float(node.attr("bias", 1.0)),
    )


@op("MeanVarianceNormalization", 9)
def mean_variance_norm(node: Node, x: Any) -> Any:
    """MeanVarianceNormalization: (x - mean) / (deviation + 1e-9)."""
    axes = tuple(node.attr("axes") or (0, 2, 3))
    wide = x.astype(accumulator(x.dtype))
    mean, variance = norm.moments(wide, axes)
    return ((wide - mean) / (jnp.sqrt(variance) + np.array(1e-9, wide.dtype))).astype(x.dtype)


@op("LpNormalization")
def lp_norm(node: Node, x: Any) -> Any:
    """LpNormalization: zero where the norm is zero."""
    axis = node.attr("axis", -1)
    wide = x.astype(accumulator(x.dtype))
    if node.attr("p", 2) == 1:
        size = jnp.sum(jnp.abs(wide), axis=axis, keepdims=True)
    else:
        size = jnp.sqrt(jnp.sum(wide * wide, axis=axis, keepdims=True))
    zero = size == 0
    y = wide / jnp.where(zero, np.ones((), wide.dtype), size)
    return jnp.where(zero, np.zeros((), wide.dtype), y).astype(x.dtype)
