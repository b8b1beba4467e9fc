"""What the neural-network operator families share: attributes, windows, quantized arithmetic."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from pai.frontends.lowering.window import Window, make_window
from pai.frontends.onnx.node import Node


def text(node: Node, key: str, default: str = "") -> str:
    """Return a string attribute."""
    value = node.attr(key, default)
    return value.decode() if isinstance(value, bytes) else str(value)


def texts(node: Node, key: str, default: list[str]) -> list[str]:
    """Return an attribute that is a list of strings."""
    values = node.attr(key)
    if not values:
        return default
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def wants(node: Node, index: int) -> bool:
    """Tell whether output ``index`` is asked for."""
    return len(node.outputs) > index and bool(node.outputs[index])


def node_window(node: Node, spatial: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
    """Return the sliding window that the attributes of a convolution or pool describe."""
    return make_window(
        spatial,
        kernel,
        strides=node.attr("strides"),
        dilations=node.attr("dilations"),
        pads=node.attr("pads"),
        auto_pad=text(node, "auto_pad", "NOTSET"),
        ceil_mode=bool(node.attr("ceil_mode", 0)),
    )


def per_channel(value: Any, rank: int, axis: int = 1) -> Any:
    """Reshape a scalar or (channels,) value so that it broadcasts along ``axis`` of ``rank``."""
    if np.ndim(value) == 0 or np.size(value) == 1:
        return jnp.reshape(value, (1,) * rank)
    shape = [1] * rank
    shape[axis] = -1
    return jnp.reshape(value, shape)


def centred(value: Any, zero_point: Any, axis: int = 1) -> Any:
    """Return an integer tensor minus its zero point, as int32."""
    wide = value.astype(np.int32)
    if zero_point is None:
        return wide
    return wide - per_channel(jnp.asarray(zero_point).astype(np.int32), np.ndim(value), axis)


def quantize(value: Any, scale: Any, zero_point: Any, axis: int = 1) -> Any:
    """Return ``saturate(round_half_even(value / scale) + zero_point)`` of the zero point's type."""
    rank = np.ndim(value)
    kind = jnp.iinfo(zero_point.dtype)
    steps = jnp.round(value / per_channel(scale, rank, axis))
    shifted = steps + per_channel(zero_point, rank, axis).astype(steps.dtype)
    return jnp.clip(shifted, float(kind.min), float(kind.max)).astype(zero_point.dtype)


def dequantize(value: Any, scale: Any, zero_point: Any, axis: int = 1) -> Any:
    """Return ``(value - zero_point) * scale`` in the type of ``scale``."""
    steps = centred(value, zero_point, axis).astype(scale.dtype)
    return steps * per_channel(scale, np.ndim(value), axis)
