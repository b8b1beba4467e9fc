"""Operators of com.microsoft that fuse or repeat standard ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pai.frontends.lowering import norm
from pai.frontends.lowering.convolution import accumulator
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.ops.conv import run_convolution
from pai.frontends.onnx.ops.nn_common import text
from pai.frontends.onnx.ops.pool import max_pool_op
from pai.frontends.onnx.registry import lookup, op

MICROSOFT = "com.microsoft"

# Operators that mean what the standard operator of the same name means at an opset.
_SAME = {
    "DequantizeLinear": 21,
    "Gelu": 20,
    "GridSample": 20,
    "GatherND": 13,
    "Pad": 21,
    "QuantizeLinear": 21,
    "Range": 11,
    "SwiGLU": 28,
    "Trilu": 14,
    "Unique": 11,
}


def standard(node: Node, name: str, version: int, *inputs: Any, **attributes: Any) -> Any:
    """Evaluate the standard operator ``name`` at opset ``version`` in place of ``node``.

    Raises:
        UnsupportedOp: when it has no handler.
    """
    handler = lookup("", name, version)
    if handler is None:
        raise node.refuse(f"the standard operator '{name}' has no lowering")
    merged = {**node.attributes, **attributes}
    changed = dataclasses.replace(node, op_type=name, domain="", version=version, attributes=merged)
    return handler(changed, *inputs)


def _register_same(name: str, version: int) -> None:
    @op(name, 1, MICROSOFT)
    def same(node: Node, *inputs: Any) -> Any:
        return standard(node, name, version, *inputs)


for _name, _version in _SAME.items():
    _register_same(_name, _version)


def activate(node: Node, y: Any) -> Any:
    """Apply the activation that a fused node names, with its parameters."""
    name = text(node, "activation")
    if not name:
        return y
    parameters = list(node.attr("activation_params") or ())
    given = {
        key: node.attr(f"activation_{key}")
        for key in ("alpha", "beta", "gamma")
        if node.attr(f"activation_{key}") is not None
    }
    given.update(zip(("alpha", "beta"), parameters, strict=False))
    if name == "Clip":
        low, high = parameters if parameters else (given["alpha"], given["beta"])
        return jnp.clip(y, low, high)
    return standard(node, name, 16, y, **given)


@op("ExpandDims", 1, MICROSOFT)
def expand_dims(node: Node, x: Any, axis: Any) -> Any:
    """ExpandDims: one new dimension."""
    where = int(node.concrete(axis, "axis").reshape(()))
    expand = np.expand_dims if isinstance(x, np.ndarray) else jnp.expand_dims
    return expand(x, where)


@op("Inverse", 1, MICROSOFT)
def inverse(node: Node, x: Any) -> Any:
    """Inverse of the last two dimensions by Gauss-Jordan elimination with pivoting."""
    n = x.shape[-1]
    wide = jnp.asarray(x).astype(accumulator(x.dtype))
    eye = jnp.broadcast_to(jnp.eye(n, dtype=wide.dtype), wide.shape)
    rows = np.arange(n)

    def step(k: Any, a: Any) -> Any:
        column = jnp.take(a, k, axis=-1)
        size = jnp.where(rows >= k, jnp.abs(column), -1)
        pivot = jnp.argmax(size, axis=-1)[..., None]
        order = jnp.where(rows == k, pivot, jnp.where(rows == pivot, k, rows))
        a = jnp.take_along_axis(a, order[..., None], axis=-2)
        top = jnp.take(a, k, axis=-2)
        top = top / jnp.take(top, k, axis=-1)[..., None]
        factor = jnp.where(rows == k, 0, jnp.take(a, k, axis=-1))
        cleared = a - factor[..., None] * top[..., None, :]
        return jnp.where((rows == k)[:, None], top[..., None, :], cleared)

    both = jax.lax.fori_loop(0, n, step, jnp.concatenate([wide, eye], axis=-1))
    return both[..., n:].astype(x.dtype)


def _gelu(x: Any, *, approximate: bool = False) -> Any:
    wide = x.astype(accumulator(x.dtype))
    if approximate:
        return jax.nn.gelu(wide, approximate=True).astype(x.dtype)
    half, root = np.array(0.5, wide.dtype), np.array(0.5**0.5, wide.dtype)
    return (half * wide * (1 + jax.lax.erf(wide * root))).astype(x.dtype)


@op("BiasGelu", 1, MICROSOFT)
def bias_gelu(node: Node, x: Any, bias: Any) -> Any:
    """BiasGelu: gelu(x + bias) with erf."""
    return _gelu(x + bias)


@op("FastGelu", 1, MICROSOFT)
def fast_gelu(node: Node, x: Any, bias: Any = None) -> Any:
    """FastGelu: the tanh form of gelu."""
    return _gelu(x if bias is None else x + bias, approximate=True)


@op("QuickGelu", 1, MICROSOFT)
def quick_gelu(node: Node, x: Any) -> Any:
    """QuickGelu: x * sigmoid(alpha * x)."""
    alpha = np.array(node.attr("alpha", 1.702), x.dtype)
    return x * jax.nn.sigmoid(x * alpha)


@op("BiasSplitGelu", 1, MICROSOFT)
def bias_split_gelu(node: Node, x: Any, bias: Any) -> Any:
    """BiasSplitGelu: the left half times gelu of the right half."""
    left, right = jnp.split(x + bias, 2, axis=-1)
    return left * _gelu(right)


@op("BiasAdd", 1, MICROSOFT)
def bias_add(node: Node, x: Any, bias: Any, skip: Any) -> Any:
    """BiasAdd."""
    return x + bias + skip


@op("BiasSoftmax", 1, MICROSOFT)
def bias_softmax(node: Node, x: Any, bias: Any) -> Any:
    """BiasSoftmax: softmax of scores plus a mask, from ``axis`` on."""
    axis = node.attr("axis", 1) % np.ndim(x)
    if node.attr("is_inner_broadcast", 1):
        missing = np.ndim(x) - np.ndim(bias)
        if missing:
            inner = (*bias.shape[: np.ndim(bias) - (np.ndim(x) - axis)], *(1,) * missing)
            bias = jnp.reshape(bias, (*inner, *x.shape[axis:]))
    total = x + bias
    flat = jnp.reshape(total, (*total.shape[:axis], -1))
    return jnp.reshape(jax.nn.softmax(flat, axis=-1), x.shape)


def _product(a: Any, b: Any) -> Any:
    acc = accumulator(a.dtype)
    return jnp.matmul(a, b, preferred_element_type=acc)


@op("FusedMatMul", 1, MICROSOFT)
@op("TransposeMatMul", 1, MICROSOFT)
@op("FusedMatMulActivation", 1, MICROSOFT)
def fused_matmul(node: Node, a: Any, b: Any) -> Any:
    """FusedMatMul: alpha times a product of optionally transposed operands."""

    def turned(x: Any, side: str) -> Any:
        if node.attr(f"transBatch{side}", 0):
            x = jnp.moveaxis(x, 0, -2)
        if node.attr(f"trans{side}", 0) and np.ndim(x) > 1:
            x = jnp.swapaxes(x, -1, -2)
        return x

    y = _product(turned(a, "A"), turned(b, "B"))
    alpha = float(node.attr("alpha", 1.0))
    y = y if alpha == 1.0 else y * np.array(alpha, y.dtype)
    return activate(node, y.astype(a.dtype))


@op("FusedGemm", 1, MICROSOFT)
def fused_gemm(node: Node, a: Any, b: Any, c: Any = None) -> Any:
    """FusedGemm: Gemm and an activation."""
    return activate(node, standard(node, "Gemm", 13, a, b, c))


@op("GemmFastGelu", 1, MICROSOFT)
def gemm_fast_gelu(node: Node, x: Any, w: Any, bias: Any = None) -> Any:
    """GemmFastGelu: fast gelu of a product."""
    return fast_gelu(node, _product(x, w).astype(x.dtype), bias)


@op("FusedConv", 1, MICROSOFT)
def fused_conv(node: Node, x: Any, w: Any, bias: Any = None, added: Any = None) -> Any:
    """FusedConv: Conv, an addition and an activation."""
    y = run_convolution(node, x, w, bias)
    return activate(node, y if added is None else y + added)


@op("NhwcConv", 1, MICROSOFT)
@op("NhwcFusedConv", 1, MICROSOFT)
def nhwc_conv(node: Node, x: Any, w: Any, bias: Any = None, added: Any = None) -> Any:
    """NhwcFusedConv: FusedConv with the channels last, kernels as usual."""
    y = run_convolution(node, jnp.moveaxis(x, -1, 1), w, bias)
    y = jnp.moveaxis(y, 1, -1)
    return activate(node, y if added is None else y + added)


@op("NhwcMaxPool", 1, MICROSOFT)
def nhwc_max_pool(node: Node, x: Any) -> Any:
    """NhwcMaxPool: MaxPool with the channels last."""
    return jnp.moveaxis(max_pool_op(node, jnp.moveaxis(x, -1, 1)), 1, -1)


@op("SkipLayerNormalization", 1, MICROSOFT)
def skip_layer_norm(
    node: Node, x: Any, skip: Any, gamma: Any, beta: Any = None, bias: Any = None
) -> Any:
    """SkipLayerNormalization: layer norm of x + skip + bias, and that sum as fourth output."""
    total = x + skip if bias is None else x + skip + bias
    epsilon = float(node.attr("epsilon", 1e-12))
    y, mean, inverse = norm.layer_norm(total, gamma, beta, (total.ndim - 1,), epsilon)
    return y, mean, inverse, total


@op("SkipSimplifiedLayerNormalization", 1, MICROSOFT)
def skip_rms_norm(node: Node, x: Any, skip: Any, gamma: Any, bias: Any = None) -> Any:
    """SkipSimplifiedLayerNormalization: RMS norm of x + skip + bias."""
    total = x + skip if bias is None else x + skip + bias
    epsilon = float(node.attr("epsilon", 1e-12))
    y, inverse = norm.rms_norm(total, gamma, (total.ndim - 1,), epsilon)
    return y, jnp.zeros_like(inverse), inverse, total


@op("GroupNorm", 1, MICROSOFT)
def group_norm(node: Node, x: Any, gamma: Any, beta: Any) -> Any:
    """GroupNorm, channels last by default, with an optional SiLU."""
    last = bool(node.attr("channels_last", 1))
    value = jnp.moveaxis(x, -1, 1) if last else x
    y = norm.group_norm(value, node.attr("groups"), float(node.attr("epsilon", 1e-5)))
    y = norm.channel_affine(y, gamma, beta)
    if node.attr("activation", 0) == 1:
        y = jax.nn.silu(y)
    return (jnp.moveaxis(y, 1, -1) if last else y).astype(x.dtype)


@op("SkipGroupNorm", 1, MICROSOFT)
def skip_group_norm(node: Node, x: Any, gamma: Any, beta: Any, skip: Any, bias: Any = None) -> Any:
    """SkipGroupNorm: GroupNorm of x + skip + bias, and that sum."""
    last = bool(node.attr("channels_last", 1))

    def fitted(value: Any) -> Any:
        if np.ndim(value) == 4:
            return value
        rows = value.shape[0] if np.ndim(value) == 2 else 1
        return jnp.reshape(value, (rows, 1, 1, -1) if last else (rows, -1, 1, 1))

    total = x + fitted(skip)
    if bias is not None:
        total = total + fitted(bias)
    return group_norm(node, total, gamma, beta), total


@op("EmbedLayerNormalization", 1, MICROSOFT)
def embed_layer_norm(
    node: Node,
    ids: Any,
    segments: Any,
    words: Any,
    positions: Any,
    segment_table: Any,
    gamma: Any,
    beta: Any,
    mask: Any = None,
    position_ids: Any = None,
) -> Any:
    """EmbedLayerNormalization: layer norm of summed word, position and segment embeddings."""
    total = jnp.take(words, ids, axis=0, mode="clip")
    if position_ids is None:
        total = total + positions[: ids.shape[1]]
    else:
        total = total + jnp.take(positions, position_ids, axis=0, mode="clip")
    if segments is not None:
        total = total + jnp.take(segment_table, segments, axis=0, mode="clip")
    epsilon = float(node.attr("epsilon", 1e-12))
    y, _, _ = norm.layer_norm(total, gamma, beta, (2,), epsilon)
    if mask is None:
        lengths: Any = jnp.zeros((ids.shape[0],), np.int32)
    else:
        lengths = jnp.sum(mask == 1, axis=1, dtype=np.int32)
    return y, lengths, total
