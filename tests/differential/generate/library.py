"""Functions of jax.numpy, jax.nn and jax.image, as people call them: each many operations."""

from __future__ import annotations

from random import Random

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from generate.draw import F32, F64, Program, chance, values


def library(pick: Random) -> Program:
    """Draw one or two functions of two matrices and some row numbers, or their gradients."""
    rows, inner, columns = (pick.choice([2, 3, 4, 5, 6, 7, 8, 9, 12]) for _ in range(3))
    names = pick.sample(list(LIBRARY), 2)
    grad = chance(pick, 0.3)
    if grad:
        names = [name for name in names if name not in DISCRETE] or ["remat"]
    dtype = F32 if grad else pick.choice([F32, F32, F64])
    rng = np.random.default_rng(pick.randrange(2**32))
    n = rng.integers(0, rows, 5).astype(np.int32)
    x, y = values(pick, [rows, inner], dtype), values(pick, [inner, columns], dtype)

    def run(a, b, n):
        return tuple(LIBRARY[name](a, b, n) for name in names)

    def function(a, b, n):
        if grad:
            total = lambda *p: sum(jnp.sum(jnp.sin(z)) for z in jax.tree.leaves(run(*p, n)))  # noqa: E731
            return jax.grad(total, (0, 1))(a, b)
        return run(a, b, n)

    note = f"{names} {rows}x{inner}x{columns} grad={grad}"
    return Program(function, [x, y, n], note, tolerance=3e-4)


def _scanned(a, b, n):
    def step(c, row):
        c = jnp.tanh(row @ b + c)
        return c, c[:1]

    return lax.scan(jax.checkpoint(step), jnp.zeros_like(b[0]), a, unroll=2)


def _updated(a, b, n):
    starts = jnp.clip(n[: a.shape[0]], 0, 1)
    rows = a[: starts.shape[0]]
    return jax.vmap(lambda r, s: lax.dynamic_update_slice(r, r[:1] * 3, (s,)))(rows, starts)


@jax.custom_vjp
def _clipped(a):
    return jnp.clip(a, -1, 1)


_clipped.defvjp(lambda a: (_clipped(a), a), lambda a, g: (jnp.where(jnp.abs(a) > 3, 0, g),))


def _attention(a, b, n):
    scores = a @ a.T / 4
    mask = jnp.arange(a.shape[0])[:, None] >= jnp.arange(a.shape[0])
    return jax.nn.softmax(jnp.where(mask, scores, -1e9), -1) @ a


def _experts(a, b, n):
    weights, chosen = lax.top_k(jax.nn.softmax(a @ b), min(2, b.shape[1]))
    return jnp.einsum("tk,tke->te", weights, jax.nn.one_hot(chosen, b.shape[1], dtype=a.dtype))


def _loss(a, b, n):
    logits = jax.nn.log_softmax(a @ b)
    labels = jnp.arange(a.shape[0]) % b.shape[1]
    return -jnp.take_along_axis(logits, labels[:, None], 1).mean()


def _rotary(a, b, n):
    half = a.shape[1] // 2
    left, right = a[:, :half], a[:, half : 2 * half]
    angle = jnp.arange(a.shape[0], dtype=a.dtype)[:, None] / 8
    return jnp.concatenate([left * jnp.cos(angle) - right * jnp.sin(angle), right], -1)


