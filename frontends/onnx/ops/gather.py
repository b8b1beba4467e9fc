"""Gathering, scattering, sorting, and operators whose result's size is data."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax import lax
from jax import numpy as jnp

from pai.frontends.onnx.arrays import axis_of, is_concrete, xp
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.registry import op


def _wrapped(indices: Any, size: int) -> Any:
    """Return indices with negative ones counted from the end."""
    if is_concrete(indices):
        return np.where(indices < 0, indices + size, indices)
    indices = jnp.asarray(indices)
    if jnp.iinfo(indices.dtype).max < size:
        indices = indices.astype(jnp.int32)
    return jnp.where(indices < 0, indices + jnp.asarray(size, indices.dtype), indices)


@op("Gather")
def gather(node: Node, x: Any, indices: Any) -> Any:
    """Take slices along an axis."""
    axis = axis_of(node.attr("axis", 0), x.ndim)
    if is_concrete(x, indices):
        return np.asarray(np.take(x, indices, axis=axis))
    if is_concrete(indices) and indices.ndim == 0:
        return lax.index_in_dim(x, int(indices), axis, keepdims=False)
    return jnp.take(x, _wrapped(indices, x.shape[axis]), axis=axis, mode="clip")


# Indices are valid by the operator's definition, and negative ones are counted from the end here.
_TRUSTED = {"mode": "promise_in_bounds", "wrap_negative_indices": False}


@op("GatherElements")
def gather_elements(node: Node, x: Any, indices: Any) -> Any:
    """Take single elements along an axis."""
    axis = axis_of(node.attr("axis", 0), x.ndim)
    box = tuple(
        slice(None) if i == axis else slice(0, size) for i, size in enumerate(indices.shape)
    )
    at = jnp.asarray(_wrapped(indices, x.shape[axis]))
    return jnp.take_along_axis(jnp.asarray(x)[box], at, axis=axis, mode="promise_in_bounds")


@op("GatherND")
def gather_nd(node: Node, x: Any, indices: Any) -> Any:
    """Take slices addressed by rows of indices, after ``batch_dims`` shared dimensions."""
    batch = node.attr("batch_dims", 0)
    depth = indices.shape[-1]
    lead = indices.shape[:-1]
    index: list[Any] = [
        jnp.arange(lead[i]).reshape([-1 if j == i else 1 for j in range(len(lead))])
        for i in range(batch)
    ]
    index += [jnp.asarray(_wrapped(indices[..., i], x.shape[batch + i])) for i in range(depth)]
    return jnp.asarray(x).at[tuple(index)].get(**_TRUSTED)


def _update(node: Node, x: Any, index: tuple[Any, ...], updates: Any) -> Any:
    place = jnp.asarray(x).at[index]
    how = node.attr("reduction", "none")
    method = {"none": "set", "add": "add", "mul": "multiply", "max": "max", "min": "min"}[how]
    return getattr(place, method)(jnp.asarray(updates).astype(x.dtype), **_TRUSTED)


@op("Scatter")
@op("ScatterElements")
def scatter_elements(node: Node, x: Any, indices: Any, updates: Any) -> Any:
    """Write single elements along an axis."""
    axis = axis_of(node.attr("axis", 0), x.ndim)
    at = jnp.asarray(_wrapped(indices, x.shape[axis]))
    index = list(jnp.indices(at.shape, sparse=True))
    index[axis] = at
    return _update(node, x, tuple(index), updates)


@op("ScatterND")
def scatter_nd(node: Node, x: Any, indices: Any, updates: Any) -> Any:
    """Write slices addressed by rows of indices."""
    index = tuple(
        jnp.asarray(_wrapped(indices[..., i], x.shape[i])) for i in range(indices.shape[-1])
    )
    return _update(node, x, index, updates)


@op("TensorScatter")
def tensor_scatter(node: Node, cache: Any, update: Any, write_indices: Any = None) -> Any:
    """Write a run of positions into a cache, per batch entry, linear or circular."""
    axis = axis_of(node.attr("axis", -2), cache.ndim)
    count, size = update.shape[axis], cache.shape[axis]
    batch = cache.shape[0]
    start = jnp.zeros(batch, jnp.int64) if write_indices is None else jnp.asarray(write_indices)
    at = start[:, None] + jnp.arange(count, dtype=start.dtype)
    if node.attr("mode", "linear") == "circular":
        at = at % size
    moved = jnp.moveaxis(jnp.asarray(cache), axis, 1)
    new = moved.at[jnp.arange(batch)[:, None], at].set(jnp.moveaxis(jnp.asarray(update), axis, 1))
    return jnp.moveaxis(new, 1, axis)


@op("ReverseSequence")
def reverse_sequence(node: Node, x: Any, lengths: Any) -> Any:
    """Reverse the first ``lengths[b]`` steps of each batch entry."""
    time, batch = node.attr("time_axis", 0), node.attr("batch_axis", 1)
    steps = lax.broadcasted_iota(jnp.int64, x.shape, time)
    shape = [x.shape[batch] if i == batch else 1 for i in range(x.ndim)]
    limit = jnp.asarray(lengths).reshape(shape)
    at = jnp.where(steps < limit, limit - 1 - steps, steps)
    return jnp.take_along_axis(jnp.asarray(x), at, axis=time, mode="promise_in_bounds")


@op("TopK")
def top_k(node: Node, x: Any, k: Any = None) -> Any:
    """The k largest or smallest along an axis, with their indices; ties take the lower index."""
    count = node.attr("k") if k is None else int(node.concrete(k, "k").reshape(-1)[0])
    axis = axis_of(node.attr("axis", -1), x.ndim)
    if count > x.shape[axis]:
        raise node.refuse(f"k is {count} but dimension {axis} has {x.shape[axis]}")
    key = jnp.asarray(x)
    if node.attr("largest", 1):
        key = _opposite(key)
    order = lax.broadcasted_iota(jnp.int64, x.shape, axis)
    keys, order = lax.sort((key, order), dimension=axis, num_keys=1, is_stable=True)
    keys, order = (lax.slice_in_dim(value, 0, count, axis=axis) for value in (keys, order))
    return (_opposite(keys) if node.attr("largest", 1) else keys), order


def _opposite(x: Any) -> Any:
    """Return what sorts the other way round; its own inverse."""
    return ~x if jnp.issubdtype(x.dtype, jnp.integer) else -x


@op("NonZero")
def non_zero(node: Node, x: Any) -> Any:
    """Indices of the elements that are not zero; only of a concrete value."""
    return np.stack(np.nonzero(np.atleast_1d(node.concrete(x, "input")))).astype(np.int64)


@op("Unique")
def unique(node: Node, x: Any) -> Any:
    """Distinct elements, with indices and counts; only of a concrete value."""
    value = node.concrete(x, "input")
    axis = node.attr("axis")
    found, first, inverse, counts = np.unique(
        value, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    inverse = inverse.reshape(-1)
    if not node.attr("sorted", 1):
        order = np.argsort(first, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(order.size)
        found = np.take(found, order, axis=axis or 0)
        first, inverse, counts = first[order], rank[inverse], counts[order]
    return found, *(part.astype(np.int64) for part in (first, inverse, counts))


@op("Compress")
def compress(node: Node, x: Any, condition: Any) -> Any:
    """Slices where a concrete condition holds."""
    chosen = np.flatnonzero(node.concrete(condition, "condition"))
    axis = node.attr("axis")
    if axis is None:
        return xp(x).take(xp(x).reshape(x, -1), chosen, axis=0)
    return xp(x).take(x, chosen[: x.shape[axis]], axis=axis)
