"""reduce_window, select_and_scatter, cumulative sums, pooling and its gradient."""

from __future__ import annotations

from random import Random

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from generate.draw import F32, F64, Program, chance, number, sizes, values

KINDS = {"add": (lax.add, 0), "max": (lax.max, None), "min": (lax.min, None), "mul": (lax.mul, 1)}


def windows(pick: Random) -> Program:
    """Draw a window operation of one of four styles."""
    return pick.choice([_reduce, _reduce, _several, _cumulative, _pooling])(pick)


def _window(pick: Random, shape: list[int], *, plain: bool = False):
    size = [pick.choice([1, 1, 2, 2, 3, 4]) for _ in shape]
    stride = [pick.choice([1, 1, 2, 3]) if n > 1 else pick.choice([1, 1, 1, 2]) for n in size]
    base = [1 if plain else pick.choice([1, 1, 1, 1, 2]) for _ in shape]
    dilation = [1 if plain else pick.choice([1, 1, 1, 2]) for _ in shape]
    pad = [
        (0, 0) if chance(pick, 0.4) else (pick.randint(0, n + 1), pick.randint(0, n + 1))
        for n in size
    ]
    if plain:
        pad = [(min(a, n - 1), min(b, n - 1)) for (a, b), n in zip(pad, size, strict=True)]
    return size, stride, pad, base, dilation


def _reduce(pick: Random) -> Program:
    shape = sizes(pick, pick.randint(1, 4), 300)
    window = _window(pick, shape)
    kind = pick.choice(list(KINDS))
    dtype = number(pick)
    x = values(pick, shape, dtype, special=kind != "mul" and chance(pick, 0.1))
    if kind == "mul" and dtype.kind not in "iu":
        x = (np.sign(x) * (1 + abs(x) / 8)).astype(dtype)
    operation, start = KINDS[kind]
    if start is None:
        limits = np.iinfo(dtype) if dtype.kind in "iu" else None
        low, high = (limits.min, limits.max) if limits else (-np.inf, np.inf)
        start = low if kind == "max" else high
    if chance(pick, 0.25):
        start = 2
    init = np.array(start).astype(dtype)

    def function(a):
        return lax.reduce_window(a, init, operation, *window)

    return Program(function, [x], f"{kind} {dtype} {window} of {shape}")


def _several(pick: Random) -> Program:
    # Of nothing, XLA's CPU backend aborts without its algebraic simplifier.
    shape = [max(1, n) for n in sizes(pick, pick.randint(1, 3), 200)]
    size, stride, pad, base, dilation = _window(pick, shape)
    x, y = (values(pick, shape, F32) for _ in range(2))

    def join(left, right):
        return left[0] + right[0], jnp.maximum(left[1], right[1])

    def function(a, b):
        init = (np.float32(0), np.float32(-np.inf))
        return lax.reduce_window((a, b), init, join, size, stride, pad, base, dilation)

    return Program(function, [x, y], f"two {(size, stride, pad, base, dilation)} of {shape}")


CUMULATIVE = {
    "sum": lax.cumsum,
    "max": lax.cummax,
    "min": lax.cummin,
    "prod": lambda x, **k: lax.cumprod(1 + x / 8, **k),
    "logsumexp": lax.cumlogsumexp,
}


def _cumulative(pick: Random) -> Program:
    shape = sizes(pick, pick.randint(1, 3), 300)
    name, dim, back = pick.choice(list(CUMULATIVE)), pick.randrange(len(shape)), chance(pick, 0.3)
    dtype = pick.choice([F32, F32, F64] if name in ("prod", "logsumexp") else [number(pick), F32])
    grad = dtype == F32 and chance(pick, 0.3)

    def function(a):
        def scan(b):
            return CUMULATIVE[name](b, axis=dim, reverse=back)

        if grad:
            return jax.grad(lambda b: jnp.sum(scan(b) ** 2))(a)
        return scan(a)

    x = values(pick, shape, dtype)
    return Program(function, [x], f"cumulative {name} {dim} {back} {grad}", tolerance=_loose(dtype))


def _loose(dtype: np.dtype) -> float | None:
    return {4: 1e-4, 2: 5e-2}.get(dtype.itemsize) if dtype.kind not in "iu" else None


def _pooling(pick: Random) -> Program:
    """The gradients of pooling: select_and_scatter, padded and dilated reduce_window."""
    shape = sizes(pick, pick.randint(1, 4), 300)
    size, stride, pad, _, _ = _window(pick, shape, plain=True)
    most = chance(pick, 0.6)
    # Distinct values: XLA may choose either of two equal ones.
    rng = np.random.default_rng(pick.randrange(2**32))
    x = rng.permutation(int(np.prod(shape))).reshape(shape).astype(np.float32) / 8 - 9
    if chance(pick, 0.3):
        x = -np.abs(x) - 1

    def function(a):
        def pool(b):
            if most:
                return lax.reduce_window(b, -jnp.inf, lax.max, size, stride, pad)
            return lax.reduce_window(b, 0.0, lax.add, size, stride, pad)

        return pool(a), jax.grad(lambda b: jnp.sum(pool(b) ** 2))(a)

    return Program(function, [x], f"pool max={most} {size} {stride} {pad} of {shape}")
