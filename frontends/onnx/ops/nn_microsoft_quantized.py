"""Quantized operators of com.microsoft: exact in int32, rounded once at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pai.frontends.lowering import rnn
from pai.frontends.lowering.pooling import average_pool
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.ops.microsoft import MICROSOFT, standard
from pai.frontends.onnx.ops.nn_common import centred, dequantize, node_window, quantize
from pai.frontends.onnx.ops.rnn import run_recurrent
from pai.frontends.onnx.registry import op


def _requantize(value: Any, scale: Any, zero: Any, dtype: Any) -> Any:
    """Quantize to ``dtype``; a missing zero point is zero."""
    point = jnp.zeros((), dtype) if zero is None else jnp.asarray(zero)
    return quantize(value, scale, point, axis=-1)


def dynamic_quantize(x: Any) -> tuple[Any, Any]:
    """Quantize a whole tensor to uint8 over its own range with zero in it.

    Returns:
        The quantized values less their zero point, as int32, and the scale.
    """
    low, high = jnp.minimum(jnp.min(x), 0), jnp.maximum(jnp.max(x), 0)
    flat = high == low
    scale = jnp.where(flat, np.ones((), x.dtype), (high - low) / np.array(255, x.dtype))
    zero = jnp.round(jnp.clip(-low / scale, 0, 255))
    steps = jnp.clip(jnp.round(x / scale) + zero, 0, 255)
    return (steps - zero).astype(np.int32), scale


def integer_matmul(a: Any, b: Any) -> Any:
    """Multiply int32 matrices exactly."""
    return jnp.matmul(a, b, preferred_element_type=np.int32)


def _columns(value: Any) -> Any:
    """Return a per-tensor value as a scalar, or a per-column one as it is."""
    return jnp.reshape(value, ()) if np.size(value) == 1 else value


def _weights(w: Any, zero: Any) -> Any:
    wide = w.astype(np.int32)
    return wide if zero is None else wide - _columns(zero).astype(np.int32)


@op("DynamicQuantizeMatMul", 1, MICROSOFT)
def dynamic_quantize_matmul(
    node: Node, a: Any, b: Any, b_scale: Any, b_zero: Any = None, bias: Any = None
) -> Any:
    """DynamicQuantizeMatMul: ``a`` is quantized on the fly."""
    steps, a_scale = dynamic_quantize(a)
    y = integer_matmul(steps, _weights(b, b_zero)).astype(a.dtype) * (a_scale * _columns(b_scale))
    return y if bias is None else y + bias


@op("MatMulIntegerToFloat", 1, MICROSOFT)
def matmul_integer_to_float(
    node: Node,
    a: Any,
    b: Any,
    a_scale: Any,
    b_scale: Any,
    a_zero: Any = None,
    b_zero: Any = None,
    bias: Any = None,
) -> Any:
    """MatMulIntegerToFloat: an integer product, scaled."""
    total = integer_matmul(_weights(a, a_zero), _weights(b, b_zero))
    y = total.astype(b_scale.dtype) * (_columns(a_scale) * _columns(b_scale))
    return y if bias is None else y + bias


@op("QGemm", 1, MICROSOFT)
def qgemm(
    node: Node,
    a: Any,
    a_scale: Any,
    a_zero: Any,
    b: Any,
    b_scale: Any,
    b_zero: Any,
    c: Any = None,
    y_scale: Any = None,
    y_zero: Any = None,
) -> Any:
    """QGemm: an integer product with an int32 addend, scaled and perhaps quantized."""
    left = _weights(a, a_zero)
    left = left.T if node.attr("transA", 0) else left
    wide = b.astype(np.int32)
    right = (wide.T if node.attr("transB", 0) else wide) - _columns(b_zero).astype(np.int32)
    total = integer_matmul(left, right)
    total = total if c is None else total + c
    scale = float(node.attr("alpha", 1.0)) * _columns(a_scale) * _columns(b_scale)
    y = (total.astype(np.float32) * scale).astype(np.float32)
    return y if y_scale is None else _requantize(y, y_scale, y_zero, a.dtype)


def unpack_bits(packed: Any, bits: int) -> Any:
    """Split each byte of the last dimension into ``8 / bits`` values, low bits first."""
    if bits == 8:
        return packed
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts = (packed[..., None] >> shifts) & np.uint8(2**bits - 1)
    return jnp.reshape(parts, (*packed.shape[:-1], -1))


@op("MatMulNBits", 1, MICROSOFT)
def matmul_nbits(
    node: Node,
    a: Any,
    b: Any,
    scales: Any,
    zeros: Any = None,
    groups: Any = None,
    bias: Any = None,
) -> Any:
    """MatMulNBits: weights of 2, 4 or 8 bits, scaled per block, in the precision of ``a``."""
    if groups is not None or node.attr("weight_prepacked", 0):
        raise node.refuse("group indices and weights packed for one device are not supported")
    bits, rows, depth = (int(node.attr(k, 4)) for k in ("bits", "N", "K"))
    blocks = -(-depth // int(node.attr("block_size")))
    values = unpack_bits(jnp.reshape(b, (rows, blocks, -1)), bits).astype(a.dtype)
    if zeros is None:
        offset: Any = np.array(2 ** (bits - 1), a.dtype)
    elif zeros.dtype == np.uint8:
        unpacked = unpack_bits(jnp.reshape(zeros, (rows, -1)), bits)
        offset = unpacked[:, :blocks, None].astype(a.dtype)
    else:
        offset = jnp.reshape(zeros, (rows, blocks, 1)).astype(a.dtype)
    weights = (values - offset) * jnp.reshape(scales, (rows, blocks, 1))
    y = rnn.project(a, jnp.reshape(weights, (rows, -1))[:, :depth])
    return y if bias is None else y + bias


@op("QLinearAdd", 1, MICROSOFT)
def qlinear_add(
    node: Node,
    a: Any,
    a_scale: Any,
    a_zero: Any,
    b: Any,
    b_scale: Any,
    b_zero: Any,
    c_scale: Any,
    c_zero: Any = None,
) -> Any:
    """QLinearAdd."""
    total = dequantize(a, a_scale, a_zero) + dequantize(b, b_scale, b_zero)
    return _requantize(total, c_scale, c_zero, a.dtype)


@op("QLinearMul", 1, MICROSOFT)
def qlinear_mul(
    node: Node,
    a: Any,
    a_scale: Any,
    a_zero: Any,
    b: Any,
    b_scale: Any,
    b_zero: Any,
    c_scale: Any,
    c_zero: Any = None,
) -> Any:
    """QLinearMul."""
    total = (centred(a, a_zero) * centred(b, b_zero)).astype(np.float32)
    return _requantize(total * (a_scale * b_scale), c_scale, c_zero, a.dtype)


def _through(
    function: Callable[[Any], Any], x: Any, x_scale: Any, x_zero: Any, y_scale: Any, y_zero: Any
) -> Any:
    """Apply a float function to a quantized tensor."""
    y = function(dequantize(x, x_scale, x_zero))
    return _requantize(y, y_scale, y_zero, x.dtype)


@op("QLinearSigmoid", 1, MICROSOFT)
def qlinear_sigmoid(node: Node, x: Any, *quantization: Any) -> Any:
    """QLinearSigmoid."""
    return _through(jax.nn.sigmoid, x, *_five(quantization))


@op("QLinearLeakyRelu", 1, MICROSOFT)
def qlinear_leaky_relu(node: Node, x: Any, *quantization: Any) -> Any:
    """QLinearLeakyRelu."""
    alpha = np.float32(node.attr("alpha", 0.01))
    return _through(lambda v: jnp.where(v >= 0, v, v * alpha), x, *_five(quantization))


@op("QLinearSoftmax", 1, MICROSOFT)
def qlinear_softmax(node: Node, x: Any, *quantization: Any) -> Any:
    """QLinearSoftmax of the standard softmax's version ``opset``."""

    def softmax(value: Any) -> Any:
        return standard(node, "Softmax", int(node.attr("opset", 13)), value)

    return _through(softmax, x, *_five(quantization))


