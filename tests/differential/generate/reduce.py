"""Reductions: any kind and body, several operands, initial values; norms, losses and arguments."""

from __future__ import annotations

from random import Random

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from generate.draw import (
    BOOL,
    C64,
    F32,
    F64,
    FLOATS,
    Program,
    chance,
    number,
    sizes,
    subset,
    values,
)

KINDS = {
    "add": lax.add,
    "mul": lax.mul,
    "max": lax.max,
    "min": lax.min,
    "swapped": lambda a, b: lax.add(b, a),
    "doubled": lambda a, b: a + b * 1,
    "or": lax.bitwise_or,
    "and": lax.bitwise_and,
    "xor": lax.bitwise_xor,
    "right": lambda a, b: jnp.where(b > a, b, a),
    "absmax": lambda a, b: jnp.where(jnp.abs(b) > jnp.abs(a), b, a),
}


def reduce(pick: Random) -> Program:
    """Draw a reduction of one of four styles."""
    style = pick.choice([_plain, _plain, _several, _named, _named])
    return style(pick)


def _plain(pick: Random) -> Program:
    """One operand, a body, an initial value that is neutral or not."""
    kind = pick.choice(list(KINDS))
    dtype = number(pick)
    if kind in ("or", "and", "xor"):
        dtype = pick.choice([BOOL, np.dtype("i4"), np.dtype("u1"), np.dtype("i8")])
    elif kind in ("add", "mul", "swapped") and chance(pick, 0.15):
        dtype = C64
    if kind in ("absmax",) and dtype.kind not in "if":
        dtype = F32
    shape = sizes(pick, pick.randint(1, 4))
    if kind in {"mul", "absmax"}:
        shape = [min(n, 5) for n in shape]
    dims = subset(pick, range(len(shape)), 1)
    x = values(pick, shape, dtype, special=kind in ("add", "max", "min") and chance(pick, 0.1))
    if kind == "absmax":  # a tie would be decided by the order
        rng = np.random.default_rng(pick.randrange(2**32))
        x = (rng.permutation(x.size) + 1).reshape(shape).astype(dtype)
        x = np.where(rng.integers(0, 2, shape), x, -x).astype(dtype)
    if kind == "mul" and dtype.kind not in "iu":
        x = (np.sign(x) * (1 + abs(x) / 8)).astype(dtype)
    neutral = {"mul": 1, "max": _low(dtype), "min": _high(dtype), "and": -1}
    start = neutral.get(kind, _low(dtype) if kind == "right" else 0)
    if dtype == BOOL:
        start = {"and": True}.get(kind, False)
    elif kind == "and" and dtype.kind == "u":
        start = np.iinfo(dtype).max
    if chance(pick, 0.3):
        start = values(pick, (), dtype).item() if kind != "absmax" else 0
    given = chance(pick, 0.3) and kind not in ("doubled",)
    init = np.array(start).astype(dtype)

    def function(a, *rest):
        return lax.reduce(a, rest[0] if rest else init, KINDS[kind], dims)

    return Program(function, [x, init] if given else [x], f"{kind} over {dims} from {init}")


def _low(dtype: np.dtype):
    if dtype == BOOL:
        return False
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def _high(dtype: np.dtype):
    if dtype == BOOL:
        return True
    return np.iinfo(dtype).max if dtype.kind in "iu" else np.inf


def _several(pick: Random) -> Program:
    """Several operands: arguments of extremes, sums beside extremes, means and variances."""
    shape = sizes(pick, pick.randint(1, 3))
    dims = subset(pick, range(len(shape)), 1)
    dtype = pick.choice([F32, F32, *FLOATS, np.dtype("i4"), np.dtype("i1")])
    x = values(pick, shape, dtype, special=chance(pick, 0.1))
    y = values(pick, shape, F32)
    body = pick.choice(["argmax", "argmin", "sums", "sum and max", "welford", "first"])
    if body not in ("argmax", "argmin"):  # XLA takes floats of one width only
        x = values(pick, shape, F32)
    positions = np.arange(max(x.size, 1), dtype=np.int32)[: x.size].reshape(shape)

    def function(a, b):
        n = jnp.asarray(positions)
        if body in ("argmax", "argmin"):
            return lax.reduce((a, n), _start(a.dtype, body), _better(body), dims)
        if body == "first":  # smallest position where the value is largest, and a partner
            init = (*_start(a.dtype, "argmax"), jnp.float32(0))
            return lax.reduce((a, n, b), init, _carrying, dims)
        zero = jnp.float32(0)
        if body == "sums":
            return lax.reduce((a, b), (zero, zero), lambda p, q: (p[0] + q[0], p[1] + q[1]), dims)
        if body == "sum and max":

            def join(p, q):
                return p[0] + q[0], jnp.maximum(p[1], q[1])

            return lax.reduce((a, b), (zero, jnp.float32(-jnp.inf)), join, dims)
        ones = jnp.ones_like(a)
        return lax.reduce((a, jnp.zeros_like(a), ones), (zero, zero, zero), _welford, dims)

    return Program(function, [x, y], f"{body} over {dims} of {shape}")


