"""Linear quantization as ONNX defines it, shared by every operator that quantizes."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from jax import lax
from jax import numpy as jnp

from pai.frontends.onnx.arrays import axis_of
from pai.frontends.onnx.ops.cast import cast_to


def spread(value: Any, shape: tuple[int, ...], axis: int, block: int = 0) -> Any:
    """Return a scale or zero point as something that broadcasts against ``shape``.

    Args:
        value: a scalar, one value per index of ``axis``, or one per block of ``axis``.
        shape: shape of the quantized tensor.
        axis: the quantized axis.
        block: block size, 0 when not blocked.
    """
    if prod(value.shape) == 1 and value.ndim <= 1:
        return jnp.reshape(value, ())
    dim = axis_of(axis, len(shape))
    if value.ndim == 1 and len(shape) != 1:
        return jnp.reshape(value, [-1 if i == dim else 1 for i in range(len(shape))])
    if value.ndim == len(shape) and value.shape[dim] != shape[dim]:
        size = block or -(-shape[dim] // value.shape[dim])
        repeated = jnp.repeat(value, size, axis=dim)
        return lax.slice_in_dim(repeated, 0, shape[dim], axis=dim)
    return jnp.asarray(value)


def quantize(
    x: Any, scale: Any, zero: Any, dtype: np.dtype, precision: Any = None, *, saturate: bool = True
) -> Any:
    """Return saturate(round(x / scale) + zero) in ``dtype``; to a float type nothing is rounded.

    Args:
        x: the value.
        scale: broadcasts against x.
        zero: zero point, broadcasts against x; None for zero.
        dtype: target type.
        precision: type the division is done in; the scale's when None.
        saturate: for float 8 targets, see ``cast_to``.
    """
    kind = precision or scale.dtype
    if not jnp.issubdtype(kind, jnp.floating) or jnp.dtype(kind).itemsize < 2:
        kind = jnp.float32
    ratio = jnp.asarray(x).astype(kind) / jnp.asarray(scale).astype(kind)
    if not is_integer(dtype):
        moved = ratio if zero is None else ratio + jnp.asarray(zero).astype(kind)
        return cast_to(moved, dtype, saturate=saturate)
    level = jnp.round(ratio).astype(jnp.float32)
    if zero is not None:
        level = level + jnp.asarray(zero).astype(jnp.float32)
    info = jnp.iinfo(dtype)
    whole = jnp.clip(level, float(info.min), float(info.max)).astype(jnp.int32)
    return whole.astype(dtype)


def dequantize(x: Any, scale: Any, zero: Any, dtype: np.dtype) -> Any:
    """Return (x - zero)·scale in ``dtype``."""
    wide = widened(x)
    if zero is not None:
        wide = wide - widened(zero)
    return wide.astype(dtype) * jnp.asarray(scale).astype(dtype)


def widened(x: Any) -> Any:
    """Return integers as int32 and small floats as float32, where differences are exact."""
    return jnp.asarray(x).astype(jnp.int32 if is_integer(x.dtype) else jnp.float32)


def is_integer(dtype: Any) -> bool:
    """Return whether a type is an integer, the sub-byte ones included."""
    return bool(jnp.issubdtype(dtype, jnp.integer))
