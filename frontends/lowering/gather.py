"""Reading along one dimension at positions that are known to be inside."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax


def take_inside(x: Any, axis: int, index: Any) -> Any:
    """Read ``x`` at ``index`` along ``axis``: one plain gather, nothing is clamped or wrapped.

    Args:
        x: any tensor.
        axis: dimension, not negative.
        index: integers of any rank, all within the dimension.

    Returns:
        The shape of ``x`` with ``axis`` replaced by the shape of ``index``.
    """
    rank, extra = np.ndim(x), np.ndim(index)
    others = tuple(range(axis)) + tuple(range(axis + extra, rank - 1 + extra))
    numbers = lax.GatherDimensionNumbers(
        offset_dims=others, collapsed_slice_dims=(axis,), start_index_map=(axis,)
    )
    sizes = [*x.shape[:axis], 1, *x.shape[axis + 1 :]]
    where = index[..., None].astype(np.int32)
    return lax.gather(
        jnp.asarray(x), where, numbers, sizes, mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS
    )


def take_pixels(pixels: Any, index: Any) -> Any:
    """Read (batch, channels, size) at ``index`` (batch, points): (batch, channels, points)."""
    numbers = lax.GatherDimensionNumbers(
        offset_dims=(1,),
        collapsed_slice_dims=(2,),
        start_index_map=(2,),
        operand_batching_dims=(0,),
        start_indices_batching_dims=(0,),
    )
    return lax.gather(
        pixels,
        index[..., None].astype(np.int32),
        numbers,
        (1, pixels.shape[1], 1),
        mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS,
    )
