"""Convolutions of any spatial rank, channels first, as ``stablehlo.convolution``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax


def accumulator(dtype: Any) -> np.dtype:
    """Return the type to accumulate ``dtype`` in: float32 for the 16- and 8-bit floats."""
    dtype = np.dtype(dtype)
    if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4:
        return np.dtype(np.float32)
    return dtype


def dimension_numbers(rank: int) -> lax.ConvDimensionNumbers:
    """Return channels-first dimension numbers for ``rank`` spatial dimensions."""
    spec = tuple(range(rank + 2))
    return lax.ConvDimensionNumbers(spec, spec, spec)


def add_channel_bias(y: Any, bias: Any) -> Any:
    """Add ``bias`` (channels,) along dimension 1 of ``y``."""
    if bias is None:
        return y
    shape = (1, -1) + (1,) * (y.ndim - 2)
    return y + jnp.reshape(bias, shape).astype(y.dtype)


def convolve(
    x: Any,
    w: Any,
    bias: Any = None,
    *,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilations: Sequence[int],
    groups: int = 1,
    lhs_dilation: Sequence[int] | None = None,
    result_type: Any = None,
) -> Any:
    """Convolve ``x`` (batch, channels, *spatial) with ``w`` (out, channels / groups, *kernel).

    16-bit floats accumulate in float32; the bias is added before rounding back.

    Args:
        x: input.
        w: kernels, of the type of ``x``.
        bias: (out,) or None.
        strides: per spatial dimension.
        padding: (low, high) per spatial dimension, not negative.
        dilations: kernel dilation per spatial dimension.
        groups: feature groups.
        lhs_dilation: input dilation (stride of a transposed convolution).
        result_type: element type of the result, default that of ``x``.

    Returns:
        (batch, out, *spatial output).
    """
    y = lax.conv_general_dilated(
        x,
        w,
        tuple(strides),
        tuple(padding),
        lhs_dilation=None if lhs_dilation is None else tuple(lhs_dilation),
        rhs_dilation=tuple(dilations),
        dimension_numbers=dimension_numbers(jnp.ndim(x) - 2),
        feature_group_count=groups,
        preferred_element_type=accumulator(x.dtype),
    )
    return add_channel_bias(y, bias).astype(result_type or x.dtype)


def convolve_transposed(
    x: Any,
    w: Any,
    bias: Any = None,
    *,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilations: Sequence[int],
    output_padding: Sequence[int] | None = None,
    groups: int = 1,
) -> Any:
    """Apply the transpose of a convolution: the gradient of ``convolve`` by its input.

    Output size: ``stride·(in - 1) + output_padding + dilation·(kernel - 1) + 1 - low - high``.

    Args:
        x: (batch, channels, *spatial).
        w: (channels, out / groups, *kernel), as the forward convolution has it.
        bias: (out,) or None.
        strides: of the forward convolution.
        padding: (low, high) taken away from either end; negative values add zeros.
        dilations: kernel dilation.
        output_padding: elements added at the high end.
        groups: feature groups.
    """
    rank = jnp.ndim(x) - 2
    extra = tuple(output_padding or (0,) * rank)
    full: list[tuple[int, int]] = []
    crop: list[tuple[int, int]] = []
    for axis in range(rank):
        reach = dilations[axis] * (w.shape[2 + axis] - 1)
        low = reach - padding[axis][0]
        high = reach - padding[axis][1] + extra[axis]
        full.append((max(low, 0), max(high, 0)))
        crop.append((max(-low, 0), max(-high, 0)))
    y = convolve(
        x,
        _transpose_kernel(w, groups),
        bias,
        strides=(1,) * rank,
        padding=full,
        dilations=dilations,
        groups=groups,
        lhs_dilation=strides,
    )
    if any(low or high for low, high in crop):
        limits = [n - high for n, (_, high) in zip(y.shape[2:], crop, strict=True)]
        y = lax.slice(y, (0, 0, *(low for low, _ in crop)), (*y.shape[:2], *limits))
    return y


def _transpose_kernel(w: Any, groups: int) -> Any:
    """Turn (channels, out / groups, *kernel) into (out, channels / groups, *kernel), flipped."""
    channels, per_group, *kernel = w.shape
    w = lax.rev(jnp.asarray(w), tuple(range(2, 2 + len(kernel))))
    if groups == 1:
        return jnp.swapaxes(w, 0, 1)
    w = jnp.reshape(w, (groups, channels // groups, per_group, *kernel))
    return jnp.reshape(jnp.swapaxes(w, 1, 2), (groups * per_group, channels // groups, *kernel))
