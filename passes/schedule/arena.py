"""Where in the arena each buffer lies: best fit, largest first, over known lifetimes.

Greedy by size as in Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net
Inference" (2020): the largest buffer first, each into the smallest gap that fits between the
buffers that live at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pai.runtime.program import ALIGNMENT

Lifetime = tuple[int, int, int]  # first and last instruction (both inclusive), bytes


def assign_offsets(lifetimes: Sequence[Lifetime]) -> tuple[list[int], int]:
    """Return the offset of each buffer, a multiple of 64 bytes, and the bytes of the arena.

    Two buffers whose lifetimes share an instruction do not overlap. Buffers of no bytes lie at 0.
    """
    table = np.array(lifetimes, np.int64).reshape(-1, 3)
    sizes = -(-table[:, 2] // ALIGNMENT) * ALIGNMENT
    offsets = np.zeros(len(table), np.int64)
    order = sorted(range(len(table)), key=lambda i: (-sizes[i], table[i, 0], i))
    placed = np.zeros((len(table), 4), np.int64)  # first, last, begin, end
    count = 0
    for i in order:
        if sizes[i] == 0:
            continue
        first, last = table[i, 0], table[i, 1]
        seen = placed[:count]
        rivals = seen[(seen[:, 0] <= last) & (seen[:, 1] >= first)][:, 2:]
        offsets[i] = _best_gap(rivals, int(sizes[i]))
        placed[count] = (first, last, offsets[i], offsets[i] + sizes[i])
        count += 1
    return offsets.tolist(), int(placed[:count, 3].max(initial=0))


def _best_gap(rivals: np.ndarray, size: int) -> int:
    """Return the start of the smallest gap of at least ``size`` bytes, or the end of all."""
    if not len(rivals):
        return 0
    rivals = rivals[np.argsort(rivals[:, 0], kind="stable")]
    ends = np.maximum.accumulate(rivals[:, 1])
    starts = np.concatenate(([0], ends[:-1]))
    gaps = rivals[:, 0] - starts
    fits = np.flatnonzero(gaps >= size)
    return int(starts[fits[np.argmin(gaps[fits])]]) if len(fits) else int(ends[-1])


def peak_bytes(lifetimes: Sequence[Lifetime]) -> int:
    """Return the most bytes alive at one instruction: no arena can be smaller."""
    changes: dict[int, int] = {}
    for first, last, size in lifetimes:
        padded = -(-size // ALIGNMENT) * ALIGNMENT
        changes[first] = changes.get(first, 0) + padded
        changes[last + 1] = changes.get(last + 1, 0) - padded
    alive = peak = 0
    for _, change in sorted(changes.items()):
        alive += change
        peak = max(peak, alive)
    return peak
