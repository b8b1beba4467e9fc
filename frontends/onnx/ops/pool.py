"""Pooling operators."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from pai.frontends.lowering.convolution import accumulator
from pai.frontends.lowering.pooling import (
    average_pool,
    lp_pool,
    max_pool,
    max_pool_with_indices,
)
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.ops.nn_common import node_window, wants
from pai.frontends.onnx.registry import op


def _window(node: Node, x: Any) -> Any:
    return node_window(node, tuple(x.shape[2:]), tuple(node.attr("kernel_shape")))


def _spatial_axes(x: Any) -> tuple[int, ...]:
    return tuple(range(2, np.ndim(x)))


@op("MaxPool")
def max_pool_op(node: Node, x: Any) -> Any:
    """MaxPool, with Indices into the flattened input where asked for."""
    window = _window(node, x)
    if not wants(node, 1):
        return max_pool(jnp.asarray(x), window)
    return max_pool_with_indices(
        jnp.asarray(x), window, column_major=bool(node.attr("storage_order", 0))
    )


@op("AveragePool")
def average_pool_op(node: Node, x: Any) -> Any:
    """AveragePool."""
    include = bool(node.attr("count_include_pad", 0))
    return average_pool(jnp.asarray(x), _window(node, x), include_padding=include)


@op("LpPool")
def lp_pool_op(node: Node, x: Any) -> Any:
    """LpPool."""
    return lp_pool(jnp.asarray(x), _window(node, x), int(node.attr("p", 2)))


@op("GlobalAveragePool")
def global_average_pool(node: Node, x: Any) -> Any:
    """GlobalAveragePool."""
    total = jnp.mean(x, axis=_spatial_axes(x), keepdims=True, dtype=accumulator(x.dtype))
    return total.astype(x.dtype)


@op("GlobalMaxPool")
def global_max_pool(node: Node, x: Any) -> Any:
    """GlobalMaxPool."""
    return jnp.max(x, axis=_spatial_axes(x), keepdims=True)


@op("GlobalLpPool")
def global_lp_pool(node: Node, x: Any) -> Any:
    """GlobalLpPool."""
    p = int(node.attr("p", 2))
    acc = accumulator(x.dtype)
    size = jnp.abs(jnp.asarray(x).astype(acc)) ** p
    total = jnp.sum(size, axis=_spatial_axes(x), keepdims=True)
    return (total ** np.array(1.0 / p, acc)).astype(x.dtype)


@op("MaxUnpool", 9)
def max_unpool(node: Node, x: Any, indices: Any, output_shape: Any = None) -> Any:
    """MaxUnpool: put each value back at its flat index, zeros elsewhere.

    The indices count in the smallest output; a larger ``output_shape`` adds zeros at the ends.
    """
    window = node_window(node, tuple(x.shape[2:]), tuple(node.attr("kernel_shape")))
    rows = zip(x.shape[2:], window.strides, window.kernel, window.padding, strict=True)
    inferred = [(n - 1) * s + k - low - high for n, s, k, (low, high) in rows]
    shape = (*x.shape[:2], *inferred)
    flat = jnp.zeros(int(np.prod(shape)), x.dtype)
    flat = flat.at[jnp.ravel(indices)].set(jnp.ravel(x))
    if output_shape is None:
        return jnp.reshape(flat, shape)
    wanted = tuple(int(v) for v in node.concrete(output_shape, "output shape"))
    missing = [want - have for want, have in zip(wanted, shape, strict=True)]
    if min(missing) < 0:
        raise node.refuse(f"its output shape {wanted} is smaller than the inferred {shape}")
    return jnp.pad(jnp.reshape(flat, shape), [(0, extra) for extra in missing])
