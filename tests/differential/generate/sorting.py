"""sort with several operands and keys, top_k, argsort, median-like selections."""

from __future__ import annotations

from random import Random

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from generate.draw import F32, Program, chance, number, sizes, values


def sorting(pick: Random) -> Program:
    """Draw a sort or a top_k along some dimension."""
    shape = sizes(pick, pick.randint(1, 3), 300)
    dim = pick.randrange(len(shape))
    way = pick.choice(["sort", "pair", "keys", "argsort", "top_k", "descending", "grad", "unique"])
    dtype = pick.choice([number(pick), F32])
    if way in ("grad", "unique"):
        dtype = F32
    x = values(pick, shape, dtype, special=way in ("sort", "argsort") and chance(pick, 0.15))
    y = values(pick, shape, pick.choice([F32, np.dtype("i4"), np.dtype("u1")]))
    k = pick.randint(1, max(1, shape[-1])) if shape[-1] else 0
    stable = chance(pick, 0.5)

    def function(a, b):
        if way == "sort":
            return lax.sort(a, dimension=dim, is_stable=stable)
        if way == "pair":
            return lax.sort((a, b), dimension=dim, is_stable=True, num_keys=1)
        if way == "keys":
            place = lax.broadcasted_iota(jnp.int32, a.shape, dim)
            return lax.sort((b, a, place), dimension=dim, num_keys=2, is_stable=True)
        if way == "argsort":
            return jnp.argsort(a, axis=dim, stable=True), jnp.argsort(b, axis=dim, descending=True)
        if way == "top_k":
            return lax.top_k(a, k)
        if way == "descending":
            return jnp.sort(a, axis=dim, descending=True)
        if way == "unique":
            return jnp.median(a, axis=dim), jnp.quantile(a, 0.3, axis=dim)
        weight = 1 + lax.iota(jnp.float32, a.shape[dim])
        shaped = [-1 if d == dim else 1 for d in range(a.ndim)]
        return jax.grad(lambda c: jnp.sum(jnp.sort(c, dim) * weight.reshape(shaped)))(a)

    return Program(function, [x, y], f"{way} {dim} of {shape} {dtype} k={k}")
