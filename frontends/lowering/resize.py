"""Resizing one dimension at a time: gathers and weighted sums with constant indices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from pai.frontends.lowering.convolution import accumulator
from pai.frontends.lowering.gather import take_inside
from pai.frontends.lowering.sampling import cubic_weights

_DENSE_FROM_TAPS = 8


@dataclass(frozen=True)
class Coordinates:
    """How output positions map to input positions.

    Args:
        mode: half_pixel, half_pixel_symmetric, pytorch_half_pixel, align_corners, asymmetric or
            tf_crop_and_resize.
        extrapolation: what tf_crop_and_resize writes outside the input.
    """

    mode: str = "half_pixel"
    extrapolation: float = 0.0

    def source(
        self, n: int, out: int, scale: float, roi: tuple[float, float] | None = None
    ) -> np.ndarray:
        """Return the fractional input position of each of ``out`` output positions.

        Args:
            n: input size.
            out: output size.
            scale: output size per input size as the model states it, before rounding.
            roi: start and end of the region to crop, as fractions of ``n - 1``.
        """
        y = np.arange(out, dtype=np.float64)
        exact = scale * n
        if self.mode == "align_corners":
            return np.zeros(out) if exact == 1 else y * (n - 1) / (exact - 1)
        if self.mode == "asymmetric":
            return y / scale
        if self.mode == "tf_crop_and_resize":
            start, end = roi or (0.0, 1.0)
            if exact == 1:
                return np.full(out, (start + end) * (n - 1) / 2)
            return start * (n - 1) + y * (end - start) * (n - 1) / (exact - 1)
        if self.mode == "pytorch_half_pixel" and exact == 1:
            return np.full(out, -0.5)
        middle = (y + 0.5) / scale - 0.5
        if self.mode == "half_pixel_symmetric":
            return middle + n / 2 * (1 - out / exact)
        return middle


def nearest_index(where: np.ndarray, n: int, rounding: str, *, shrinks: bool) -> np.ndarray:
    """Round positions to input indices.

    Args:
        where: fractional positions.
        n: input size.
        rounding: round_prefer_floor, round_prefer_ceil, floor, ceil, or simple (opset 10:
            up when shrinking, else down).
        shrinks: whether the output is smaller than the input.
    """
    if rounding == "simple":
        rounding = "ceil" if shrinks else "floor"
    if rounding == "round_prefer_floor":
        rounded = np.ceil(where - 0.5)
    elif rounding == "round_prefer_ceil":
        rounded = np.floor(where + 0.5)
    else:
        rounded = np.floor(where) if rounding == "floor" else np.ceil(where)
    return np.clip(rounded, 0, n - 1).astype(np.int64)


def tap_weights(
    where: np.ndarray, n: int, scale: float, *, cubic: bool, a: float, antialias: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return input indices (not clamped) and weights of the taps, both (out, taps)."""
    low = np.floor(where)
    frac = where - low
    if not antialias or scale >= 1:
        first = -1 if cubic else 0
        rows = cubic_weights(frac, a) if cubic else [1 - frac, frac]
        weights = np.stack(rows, axis=1)
        taps = np.arange(first, first + weights.shape[1])
        return low.astype(np.int64)[:, None] + taps, weights
    radius = 2 if cubic else 1
    reach = math.ceil(radius / scale)
    taps = np.arange(-reach, reach + 1)
    distance = np.abs((taps - frac[:, None]) * scale)
    if cubic:
        inner = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        outer = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        weights = np.where(distance <= 1, inner, np.where(distance < 2, outer, 0.0))
    else:
        weights = np.clip(1 - distance, 0, 1)
    weights = weights / weights.sum(axis=1, keepdims=True)
    return low.astype(np.int64)[:, None] + taps, weights


def repeat(x: Any, axis: int, times: int) -> Any:
    """Repeat each element along ``axis``: a broadcast and a reshape."""
    apart = jnp.expand_dims(x, axis + 1)
    shape = list(apart.shape)
    shape[axis + 1] = times
    joined = [*x.shape[:axis], x.shape[axis] * times, *x.shape[axis + 1 :]]
    return jnp.reshape(jnp.broadcast_to(apart, shape), joined)


