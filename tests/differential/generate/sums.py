"""Sums of partial products that are added, scaled, moved and cut before anybody needs them whole.

This is what the passes on collectives work on: they move, join and split all_reduces.
"""

from __future__ import annotations

from random import Random

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from generate.draw import Program, chance, values


def sums(pick: Random) -> Program:
    """Draw an expression of three to eight steps over a pool of equally shaped matrices."""
    rows, inner, columns = (pick.choice([2, 3, 4, 5, 6, 8]) for _ in range(3))
    steps = [
        (pick.choice(list(STEPS)), pick.randrange(9), pick.randrange(9), pick.randrange(2**16))
        for _ in range(pick.randint(3, 8))
    ]
    steps[0] = (pick.choice(["dot", "embed", "cube"]), 0, 0, 0)
    loop = chance(pick, 0.3)
    grad = chance(pick, 0.25)
    arrays = [
        values(pick, [rows, inner]),
        values(pick, [inner, columns]) / 4,
        values(pick, [rows, 3, columns]),
        values(pick, [rows, columns]),
        np.random.default_rng(pick.randrange(2**32)).integers(0, inner, rows).astype(np.int32),
    ]

    def run(x, w, cube, start, n):
        pool = [start]
        for name, first, second, seed in steps:
            left, right = pool[-1 - first % len(pool)], pool[-1 - second % len(pool)]
            pool.append(STEPS[name](Random(seed), left, right, (x, w, cube, n)))
        return pool[-1], sum(pool[1:])

    def looped(x, w, cube, start, n):
        body = lambda _, c: run(x, w, cube, c, n)[0] / 4  # noqa: E731
        return lax.fori_loop(0, 2, body, start), start.sum(0)

    def function(x, w, cube, start, n):
        if grad:
            total = lambda *a: sum(jnp.sum(y * y) for y in run(*a, n)) / 64  # noqa: E731
            return jax.grad(total, (0, 1, 2, 3))(x, w, cube, start)
        return (looped if loop else run)(x, w, cube, start, n)

    note = f"{[(name, a, b) for name, a, b, _ in steps]} loop={loop} grad={grad}"
    return Program(function, arrays, note, tolerance=3e-4)


def _dot(pick, a, b, env):
    return env[0] @ env[1]


def _embed(pick, a, b, env):
    return env[1][env[3]]


def _cube(pick, a, b, env):
    return pick.choice([jnp.sum, jnp.max, jnp.min])(env[2], 1)


def _square(pick, a, b, env):
    return (a @ b.T) @ a / 64


def _cut(pick, a, b, env):
    half = a.shape[0] // 2
    return jnp.concatenate([a[half:], b[:half]], 0)


def _halves(pick, a, b, env):
    return jnp.pad(a[:, 1:], ((0, 0), (0, 1)))


def _total(pick, a, b, env):
    return a - jnp.sum(b, pick.randrange(2), keepdims=True) / 8


def _tile(pick, a, b, env):
    return (a.reshape(-1)[None] * 0.5).reshape(a.shape[::-1]).T


STEPS = {
    "dot": _dot,
    "embed": _embed,
    "cube": _cube,
    "square": _square,
    "add": lambda pick, a, b, env: a + b,
    "subtract": lambda pick, a, b, env: a - b,
    "negate": lambda pick, a, b, env: -a,
    "scale": lambda pick, a, b, env: a * pick.choice([0.5, -2.0, 0.0]),
    "divide": lambda pick, a, b, env: a / 3,
    "half": lambda pick, a, b, env: (a.astype(jnp.bfloat16) * 2).astype(jnp.float32),
    "transpose": lambda pick, a, b, env: jnp.sin(a.T).T,
    "cut": _cut,
    "pad": _halves,
    "total": _total,
    "tile": _tile,
    "mask": lambda pick, a, b, env: jnp.where(lax.iota(jnp.int32, a.shape[0])[:, None] > 1, a, b),
    "maximum": lambda pick, a, b, env: jnp.maximum(a, b),
    "multiply": lambda pick, a, b, env: a * jnp.tanh(b),
    "row": lambda pick, a, b, env: a + b[:1],
    "dynamic": lambda pick, a, b, env: lax.dynamic_update_slice(a, b[:1], (env[3][0], 0)),
}
