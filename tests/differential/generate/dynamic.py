"""dynamic_slice and dynamic_update_slice: caches, starts out of bounds, any index type."""

from __future__ import annotations

from random import Random

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from generate.draw import BOOL, C64, F32, Program, chance, number, sizes, values


def dynamic(pick: Random) -> Program:
    """Draw slices and updates of one array at starts that are arguments."""
    shape = sizes(pick, pick.randint(1, 4), 400)
    part = [
        n if chance(pick, 0.35) else pick.randint(min(1, n), n) if chance(pick, 0.6) else min(1, n)
        for n in shape
    ]
    kind = pick.choice(["i4", "i4", "i4", "i8", "u1", "i1", "u4", "i2"])
    starts = [_start(pick, n, kind) for n in shape]
    dtype = pick.choice([number(pick), F32, F32, BOOL, C64])
    x, u = values(pick, shape, dtype), values(pick, part, dtype)
    way = pick.choice(["slice", "update", "both", "grad", "in_dim", "loop"])
    if way == "grad":
        x, u = (values(pick, s, F32) for s in (shape, part))

    def function(a, b, *at):
        if way == "slice":
            return lax.dynamic_slice(a, at, part)
        if way == "update":
            return lax.dynamic_update_slice(a, b, at)
        if way == "both":
            cache = lax.dynamic_update_slice(a, b, at)
            return cache, lax.dynamic_slice(cache, at[::-1] if len(set(shape)) < 2 else at, part)
        if way == "in_dim":
            dim = len(shape) - 1
            return lax.dynamic_slice_in_dim(a, at[dim], part[dim], dim)
        if way == "loop":

            def body(i, c):
                return lax.dynamic_update_slice(c, b, (at[0] + i.astype(kind), *at[1:]))

            return lax.fori_loop(0, 2, body, a)

        def loss(c, d):
            return jnp.sum(lax.dynamic_slice(c, at, part) * d) + jnp.sum(
                lax.dynamic_update_slice(c, d, at) ** 2
            )

        return jax.grad(loss, (0, 1))(a, b)

    return Program(function, [x, u, *starts], f"{way} {part} of {shape} at {starts} ({kind})")


def _start(pick: Random, size: int, kind: str) -> np.ndarray:
    low = 0 if kind[0] == "u" else -3
    value = pick.randint(0, size) if chance(pick, 0.6) else pick.randint(low, size + 5)
    if chance(pick, 0.05):
        value = int(np.iinfo(np.dtype(kind)).max)
    return np.array(value, kind)
