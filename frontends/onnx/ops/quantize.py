"""Quantization, dequantization, and integer matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax import numpy as jnp

from pai.frontends.onnx.node import Node
from pai.frontends.onnx.quantization import dequantize, quantize, spread, widened
from pai.frontends.onnx.registry import op
from pai.frontends.onnx.tensors import numpy_dtype


@op("QuantizeLinear", 10)
def quantize_linear(node: Node, x: Any, scale: Any, zero: Any = None) -> Any:
    """Quantize per tensor, per axis or per block."""
    dtype = np.dtype(np.uint8) if zero is None else np.dtype(zero.dtype)
    if node.attr("output_dtype", 0):
        dtype = numpy_dtype(node.attributes["output_dtype"])
    precision = numpy_dtype(node.attributes["precision"]) if node.attr("precision", 0) else None
    axis, block = node.attr("axis", 1), node.attr("block_size", 0)
    step = _spread(scale, x, axis, block)
    offset = None if zero is None else _spread(zero, x, axis, block)
    return quantize(x, step, offset, dtype, precision, saturate=bool(node.attr("saturate", 1)))


def _spread(value: Any, x: Any, axis: int, block: int) -> Any:
    return spread(value, x.shape, axis if -x.ndim <= axis < x.ndim else 0, block)


@op("DequantizeLinear", 10)
def dequantize_linear(node: Node, x: Any, scale: Any, zero: Any = None) -> Any:
    """Dequantize per tensor, per axis or per block."""
    dtype = np.dtype(scale.dtype)
    if node.attr("output_dtype", 0):
        dtype = numpy_dtype(node.attributes["output_dtype"])
    axis, block = node.attr("axis", 1), node.attr("block_size", 0)
    offset = None if zero is None else _spread(zero, x, axis, block)
    return dequantize(x, _spread(scale, x, axis, block), offset, dtype)


@op("DynamicQuantizeLinear", 11)
def dynamic_quantize_linear(_node: Node, x: Any) -> Any:
    """Quantize to uint8 over the value's own range, zero included; gives scale and zero point."""
    low = jnp.minimum(jnp.min(x), 0)
    high = jnp.maximum(jnp.max(x), 0)
    scale = jnp.where(high == low, jnp.ones_like(high), (high - low) / 255)
    zero = jnp.clip(jnp.round(-low / scale), 0, 255).astype(jnp.uint8)
    return quantize(x, scale, zero, np.dtype(np.uint8)), scale, zero


def _rows(zero: Any) -> Any:
    """Return a per-row zero point or scale as a column."""
    return zero[:, None] if zero.ndim == 1 and zero.shape[0] > 1 else zero


def _integers(a: Any, b: Any, a_zero: Any, b_zero: Any) -> Any:
    left, right = widened(a), widened(b)
    if a_zero is not None:
        left = left - widened(_rows(a_zero))
    if b_zero is not None:
        right = right - widened(b_zero)
    return jnp.matmul(left, right)


@op("MatMulInteger", 10)
def matmul_integer(_node: Node, a: Any, b: Any, a_zero: Any = None, b_zero: Any = None) -> Any:
    """Product of integer matrices less their zero points, in int32."""
    return _integers(a, b, a_zero, b_zero)


@op("QLinearMatMul", 10)
def qlinear_matmul(
    _node: Node,
    a: Any,
    a_scale: Any,
    a_zero: Any,
    b: Any,
    b_scale: Any,
    b_zero: Any,
    y_scale: Any,
    y_zero: Any,
) -> Any:
    """Product of quantized matrices, quantized again; accumulated in int32."""
    total = _integers(a, b, a_zero, b_zero)
    step = _rows(a_scale).astype(jnp.float32) * b_scale.astype(jnp.float32)
    value = total.astype(jnp.float32) * step
    return quantize(value, y_scale.astype(jnp.float32), y_zero, np.dtype(y_zero.dtype))
