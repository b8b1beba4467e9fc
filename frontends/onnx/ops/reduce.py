"""Reductions, arg-reductions and cumulative sums."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from pai.frontends.onnx.arrays import axes_of, axis_of, ints, xp
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.registry import op

Reducer = Callable[..., Any]


def _sum(x: Any, **how: Any) -> Any:
    return xp(x).sum(x, **how, dtype=x.dtype)


def _l2(x: Any, **how: Any) -> Any:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        squares = jnp.sum(jnp.square(x.astype(jnp.float64)), **how)
        return jnp.sqrt(squares).astype(x.dtype)
    return jnp.sqrt(_sum(jnp.square(x), **how))


def _mean(x: Any, **how: Any) -> Any:
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.mean(x, **how)
    total = _sum(x, **how)
    count = x.size // max(total.size, 1)
    return lax.div(jnp.asarray(total), jnp.full(total.shape, max(count, 1), x.dtype))


def _in_float(function: Reducer, x: Any, **how: Any) -> Any:
    if jnp.issubdtype(x.dtype, jnp.floating):
        return function(x, **how)
    return function(x.astype(jnp.float64), **how).astype(x.dtype)


def _log_sum_exp(x: Any, **how: Any) -> Any:
    return jax.nn.logsumexp(x, **how)


def _extreme(largest: bool, x: Any, **how: Any) -> Any:
    if x.dtype == np.bool_:
        return (xp(x).any if largest else xp(x).all)(x, **how)
    find = jnp.max if largest else jnp.min
    if all(x.shape[axis] for axis in how["axis"]):
        return find(x, **how)
    empty = -np.inf if largest else np.inf
    if not jnp.issubdtype(x.dtype, jnp.floating):
        limits = jnp.iinfo(x.dtype)
        empty = limits.min if largest else limits.max
    return find(x, **how, initial=empty)


_REDUCERS: dict[str, Reducer] = {
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceProd": lambda x, **how: xp(x).prod(x, **how, dtype=x.dtype),
    "ReduceMax": functools.partial(_extreme, True),
    "ReduceMin": functools.partial(_extreme, False),
    "ReduceL1": lambda x, **how: _sum(x if x.dtype.kind == "u" else jnp.abs(x), **how),
    "ReduceL2": _l2,
    "ReduceSumSquare": lambda x, **how: _sum(jnp.square(x), **how),
    "ReduceLogSum": functools.partial(_in_float, lambda x, **how: jnp.log(_sum(x, **how))),
    "ReduceLogSumExp": functools.partial(_in_float, _log_sum_exp),
}


# What a reduction over no axes does to each element.
_POINTWISE: dict[str, Callable[[Any], Any]] = {
    "ReduceL1": jnp.abs,
    "ReduceL2": jnp.abs,
    "ReduceSumSquare": jnp.square,
    "ReduceLogSum": jnp.log,
}


def _reduce(node: Node, x: Any, axes: Any = None) -> Any:
    """Reduce over ``axes``: an attribute in older versions, an input in newer ones."""
    axes = node.attr("axes") if axes is None else ints(node.concrete(axes, "axes"))
    if not axes:
        if node.attr("noop_with_empty_axes", 0):
            return _POINTWISE.get(node.op_type, lambda v: v)(x)
        axes = range(x.ndim)
    how = {"axis": axes_of(axes, x.ndim), "keepdims": bool(node.attr("keepdims", 1))}
    return _REDUCERS[node.op_type](x, **how)


for _name in _REDUCERS:
    op(_name)(_reduce)


def _arg(node: Node, x: Any) -> Any:
    axis = axis_of(node.attr("axis", 0), x.ndim)
    find = jnp.argmax if node.op_type == "ArgMax" else jnp.argmin
    if node.attr("select_last_index", 0):
        found = x.shape[axis] - 1 - find(jnp.flip(x, axis), axis=axis)
    else:
        found = find(x, axis=axis)
    found = found.astype(jnp.int64)
    return jnp.expand_dims(found, axis) if node.attr("keepdims", 1) else found


op("ArgMax")(_arg)
op("ArgMin")(_arg)


def _cumulative(node: Node, x: Any, axis: Any) -> Any:
    """Running sum or product; ``exclusive`` leaves the element itself out."""
    dim = axis_of(int(node.concrete(axis, "axis").reshape(-1)[0]), x.ndim)
    total = node.op_type == "CumSum"
    reverse = bool(node.attr("reverse", 0))
    result = (lax.cumsum if total else lax.cumprod)(jnp.asarray(x), dim, reverse=reverse)
    if not node.attr("exclusive", 0):
        return result
    widths = [(0, 0, 0)] * x.ndim
    widths[dim] = (-1, 1, 0) if reverse else (1, -1, 0)
    return lax.pad(result, jnp.asarray(0 if total else 1, x.dtype), widths)


op("CumSum")(_cumulative)
op("CumProd")(_cumulative)
