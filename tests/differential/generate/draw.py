"""What a family draws: shapes, element types, values; all from one ``random.Random``.

A family is a function of a Random, so the same function serves the sweep (a seeded Random) and
hypothesis (``st.randoms(use_true_random=False)``, which shrinks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import ml_dtypes
import numpy as np

from pai.runtime.mesh import Mesh

BF16 = np.dtype(ml_dtypes.bfloat16)
F16, F32, F64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
C64, C128, BOOL = np.dtype(np.complex64), np.dtype(np.complex128), np.dtype(bool)
FLOATS = [F32, F32, F32, F32, F64, BF16, F16]
INTEGERS = [np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)]
INDEX_TYPES = ("i4", "i4", "i4", "i8", "u1", "i2", "u4")
SIZES = (1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 8, 9, 10, 12, 16, 17, 24)


@dataclass(frozen=True)
class Program:
    """A function, or StableHLO text, and its arguments.

    Args:
        function: a JAX function of the arguments, or the text of a module.
        arguments: arrays.
        note: what was drawn, for the reader of a failure.
        rewrite: of the lowered text, for attributes that JAX cannot write.
        mesh: the mesh, where the program names its axes itself.
        tolerance: relative, instead of that of the element type.
        expected: the results, where one device cannot run the program.
    """

    function: Callable[..., Any] | str
    arguments: Sequence[np.ndarray]
    note: str = ""
    rewrite: Callable[[str], str] | None = None
    mesh: Mesh | None = None
    tolerance: float | None = None
    expected: Sequence[np.ndarray] | None = None


Family = Callable[[Random], Program]


def chance(pick: Random, part: float) -> bool:
    """Return True in ``part`` of the draws."""
    return pick.random() < part


def sizes(pick: Random, rank: int, limit: int = 600) -> list[int]:
    """Return ``rank`` dimensions, ragged and tiny ones included, of at most ``limit`` elements."""
    out = [pick.choice(SIZES) for _ in range(rank)]
    while np.prod(out, dtype=int) > limit:
        dim = max(range(rank), key=lambda d: out[d])
        out[dim] = max(1, out[dim] // 2)
    if out and chance(pick, 0.02):
        out[pick.randrange(rank)] = 0
    return out


def subset(pick: Random, items: Sequence[int], low: int = 0, high: int | None = None) -> list[int]:
    """Return some of ``items`` in their order."""
    items = list(items)
    most = len(items) if high is None else min(high, len(items))
    return sorted(pick.sample(items, pick.randint(min(low, most), most)))


def permutation(pick: Random, count: int) -> list[int]:
    """Return 0 … count-1 in some order."""
    return pick.sample(range(count), count)


def number(pick: Random) -> np.dtype:
    """Return an element type of numbers, f32 most often."""
    if chance(pick, 0.6):
        return F32
    return pick.choice([*FLOATS, *INTEGERS])


def values(
    pick: Random, shape: Sequence[int], dtype: np.dtype = F32, *, special: bool = False
) -> np.ndarray:
    """Return an array.

    Floats are eighths between -4 and 4 as a rule: their sums and products are exact, so that
    the order of additions does not matter and ties come up. Otherwise they are normal numbers;
    with ``special`` some are infinite or not numbers.
    """
    rng = np.random.default_rng(pick.randrange(2**32))
    shape = tuple(shape)
    if dtype == BOOL:
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        if chance(pick, 0.3):
            return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
        return rng.integers(-5 if dtype.kind == "i" else 0, 9, shape).astype(dtype)
    if dtype.kind == "c":
        return (_floats(pick, rng, shape) + 1j * _floats(pick, rng, shape)).astype(dtype)
    out = _floats(pick, rng, shape).astype(dtype)
    if special and out.size:
        places = rng.integers(0, out.size, 1 + out.size // 6)
        out.flat[places] = rng.choice([np.nan, np.inf, -np.inf, -0.0], places.shape).astype(dtype)
    return out


def _floats(pick: Random, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    style = pick.random()
    if style < 0.7:
        return rng.integers(-32, 33, shape) / 8
    if style < 0.8:
        return -1 - np.abs(rng.standard_normal(shape))  # zeros in padding would win a maximum
    return rng.standard_normal(shape)


def indices(
    pick: Random, shape: Sequence[int], size: int, dtype: np.dtype | None = None, wild: float = 0.4
) -> np.ndarray:
    """Return indices into ``size`` elements, out of bounds too in ``wild`` of the draws."""
    rng = np.random.default_rng(pick.randrange(2**32))
    dtype = dtype or pick.choice([np.dtype(t) for t in INDEX_TYPES])
    low, high = 0, max(size, 1)
    if chance(pick, wild):
        low, high = -size - 2, 2 * size + 3
        if dtype.kind == "u":
            low = 0
    return rng.integers(low, high, tuple(shape)).astype(dtype)
