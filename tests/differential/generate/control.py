"""while, scan, cond, switch, fori_loop with sharded carries."""

from __future__ import annotations

from random import Random

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from generate.draw import Program, chance, sizes, values


def control(pick: Random) -> Program:
    """Draw a loop or a branch around a few operations."""
    rows, columns, steps = (max(1, n) for n in sizes(pick, 3, 200))
    steps = min(steps, 6)
    x, w = values(pick, [rows, columns]), values(pick, [columns, columns]) / 8
    xs = values(pick, [steps, rows, columns])
    choice = np.array(pick.randint(-1, 4), np.int32)
    bodies = [pick.choice(list(BODIES)) for _ in range(3)]
    way = pick.choice(["fori", "while", "scan", "scan", "cond", "switch", "nested", "map", "assoc"])
    reverse, grad = chance(pick, 0.3), chance(pick, 0.3) and way in ("scan", "cond", "map")

    def function(a, w, xs, n):
        def run(b):
            return WAYS[way](b, w, xs, n, [BODIES[name] for name in bodies], reverse)

        if grad:
            return jax.grad(lambda b: sum(jnp.sum(y**2) for y in jax.tree.leaves(run(b))))(a)
        return run(a)

    note = f"{way} {bodies} {rows}x{columns} steps {steps} reverse {reverse} grad {grad}"
    return Program(function, [x, w, xs, choice], note, tolerance=2e-4)


BODIES = {
    "dense": lambda a, w: jnp.tanh(a @ w),
    "shift": lambda a, w: jnp.roll(a, 1, 0) * 0.5,
    "norm": lambda a, w: a - a.mean(0),
    "soft": lambda a, w: jax.nn.softmax(a, -1),
    "flip": lambda a, w: a[::-1] + 0.25,
    "sort": lambda a, w: jnp.sort(a, 0),
    "total": lambda a, w: a + jnp.sum(a) / 64,
    "both": lambda a, w: jnp.sin(a) + (a.T @ a).mean() / 16,
}


def _fori(a, w, xs, n, bodies, reverse):
    return lax.fori_loop(0, 3, lambda i, c: bodies[0](c, w) + i, a)


def _while(a, w, xs, n, bodies, reverse):
    def body(c):
        return (c[0] + 1, bodies[0](c[1], w), c[2] + jnp.sum(c[1], 0))

    return lax.while_loop(lambda c: c[0] < jnp.abs(n) + 1, body, (n * 0, a, a[0]))


def _scan(a, w, xs, n, bodies, reverse):
    def step(c, x):
        c = bodies[0](c, w) + x
        return c, (jnp.max(c, 0), bodies[1](c, w))

    return lax.scan(step, a, xs, reverse=reverse)


def _cond(a, w, xs, n, bodies, reverse):
    return lax.cond(n > 0, lambda b: bodies[0](b, w), lambda b: bodies[1](b, w), a)


def _switch(a, w, xs, n, bodies, reverse):
    branches = [lambda b, f=f: (f(b, w), jnp.sum(b)) for f in bodies]
    return lax.switch(n, branches, a)


def _nested(a, w, xs, n, bodies, reverse):
    def step(c, x):
        inner = lax.fori_loop(0, 2, lambda i, d: bodies[0](d, w), c)
        c = lax.cond(jnp.sum(x) > 0, lambda d: bodies[1](d, w), lambda d: d - 1, inner)
        return c, c[:, 0]

    return lax.scan(step, a, xs)


def _map(a, w, xs, n, bodies, reverse):
    return lax.map(lambda x: bodies[0](x + a, w), xs)


def _assoc(a, w, xs, n, bodies, reverse):
    return lax.associative_scan(jnp.add, xs, reverse=reverse), bodies[0](a, w)


WAYS = {
    "fori": _fori,
    "while": _while,
    "scan": _scan,
    "cond": _cond,
    "switch": _switch,
    "nested": _nested,
    "map": _map,
    "assoc": _assoc,
}
