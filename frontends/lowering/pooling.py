"""Pooling over sliding windows, channels first, as ``stablehlo.reduce_window``."""

from __future__ import annotations

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from pai.frontends.lowering.convolution import accumulator
from pai.frontends.lowering.window import Window


def lowest(dtype: Any) -> np.ndarray:
    """Return the identity of max for ``dtype``."""
    dtype = np.dtype(dtype)
    if jnp.issubdtype(dtype, jnp.floating):
        return np.array(-np.inf, dtype)
    return np.array(jnp.iinfo(dtype).min, dtype)


def _reduce(x: Any, init: Any, fn: Any, window: Window) -> Any:
    """Run reduce_window over the spatial dimensions of ``x`` (batch, channels, *spatial)."""
    return lax.reduce_window(
        x,
        init,
        fn,
        window_dimensions=(1, 1, *window.kernel),
        window_strides=(1, 1, *window.strides),
        padding=((0, 0), (0, 0), *window.full_padding),
        window_dilation=(1, 1, *window.dilations),
    )


def max_pool(x: Any, window: Window) -> Any:
    """Return the maximum of each window; padding never wins."""
    return _reduce(x, lowest(x.dtype), lax.max, window)


def sum_pool(x: Any, window: Window) -> Any:
    """Return the sum of each window, accumulated in float32 or wider."""
    acc = accumulator(x.dtype)
    return _reduce(x.astype(acc), np.zeros((), acc), lax.add, window)


def average_pool(x: Any, window: Window, *, include_padding: bool) -> Any:
    """Return the mean of each window.

    Args:
        x: (batch, channels, *spatial).
        window: the sliding window.
        include_padding: whether padding counts as zeros in the mean or is left out.
    """
    total = sum_pool(x, window)
    counts = window.counts(x.shape[2:], include_padding=include_padding)
    return (total / counts.astype(total.dtype)).astype(x.dtype)


def lp_pool(x: Any, window: Window, p: int) -> Any:
    """Return the p-norm of each window."""
    acc = accumulator(x.dtype)
    size = jnp.abs(x.astype(acc))
    if p == 1:
        return sum_pool(size, window).astype(x.dtype)
    if p == 2:
        return jnp.sqrt(sum_pool(size * size, window)).astype(x.dtype)
    return (sum_pool(size**p, window) ** np.array(1.0 / p, acc)).astype(x.dtype)


def max_pool_with_indices(
    x: Any, window: Window, *, column_major: bool = False, whole_tensor: bool = True
) -> tuple[Any, Any]:
    """Return the maximum of each window and where it is.

    One strided slice per tap of the window, compared in turn: the first of equal values wins.

    Args:
        x: (batch, channels, *spatial).
        window: the sliding window.
        column_major: number the spatial positions first dimension fastest.
        whole_tensor: indices count from the start of the tensor, else of each channel's image.

    Returns:
        The maxima and their int64 indices, both (batch, channels, *spatial output).
    """
    spatial = x.shape[2:]
    out = window.output_shape(spatial)
    config = ((0, 0, 0), (0, 0, 0), *((low, high, 0) for low, high in window.full_padding))
    padded = lax.pad(x, lowest(x.dtype), config)
    weights = _position_weights(spatial, column_major)
    best: Any = None
    where: Any = None
    for tap in itertools.product(*(range(k) for k in window.kernel)):
        start = [t * d for t, d in zip(tap, window.dilations, strict=True)]
        stop = [b + (n - 1) * s + 1 for b, n, s in zip(start, out, window.strides, strict=True)]
        value = lax.slice(padded, (0, 0, *start), (*x.shape[:2], *stop), (1, 1, *window.strides))
        index, inside = _positions(start, window, spatial, out, weights)
        if best is None:
            best, where = value, jnp.where(inside, index, -1)
            where = jnp.broadcast_to(where, value.shape)
            continue
        better = inside & ((value > best) | (where < 0))
        best = jnp.where(better, value, best)
        where = jnp.where(better, index, where)
    if whole_tensor:
        image = int(np.prod(spatial))
        count = x.shape[0] * x.shape[1]
        base = np.arange(count, dtype=np.int64) * image
        where = where + base.reshape(x.shape[:2] + (1,) * len(spatial))
    return best, where


def _position_weights(spatial: tuple[int, ...], column_major: bool) -> list[int]:
    """Return what one step along each spatial dimension adds to a flat position."""
    weights = [1] * len(spatial)
    order = range(len(spatial)) if column_major else reversed(range(len(spatial)))
    step = 1
    for axis in order:
        weights[axis] = step
        step *= spatial[axis]
    return weights


def _positions(
    start: list[int],
    window: Window,
    spatial: tuple[int, ...],
    out: tuple[int, ...],
    weights: list[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Return flat input positions of one tap for every window, and whether they are inside."""
    rank = len(spatial)
    index = np.zeros((1,) * rank, np.int64)
    inside = np.ones((1,) * rank, np.bool_)
    for axis in range(rank):
        along = np.arange(out[axis], dtype=np.int64) * window.strides[axis]
        along = along + start[axis] - window.padding[axis][0]
        shape = [1] * rank
        shape[axis] = out[axis]
        index = index + (along * weights[axis]).reshape(shape)
        inside = inside & ((along >= 0) & (along < spatial[axis])).reshape(shape)
    return index, inside
