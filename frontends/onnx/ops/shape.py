"""Shapes: reshape, transpose, concatenate, split, expand, tile, and asking for them."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from jax import numpy as jnp

from pai.frontends.onnx.arrays import CONCRETE_LIMIT, axis_of, ints, xp
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.registry import op


@op("Shape")
def shape_of(node: Node, x: Any) -> Any:
    """The dimensions from ``start`` to ``end``."""
    dims = x.shape[slice(node.attr("start", 0), node.attr("end"))]
    return np.asarray(dims, np.int64)


@op("Size")
def size_of(_node: Node, x: Any) -> Any:
    """The number of elements."""
    return np.asarray(prod(x.shape), np.int64)


@op("Identity")
def identity(_node: Node, x: Any) -> Any:
    """The value itself."""
    return x


@op("Reshape")
def reshape(node: Node, x: Any, shape: Any = None) -> Any:
    """Give new dimensions; 0 keeps one (unless ``allowzero``), -1 is worked out."""
    dims = list(node.attr("shape", ())) if shape is None else ints(node.concrete(shape, "shape"))
    if not node.attr("allowzero", 0):
        dims = [x.shape[i] if size == 0 else size for i, size in enumerate(dims)]
    if -1 in dims:
        rest = prod(size for size in dims if size != -1)
        dims[dims.index(-1)] = prod(x.shape) // rest if rest else 0
    if prod(dims) != prod(x.shape):
        raise node.refuse(
            f"a value of shape {list(x.shape)} cannot be reshaped to {dims}",
            "the model has another size built in: give other --shape sizes",
        )
    return xp(x).reshape(x, dims)


@op("Flatten")
def flatten(node: Node, x: Any) -> Any:
    """Two dimensions: those before the axis, and the rest."""
    axis = node.attr("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return xp(x).reshape(x, (prod(x.shape[:axis]), prod(x.shape[axis:])))


@op("Transpose")
def transpose(node: Node, x: Any) -> Any:
    """Permute dimensions; without ``perm``, reverse them."""
    return xp(x).transpose(x, node.attr("perm"))


def _given_axes(node: Node, axes: Any) -> list[int] | None:
    if axes is None:
        return node.attr("axes")
    return ints(node.concrete(axes, "axes"))


@op("Squeeze")
def squeeze(node: Node, x: Any, axes: Any = None) -> Any:
    """Drop dimensions of size one."""
    given = _given_axes(node, axes)
    if given is None:
        given = [i for i, size in enumerate(x.shape) if size == 1]
    return xp(x).squeeze(x, tuple(axis_of(axis, x.ndim) for axis in given))


@op("Unsqueeze")
def unsqueeze(node: Node, x: Any, axes: Any = None) -> Any:
    """Insert dimensions of size one."""
    return xp(x).expand_dims(x, tuple(_given_axes(node, axes) or ()))


@op("Concat")
def concat(node: Node, *values: Any) -> Any:
    """Join along an axis."""
    return xp(*values).concatenate(values, axis_of(node.attr("axis", 1), values[0].ndim))


@op("Split")
def split(node: Node, x: Any, sizes: Any = None) -> Any:
    """Cut along an axis, into given sizes or equal parts (the last may be smaller)."""
    axis = axis_of(node.attr("axis", 0), x.ndim)
    parts = node.attr("split") if sizes is None else ints(node.concrete(sizes, "split"))
    if parts is None:
        count = node.attr("num_outputs") or len(node.outputs)
        chunk = -(-x.shape[axis] // count)
        parts = [min(chunk, max(x.shape[axis] - i * chunk, 0)) for i in range(count)]
    if sum(parts) != x.shape[axis]:
        raise node.refuse(f"parts {parts} do not add up to dimension {x.shape[axis]}")
    return tuple(xp(x).split(x, np.cumsum(parts)[:-1].tolist(), axis))


@op("Expand", folds=False)
def expand(node: Node, x: Any, shape: Any) -> Any:
    """Broadcast in both directions."""
    dims = ints(node.concrete(shape, "shape"))
    dims = list(np.broadcast_shapes(x.shape, tuple(dims)))
    module = xp(x) if prod(dims) <= CONCRETE_LIMIT else jnp
    return module.broadcast_to(x, dims)


@op("Tile", folds=False)
def tile(node: Node, x: Any, repeats: Any, axis: Any = None) -> Any:
    """Repeat along each dimension; opset 1 names one dimension and its count."""
    counts = ints(node.concrete(repeats, "repeats"))
    if axis is not None:
        at = axis_of(int(node.concrete(axis, "axis").reshape(())), x.ndim)
        counts = [counts[0] if i == at else 1 for i in range(x.ndim)]
    module = xp(x) if prod(counts) * prod(x.shape) <= CONCRETE_LIMIT else jnp
    return module.tile(x, counts)


@op("DepthToSpace")
def depth_to_space(node: Node, x: Any) -> Any:
    """Move blocks of channels into space (DCR or CRD order)."""
    size = node.attr("blocksize")
    batch, channels, *space = x.shape
    count = len(space)
    deep = channels // size**count
    blocks = [size] * count
    if node.attr("mode", "DCR") == "DCR":
        y = jnp.reshape(x, (batch, *blocks, deep, *space))
        first, channel = range(1, 1 + count), 1 + count
    else:
        y = jnp.reshape(x, (batch, deep, *blocks, *space))
        first, channel = range(2, 2 + count), 1
    pairs = [axis for i, block in enumerate(first) for axis in (2 + count + i, block)]
    y = jnp.transpose(y, (0, channel, *pairs))
    return jnp.reshape(y, (batch, deep, *(s * size for s in space)))


@op("SpaceToDepth")
def space_to_depth(node: Node, x: Any) -> Any:
    """Move blocks of space into channels (DCR order, or CRD where ``mode`` says so)."""
    size = node.attr("blocksize")
    batch, channels, *space = x.shape
    count = len(space)
    cut = [part for s in space for part in (s // size, size)]
    y = jnp.reshape(x, (batch, channels, *cut))
    blocks = [3 + 2 * i for i in range(count)]
    rest = [2 + 2 * i for i in range(count)]
    order = [*blocks, 1] if node.attr("mode", "DCR") == "DCR" else [1, *blocks]
    y = jnp.transpose(y, (0, *order, *rest))
    return jnp.reshape(y, (batch, channels * size**count, *(s // size for s in space)))
