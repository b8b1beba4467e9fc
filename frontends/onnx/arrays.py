"""Small things every operator family needs: which array module to use, axes, sizes."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy as np
from jax import numpy as jnp

from pai.frontends.onnx.node import Node

# Concrete results with more elements than this are traced instead: they would be large constants.
CONCRETE_LIMIT = 65536


def is_concrete(*values: Any) -> bool:
    """Return whether every value (None aside) is known now."""
    return all(value is None or isinstance(value, (np.ndarray, np.generic)) for value in values)


def xp(*values: Any) -> ModuleType:
    """Return ``numpy`` when every value is concrete, else ``jax.numpy``."""
    return np if is_concrete(*values) else jnp


def axis_of(axis: int, rank: int) -> int:
    """Return a possibly negative axis as a non-negative one.

    Raises:
        ValueError: when it is out of range.
    """
    if not -rank <= axis < max(rank, 1):
        raise ValueError(f"axis {axis} is out of range for rank {rank}")
    return axis % rank if rank else 0


def axes_of(axes: Iterable[int], rank: int) -> tuple[int, ...]:
    """Return sorted non-negative axes."""
    return tuple(sorted(axis_of(int(axis), rank) for axis in axes))


def ints(value: Any) -> list[int]:
    """Return a concrete integer array as a list of Python ints."""
    return [int(item) for item in np.asarray(value).reshape(-1)]


def old_broadcast(node: Node, a: Any, b: Any) -> Any:
    """Return ``b`` with dimensions appended so that it lines up with ``a`` at ``axis``.

    Before opset 7 binary operators broadcast only their second input, and only on request.
    """
    axis = node.attr("axis")
    if axis is None or not node.attr("broadcast", 0):
        return b
    return b.reshape(b.shape + (1,) * (a.ndim - axis_of(axis, a.ndim) - b.ndim))
