"""gather: all dimension numbers and modes, and the ways people index."""

from __future__ import annotations

from random import Random

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from generate.draw import BOOL, C64, F32, Program, chance, indices, number, sizes, values

MODES = ["clip", "fill", "promise_in_bounds"]


def gather(pick: Random) -> Program:
    """Draw a raw gather, or an indexing expression."""
    return pick.choice([_raw, _raw, _named])(pick)


def index_numbers(pick: Random, shape: list[int]):
    """Draw which dimensions are indexed, batched or collapsed.

    Returns the sizes of the slice, the index map, the batching dimensions and the collapsed ones.
    """
    rank = len(shape)
    batching = [d for d in range(rank) if chance(pick, 0.2)]
    rest = [d for d in range(rank) if d not in batching]
    indexed = pick.sample(rest, pick.randint(min(1, len(rest)), len(rest)))
    width = [1 if d in batching else n for d, n in enumerate(shape)]
    for dim in rest:
        if dim in indexed:
            width[dim] = pick.choice([1, 1, 1, pick.randint(1, max(shape[dim], 1)), shape[dim]])
        elif chance(pick, 0.2):
            width[dim] = pick.randint(1, max(shape[dim], 1))
        width[dim] = min(width[dim], shape[dim])
    collapsed = [d for d in rest if width[d] == 1 and chance(pick, 0.6)]
    return width, indexed, batching, collapsed


def _raw(pick: Random) -> Program:
    shape = sizes(pick, pick.randint(1, 4), 300)
    width, indexed, batching, collapsed = index_numbers(pick, shape)
    loops = sizes(pick, pick.randint(0, 2), 12)
    free = list(range(len(loops)))
    # Batching dimensions go somewhere among the dimensions of the indices.
    batch_at, where = list(loops), []
    for dim in batching:
        batch_at.insert(place := pick.randint(0, len(batch_at)), shape[dim])
        where = [w + (w >= place) for w in where] + [place]
    kept = len(shape) - len(collapsed) - len(batching)
    rank = len(batch_at) + kept
    offset = sorted(pick.sample(range(rank), kept))
    numbers = lax.GatherDimensionNumbers(
        tuple(offset), tuple(collapsed), tuple(indexed), tuple(batching), tuple(where)
    )
    mode = pick.choice(MODES)
    wild = 0.0 if mode == "promise_in_bounds" else 0.4
    columns = [
        indices(pick, batch_at, shape[d] - width[d] + 1, np.dtype("i4"), wild) for d in indexed
    ]
    at = np.stack(columns, -1) if columns else np.zeros((*batch_at, 0), np.int32)
    at = at.astype(pick.choice(["i4", "i4", "i8"]))
    dtype = pick.choice([number(pick), F32, F32, BOOL, C64])
    x = values(pick, shape, dtype)

    def function(a, n):
        return lax.gather(a, n, numbers, tuple(width), mode=mode)

    return Program(function, [x, at], f"{numbers} {width} {mode} {free}")


def _named(pick: Random) -> Program:
    shape = sizes(pick, pick.randint(2, 3), 200)
    dim = pick.randrange(len(shape))
    mode = pick.choice(MODES)
    wild = 0.0 if mode == "promise_in_bounds" else 0.4
    n = indices(pick, sizes(pick, pick.randint(0, 2), 20), shape[dim], None, wild)
    m = indices(pick, [*shape[:dim], pick.randint(1, 4), *shape[dim + 1 :]], shape[dim], None, wild)
    pair = [indices(pick, [5], size, np.dtype("i4"), wild) for size in shape[:2]]
    way = pick.choice(["take", "along", "pair", "slices", "rows", "grad", "mixed"])
    x = values(pick, shape, pick.choice([F32, F32, number(pick)]))
    if way == "grad":
        x = x.astype(np.float32)

    def function(a, n, m, i, j):
        if way == "take":
            return jnp.take(a, n, axis=dim, mode=mode if mode != "promise_in_bounds" else "clip")
        if way == "along":
            return jnp.take_along_axis(a, m, dim, mode=mode)
        if way == "pair":
            return a.at[i, j].get(mode=mode)
        if way == "mixed":
            return a.at[i, :].get(mode=mode), a.at[:, j[:, None]].get(mode=mode)
        if way == "slices":
            return jax.vmap(lambda s: lax.dynamic_slice_in_dim(a, s, 1 + shape[dim] // 2, dim))(i)
        if way == "rows":
            return a.at[n if dim == 0 else i].get(mode=mode)
        return jax.grad(lambda b: jnp.sum(jnp.take(b, n, axis=dim, mode="clip") ** 2))(a)

    return Program(function, [x, n, m, *pair], f"{way} {dim} {mode} of {shape}")
