"""Resize, Upsample, GridSample and AffineGrid."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from pai.frontends.lowering import sampling
from pai.frontends.lowering.resize import Coordinates, resize_axis, working_type
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.ops.nn_common import text
from pai.frontends.onnx.registry import op


def _cast_back(y: Any, dtype: Any) -> Any:
    """Return ``y`` as ``dtype``; integers truncate and saturate."""
    if jnp.issubdtype(dtype, jnp.integer) and jnp.issubdtype(y.dtype, jnp.floating):
        kind = jnp.iinfo(dtype)
        y = jnp.clip(y, float(kind.min), float(kind.max))
    return y.astype(dtype)


def _extents(
    node: Node, shape: tuple[int, ...], axes: list[int], scales: Any, sizes: Any
) -> list[tuple[int, float]]:
    """Return (output size, scale) per axis of ``axes``."""
    if sizes is not None and np.size(sizes):
        wanted = [int(v) for v in node.concrete(sizes, "output sizes")]
        ratios = [w / shape[a] for w, a in zip(wanted, axes, strict=True)]
        policy = text(node, "keep_aspect_ratio_policy", "stretch")
        if policy == "stretch":
            return list(zip(wanted, ratios, strict=True))
        ratio = min(ratios) if policy == "not_larger" else max(ratios)
        return [(int(ratio * shape[a] + 0.5), ratio) for a in axes]
    if scales is None:
        raise node.refuse("it has neither scales nor sizes")
    factors = [float(v) for v in node.concrete(scales, "scales")]
    return [(int(np.floor(shape[a] * f)), f) for a, f in zip(axes, factors, strict=True)]


def _resize(
    node: Node,
    x: Any,
    scales: Any,
    sizes: Any,
    *,
    roi: Any = None,
    coordinates: Coordinates,
    rounding: str,
) -> Any:
    """Resize every listed axis in turn."""
    rank = np.ndim(x)
    axes = [a % rank for a in (node.attr("axes") or range(rank))]
    mode = text(node, "mode", "nearest")
    region = None
    if coordinates.mode == "tf_crop_and_resize":
        region = node.concrete(roi, "region of interest").astype(np.float64)
    y = jnp.asarray(x).astype(working_type(x.dtype, mode))
    for i, (out, scale) in enumerate(_extents(node, x.shape, axes, scales, sizes)):
        crop = None
        if region is not None:
            crop = (float(region[i]), float(region[len(axes) + i]))
        if out == x.shape[axes[i]] and scale == 1.0 and crop in (None, (0.0, 1.0)):
            continue
        y = resize_axis(
            y,
            axes[i],
            out,
            scale,
            mode="linear" if mode in ("linear", "bilinear") else mode,
            coordinates=coordinates,
            rounding=rounding,
            a=float(node.attr("cubic_coeff_a", -0.75)),
            antialias=bool(node.attr("antialias", 0)),
            exclude_outside=bool(node.attr("exclude_outside", 0)),
            roi=crop,
        )
    return _cast_back(y, x.dtype)


@op("Resize", 11)
def resize(node: Node, x: Any, roi: Any = None, scales: Any = None, sizes: Any = None) -> Any:
    """Resize with every coordinate mapping; scales and sizes must be known."""
    coordinates = Coordinates(
        text(node, "coordinate_transformation_mode", "half_pixel"),
        float(node.attr("extrapolation_value", 0.0)),
    )
    return _resize(
        node,
        x,
        scales,
        sizes,
        roi=roi,
        coordinates=coordinates,
        rounding=text(node, "nearest_mode", "round_prefer_floor"),
    )


@op("Resize", 10)
@op("Upsample", 9)
def resize_simple(node: Node, x: Any, scales: Any) -> Any:
    """Resize of opset 10 and Upsample: positions are divided by the scale."""
    return _resize(node, x, scales, None, coordinates=Coordinates("asymmetric"), rounding="simple")


@op("Upsample", 7)
def upsample(node: Node, x: Any) -> Any:
    """Upsample with its scales in an attribute."""
    scales = np.asarray(node.attr("scales"), np.float64)
    return resize_simple(node, x, scales)


@op("GridSample", 16)
def grid_sample(node: Node, x: Any, grid: Any) -> Any:
    """GridSample for any number of spatial dimensions."""
    mode = text(node, "mode", "linear")
    return sampling.grid_sample(
        jnp.asarray(x),
        jnp.asarray(grid),
        mode={"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode),
        padding=text(node, "padding_mode", "zeros"),
        align_corners=bool(node.attr("align_corners", 0)),
    )


@op("AffineGrid", 20)
def affine_grid(node: Node, theta: Any, size: Any) -> Any:
    """AffineGrid; the size must be known."""
    sizes = [int(v) for v in node.concrete(size, "output size")]
    return sampling.affine_grid(theta, sizes[2:], align_corners=bool(node.attr("align_corners", 0)))
