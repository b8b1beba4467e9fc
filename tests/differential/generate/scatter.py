"""scatter: all dimension numbers and kinds, with repeated and out-of-bounds indices."""

from __future__ import annotations

from random import Random

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from generate.draw import BOOL, C64, F32, Program, chance, indices, number, sizes, values
from generate.gather import index_numbers

KINDS = {
    "add": lax.scatter_add,
    "mul": lax.scatter_mul,
    "min": lax.scatter_min,
    "max": lax.scatter_max,
    "sub": lax.scatter_sub,
    "set": lax.scatter,
}


def scatter(pick: Random) -> Program:
    """Draw a raw scatter, or an update expression."""
    return pick.choice([_raw, _raw, _named])(pick)


def _raw(pick: Random) -> Program:
    shape = sizes(pick, pick.randint(1, 4), 300)
    width, indexed, batching, inserted = index_numbers(pick, shape)
    batch_at, where = sizes(pick, pick.randint(0, 2), 12), []
    for dim in batching:
        batch_at.insert(place := pick.randint(0, len(batch_at)), shape[dim])
        where = [w + (w >= place) for w in where] + [place]
    kept = [d for d in range(len(shape)) if d not in inserted and d not in batching]
    rank = len(batch_at) + len(kept)
    offset = sorted(pick.sample(range(rank), len(kept)))
    numbers = lax.ScatterDimensionNumbers(
        tuple(offset), tuple(inserted), tuple(indexed), tuple(batching), tuple(where)
    )
    kind = pick.choice(list(KINDS))
    mode = pick.choice(["clip", "drop", "drop", "promise_in_bounds"])
    wild = 0.0 if mode == "promise_in_bounds" else 0.4
    columns = [
        indices(pick, batch_at, shape[d] - width[d] + 1, np.dtype("i4"), wild) for d in indexed
    ]
    at = np.stack(columns, -1) if columns else np.zeros((*batch_at, 0), np.int32)
    at = at.astype(pick.choice(["i4", "i4", "i8"]))
    dtype = pick.choice([number(pick), F32, F32])
    if kind in ("add", "set") and chance(pick, 0.15):
        dtype = pick.choice([C64, BOOL]) if kind == "set" else C64
    inner, windows = iter(batch_at), iter([width[d] for d in kept])
    update = [next(windows) if dim in offset else next(inner) for dim in range(rank)]
    x, u = values(pick, shape, dtype), values(pick, update, dtype)
    if kind == "mul" and dtype.kind not in "iu":
        u = (np.sign(u) * (1 + abs(u) / 8)).astype(dtype)
    if kind == "set":  # who writes last to a place is not defined
        u = np.broadcast_to(values(pick, (), dtype), u.shape).copy()

    def function(a, n, b):
        return KINDS[kind](a, n, b, numbers, mode=mode)

    loose = 1e-1 if dtype.itemsize == 2 and dtype.kind not in "iu" else None
    return Program(function, [x, at, u], f"{kind} {numbers} {width} {mode}", tolerance=loose)


def _named(pick: Random) -> Program:
    shape = sizes(pick, pick.randint(2, 3), 200)
    count = pick.randint(1, 6)
    n = indices(pick, [count], shape[0])
    m = indices(pick, [count], shape[1])
    order = np.random.default_rng(pick.randrange(2**32)).permutation(shape[0] + 3)[:count]
    way = pick.choice(["rows", "points", "columns", "set rows", "grad", "count", "segments"])
    kind = pick.choice(["add", "max", "min", "multiply"])
    x = values(pick, shape, F32)
    u = values(pick, [len(order), *shape[1:]], F32)
    v = values(pick, [count, *shape[1:]], F32)

    def function(a, n, m, u, v, order):
        if way == "rows":
            return getattr(a.at[n], kind)(v, mode="drop")
        if way == "points":
            return getattr(a.at[n, m], kind)(v[:, 0] if v.ndim == 2 else v[:, 0, :])
        if way == "columns":
            return getattr(a.at[:, m], kind)(1.5)
        if way == "set rows":
            return a.at[order].set(u, mode="drop")
        if way == "count":
            return jnp.bincount(n, length=shape[0]), jnp.zeros(shape[0], jnp.int32).at[n].add(1)
        if way == "segments":
            return jax.ops.segment_sum(v, n, shape[0]), jax.ops.segment_max(v, n, shape[0])

        def loss(b, w):
            return jnp.sum(b.at[n].add(w, mode="drop") ** 2)

        return jax.grad(loss, (0, 1))(a, v)

    arrays = [x, n, m, u, v, order.astype(np.int32)]
    return Program(function, arrays, f"{way} {kind} of {shape}")