def _start(dtype, body: str):
    dtype = jnp.dtype(dtype)
    worst = _low(np.dtype(dtype)) if body == "argmax" else _high(np.dtype(dtype))
    return jnp.array(worst, dtype), jnp.int32(2**31 - 1)


def _better(body: str):
    def join(left, right):
        (a, i), (b, j) = left, right
        first = a > b if body == "argmax" else a < b
        keep = _wins(first, a, b, i, j)
        return jnp.where(keep, a, b), jnp.where(keep, i, j)

    return join


def _wins(first, a, b, i, j):
    """Whether (a, i) goes before (b, j): what is no number first, then the smaller position."""
    if not jnp.issubdtype(a.dtype, jnp.floating):
        return first | ((a == b) & (i < j))
    keep = first | jnp.isnan(a) | ((a == b) & (i < j))
    return keep & ~(jnp.isnan(b) & (~jnp.isnan(a) | (j < i)))


def _carrying(left, right):
    (a, i, p), (b, j, q) = left, right
    keep = _wins(a > b, a, b, i, j)
    return jnp.where(keep, a, b), jnp.where(keep, i, j), jnp.where(keep, p, q)


def _welford(left, right):
    (m, v, n), (k, w, o) = left, right
    total = n + o
    safe = jnp.where(total == 0, 1.0, total)
    delta = k - m
    return m + delta * o / safe, v + w + delta * delta * n * o / safe, total


def _named(pick: Random) -> Program:
    """What people write: norms, losses, softmax, arguments."""
    shape = sizes(pick, pick.randint(1, 3))
    dim = pick.randrange(len(shape))
    dims = tuple(subset(pick, range(len(shape)), 1))
    names = pick.sample(list(NAMED), 2)
    grad = chance(pick, 0.3)
    x = values(pick, shape, pick.choice([F32, F32, F64]))

    def function(a):
        out = tuple(NAMED[name](a, dim, dims) for name in names)
        if not grad:
            return out
        smooth = [n for n in names if n not in DISCRETE] or ["softmax"]

        # Weights, or the gradient of a softmax's sum would be zero.
        def weigh(y):
            return jnp.sum(y * (1 + lax.iota(jnp.float32, y.size).reshape(y.shape)))

        return jax.grad(lambda b: sum(weigh(NAMED[n](b, dim, dims)) for n in smooth))(a)

    return Program(function, [x], f"{names} {dim} {dims} grad={grad}", tolerance=1e-4)


DISCRETE = ("argmax", "argmin", "any", "all", "count", "nanmax", "unique")
NAMED = {
    "argmax": lambda x, d, ds: jnp.argmax(x, d),
    "argmin": lambda x, d, ds: jnp.argmin(x, d),
    "var": lambda x, d, ds: jnp.var(x, ds),
    "std": lambda x, d, ds: jnp.std(x, ds),
    "softmax": lambda x, d, ds: jax.nn.softmax(x, d),
    "log_softmax": lambda x, d, ds: jax.nn.log_softmax(x, d),
    "logsumexp": lambda x, d, ds: jax.nn.logsumexp(x, ds),
    "norm": lambda x, d, ds: jnp.sqrt(jnp.sum(x * x, ds) + 1),
    "mean": lambda x, d, ds: x - jnp.mean(x, ds, keepdims=True),
    "any": lambda x, d, ds: jnp.any(x > 3, ds),
    "all": lambda x, d, ds: jnp.all(x > -3, ds),
    "count": lambda x, d, ds: jnp.sum(x > 0, ds),
    "nanmax": lambda x, d, ds: jnp.nanmax(jnp.where(x > 3, jnp.nan, x), ds),
    "prod": lambda x, d, ds: jnp.prod(1 + x / 16, d),
    "one_hot": lambda x, d, ds: jax.nn.one_hot(jnp.argmax(x, d), x.shape[d]),
    "layer_norm": lambda x, d, ds: (
        (x - x.mean(d, keepdims=True)) * lax.rsqrt(x.var(d, keepdims=True) + 1e-3)
    ),
}
