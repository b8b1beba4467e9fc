"""iota, constants, select, clamp, and programs without arguments' data."""

from __future__ import annotations

from random import Random

import jax.numpy as jnp
import numpy as np
from jax import lax

from generate.draw import BOOL, C64, F32, Program, chance, number, sizes, subset, values


def choosing(pick: Random) -> Program:
    """Draw masks made of iotas and constants, and choose by them."""
    shape = sizes(pick, pick.randint(1, 4), 400)
    dtype = pick.choice([number(pick), F32, BOOL, C64])
    x, y = values(pick, shape, dtype), values(pick, shape, dtype)
    table = values(pick, shape, dtype)
    row = values(pick, shape[-1:], dtype)
    scalar = values(pick, (), BOOL)
    bounds = sorted(values(pick, (2,), F32).tolist())
    dim = pick.randrange(len(shape))
    kind = np.dtype(pick.choice(["i4", "i1", "u1", "i8", "f4", "u2"]))
    cut = pick.randint(0, max(shape[dim], 1))
    ways = pick.sample(list(WAYS), pick.randint(1, 3))
    summed = chance(pick, 0.3) and dtype.kind != "c" and dtype != BOOL
    dims = tuple(subset(pick, range(len(shape)), 1))

    def function(a, b, s):
        place = lax.broadcasted_iota(kind, a.shape, dim)
        env = {"place": place, "cut": cut, "bounds": bounds, "table": table, "row": row, "s": s}
        for way in ways:
            a = WAYS[way](a, b, env).astype(a.dtype)
        return jnp.sum(a.astype(jnp.float32), dims) if summed else (a, place)

    note = f"{ways} {kind} {dim} cut {cut} of {shape} sum {summed} {dims}"
    return Program(function, [x, y, scalar], note)


def _between(a, b, env):
    if a.dtype.kind in "cb":
        return jnp.where(env["place"].astype(jnp.int32) < env["cut"], a, b)
    low, high = (jnp.array(bound).astype(a.dtype) for bound in env["bounds"])
    return lax.clamp(jnp.minimum(low, high), a, jnp.maximum(low, high))


WAYS = {
    "mask": lambda a, b, env: jnp.where(env["place"].astype(jnp.int32) < env["cut"], a, b),
    "clamp": _between,
    "scalar": lambda a, b, env: lax.select(env["s"], a, b),
    "table": lambda a, b, env: jnp.where(a == b, a, jnp.asarray(env["table"])),
    "row": lambda a, b, env: jnp.where(jnp.asarray(env["row"]) == a, b, a),
    "tril": lambda a, b, env: jnp.tril(a) if a.ndim > 1 else a,
    "triu": lambda a, b, env: jnp.triu(a, 1) if a.ndim > 1 else b,
    "fill": lambda a, b, env: jnp.full_like(a, 3) + a if a.dtype != bool else ~a,
    "place": lambda a, b, env: env["place"] if a.dtype.kind in "iuf" else a,
    "eye": lambda a, b, env: (
        jnp.where(jnp.eye(*a.shape[-2:], dtype=bool), a, b) if a.ndim > 1 else a
    ),
}