@op("QLinearReduceMean", 1, MICROSOFT)
def qlinear_reduce_mean(node: Node, x: Any, *quantization: Any) -> Any:
    """QLinearReduceMean."""
    axes = tuple(node.attr("axes") or range(np.ndim(x)))
    keep = bool(node.attr("keepdims", 1))
    return _through(lambda v: jnp.mean(v, axis=axes, keepdims=keep), x, *_five(quantization))


def _five(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return (x scale, x zero, y scale, y zero) with a missing last one as None."""
    return (*values, None)[:4]


def _channels_first(node: Node, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    if not node.attr("channels_last", 0):
        return function
    return lambda v: jnp.moveaxis(function(jnp.moveaxis(v, -1, 1)), 1, -1)


@op("QLinearAveragePool", 1, MICROSOFT)
def qlinear_average_pool(node: Node, x: Any, *quantization: Any) -> Any:
    """QLinearAveragePool."""

    def pool(value: Any) -> Any:
        window = node_window(node, tuple(value.shape[2:]), tuple(node.attr("kernel_shape")))
        include = bool(node.attr("count_include_pad", 0))
        return average_pool(value, window, include_padding=include)

    return _through(_channels_first(node, pool), x, *_five(quantization))


@op("QLinearGlobalAveragePool", 1, MICROSOFT)
def qlinear_global_average_pool(node: Node, x: Any, *quantization: Any) -> Any:
    """QLinearGlobalAveragePool."""

    def pool(value: Any) -> Any:
        return jnp.mean(value, axis=tuple(range(2, value.ndim)), keepdims=True)

    return _through(_channels_first(node, pool), x, *_five(quantization))


@op("QLinearConcat", 1, MICROSOFT)
def qlinear_concat(node: Node, y_scale: Any, y_zero: Any, *parts: Any) -> Any:
    """QLinearConcat: every part is brought to the output's scale."""
    pieces = []
    for i in range(0, len(parts), 3):
        x, scale, zero = parts[i : i + 3]
        pieces.append(_requantize(dequantize(x, scale, zero), y_scale, y_zero, x.dtype))
    return jnp.concatenate(pieces, axis=node.attr("axis"))


@op("QLinearWhere", 1, MICROSOFT)
def qlinear_where(
    node: Node,
    condition: Any,
    x: Any,
    x_scale: Any,
    x_zero: Any,
    y: Any,
    y_scale: Any,
    y_zero: Any,
    z_scale: Any,
    z_zero: Any,
) -> Any:
    """QLinearWhere."""
    left = _requantize(dequantize(x, x_scale, x_zero), z_scale, z_zero, x.dtype)
    right = _requantize(dequantize(y, y_scale, y_zero), z_scale, z_zero, y.dtype)
    return jnp.where(condition, left, right)


@op("QLinearConv", 1, MICROSOFT)
def qlinear_conv(node: Node, x: Any, *rest: Any) -> Any:
    """QLinearConv with the channels first or last."""
    if not node.attr("channels_last", 0):
        return standard(node, "QLinearConv", 10, x, *rest)
    y = standard(node, "QLinearConv", 10, jnp.moveaxis(x, -1, 1), *rest)
    return jnp.moveaxis(y, 1, -1)


@op("DynamicQuantizeLSTM", 1, MICROSOFT)
def dynamic_quantize_lstm(
    node: Node,
    x: Any,
    w: Any,
    r: Any,
    bias: Any,
    lengths: Any,
    initial_h: Any,
    initial_c: Any,
    peepholes: Any,
    w_scale: Any,
    w_zero: Any,
    r_scale: Any,
    r_zero: Any,
) -> Any:
    """DynamicQuantizeLSTM: integer weights (directions, in, 4 * hidden).

    The whole input is quantized once, the hidden state at every step.
    """

    def product(value: Any, weights: Any, scale: Any, zero: Any, number: int) -> Any:
        steps, value_scale = dynamic_quantize(value)
        total = integer_matmul(steps, _weights(weights[number], zero[number]))
        return total.astype(value.dtype) * (value_scale * scale[number])

    def project_input(value: Any, number: int) -> Any:
        y = product(value, w, w_scale, w_zero, number)
        if bias is None:
            return y
        first, second = jnp.split(bias[number], 2)
        return y + (first + second)

    def make_step(number: int, functions: list[Any], states: tuple[Any, ...]) -> rnn.Step:
        clip = node.attr("clip")
        return rnn.lstm_step(
            lambda h: product(h, r, r_scale, r_zero, number),
            functions,
            peepholes=None if peepholes is None else peepholes[number],
            clip=float(clip) if clip else None,
            couple=bool(node.attr("input_forget", 0)),
        )

    return run_recurrent(
        node,
        x,
        project_input,
        make_step,
        hidden=r.shape[1],
        lengths=lengths,
        initial=[initial_h, initial_c],
        defaults=["Sigmoid", "Tanh", "Tanh"],
    )