LIBRARY = {
    "search": lambda a, b, n: jnp.searchsorted(jnp.sort(a[0]), b[:, 0]),
    "interp": lambda a, b, n: jnp.interp(b[:, 0], jnp.arange(a.shape[1], dtype=a.dtype), a[0]),
    "histogram": lambda a, b, n: jnp.histogram(a, bins=4, range=(-4, 4))[0],
    "digitize": lambda a, b, n: jnp.digitize(a, jnp.array([-1.0, 0.5, 2.0])),
    "unique": lambda a, b, n: jnp.unique(n, size=5, fill_value=9),
    "nonzero": lambda a, b, n: jnp.nonzero(a > 0, size=6, fill_value=7),
    "cov": lambda a, b, n: jnp.cov(a) / 8,
    "kron": lambda a, b, n: jnp.kron(a[:3, :2], b[:2, :3]),
    "convolve": lambda a, b, n: jnp.convolve(a[0], b[:, 0], "same"),
    "diff": lambda a, b, n: jnp.diff(a, axis=0),
    "gradient": lambda a, b, n: jnp.gradient(a, axis=0),
    "outer": lambda a, b, n: jnp.outer(a[0], b[0]),
    "rot": lambda a, b, n: jnp.rot90(a),
    "meshgrid": lambda a, b, n: jnp.meshgrid(a[0], b[0]),
    "lexsort": lambda a, b, n: jnp.lexsort((a[0], jnp.round(a[-1]))),
    "select": lambda a, b, n: jnp.select([a > 1, a < -1], [a * 2, a - 1], 0.5),
    "resize": lambda a, b, n: jax.image.resize(a, (5, 7), "linear"),
    "nearest": lambda a, b, n: jax.image.resize(a, (2 * a.shape[0], 3), "nearest"),
    "trapezoid": lambda a, b, n: jnp.trapezoid(a, axis=0),
    "cumulative": lambda a, b, n: jnp.cumsum(jnp.cumsum(a, 0), 1) / 8,
    "tile": lambda a, b, n: jnp.tile(a, (2, 1)),
    "repeat": lambda a, b, n: jnp.repeat(a, 3, 0),
    "repeats": lambda a, b, n: jnp.repeat(a[:1], jnp.array([2]), 0, total_repeat_length=4),
    "blocks": lambda a, b, n: jnp.block([[a, a * 2], [a - 1, a]]),
    "diagonal": lambda a, b, n: (jnp.diagonal(a), jnp.trace(a), jnp.diag(a[0])),
    "scan": _scanned,
    "remat": lambda a, b, n: jax.checkpoint(lambda c: jnp.tanh(c @ b) @ b.T)(a),
    "updates": _updated,
    "custom": lambda a, b, n: _clipped(a),
    "attention": _attention,
    "experts": _experts,
    "loss": _loss,
    "rotary": _rotary,
    "einsum": lambda a, b, n: jnp.einsum("ij,jk,ij->ki", a, b, a) / 8,
    "bilinear": lambda a, b, n: jnp.einsum("ij,kj->ik", a, a)[n],
    "segments": lambda a, b, n: jax.ops.segment_sum(a[n], n % 3, 4),
    "hermite": lambda a, b, n: jnp.polyval(a[0][:3], b),
    "logs": lambda a, b, n: jax.nn.logsumexp(a, 0, b=jnp.abs(a) + 0.1),
    "gelu": lambda a, b, n: jax.nn.gelu(a, approximate=False) + jax.nn.silu(a),
    "glu": lambda a, b, n: jax.nn.glu(jnp.concatenate([a, a], 1)),
    "standard": lambda a, b, n: jax.nn.standardize(a, 0, epsilon=0.1),
    "power": lambda a, b, n: jnp.linalg.matrix_power(b[:2, :2] / 4, 3),
    "norms": lambda a, b, n: jnp.linalg.norm(a + 0.3, axis=1),
    "solve": lambda a, b, n: lax.linalg.triangular_solve(
        jnp.eye(2, dtype=a.dtype) * 9 + jnp.tril(a[:2, :2]), b[:2, :2], left_side=True, lower=True
    ),
    "weighted": lambda a, b, n: jnp.average(a, axis=0, weights=jnp.abs(a) + 1),
    "dropped": lambda a, b, n: jnp.delete(a, 1, 0),
    "inserted": lambda a, b, n: jnp.insert(a, 1, 2.5, axis=0),
    "split": lambda a, b, n: jnp.array_split(a, 2, axis=0),
    "rolled": lambda a, b, n: jnp.roll(a, (1, -2), (0, 1)),
    "min": lambda a, b, n: (jnp.ptp(a, 0), jnp.nanmin(a, 1)),
    "windowed": lambda a, b, n: lax.reduce_window(
        a, 0.0, lax.add, (min(3, a.shape[0]), 1), (1, 1), "SAME"
    ),
}
DISCRETE = ("search", "histogram", "digitize", "unique", "nonzero", "lexsort", "solve", "segments")
