"""Regions of images: RoiAlign, MaxRoiPool, NonMaxSuppression."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from pai.frontends.lowering.sampling import read_pixels
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.ops.nn_common import text
from pai.frontends.onnx.registry import op


def _corners(at: Any, n: int) -> list[tuple[Any, Any]]:
    """Return (index, weight) of the two pixels around positions clamped to the image."""
    at = jnp.clip(at, 0, n - 1)
    low = jnp.floor(at)
    frac = at - low
    index = low.astype(np.int32)
    return [(index, 1 - frac), (jnp.minimum(index + 1, n - 1), frac)]


def _sample_points(start: Any, size: Any, bins: int, ratio: int) -> Any:
    """Return (rois, bins * ratio) positions, ``ratio`` of them evenly inside each bin."""
    steps = (np.arange(bins * ratio) + 0.5) / ratio
    return start[:, None] + (size / bins)[:, None] * steps.astype(start.dtype)


@op("RoiAlign", 10)
def roi_align(node: Node, x: Any, rois: Any, batch: Any) -> Any:
    """RoiAlign with a stated sampling ratio, or with regions that are known."""
    ratio = int(node.attr("sampling_ratio", 0))
    mode = text(node, "coordinate_transformation_mode", "half_pixel")
    half_pixel = node.version >= 16 and mode == "half_pixel"
    scale = float(node.attr("spatial_scale", 1.0))
    bins = (int(node.attr("output_height", 1)), int(node.attr("output_width", 1)))
    corners = jnp.asarray(rois) * np.array(scale, x.dtype) - (0.5 if half_pixel else 0.0)
    start = corners[:, 1::-1]
    size = corners[:, 3:1:-1] - start
    if not half_pixel:
        size = jnp.maximum(size, 1.0)
    if ratio <= 0:
        known = node.concrete(rois, "regions (with an adaptive sampling ratio)")
        return _adaptive(node, x, known, batch, start, size, bins)
    return _align(node, x, batch, start, size, bins, (ratio, ratio))


def _adaptive(
    node: Node, x: Any, rois: Any, batch: Any, start: Any, size: Any, bins: tuple[int, int]
) -> Any:
    """Align each region with as many samples per bin as the bin is pixels wide."""
    extents = (rois[:, 3:1:-1] - rois[:, 1::-1]) * float(node.attr("spatial_scale", 1.0))
    if node.version < 16 or text(node, "coordinate_transformation_mode") == "output_half_pixel":
        extents = np.maximum(extents, 1.0)
    parts = []
    for i in range(len(rois)):
        ratio = tuple(int(np.ceil(e / b)) for e, b in zip(extents[i], bins, strict=True))
        at = slice(i, i + 1)
        if min(ratio) <= 0:
            parts.append(jnp.zeros((1, x.shape[1], *bins), x.dtype))
            continue
        parts.append(_align(node, x, batch[at], start[at], size[at], bins, ratio))
    return jnp.concatenate(parts)


def _align(
    node: Node,
    x: Any,
    batch: Any,
    start: Any,
    size: Any,
    bins: tuple[int, int],
    ratio: tuple[int, ...],
) -> Any:
    """Pool bilinear samples of regions: (rois, channels, *bins)."""
    points = [_sample_points(start[:, a], size[:, a], bins[a], ratio[a]) for a in range(2)]
    inside = [(p >= -1.0) & (p <= n) for p, n in zip(points, x.shape[2:], strict=True)]
    image = jnp.asarray(x).at[batch].get(mode="clip")
    grid = (len(points[0]), bins[0] * ratio[0], bins[1] * ratio[1])
    mask = jnp.broadcast_to(inside[0][:, :, None] & inside[1][:, None, :], grid)
    terms = []
    for row, row_weight in _corners(points[0], x.shape[2]):
        for column, column_weight in _corners(points[1], x.shape[3]):
            index = [
                jnp.broadcast_to(v, grid).reshape(grid[0], -1)
                for v in (row[:, :, None], column[:, None, :])
            ]
            weight = row_weight[:, :, None] * column_weight[:, None, :]
            weight = jnp.where(mask, weight, 0).reshape(grid[0], 1, -1)
            terms.append(read_pixels(image, index) * weight.astype(x.dtype))
    split = (grid[0], x.shape[1], bins[0], ratio[0], bins[1], ratio[1])
    if text(node, "mode", "avg") == "max":
        top = jnp.max(jnp.stack(terms), axis=0)
        return jnp.max(jnp.reshape(top, split), axis=(3, 5))
    return jnp.mean(jnp.reshape(sum(terms), split), axis=(3, 5)).astype(x.dtype)


@op("MaxRoiPool")
def max_roi_pool(node: Node, x: Any, rois: Any) -> Any:
    """MaxRoiPool: bin edges are rounded to pixels; empty bins give zero."""
    bins = [int(v) for v in node.attr("pooled_shape")]
    scaled = jnp.asarray(rois)[:, 1:] * np.array(node.attr("spatial_scale", 1.0), x.dtype)
    corners = jnp.floor(scaled + 0.5)
    y = jnp.asarray(x).at[jnp.asarray(rois)[:, 0].astype(np.int32)].get(mode="clip")
    empty: Any = None
    for axis, (first, last) in enumerate(((1, 3), (0, 2))):
        n = x.shape[2 + axis]
        start = corners[:, first, None]
        size = jnp.maximum(corners[:, last, None] - start + 1, 1) / bins[axis]
        number = np.arange(bins[axis], dtype=x.dtype)
        low = jnp.clip(jnp.floor(number * size) + start, 0, n)[:, :, None]
        high = jnp.clip(jnp.ceil((number + 1) * size) + start, 0, n)[:, :, None]
        pixel = np.arange(n, dtype=x.dtype)
        member = (pixel >= low) & (pixel < high)
        shape = (member.shape[0], 1, *((bins[0], 1) if axis == 0 else (1, bins[1])))
        nothing = jnp.reshape(~member.any(axis=2), shape)
        empty = nothing if empty is None else empty | nothing
        y = _masked_max(y, member, 2 + axis)
    return jnp.where(empty, np.zeros((), x.dtype), y)


def _masked_max(y: Any, member: Any, axis: int) -> Any:
    """Replace dimension ``axis`` of ``y`` by the maxima over the member sets (rois, bins, n)."""
    lowest = np.array(-np.inf, y.dtype)
    moved = jnp.moveaxis(y, axis, -1)[..., None, :]
    allowed = jnp.expand_dims(member, tuple(range(1, moved.ndim - 2)))
    top = jnp.max(jnp.where(allowed, moved, lowest), axis=-1)
    return jnp.moveaxis(top, -1, axis)


def _overlaps(boxes: np.ndarray, *, centred: bool) -> np.ndarray:
    """Return intersection over union of every pair of boxes (n, 4)."""
    wide = boxes.astype(np.float32)
    if centred:
        half = wide[:, 2:] / 2
        low, high = wide[:, :2] - half, wide[:, :2] + half
    else:
        low, high = np.minimum(wide[:, :2], wide[:, 2:]), np.maximum(wide[:, :2], wide[:, 2:])
    side = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    common = np.clip(side, 0, None).prod(axis=-1)
    area = (high - low).prod(axis=-1)
    union = area[:, None] + area[None] - common
    valid = (common > 0) & (union > 0) & (area[:, None] > 0) & (area[None] > 0)
    return np.where(valid, common / np.where(valid, union, 1), 0.0)


@op("NonMaxSuppression", 10)
def non_max_suppression(
    node: Node,
    boxes: Any,
    scores: Any,
    most: Any = None,
    overlap: Any = None,
    threshold: Any = None,
) -> Any:
    """NonMaxSuppression of known boxes: how many are selected is a shape."""
    boxes = node.concrete(boxes, "boxes (how many are kept)")
    scores = node.concrete(scores, "scores (how many are kept)")

    def scalar(value: Any, what: str) -> float | None:
        if value is None or np.size(value) == 0:
            return None
        return float(node.concrete(value, what).reshape(-1)[0])

    limit = int(scalar(most, "most boxes per class") or 0)
    bound = scalar(overlap, "overlap threshold") or 0.0
    least = scalar(threshold, "score threshold")
    selected = []
    for batch in range(boxes.shape[0]):
        shared = _overlaps(boxes[batch], centred=bool(node.attr("center_point_box", 0)))
        for kind in range(scores.shape[1]):
            row = scores[batch, kind]
            kept: list[int] = []
            for box in np.argsort(-row, kind="stable"):
                if len(kept) >= limit or (least is not None and row[box] <= least):
                    break
                if all(shared[box, other] <= bound for other in kept):
                    kept.append(int(box))
            selected += [(batch, kind, box) for box in kept]
    return np.array(selected, np.int64).reshape(-1, 3)
