"""Complex numbers, booleans and small integers through every kind of operation."""

from __future__ import annotations

from random import Random

import jax.numpy as jnp
import numpy as np
from jax import lax

from generate.draw import BOOL, C64, C128, INTEGERS, Program, chance, indices, sizes, subset, values


def complex_numbers(pick: Random) -> Program:
    """Draw operations on complex numbers, their parts, sums and products."""
    rows, inner, columns = (max(1, n) for n in sizes(pick, 3, 200))
    dtype = pick.choice([C64, C64, C128])
    x, y = values(pick, [rows, inner], dtype), values(pick, [inner, columns], dtype)
    dims = tuple(subset(pick, range(2), 1))
    n = indices(pick, [4], rows, np.dtype("i4"))
    names = pick.sample(list(COMPLEX), 3)

    def function(a, b, n):
        return tuple(COMPLEX[name](a, b, dims, n) for name in names)

    return Program(function, [x, y, n], f"{names} {dims} of {x.shape} {y.shape}", tolerance=1e-4)


COMPLEX = {
    "parts": lambda a, b, ds, n: (jnp.real(a), jnp.imag(a)),
    "join": lambda a, b, ds, n: lax.complex(jnp.imag(a), jnp.real(a)),
    "sum": lambda a, b, ds, n: jnp.sum(a, ds),
    "prod": lambda a, b, ds, n: jnp.prod(a[:3, :3] / 4, ds),
    "dot": lambda a, b, ds, n: a @ b,
    "abs": lambda a, b, ds, n: jnp.abs(a),
    "conj": lambda a, b, ds, n: jnp.conj(a) * a,
    "divide": lambda a, b, ds, n: a / (1 + jnp.abs(a)),
    "exp": lambda a, b, ds, n: jnp.exp(1j * jnp.real(a)),
    "flip": lambda a, b, ds, n: a[::-1],
    "pad": lambda a, b, ds, n: jnp.pad(a, ((1, 2), (0, 1)), constant_values=1 + 2j),
    "rows": lambda a, b, ds, n: a.at[n].get(mode="fill", fill_value=1j),
    "scatter": lambda a, b, ds, n: a.at[n].add(1 + 1j, mode="drop"),
    "concat": lambda a, b, ds, n: jnp.concatenate([a, a[:1]], 0),
    "reshape": lambda a, b, ds, n: a.reshape(-1),
    "equal": lambda a, b, ds, n: a == jnp.conj(a),
    "cumsum": lambda a, b, ds, n: jnp.cumsum(a, 0),
    "where": lambda a, b, ds, n: jnp.where(jnp.real(a) > 0, a, 2j),
}


def small_integers(pick: Random) -> Program:
    """Draw operations on booleans and integers of 8 to 64 bits, wrap-around included."""
    dtype = pick.choice([BOOL, *INTEGERS])
    rows, inner, columns = (max(1, n) for n in sizes(pick, 3, 200))
    x, y = values(pick, [rows, inner], dtype), values(pick, [inner, columns], dtype)
    dims = tuple(subset(pick, range(2), 1))
    n = indices(pick, [4], rows, np.dtype("i4"))
    names = pick.sample(list(INTEGER), 3)
    wrap = chance(pick, 0.5)

    def function(a, b, n):
        return tuple(INTEGER[name](a, b, dims, n, wrap) for name in names)

    return Program(function, [x, y, n], f"{names} {dtype} {dims} of {x.shape} {y.shape}")


def _reduced(operation, start):
    def run(a, b, ds, n, wrap):
        return lax.reduce(a, np.array(start(a.dtype), a.dtype), operation, ds)

    return run


def _ones(dtype):
    return (~np.zeros((), dtype)).item()


INTEGER = {
    "sum": lambda a, b, ds, n, w: jnp.sum(a, ds, dtype=a.dtype if w and a.dtype != bool else None),
    "or": _reduced(lax.bitwise_or, lambda t: 0),
    "and": _reduced(lax.bitwise_and, _ones),
    "xor": _reduced(lax.bitwise_xor, lambda t: 0),
    "max": lambda a, b, ds, n, w: jnp.max(a, ds),
    "min": lambda a, b, ds, n, w: jnp.min(a, ds),
    "prod": lambda a, b, ds, n, w: jnp.prod(a, ds, dtype=None if a.dtype == bool else a.dtype),
    "argmin": lambda a, b, ds, n, w: jnp.argmin(a, ds[0]),
    "dot": lambda a, b, ds, n, w: a @ b,
    "flip": lambda a, b, ds, n, w: a[::-1, ::-1],
    "pad": lambda a, b, ds, n, w: jnp.pad(a, ((1, 0), (2, 1)), constant_values=1),
    "rows": lambda a, b, ds, n, w: a.at[n].get(mode="fill", fill_value=1),
    "scatter": lambda a, b, ds, n, w: a.at[n].max(jnp.array(1, a.dtype), mode="drop"),
    "set": lambda a, b, ds, n, w: a.at[:, 0].set(jnp.array(1, a.dtype)),
    "cumsum": lambda a, b, ds, n, w: jnp.cumsum(a, 0),
    "cummax": lambda a, b, ds, n, w: lax.cummax(a.astype(jnp.int32), 1),
    "sort": lambda a, b, ds, n, w: jnp.sort(a, 0),
    "convert": lambda a, b, ds, n, w: a.astype(jnp.float32) / 3,
    "where": lambda a, b, ds, n, w: jnp.where(a > 1, a, jnp.array(0, a.dtype)),
    "update": lambda a, b, ds, n, w: lax.dynamic_update_slice(a, a[:1], (n[0], 0)),
    "reshape": lambda a, b, ds, n, w: a.T.reshape(-1),
}
