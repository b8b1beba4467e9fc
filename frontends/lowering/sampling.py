"""Reading an image at fractional positions: bilinear taps, cubic taps, borders."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from pai.frontends.lowering.gather import take_pixels


def read_pixels(image: Any, index: Sequence[Any], inside: Any = None) -> Any:
    """Read ``image`` at integer positions, zero where ``inside`` is false.

    Args:
        image: (batch, channels, *spatial).
        index: per spatial dimension, integer positions (batch, points); any value is allowed
            where ``inside`` is false.
        inside: (batch, points) boolean, or None when every position is inside.

    Returns:
        (batch, channels, points).
    """
    spatial = image.shape[2:]
    flat: Any = None
    for n, at in zip(spatial, index, strict=True):
        at_safe = jnp.clip(at, 0, n - 1)
        flat = at_safe if flat is None else flat * n + at_safe
    pixels = jnp.reshape(image, (*image.shape[:2], -1))
    picked = take_pixels(pixels, flat)
    if inside is None:
        return picked
    return jnp.where(inside[:, None, :], picked, jnp.zeros((), image.dtype))


def inside_mask(index: Sequence[Any], spatial: Sequence[int]) -> Any:
    """Tell which integer positions lie within the image."""
    mask: Any = None
    for at, n in zip(index, spatial, strict=True):
        ok = (at >= 0) & (at < n)
        mask = ok if mask is None else mask & ok
    return mask


def sample_linear(image: Any, where: Any) -> Any:
    """Interpolate linearly at positions ``where`` (rank, batch, points), zeros outside.

    Returns:
        (batch, channels, points).
    """
    floor = jnp.floor(where)
    base = floor.astype(np.int32)
    frac = where - floor
    total: Any = None
    for corner in itertools.product((0, 1), repeat=len(base)):
        index = [at + c for at, c in zip(base, corner, strict=True)]
        weight: Any = 1
        for f, c in zip(frac, corner, strict=True):
            weight = weight * (f if c else 1 - f)
        pixel = read_pixels(image, index, inside_mask(index, image.shape[2:]))
        term = pixel * weight[:, None, :].astype(image.dtype)
        total = term if total is None else total + term
    return total


def cubic_weights(frac: Any, a: float) -> list[Any]:
    """Return Keys' cubic convolution weights of the taps at -1, 0, 1 and 2.

    Source: R. Keys, Cubic convolution interpolation for digital image processing, 1981.

    Args:
        frac: position past tap 0, in [0, 1].
        a: the free parameter, -0.75 or -0.5.
    """

    def near(t: Any) -> Any:
        return ((a + 2) * t - (a + 3)) * t * t + 1

    def far(t: Any) -> Any:
        return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a

    return [far(frac + 1), near(frac), near(1 - frac), far(2 - frac)]


def reflect(at: Any, low: float, high: float) -> Any:
    """Reflect positions at both borders until they lie in [low, high]."""
    span = high - low
    if span <= 0:
        return jnp.full_like(at, low)
    distance = jnp.abs(at - low)
    turns = jnp.floor(distance / span)
    rest = distance - turns * span
    return jnp.where(turns % 2 == 0, low + rest, high - rest)


def _borders(n: int, align_corners: bool) -> tuple[float, float]:
    return (0.0, n - 1.0) if align_corners else (-0.5, n - 0.5)


def _fetch(image: Any, index: Sequence[Any], padding: str, align_corners: bool) -> Any:
    """Read integer positions (batch, points) with the padding mode applied to them."""
    spatial = image.shape[2:]
    if padding == "zeros":
        return read_pixels(image, index, inside_mask(index, spatial))
    if padding == "reflection":
        index = [
            jnp.where(
                (at < 0) | (at > n - 1),
                reflect(at.astype(np.float32), *_borders(n, align_corners)),
                at.astype(np.float32),
            ).astype(np.int32)
            for at, n in zip(index, spatial, strict=True)
        ]
    return read_pixels(image, index)


def grid_sample(image: Any, grid: Any, *, mode: str, padding: str, align_corners: bool) -> Any:
    """Sample ``image`` at normalized positions, as PyTorch's grid_sample does.

    Args:
        image: (batch, channels, *spatial), 2 or 3 spatial dimensions or any other number.
        grid: (batch, *output, rank), in [-1, 1], last spatial dimension first.
        mode: nearest, linear or cubic.
        padding: zeros, border or reflection.
        align_corners: -1 and 1 are the centres of the corner pixels, not their outer edges.

    Returns:
        (batch, channels, *output).
    """
    spatial = image.shape[2:]
    batch, output = grid.shape[0], grid.shape[1:-1]
    points = jnp.reshape(grid, (batch, -1, len(spatial)))
    where = []
    for axis, n in enumerate(spatial):
        unit = points[:, :, len(spatial) - 1 - axis]
        at = (unit + 1) / 2 * (n - 1) if align_corners else ((unit + 1) * n - 1) / 2
        if mode == "nearest":
            at = jnp.round(at)
        # Cubic taps find their own way back, as in PyTorch: clamping first would bend the curve.
        where.append(at if mode == "cubic" else _settle(at, n, padding, align_corners))
    if mode == "nearest":
        index = [at.astype(np.int32) for at in where]
        picked = _fetch(image, index, padding, align_corners)
    else:
        picked = _blend(image, where, mode, padding, align_corners)
    return jnp.reshape(picked, (*image.shape[:2], *output)).astype(image.dtype)


def _settle(at: Any, n: int, padding: str, align_corners: bool) -> Any:
    """Bring positions beyond the borders back, where the padding mode says so."""
    low, high = _borders(n, align_corners)
    beyond = (at < low) | (at > high)
    if padding == "border":
        return jnp.where(beyond, jnp.clip(at, 0, n - 1), at)
    if padding == "reflection":
        return jnp.where(beyond, reflect(at, low, high), at)
    return at


def _blend(image: Any, where: Sequence[Any], mode: str, padding: str, align_corners: bool) -> Any:
    """Sum the taps around each position with their linear or cubic weights."""
    floors = [jnp.floor(at) for at in where]
    fracs = [at - low for at, low in zip(where, floors, strict=True)]
    if mode == "linear":
        first, weights = 0, [[1 - f, f] for f in fracs]
    else:
        first, weights = -1, [cubic_weights(f, -0.75) for f in fracs]
    base = [low.astype(np.int32) for low in floors]
    total: Any = None
    for tap in itertools.product(range(len(weights[0])), repeat=len(base)):
        index = [at + t + first for at, t in zip(base, tap, strict=True)]
        weight: Any = 1
        for axis, t in enumerate(tap):
            weight = weight * weights[axis][t]
        pixel = _fetch(image, index, padding, align_corners)
        term = pixel * weight[:, None, :].astype(image.dtype)
        total = term if total is None else total + term
    return total


def affine_grid(theta: Any, size: Sequence[int], *, align_corners: bool) -> Any:
    """Return the sampling grid of an affine map.

    Args:
        theta: (batch, rank, rank + 1).
        size: spatial output sizes.
        align_corners: as in ``grid_sample``.

    Returns:
        (batch, *size, rank), last spatial dimension first.
    """
    lines = []
    for n in size:
        if align_corners:
            lines.append(np.linspace(-1.0, 1.0, n) if n > 1 else np.array([-1.0]))
        else:
            lines.append((2 * np.arange(n) + 1) / n - 1)
    mesh = np.meshgrid(*lines, indexing="ij")
    points = np.stack([*reversed(mesh), np.ones(tuple(size))], axis=-1)
    flat = points.reshape(-1, len(size) + 1).astype(theta.dtype)
    grid = jnp.einsum("pk,brk->bpr", flat, theta)
    return jnp.reshape(grid, (theta.shape[0], *size, len(size)))