def take_along(x: Any, axis: int, index: np.ndarray) -> Any:
    """Pick constant ``index`` along ``axis``: a strided slice or repeat where it is one."""
    n = x.shape[axis]
    steps = np.diff(index)
    if len(index) == n and (index == np.arange(n)).all():
        return x
    if len(index) and len(index) % n == 0:
        times = len(index) // n
        if (index == np.repeat(np.arange(n), times)).all():
            return repeat(x, axis, times)
    if len(index) > 1 and (steps == steps[0]).all() and steps[0] > 0:
        return lax.slice_in_dim(x, int(index[0]), int(index[-1]) + 1, int(steps[0]), axis)
    return take_inside(x, axis, index)


def weighted_sum(x: Any, axis: int, index: np.ndarray, weights: np.ndarray) -> Any:
    """Sum taps along ``axis``: output position o is ``sum_t weights[o, t] * x[index[o, t]]``.

    Few taps become gathers; many become one product with a constant matrix.

    Args:
        x: any tensor.
        axis: dimension to resize.
        index: (out, taps), clamped to the input here.
        weights: (out, taps).
    """
    n, out = x.shape[axis], len(index)
    clamped = np.clip(index, 0, n - 1)
    if index.shape[1] >= _DENSE_FROM_TAPS:
        matrix = np.zeros((out, n))
        np.add.at(matrix, (np.arange(out)[:, None], clamped), weights)
        moved = jnp.moveaxis(x, axis, -1)
        product = lax.dot_general(
            moved,
            matrix.T.astype(x.dtype),
            (((moved.ndim - 1,), (0,)), ((), ())),
            precision=lax.Precision.HIGHEST,
        )
        return jnp.moveaxis(product, -1, axis)
    shape = [1] * x.ndim
    shape[axis] = out
    total: Any = None
    for tap in range(index.shape[1]):
        column = weights[:, tap].astype(x.dtype).reshape(shape)
        term = take_along(x, axis, clamped[:, tap]) * column
        total = term if total is None else total + term
    return total


def resize_axis(
    x: Any,
    axis: int,
    out: int,
    scale: float,
    *,
    mode: str,
    coordinates: Coordinates,
    rounding: str = "round_prefer_floor",
    a: float = -0.75,
    antialias: bool = False,
    exclude_outside: bool = False,
    roi: tuple[float, float] | None = None,
) -> Any:
    """Resize one dimension of ``x`` to ``out`` elements.

    Args:
        x: any tensor; linear and cubic modes need a floating type.
        axis: dimension.
        out: output size.
        scale: stated ratio of output to input size.
        mode: nearest, linear or cubic.
        coordinates: mapping of positions.
        rounding: of mode nearest, see ``nearest_index``.
        a: parameter of the cubic.
        antialias: widen the filter when shrinking.
        exclude_outside: give taps outside the input no weight, instead of repeating the edge.
        roi: region of tf_crop_and_resize.
    """
    n = x.shape[axis]
    where = coordinates.source(n, out, scale, roi)
    if mode == "nearest":
        y = take_along(x, axis, nearest_index(where, n, rounding, shrinks=scale < 1))
    else:
        index, weights = tap_weights(
            where, n, scale, cubic=mode == "cubic", a=a, antialias=antialias
        )
        if exclude_outside:
            weights = np.where((index < 0) | (index >= n), 0.0, weights)
            total = weights.sum(axis=1, keepdims=True)
            weights = weights / np.where(total == 0, 1.0, total)
        y = weighted_sum(x, axis, index, weights)
    if coordinates.mode == "tf_crop_and_resize":
        beyond = (where < 0) | (where > n - 1)
        if beyond.any():
            shape = [1] * x.ndim
            shape[axis] = out
            outside = np.array(coordinates.extrapolation, y.dtype)
            y = jnp.where(beyond.reshape(shape), outside, y)
    return y


def working_type(dtype: Any, mode: str) -> np.dtype:
    """Return the type to resize ``dtype`` in: float32 for integers and short floats."""
    dtype = np.dtype(dtype)
    if mode == "nearest" or dtype == np.float64:
        return dtype
    if jnp.issubdtype(dtype, jnp.floating):
        return accumulator(dtype)
    return np.dtype(np.float32)
