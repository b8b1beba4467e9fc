"""Convolution operators: Conv, ConvTranspose, their integer forms, DeformConv, Col2Im."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax, nn

from pai.frontends.lowering.convolution import convolve, convolve_transposed
from pai.frontends.lowering.sampling import sample_linear
from pai.frontends.lowering.window import same_padding
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.ops.nn_common import (
    centred,
    node_window,
    per_channel,
    quantize,
    text,
)
from pai.frontends.onnx.registry import op


def run_convolution(node: Node, x: Any, w: Any, bias: Any = None) -> Any:
    """Convolve as the attributes of ``node`` say."""
    window = node_window(node, tuple(x.shape[2:]), tuple(w.shape[2:]))
    return convolve(
        x,
        w,
        bias,
        strides=window.strides,
        padding=window.padding,
        dilations=window.dilations,
        groups=node.attr("group", 1),
    )


@op("Conv")
def conv(node: Node, x: Any, w: Any, bias: Any = None) -> Any:
    """Conv."""
    return run_convolution(node, x, w, bias)


@op("ConvTranspose")
def conv_transpose(node: Node, x: Any, w: Any, bias: Any = None) -> Any:
    """ConvTranspose."""
    spatial, kernel = x.shape[2:], w.shape[2:]
    rank = len(spatial)
    strides = list(node.attr("strides") or [1] * rank)
    dilations = list(node.attr("dilations") or [1] * rank)
    extra = list(node.attr("output_padding") or [0] * rank)
    return convolve_transposed(
        x,
        w,
        bias,
        strides=strides,
        padding=_transposed_padding(node, spatial, kernel, strides, dilations, extra),
        dilations=dilations,
        output_padding=extra,
        groups=node.attr("group", 1),
    )


def _transposed_padding(
    node: Node,
    spatial: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: list[int],
    dilations: list[int],
    extra: list[int],
) -> list[tuple[int, int]]:
    """Return (low, high) cropping: from ``pads``, or what gives the stated output size."""
    rank = len(spatial)
    auto_pad = text(node, "auto_pad", "NOTSET")
    wanted = list(node.attr("output_shape") or [])[-rank:]
    if not wanted and auto_pad in ("NOTSET", "VALID"):
        flat = list(node.attr("pads") or [0] * 2 * rank) if auto_pad == "NOTSET" else [0] * 2 * rank
        return [(flat[i], flat[rank + i]) for i in range(rank)]
    padding = []
    for i in range(rank):
        goal = wanted[i] if wanted else spatial[i] * strides[i]
        span = (kernel[i] - 1) * dilations[i] + 1
        total = strides[i] * (spatial[i] - 1) + extra[i] + span - goal
        if total < 0:
            padding.append((0, total))
        else:
            padding.append(same_padding(total, extra_low=auto_pad != "SAME_UPPER"))
    return padding


@op("ConvInteger", 10)
def conv_integer(node: Node, x: Any, w: Any, x_zero: Any = None, w_zero: Any = None) -> Any:
    """ConvInteger: exact in int32."""
    return run_convolution(node, centred(x, x_zero), centred(w, w_zero, axis=0))


@op("QLinearConv", 10)
def qlinear_conv(
    node: Node,
    x: Any,
    x_scale: Any,
    x_zero: Any,
    w: Any,
    w_scale: Any,
    w_zero: Any,
    y_scale: Any,
    y_zero: Any,
    bias: Any = None,
) -> Any:
    """QLinearConv: exact in int32, then requantized; the bias is int32 at x_scale·w_scale."""
    total = run_convolution(node, centred(x, x_zero), centred(w, w_zero, axis=0), bias)
    rank = total.ndim
    scale = per_channel(x_scale, rank) * per_channel(w_scale, rank)
    return quantize(total.astype(np.float32) * scale, y_scale, jnp.asarray(y_zero))


@op("CausalConvWithState", 27)
def causal_conv_with_state(
    node: Node, x: Any, w: Any, bias: Any = None, past: Any = None
) -> tuple[Any, Any]:
    """CausalConvWithState: a depthwise convolution that looks back ``k - 1`` steps."""
    taps = w.shape[2]
    if past is None:
        past = np.zeros((*x.shape[:2], taps - 1), x.dtype)
    padded = jnp.concatenate([past, x], axis=2)
    y = convolve(
        padded,
        w,
        bias,
        strides=(1,),
        padding=((0, 0),),
        dilations=(1,),
        groups=x.shape[1],
    )
    if text(node, "activation", "none") in ("silu", "swish"):
        wide = y.astype(np.float32)
        y = (wide * nn.sigmoid(wide)).astype(x.dtype)
    return y, padded[:, :, padded.shape[2] - (taps - 1) :]


@op("DeformConv", 19)
def deform_conv(node: Node, x: Any, w: Any, offset: Any, bias: Any = None, mask: Any = None) -> Any:
    """DeformConv: bilinear samples at shifted taps, then one matrix product per group."""
    spatial, kernel = tuple(x.shape[2:]), tuple(w.shape[2:])
    window = node_window(node, spatial, kernel)
    out = window.output_shape(spatial)
    rank, taps, size = len(kernel), int(np.prod(kernel)), int(np.prod(out))
    groups, offset_groups = node.attr("group", 1), node.attr("offset_group", 1)
    batch, channels = x.shape[:2]
    grid = np.zeros((rank, taps, size), np.float32)
    tap = np.stack(np.unravel_index(np.arange(taps), kernel))
    place = np.stack(np.unravel_index(np.arange(size), out))
    for axis in range(rank):
        starts = place[axis] * window.strides[axis] - window.padding[axis][0]
        grid[axis] = starts[None, :] + (tap[axis] * window.dilations[axis])[:, None]
    shift = jnp.reshape(offset, (batch * offset_groups, taps, rank, size))
    where = jnp.moveaxis(shift, 2, 0) + grid[:, None].astype(x.dtype)
    image = jnp.reshape(x, (batch * offset_groups, channels // offset_groups, *spatial))
    columns = sample_linear(image, jnp.reshape(where, (rank, -1, taps * size)))
    columns = jnp.reshape(columns, (batch, offset_groups, -1, taps, size))
    if mask is not None:
        columns = columns * jnp.reshape(mask, (batch, offset_groups, 1, taps, size))
    columns = jnp.reshape(columns, (batch, groups, channels // groups * taps, size))
    kernels = jnp.reshape(w, (groups, w.shape[0] // groups, -1))
    y = jnp.einsum("gok,bgks->bgos", kernels, columns)
    y = jnp.reshape(y, (batch, w.shape[0], *out))
    return y if bias is None else y + per_channel(bias, y.ndim)


@op("Col2Im", 18)
def col2im(node: Node, columns: Any, image_shape: Any, block_shape: Any) -> Any:
    """Col2Im: add each tap's column back at its strided place."""
    spatial = tuple(int(v) for v in node.concrete(image_shape, "image shape"))
    kernel = tuple(int(v) for v in node.concrete(block_shape, "block shape"))
    window = node_window(node, spatial, kernel)
    out = window.output_shape(spatial)
    taps = int(np.prod(kernel))
    batch = columns.shape[0]
    channels = columns.shape[1] // taps
    blocks = jnp.reshape(columns, (batch, channels, taps, *out))
    total: Any = None
    for number, tap in enumerate(np.ndindex(*kernel)):
        config = [(0, 0, 0), (0, 0, 0)]
        for axis, at in enumerate(tap):
            low = at * window.dilations[axis] - window.padding[axis][0]
            reach = (out[axis] - 1) * window.strides[axis] + 1
            config.append((low, spatial[axis] - low - reach, window.strides[axis] - 1))
        placed = lax.pad(blocks[:, :, number], np.zeros((), columns.dtype), config)
        total = placed if total is None else total + placed
    return total
