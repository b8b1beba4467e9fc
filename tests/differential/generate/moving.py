"""slice, pad (negative and interior too), concatenate, reverse, roll."""

from __future__ import annotations

from random import Random

import jax.numpy as jnp
from jax import lax

from generate.draw import BOOL, C64, F32, Program, chance, number, sizes, subset, values


def moving(pick: Random) -> Program:
    """Draw one to three movements of one array."""
    dtype = pick.choice([number(pick), BOOL, C64, F32, F32])
    shape = sizes(pick, pick.randint(1, 4), 400)
    steps = [pick.choice(list(STEPS)) for _ in range(pick.randint(1, 3))]
    seed = pick.randrange(2**32)
    ending = chance(pick, 0.3)

    def function(x):
        inner, out = Random(seed), []
        for step in steps:
            x = STEPS[step](inner, x)
            out.append(x)
        if ending:
            return jnp.max(x, inner.randrange(x.ndim)) if x.size and dtype.kind != "c" else x
        return tuple(out)

    return Program(function, [values(pick, shape, dtype)], f"{steps} of {shape}")


def _slice(pick: Random, x):
    begin, end, step = [], [], []
    for size in x.shape:
        if chance(pick, 0.4):
            low, high, stride = 0, size, 1
        else:
            low = pick.randint(0, max(size - 1, 0))
            high = pick.randint(min(low + 1, size), size)
            stride = pick.choice([1, 1, 1, 2, 3])
        begin.append(low)
        end.append(high)
        step.append(stride)
    return lax.slice(x, begin, end, step)


def _pad(pick: Random, x):
    config = []
    for size in x.shape:
        if chance(pick, 0.4) or x.size > 500:
            config.append((0, 0, 0))
            continue
        inside = pick.choice([0, 0, 0, 1, 2]) if size else 0
        wide = size + max(size - 1, 0) * inside
        low, high = pick.randint(-2, 4), pick.randint(-2, 4)
        if wide + low + high < 1:
            low = high = 1
        config.append((low, high, inside))
    fill = jnp.array(pick.choice([0, 1, 1]), x.dtype)
    return lax.pad(x, fill, config)


def _concatenate(pick: Random, x):
    dim = pick.randrange(x.ndim)
    parts = [x]
    for _ in range(pick.randint(1, 3)):
        part = x
        if chance(pick, 0.6):
            part = lax.slice_in_dim(x, 0, pick.randint(0, x.shape[dim]), axis=dim)
        parts.insert(pick.randint(0, len(parts)), part if x.size < 300 else part[:0])
    parts = [p for p in parts if p.shape[:dim] == x.shape[:dim]]
    parts = [p for p in parts if p.shape[dim + 1 :] == x.shape[dim + 1 :]]
    return jnp.concatenate(parts, dim)


def _reverse(pick: Random, x):
    return lax.rev(x, subset(pick, range(x.ndim), 1))


def _roll(pick: Random, x):
    return jnp.roll(x, pick.randint(-3, 3), pick.randrange(x.ndim))


def _split(pick: Random, x):
    dim = pick.randrange(x.ndim)
    cut = pick.randint(0, x.shape[dim])
    left, right = jnp.split(x, [cut], dim)
    return jnp.concatenate([right, left], dim)


def _stack(pick: Random, x):
    if x.ndim > 4 or x.size > 200:
        return x
    return jnp.stack([x, jnp.flip(x, 0), x], pick.randint(0, x.ndim))


STEPS = {
    "slice": _slice,
    "pad": _pad,
    "concatenate": _concatenate,
    "reverse": _reverse,
    "roll": _roll,
    "split": _split,
    "stack": _stack,
}
