"""Values out of nothing or of a shape: constants, ranges, triangles, one-hot."""

from __future__ import annotations

from math import ceil, prod
from typing import Any

import numpy as np
from jax import numpy as jnp

from pai.frontends.onnx.arrays import CONCRETE_LIMIT, axis_of, ints, is_concrete
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.registry import op
from pai.frontends.onnx.tensors import numpy_dtype


@op("Constant", folds=False)
def constant(node: Node) -> Any:
    """A value that stands in the model."""
    for key in ("value", "sparse_value"):
        if key in node.attributes:
            return node.attributes[key]
    for key, dtype in (("value_int", np.int64), ("value_float", np.float32)):
        for name in (key, f"{key}s"):
            if name in node.attributes:
                return np.asarray(node.attributes[name], dtype)
    text = node.attr("value_string", node.attr("value_strings"))
    return np.asarray(text, object)


def _full(node: Node, shape: tuple[int, ...], value: Any) -> Any:
    if min(shape, default=0) < 0:
        raise node.refuse(f"its shape {list(shape)} has a negative dimension")
    return (np if prod(shape) <= CONCRETE_LIMIT else jnp).full(shape, value, value.dtype)


@op("ConstantOfShape", folds=False)
def constant_of_shape(node: Node, shape: Any) -> Any:
    """One value everywhere."""
    value = np.asarray(node.attr("value", np.zeros(1, np.float32)))
    return _full(node, tuple(ints(node.concrete(shape, "shape"))), value.reshape(()))


@op("Range", folds=False)
def value_range(node: Node, start: Any, limit: Any, delta: Any) -> Any:
    """start, start+delta, … below the limit."""
    begin, end, step = (
        node.concrete(value, what).reshape(())[()]
        for value, what in ((start, "start"), (limit, "limit"), (delta, "delta"))
    )
    wide = float if np.dtype(begin.dtype).kind not in "iu" else int
    count = max(ceil((wide(end) - wide(begin)) / wide(step)), 0)
    if count <= CONCRETE_LIMIT:
        return (np.arange(count) * wide(step) + wide(begin)).astype(begin.dtype)
    return (jnp.arange(count) * wide(step) + wide(begin)).astype(begin.dtype)


@op("EyeLike", folds=False)
def eye_like(node: Node, x: Any) -> Any:
    """Ones on the k-th diagonal."""
    dtype = numpy_dtype(node.attributes["dtype"]) if "dtype" in node.attributes else x.dtype
    return jnp.eye(x.shape[0], x.shape[1], k=node.attr("k", 0), dtype=dtype)


@op("Trilu")
def trilu(node: Node, x: Any, k: Any = None) -> Any:
    """Keep the upper or lower triangle."""
    diagonal = 0 if k is None else int(node.concrete(k, "k").reshape(()))
    keep = np.tri(x.shape[-2], x.shape[-1], diagonal - bool(node.attr("upper", 1)), dtype=bool)
    if node.attr("upper", 1):
        keep = ~keep
    if is_concrete(x):
        return np.where(keep, x, np.zeros((), x.dtype))
    rows, columns = jnp.arange(x.shape[-2])[:, None], jnp.arange(x.shape[-1])
    inside = columns - rows
    mask = inside >= diagonal if node.attr("upper", 1) else inside <= diagonal
    return jnp.where(mask, x, jnp.zeros((), x.dtype))


@op("OneHot")
def one_hot(node: Node, indices: Any, depth: Any, values: Any) -> Any:
    """values[1] at each index along a new axis, values[0] elsewhere."""
    size = int(node.concrete(depth, "depth").reshape(()))
    axis = axis_of(node.attr("axis", -1), indices.ndim + 1)
    indices = jnp.asarray(indices)
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        indices = indices.astype(jnp.int64)
    wrapped = jnp.where(indices < 0, indices + jnp.asarray(size, indices.dtype), indices)
    at = jnp.arange(size, dtype=indices.dtype)
    at = at.reshape([size if i == axis else 1 for i in range(indices.ndim + 1)])
    hit = jnp.expand_dims(wrapped, axis) == at
    return jnp.where(hit, values[1], values[0])
