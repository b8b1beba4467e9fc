"""broadcast_in_dim, reshape with split and merged dimensions, transpose, bitcast."""

from __future__ import annotations

from random import Random

import jax.numpy as jnp
import numpy as np
from jax import lax

from generate.draw import (
    BOOL,
    C64,
    F32,
    Program,
    chance,
    number,
    permutation,
    sizes,
    subset,
    values,
)


def shaping(pick: Random) -> Program:
    """Draw one to three movements of one array, sometimes with a sum at the end."""
    dtype = pick.choice([number(pick), BOOL, C64, F32, F32])
    shape = sizes(pick, pick.randint(0, 4), 300)
    steps = [
        pick.choice(["reshape", "reshape", "broadcast", "transpose", "bitcast", "squeeze"])
        for _ in range(pick.randint(1, 3))
    ]
    seed = pick.randrange(2**32)
    ending = chance(pick, 0.3)

    def function(x):
        inner, out = Random(seed), []
        for step in steps:
            x = STEPS[step](inner, x)
            out.append(x)
        if ending and x.ndim:
            return jnp.sum(x.astype(jnp.float32), inner.randrange(x.ndim))
        return tuple(out)

    return Program(function, [values(pick, shape, dtype)], f"{steps} of {shape}")


def _reshape(pick: Random, x):
    return x.reshape(factorization(pick, x.size))


def factorization(pick: Random, total: int) -> list[int]:
    """Return sizes whose product is ``total``."""
    if total == 0:
        return pick.choice([[0], [0, 3], [4, 0]])
    primes = [p for p in (2, 3, 5, 7, 11, 13) for _ in range(9) if total % p ** (_ + 1) == 0]
    out = [1] * pick.randint(1, 5)
    for prime in primes:
        out[pick.randrange(len(out))] *= prime
    rest = total // int(np.prod(out))
    out[pick.randrange(len(out))] *= rest
    return out


def _broadcast(pick: Random, x):
    if x.size > 300 or x.ndim > 4:
        return x
    rank = x.ndim + pick.randint(0, 2)
    # StableHLO's broadcast dimensions may come in any order, JAX's rise.
    dims = sorted(pick.sample(range(rank), x.ndim))
    shape = [pick.choice([1, 2, 3, 4]) for _ in range(rank)]
    for dim, size in zip(dims, x.shape, strict=True):
        shape[dim] = size if size != 1 else pick.choice([1, 2, 5])
    return lax.broadcast_in_dim(x, shape, dims)


def _transpose(pick: Random, x):
    return x.transpose(permutation(pick, x.ndim))


def _bitcast(pick: Random, x):
    if x.dtype == jnp.bool_ or x.dtype.kind == "c":
        return x
    # A narrower type adds a dimension; a float read from integers could be NaN, which is no test.
    width = pick.choice([n for n in (1, 2, 4, 8) if n <= x.dtype.itemsize])
    return lax.bitcast_convert_type(x, jnp.dtype(f"u{width}"))


def _squeeze(pick: Random, x):
    ones = [dim for dim, size in enumerate(x.shape) if size == 1]
    if ones and chance(pick, 0.6):
        return lax.squeeze(x, subset(pick, ones, 1))
    return lax.expand_dims(x, sorted(pick.sample(range(x.ndim + 1), 1)))


STEPS = {
    "reshape": _reshape,
    "broadcast": _broadcast,
    "transpose": _transpose,
    "bitcast": _bitcast,
    "squeeze": _squeeze,
}
