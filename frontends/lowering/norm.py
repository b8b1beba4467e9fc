"""Normalizations: statistics in float32 or wider, results in the type of the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from pai.frontends.lowering.convolution import accumulator


def moments(x: Any, axes: Sequence[int]) -> tuple[Any, Any]:
    """Return mean and population variance of ``x`` over ``axes``, which stay with size 1."""
    mean = jnp.mean(x, axis=tuple(axes), keepdims=True)
    centred = x - mean
    return mean, jnp.mean(centred * centred, axis=tuple(axes), keepdims=True)


def standardize(x: Any, axes: Sequence[int], epsilon: float) -> tuple[Any, Any, Any]:
    """Return ``(x - mean) / sqrt(variance + epsilon)``, the mean, and the inverse deviation.

    All three have the accumulator type of ``x`` (float32 for 16-bit floats).
    """
    wide = jnp.asarray(x).astype(accumulator(x.dtype))
    mean, variance = moments(wide, axes)
    inverse = lax.rsqrt(variance + np.array(epsilon, wide.dtype))
    return (wide - mean) * inverse, mean, inverse


def layer_norm(
    x: Any, scale: Any, bias: Any, axes: Sequence[int], epsilon: float
) -> tuple[Any, Any, Any]:
    """Layer normalization over ``axes``.

    Returns:
        The result in the type of ``x``; mean and inverse deviation in the accumulator type.
    """
    y, mean, inverse = standardize(x, axes, epsilon)
    if scale is not None:
        y = y * scale.astype(y.dtype)
    if bias is not None:
        y = y + bias.astype(y.dtype)
    return y.astype(x.dtype), mean, inverse


def rms_norm(x: Any, scale: Any, axes: Sequence[int], epsilon: float) -> tuple[Any, Any]:
    """RMS normalization: ``x / sqrt(mean(x²) + epsilon) * scale``.

    Returns:
        The result in the type of ``x`` and the inverse root mean square.
    """
    wide = jnp.asarray(x).astype(accumulator(x.dtype))
    square = jnp.mean(wide * wide, axis=tuple(axes), keepdims=True)
    inverse = lax.rsqrt(square + np.array(epsilon, wide.dtype))
    y = wide * inverse
    if scale is not None:
        y = y * scale.astype(y.dtype)
    return y.astype(x.dtype), inverse


def channel_affine(y: Any, scale: Any, bias: Any) -> Any:
    """Scale and shift dimension 1 of ``y`` by (channels,) vectors."""
    shape = (1, -1) + (1,) * (y.ndim - 2)
    if scale is not None:
        y = y * jnp.reshape(scale, shape).astype(y.dtype)
    if bias is not None:
        y = y + jnp.reshape(bias, shape).astype(y.dtype)
    return y


def batch_norm(x: Any, scale: Any, bias: Any, mean: Any, variance: Any, epsilon: float) -> Any:
    """Normalize dimension 1 of ``x`` with given statistics (channels,)."""
    acc = accumulator(x.dtype)
    inverse = lax.rsqrt(jnp.asarray(variance).astype(acc) + np.array(epsilon, acc))
    shape = (1, -1) + (1,) * (np.ndim(x) - 2)
    y = x.astype(acc) - jnp.reshape(mean, shape).astype(acc)
    factor = inverse if scale is None else inverse * scale.astype(acc)
    return channel_affine(y, factor, bias).astype(x.dtype)


def batch_statistics(x: Any) -> tuple[Any, Any]:
    """Return mean and population variance per channel (dimension 1), in the accumulator type."""
    axes = (0, *range(2, np.ndim(x)))
    mean, variance = moments(x.astype(accumulator(x.dtype)), axes)
    return jnp.ravel(mean), jnp.ravel(variance)


def group_norm(x: Any, groups: int, epsilon: float) -> Any:
    """Standardize each of ``groups`` runs of channels; no affine part. Accumulator type."""
    batch, channels, *spatial = x.shape
    grouped = jnp.reshape(x, (batch, groups, channels // groups, *spatial))
    y, _, _ = standardize(grouped, range(2, grouped.ndim), epsilon)
    return jnp.reshape(y, x.shape)


def local_response_norm(x: Any, size: int, *, alpha: float, beta: float, bias: float) -> Any:
    """Divide by a power of the sum of squares over ``size`` neighbouring channels.

    ``x / (bias + alpha / size * sum)^beta``; for even sizes the longer half comes after.
    """
    wide = jnp.asarray(x).astype(accumulator(x.dtype))
    before, after = (size - 1) // 2, size // 2
    ones = (1,) * x.ndim
    total = lax.reduce_window(
        wide * wide,
        np.zeros((), wide.dtype),
        lax.add,
        window_dimensions=(1, size, *ones[2:]),
        window_strides=ones,
        padding=((0, 0), (before, after), *((0, 0),) * (x.ndim - 2)),
    )
    scale = bias + total * np.array(alpha / size, wide.dtype)
    return (wide / scale ** np.array(beta, wide.dtype)).astype(x.dtype)
