"""Two to four operations of different families in a row, and their gradients."""

from __future__ import annotations

from random import Random

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from generate import moving, shaping
from generate.draw import F32, Program, chance, sizes, subset
from generate.draw import values as draw_values


def chain(pick: Random) -> Program:
    """Draw a chain on one array; every step may take an array of any shape and give any other."""
    shape = [max(1, n) for n in sizes(pick, pick.randint(1, 3), 200)]
    steps = [pick.choice(list(STEPS)) for _ in range(pick.randint(2, 4))]
    seed = pick.randrange(2**32)
    grad = chance(pick, 0.3)
    x, w = draw_values(pick, shape, F32), draw_values(pick, [12, 12], F32) / 4
    n = np.random.default_rng(pick.randrange(2**32)).integers(-2, 9, 5).astype(np.int32)
    keep_all = chance(pick, 0.5)

    def run(x, w, n):
        inner, out = Random(seed), []
        for step in steps:
            if x.size > 800:
                x = x.reshape(-1)[:400]
            x = STEPS[step](inner, x, w, n)
            out.append(x)
        return tuple(out) if keep_all else x

    def function(x, w, n):
        if grad:

            def total(a, b):
                return sum(jnp.sum(jnp.sin(y)) for y in jax.tree.leaves(run(a, b, n)))

            return jax.grad(total, (0, 1))(x, w)
        return run(x, w, n)

    return Program(function, [x, w, n], f"{steps} {shape} grad={grad}", tolerance=3e-4)


def _dim(pick: Random, x) -> int:
    return pick.randrange(x.ndim) if x.ndim else 0


def _dot(pick, x, w, n):
    size = x.shape[-1] if x.ndim else 1
    if size > 12:
        return jnp.tensordot(x, x, ((x.ndim - 1,), (x.ndim - 1,))) if x.size < 60 else x
    return (x if x.ndim else x[None]) @ w[:size] / 8


def _einsum(pick, x, w, n):
    if x.ndim != 2 or x.shape[0] > 30:
        return x
    return jnp.einsum("ij,kj->ik", x, x) / 16


def _conv(pick, x, w, n):
    if x.size == 0 or x.ndim == 0:
        return x
    size = x.shape[-1]
    flat = x.reshape(1, -1, size)
    kernel = w[:3, : min(size, 4)].reshape(3, 1, -1)
    if size != kernel.shape[-1]:
        kernel, flat = w[:3, :1].reshape(3, 1, 1), x.reshape(1, -1, 1)
    return lax.conv_general_dilated(
        flat, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=kernel.shape[-1],
    )  # fmt: skip


def _reduce(pick, x, w, n):
    dims = tuple(subset(pick, range(x.ndim), min(1, x.ndim)))
    return pick.choice([jnp.sum, jnp.max, jnp.mean, jnp.min])(x, dims) if x.size else x


def _softmax(pick, x, w, n):
    return jax.nn.softmax(x, _dim(pick, x)) if x.ndim else x


def _norm(pick, x, w, n):
    if not x.size or not x.ndim:
        return x
    dim = _dim(pick, x)
    return (x - x.mean(dim, keepdims=True)) * lax.rsqrt(x.var(dim, keepdims=True) + 0.1)


def _gather(pick, x, w, n):
    return jnp.take(x, n, axis=_dim(pick, x), mode="clip") if x.ndim and 0 not in x.shape else x


def _scatter(pick, x, w, n):
    if not x.ndim or not x.size:
        return x
    return pick.choice([lambda r: r.add(1.5), lambda r: r.max(0.5), lambda r: r.multiply(2.0)])(
        x.at[n]
    )


def _embed(pick, x, w, n):
    rows = jnp.clip(jnp.round(jnp.abs(x)), 0, 11).astype(jnp.int32).reshape(-1)[:40]
    return w[rows]


def _window(pick, x, w, n):
    if not x.ndim or not x.size:
        return x
    size = [min(pick.choice([1, 2, 3]), k) for k in x.shape]
    stride = [pick.choice([1, 2]) for _ in x.shape]
    if pick.random() < 0.5:
        return lax.reduce_window(x, -jnp.inf, lax.max, size, stride, "VALID")
    return lax.reduce_window(x, 0.0, lax.add, size, stride, "SAME")


def _cumsum(pick, x, w, n):
    return jnp.cumsum(x, _dim(pick, x)) / 8 if x.ndim else x


def _sort(pick, x, w, n):
    return jnp.sort(x, _dim(pick, x)) if x.ndim else x


def _argmax(pick, x, w, n):
    if not x.ndim or not x.size:
        return x
    dim = _dim(pick, x)
    return jnp.take_along_axis(x, jnp.argmax(x, dim, keepdims=True), dim)


def _one_hot(pick, x, w, n):
    if not x.ndim or not x.size or x.size > 100:
        return x
    return jax.nn.one_hot(jnp.argmax(x, _dim(pick, x)), 5) + 0.5


def _slice(pick, x, w, n):
    if not x.ndim or not x.size:
        return x
    dim = _dim(pick, x)
    return lax.dynamic_slice_in_dim(x, n[0], max(1, x.shape[dim] // 2), dim)


def _update(pick, x, w, n):
    if not x.ndim or not x.size:
        return x
    dim = _dim(pick, x)
    part = lax.slice_in_dim(x, 0, max(1, x.shape[dim] // 2), axis=dim) * 2
    return lax.dynamic_update_slice_in_dim(x, part, n[1], dim)


def _scan(pick, x, w, n):
    if not x.ndim or not x.size or x.shape[0] > 8:
        return x
    return lax.scan(lambda c, y: (c * 0.5 + y, jnp.tanh(c)), x[0], x)[1]


def _move(pick, x, w, n):
    if not x.ndim or not x.size:
        return x
    return moving.STEPS[pick.choice(["slice", "pad", "concatenate", "reverse", "roll"])](pick, x)


def _shape(pick, x, w, n):
    return shaping.STEPS[pick.choice(["reshape", "reshape", "transpose", "broadcast"])](pick, x)


def _log(pick, x, w, n):
    return jnp.log(jnp.abs(x) + 0.5)


def _divide(pick, x, w, n):
    return 1 / (jnp.abs(x) + 0.25)


def _mask(pick, x, w, n):
    return jnp.where(x > 0, x, jnp.exp(-jnp.abs(x)))


def _tril(pick, x, w, n):
    return jnp.tril(x) if x.ndim > 1 else x * 2


def _half(pick, x, w, n):
    return x.astype(jnp.bfloat16).astype(jnp.float32)


def _outer(pick, x, w, n):
    flat = x.reshape(-1)[:20]
    return flat[:, None] * flat[None, ::2] / 4


STEPS = {
    "dot": _dot,
    "einsum": _einsum,
    "conv": _conv,
    "reduce": _reduce,
    "softmax": _softmax,
    "norm": _norm,
    "gather": _gather,
    "scatter": _scatter,
    "embed": _embed,
    "window": _window,
    "cumsum": _cumsum,
    "sort": _sort,
    "argmax": _argmax,
    "one_hot": _one_hot,
    "dynamic slice": _slice,
    "update": _update,
    "scan": _scan,
    "move": _move,
    "shape": _shape,
    "log": _log,
    "divide": _divide,
    "mask": _mask,
    "tril": _tril,
    "half": _half,
    "outer": _outer,
}
