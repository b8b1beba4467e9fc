"""The arithmetic of sliding windows: padding and output sizes of convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Window:
    """A sliding window over the spatial dimensions; every field has one entry per dimension.

    Args:
        kernel: window extents.
        strides: steps between windows.
        dilations: distance between the taps of one window.
        padding: (low, high) elements added at either end.
        ceil_extra: elements beyond ``padding`` at the high end that only exist because the
            output size was rounded up; they never count as padding in an average.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    ceil_extra: tuple[int, ...]

    @property
    def full_padding(self) -> tuple[tuple[int, int], ...]:
        """Padding per dimension with the elements of rounding up included."""
        pairs = zip(self.padding, self.ceil_extra, strict=True)
        return tuple((low, high + extra) for (low, high), extra in pairs)

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the spatial output sizes for the spatial input sizes ``shape``."""
        spans = (d * (k - 1) + 1 for d, k in zip(self.dilations, self.kernel, strict=True))
        rows = zip(shape, self.full_padding, spans, self.strides, strict=True)
        return tuple((n + low + high - span) // s + 1 for n, (low, high), span, s in rows)

    def counts(self, shape: Sequence[int], *, include_padding: bool) -> np.ndarray:
        """Return how many elements each window averages over.

        Args:
            shape: spatial input sizes.
            include_padding: count ``padding`` (but not ``ceil_extra``) as elements.

        Returns:
            An integer array of the spatial output shape.
        """
        total = np.ones((), np.int64)
        for axis, n in enumerate(shape):
            low, high = self.padding[axis]
            inside = np.zeros(low + n + high + self.ceil_extra[axis], np.int64)
            if include_padding:
                inside[: low + n + high] = 1
            else:
                inside[low : low + n] = 1
            starts = np.arange(self.output_shape(shape)[axis]) * self.strides[axis]
            taps = np.arange(self.kernel[axis]) * self.dilations[axis]
            along = inside[starts[:, None] + taps[None, :]].sum(axis=1)
            total = total[..., None] * along
        return total


def same_padding(total: int, *, extra_low: bool) -> tuple[int, int]:
    """Split ``total`` elements of padding in two; the odd one goes low or high."""
    total = max(total, 0)
    small, large = total // 2, total - total // 2
    return (large, small) if extra_low else (small, large)


def make_window(
    shape: Sequence[int],
    kernel: Sequence[int],
    *,
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: bool = False,
) -> Window:
    """Return the window for spatial input sizes ``shape``.

    Args:
        shape: spatial input sizes.
        kernel: window extents.
        strides: steps, default 1.
        dilations: distances of taps, default 1.
        pads: all low paddings, then all high ones; default 0.
        auto_pad: NOTSET, VALID, SAME_UPPER or SAME_LOWER (the last two overrule ``pads``).
        ceil_mode: round the output size up, as long as the last window starts inside the
            input or its low padding.
    """
    rank = len(shape)
    steps = tuple(strides or (1,) * rank)
    dils = tuple(dilations or (1,) * rank)
    flat = list(pads or (0,) * (2 * rank)) if auto_pad == "NOTSET" else [0] * (2 * rank)
    padding: list[tuple[int, int]] = []
    extras: list[int] = []
    for axis, n in enumerate(shape):
        span = dils[axis] * (kernel[axis] - 1) + 1
        low, high = flat[axis], flat[rank + axis]
        if auto_pad.startswith("SAME"):
            out = -(-n // steps[axis])
            total = (out - 1) * steps[axis] + span - n
            low, high = same_padding(total, extra_low=auto_pad == "SAME_LOWER")
        extra = 0
        if ceil_mode:
            out = -(-(n + low + high - span) // steps[axis]) + 1
            if (out - 1) * steps[axis] >= n + low:
                out -= 1
            extra = max((out - 1) * steps[axis] + span - (n + low + high), 0)
        padding.append((low, high))
        extras.append(extra)
    return Window(tuple(kernel), steps, dils, tuple(padding), tuple(extras))
