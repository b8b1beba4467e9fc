"""Slices, padding and cropping."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax import numpy as jnp

from pai.frontends.onnx.arrays import axis_of, ints, xp
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.registry import op


@op("Slice")
def slice_old(node: Node, x: Any) -> Any:
    """Cut a box; bounds are attributes."""
    return _slice(x, node.attr("starts"), node.attr("ends"), node.attr("axes"), None)


@op("Slice", 10)
def slice_box(
    node: Node, x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None
) -> Any:
    """Cut a box with steps; negative steps go backwards."""
    bounds = [
        None if value is None else ints(node.concrete(value, what))
        for value, what in ((starts, "starts"), (ends, "ends"), (axes, "axes"), (steps, "steps"))
    ]
    return _slice(x, *bounds)


def _slice(x: Any, starts: Any, ends: Any, axes: Any, steps: Any) -> Any:
    index: list[Any] = [slice(None)] * x.ndim
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        dim = axis_of(axis, x.ndim)
        size = x.shape[dim]
        low, high = (0, size) if step > 0 else (0, size - 1)
        first = int(np.clip(start + size if start < 0 else start, low, high))
        low, high = (0, size) if step > 0 else (-1, size)
        last = int(np.clip(end + size if end < 0 else end, low, high))
        index[dim] = slice(first, None if last < 0 else last, step)
    return x[tuple(index)]


_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


@op("Pad")
def pad_old(node: Node, x: Any) -> Any:
    """Pad; widths are an attribute."""
    widths = node.attr("pads", node.attr("paddings"))
    return _pad(node, x, list(widths), node.attr("value", 0.0), list(range(x.ndim)))


@op("Pad", 11)
def pad(node: Node, x: Any, pads: Any, value: Any = None, axes: Any = None) -> Any:
    """Pad with a value, the edge, a reflection or by wrapping; negative widths crop."""
    chosen = list(range(x.ndim)) if axes is None else ints(node.concrete(axes, "axes"))
    widths = ints(node.concrete(pads, "pads"))
    return _pad(node, x, widths, 0 if value is None else value, chosen)


def _pad(node: Node, x: Any, widths: list[int], value: Any, axes: list[int]) -> Any:
    pairs = [(0, 0)] * x.ndim
    for i, axis in enumerate(axes):
        pairs[axis_of(axis, x.ndim)] = (widths[i], widths[i + len(axes)])
    crop = tuple(
        slice(max(-low, 0), size - max(-high, 0))
        for (low, high), size in zip(pairs, x.shape, strict=True)
    )
    x = x[crop]
    grow = [(max(low, 0), max(high, 0)) for low, high in pairs]
    mode = node.attr("mode", "constant")
    if mode != "constant":
        return jnp.pad(x, grow, mode=_MODES[mode])
    fill = jnp.asarray(value).reshape(()).astype(x.dtype)
    return jnp.pad(x, grow, mode="constant", constant_values=fill)


@op("CenterCropPad")
def center_crop_pad(node: Node, x: Any, shape: Any) -> Any:
    """Crop or pad with zeros, around the centre, to the given sizes."""
    axes = node.attr("axes", list(range(x.ndim)))
    for axis, size in zip(axes, ints(node.concrete(shape, "shape")), strict=True):
        dim = axis_of(axis, x.ndim)
        extra = size - x.shape[dim]
        before = abs(extra) // 2
        if extra < 0:
            index: list[Any] = [slice(None)] * x.ndim
            index[dim] = slice(before, before + size)
            x = x[tuple(index)]
        elif extra > 0:
            pairs = [(0, 0)] * x.ndim
            pairs[dim] = (before, extra - before)
            x = xp(x).pad(x, pairs)
    return x
