"""Signal processing: DFT, STFT, windows, MelWeightMatrix."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from pai.frontends.lowering import spectrum
from pai.frontends.lowering.convolution import accumulator
from pai.frontends.lowering.gather import take_inside
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.registry import op
from pai.frontends.onnx.tensors import numpy_dtype


def _scalar(node: Node, value: Any, what: str) -> int:
    return int(node.concrete(value, what).reshape(()))


def _pair(x: Any) -> tuple[Any, Any]:
    """Split (..., 1) or (..., 2) into real and imaginary parts."""
    return x[..., 0], x[..., 1] if x.shape[-1] == 2 else None


def _dft(node: Node, x: Any, length: Any, axis: int) -> Any:
    """Transform dimension ``axis`` of (..., 1 or 2)."""
    axis %= np.ndim(x)
    inverse, onesided = bool(node.attr("inverse", 0)), bool(node.attr("onesided", 0))
    n = x.shape[axis]
    if length is not None:
        n = _scalar(node, length, "length of the transform")
    elif inverse and onesided:
        n = 2 * (n - 1)
    wide = jnp.moveaxis(jnp.asarray(x).astype(accumulator(x.dtype)), axis, -2)
    real, imag = _pair(wide)
    if inverse and onesided:
        y = spectrum.inverse_real(real, imag, n)[..., None]
    else:
        bins = n // 2 + 1 if onesided else n
        y = jnp.stack(spectrum.transform(real, imag, n, bins=bins, inverse=inverse), axis=-1)
    return jnp.moveaxis(y, -2, axis).astype(x.dtype)


@op("DFT", 20)
def dft(node: Node, x: Any, length: Any = None, axis: Any = None) -> Any:
    """DFT with the axis as an input."""
    return _dft(node, x, length, -2 if axis is None else _scalar(node, axis, "axis"))


@op("DFT", 17)
def dft_17(node: Node, x: Any, length: Any = None) -> Any:
    """DFT with the axis as an attribute."""
    return _dft(node, x, length, node.attr("axis", 1))


@op("STFT", 17)
def stft(node: Node, x: Any, step: Any, window: Any = None, length: Any = None) -> Any:
    """STFT: (batch, time, 1 or 2) to (batch, frames, bins, 2)."""
    hop = _scalar(node, step, "frame step")
    if length is not None:
        n = _scalar(node, length, "frame length")
    else:
        n = x.shape[1] if window is None else window.shape[0]
    frames = 1 + (x.shape[1] - n) // hop
    index = np.arange(frames)[:, None] * hop + np.arange(n)[None, :]
    wide = jnp.asarray(x).astype(accumulator(x.dtype))
    pieces = take_inside(wide, 1, index)
    if window is not None:
        missing = n - window.shape[0]
        if missing:
            window = jnp.pad(jnp.asarray(window), (missing // 2, missing - missing // 2))
        pieces = pieces * jnp.reshape(window, (1, 1, n, 1)).astype(pieces.dtype)
    real, imag = _pair(pieces)
    onesided = bool(node.attr("onesided", 1)) and imag is None
    bins = n // 2 + 1 if onesided else n
    y = spectrum.transform(real, imag, n, bins=bins, inverse=False)
    return jnp.stack(y, axis=-1).astype(x.dtype)


def _window(node: Node, size: Any, weights: tuple[float, ...]) -> np.ndarray:
    """Return a sum of cosines: ``weights[k] * cos(2π·k·i / period)``."""
    count = _scalar(node, size, "size")
    period = count if node.attr("periodic", 1) else count - 1
    phase = 2 * np.pi * np.arange(count) / max(period, 1)
    values = sum(w * np.cos(k * phase) for k, w in enumerate(weights))
    return np.asarray(values, numpy_dtype(node.attr("output_datatype", 1)))


@op("HannWindow", 17)
def hann(node: Node, size: Any) -> np.ndarray:
    """HannWindow."""
    return _window(node, size, (0.5, -0.5))


@op("HammingWindow", 17)
def hamming(node: Node, size: Any) -> np.ndarray:
    """HammingWindow."""
    return _window(node, size, (25 / 46, -21 / 46))


@op("BlackmanWindow", 17)
def blackman(node: Node, size: Any) -> np.ndarray:
    """BlackmanWindow."""
    return _window(node, size, (0.42, -0.5, 0.08))


@op("MelWeightMatrix", 17)
def mel_weight_matrix(
    node: Node, bins: Any, length: Any, rate: Any, lowest: Any, highest: Any
) -> np.ndarray:
    """MelWeightMatrix: triangles (spectrum bins, mel bins) evenly spaced in mel."""
    count, n = _scalar(node, bins, "number of mel bins"), _scalar(node, length, "DFT length")
    edges = [float(node.concrete(v, "band edge").reshape(())) for v in (lowest, highest)]
    low, high = (2595 * np.log10(1 + edge / 700) for edge in edges)
    mel = low + np.arange(count + 2) * (high - low) / (count + 2)
    hertz = 700 * (10 ** (mel / 2595) - 1)
    at = np.floor((n + 1) * hertz / _scalar(node, rate, "sample rate")).astype(np.int64)
    matrix = np.zeros((n // 2 + 1, count))
    for i, (left, middle, right) in enumerate(zip(at, at[1:], at[2:], strict=False)):
        rise, fall = np.arange(left, middle + 1), np.arange(middle, right)
        matrix[rise, i] = (rise - left) / (middle - left) if middle > left else 1.0
        if right > middle:
            matrix[fall, i] = (right - fall) / (right - middle)
    return matrix.astype(numpy_dtype(node.attr("output_datatype", 1)))
