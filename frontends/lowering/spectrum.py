"""Discrete Fourier transforms of real pairs: a product with constant matrices, or an FFT.

A signal is a pair (real, imaginary) whose last dimension is time; imaginary may be None. Short
transforms are matrix products, which fuse, shard and run on matrix units like any other; long ones
are ``stablehlo.fft``.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

# The longest transform that is a matrix product.
MATRIX_LIMIT = 512

Pair = tuple[Any, Any]


def fit_length(x: Any, n: int) -> Any:
    """Crop or zero-pad the last dimension to ``n``."""
    have = x.shape[-1]
    if have >= n:
        return x[..., :n]
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, n - have)])


def _waves(rows: int, columns: int, n: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and sines of 2π·row·column / n."""
    turns = np.outer(np.arange(rows), np.arange(columns)) % n
    angle = 2 * np.pi * turns / n
    return np.cos(angle).astype(dtype), np.sin(angle).astype(dtype)


def _product(x: Any, matrix: np.ndarray) -> Any:
    dims = (((x.ndim - 1,), (0,)), ((), ()))
    return lax.dot_general(x, matrix, dims, precision=lax.Precision.HIGHEST)


def transform(real: Any, imag: Any, n: int, *, bins: int, inverse: bool) -> Pair:
    """Return the first ``bins`` values of the transform of length ``n``.

    Args:
        real: (..., time).
        imag: (..., time), or None for a real signal.
        n: length; the signal is cropped or padded to it.
        bins: how many values to keep.
        inverse: the inverse transform, divided by ``n``.
    """
    if n > MATRIX_LIMIT:
        return _fast(real, imag, n, bins=bins, inverse=inverse)
    used = min(real.shape[-1], n)
    cos, sin = _waves(used, bins, n, real.dtype)
    if inverse:
        cos, sin = cos / n, -sin / n
        cos, sin = cos.astype(real.dtype), sin.astype(real.dtype)
    real = real[..., :used]
    if imag is None:
        return _product(real, cos), -_product(real, sin)
    imag = imag[..., :used]
    return (
        _product(real, cos) + _product(imag, sin),
        _product(imag, cos) - _product(real, sin),
    )


def _fast(real: Any, imag: Any, n: int, *, bins: int, inverse: bool) -> Pair:
    real = fit_length(real, n)
    if imag is None and not inverse and bins <= n // 2 + 1:
        y = lax.fft(real, lax.FftType.RFFT, (n,))
    else:
        other = jnp.zeros_like(real) if imag is None else fit_length(imag, n)
        kind = lax.FftType.IFFT if inverse else lax.FftType.FFT
        y = lax.fft(lax.complex(real, other), kind, (n,))
    return lax.real(y)[..., :bins], lax.imag(y)[..., :bins]


def inverse_real(real: Any, imag: Any, n: int) -> Any:
    """Return the real signal (..., n) of a one-sided spectrum.

    Args:
        real: (..., bins), cropped or padded to ``n // 2 + 1``.
        imag: like ``real``, or None.
        n: length of the signal.
    """
    bins = n // 2 + 1
    other = jnp.zeros_like(real) if imag is None else imag
    if n > MATRIX_LIMIT:
        spectrum = lax.complex(fit_length(real, bins), fit_length(other, bins))
        return lax.fft(spectrum, lax.FftType.IRFFT, (n,))
    used = min(real.shape[-1], bins)
    cos, sin = _waves(used, n, n, np.float64)
    twice = np.full((used, 1), 2.0)
    twice[0] = 1.0
    if n % 2 == 0 and used == bins:
        twice[-1] = 1.0
    cos, sin = (cos * twice / n).astype(real.dtype), (sin * twice / n).astype(real.dtype)
    return _product(real[..., :used], cos) - _product(other[..., :used], sin)
