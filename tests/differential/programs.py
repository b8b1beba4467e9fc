"""Small programs, one or a few operations each, that the differential tests shard every way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@dataclass(frozen=True)
class Case:
    """A function and its arguments."""

    function: Callable[..., Any]
    arguments: tuple[np.ndarray, ...]


PROGRAMS: dict[str, Case] = {}


def program(*arguments):
    """Enter the decorated function, with its arguments, under its name."""

    def enter(function):
        PROGRAMS[function.__name__] = Case(function, tuple(np.asarray(a) for a in arguments))
        return function

    return enter


def f(*shape, seed=0):
    return np.random.default_rng(seed + sum(shape)).standard_normal(shape).astype(np.float32)


def i(high, *shape, dtype=np.int32, low=0):
    return np.random.default_rng(sum(shape)).integers(low, high, shape).astype(dtype)


@program(f(6, 5), f(6, 5, seed=1), i(2, 6, 5))
def elementwise(x, y, m):
    z = jnp.where(m > 0, x + y, jnp.tanh(x) / (1 + y * y))
    return jnp.clip(z, -0.5, 0.5), lax.erf(x), z.astype(jnp.int8), x > y


@program(f(4, 6), f(6))
def complex_numbers(x, y):
    z = lax.complex(x, jnp.broadcast_to(y, x.shape))
    return jnp.real(z * z), jnp.abs(z), z, jnp.sum(z, 0)


@program(f(4, 6))
def bitcasts(x):
    b = lax.bitcast_convert_type(x, jnp.uint8)
    return lax.bitcast_convert_type(x, jnp.int32), b, lax.bitcast_convert_type(b, jnp.float32)


@program(f(5, 1, 4), f(4))
def broadcasts(x, y):
    return jnp.broadcast_to(x, (2, 5, 3, 4)), jnp.broadcast_to(y, (3, 4)), x + y


@program(f(4, 6, 5))
def reshapes(x):
    return x.reshape(24, 5), x.reshape(4, 30), x.reshape(2, 2, 3, 10), x.reshape(120), x[None]


@program(f(8, 6))
def reshapes_split(x):
    return x.reshape(2, 4, 3, 2), x.reshape(4, 12), x.reshape(16, 3), x.reshape(1, 8, 1, 6, 1)


@program(f(4, 6, 5))
def transposes(x):
    return x.transpose(2, 0, 1), x.swapaxes(0, 1)


@program(f(5, 7), f(7, 6))
def matmul(x, y):
    return x @ y


@program(f(3, 4, 6), f(3, 6, 5))
def batched_matmul(x, y):
    return jnp.einsum("bik,bkj->bij", x, y), jnp.einsum("bik,bkj->jbi", x, y)


@program(f(4, 3, 5), f(3, 5, 4))
def two_contractions(x, y):
    return jnp.einsum("abc,bcd->ad", x, y)


@program(i(2, 5, 7).astype(bool), i(9, 5, 7), i(9, 7, 3))
def integer_matmul(m, x, y):
    return x @ y, jnp.sum(x, 1), jnp.any(m, 1), jnp.all(m, 0)


@program(f(4, 6), f(6, 4))
def half_matmul(x, y):
    return x.astype(jnp.bfloat16) @ y.astype(jnp.bfloat16)


def conv(x, w, **kwargs):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers, **kwargs)


@program(f(4, 5, 6, 4), f(3, 3, 4, 6))
def convolution(x, w):
    return conv(x, w)


@program(f(2, 4, 4, 4), f(3, 3, 2, 8))
def grouped_convolution(x, w):
    return conv(x, w, feature_group_count=2)


@program(f(2, 4, 5, 6), f(3, 3, 1, 6))
def depthwise_convolution(x, w):
    return conv(x, w, feature_group_count=6)


@program(f(4, 4, 4, 3), f(3, 3, 3, 6))
def batch_grouped_convolution(x, w):
    return conv(x, w, batch_group_count=2)


@program(f(3, 5, 6, 4), f(3, 3, 4, 5))
def convolution_gradient(x, w):
    return jax.grad(lambda a, b: jnp.sum(conv(a, b) ** 2), (0, 1))(x, w)


@program(f(4, 4, 4, 6), f(3, 3, 1, 6))
def depthwise_gradient(x, w):
    return jax.grad(lambda a, b: jnp.sum(conv(a, b, feature_group_count=6) ** 2), (0, 1))(x, w)


@program(f(5, 6, 3))
def reductions(x):
    return jnp.sum(x, 0), jnp.max(x, (0, 1)), jnp.min(x, 1), jnp.prod(x, 2), jnp.sum(x)


@program(-1 - np.abs(f(5, 6)))
def reductions_of_negatives(x):
    return jnp.max(x, 0), jnp.max(x, 1), jnp.max(x), jnp.min(-x, 0), jnp.prod(x, 0)


@program(f(5, 6), np.float32(3))
def reduction_with_start(x, s):
    return (
        lax.reduce(x, s, lax.add, (0,)),
        lax.reduce(x, s, lax.mul, (1,)),
        lax.reduce(x, s, lax.max, (0, 1)),
    )


@program(-1 - np.abs(f(7, 6)), i(5, 6, 7))
def argmax(x, n):
    return jnp.argmax(x, 0), jnp.argmin(x, 1), jnp.argmax(n, 0), jnp.argmax(x)


@program(f(5, 6))
def softmax_and_norms(x):
    y = (x - jnp.mean(x, -1, keepdims=True)) * lax.rsqrt(jnp.var(x, -1, keepdims=True) + 1e-5)
    return jax.nn.softmax(x, 0), jax.nn.logsumexp(x, 1), y


@program(i(200, 5, 6, dtype=np.uint8), i(100, 5, 6, dtype=np.int8, low=-100))
def small_integers(u, s):
    # XLA's CPU collectives have no bitwise and, or, xor of integers: those stay untested here.
    return jnp.max(u, 0), jnp.min(u, 1), jnp.max(s, 0), jnp.sum(s, 1)


@program(f(4, 6, 6, 3))
def pooling(x):
    window, strides = (1, 2, 2, 1), (1, 2, 2, 1)
    return (
        lax.reduce_window(x, -np.inf, lax.max, window, strides, "VALID"),
        lax.reduce_window(x, 0.0, lax.add, window, (1, 1, 1, 1), "SAME"),
    )


@program(f(3, 6, 4, 2))
def pooling_gradient(x):
    def loss(a):
        window = (1, 2, 2, 1)
        return jnp.sum(lax.reduce_window(a, -np.inf, lax.max, window, window, "VALID") ** 2)

    return jax.grad(loss)(x)


@program(f(5, 4))
def cumulative(x):
    return jnp.cumsum(x, 0), lax.cummax(x, 1)


@program(f(7, 4), i(7, 5), i(7, 3, 2))
def rows(x, n, m):
    return x[n], jnp.take(x, m, axis=0), jnp.take(x, n % 4, axis=1)


@program(f(7, 4), i(40, 5, low=-20), i(200, 6, dtype=np.uint8), i(9, 4, dtype=np.int64))
def rows_out_of_bounds(x, n, u, w):
    return (
        jnp.take(x, n, axis=0, mode="clip"),
        jnp.take(x, n, axis=0, mode="fill", fill_value=7),
        x.at[u].get(mode="clip"),
        x.at[w].get(mode="promise_in_bounds"),
    )


@program(f(6, 5, 3), i(6, 4), i(5, 4))
def points(x, n, m):
    return x[n, m], x[n, :, m % 3], x[:, m, n % 3]


@program(f(5, 6), i(6, 5, 3))
def along_axis(x, n):
    return jnp.take_along_axis(x, n, 1)


@program(f(6, 8), i(5, 3))
def windows(x, n):
    return jax.vmap(lambda s: lax.dynamic_slice(x, (s, 0), (2, 8)))(n)


@program(f(7, 4), i(7, 5), f(5, 4), i(4, 5))
def scatter_add(x, n, u, m):
    return (
        x.at[n].add(u),
        x.at[:, m].add(u[0][:, None].mean() + jnp.ones((7, 5), jnp.float32)),
        x.at[n, m].add(u[:, 0]),
        jnp.zeros((7, 4), jnp.float32).at[n].add(u),
    )


@program(f(7, 4), np.array([4, 0, 6, -9, 30], np.int32), f(5, 4))
def scatter_others(x, n, u):
    return (
        x.at[n].max(u),
        x.at[n].min(u, mode="drop"),
        x.at[n].mul(u),
        x.at[n].set(u, mode="drop"),
        x.at[n, 1].set(u[:, 0], mode="drop"),
    )


@program(f(7, 4), i(250, 6, dtype=np.uint8), f(6, 4))
def scatter_bytes(x, n, u):
    return x.at[n].add(u, mode="drop")


@program(f(5, 6), i(6, 5, 3), f(5, 3))
def scatter_along_axis(x, n, u):
    return jnp.put_along_axis(x, n, u, 1, inplace=False)


@program(f(9, 4), i(9, 3, 5))
def embedding_gradient(table, n):
    return jax.grad(lambda t: jnp.sum(t[n] ** 2))(table)


@program(f(6, 5), np.int32(2), np.int32(7))
def dynamic_slices(x, a, b):
    return lax.dynamic_slice(x, (a, b), (3, 5)), lax.dynamic_slice(x, (b, a), (6, 2))


@program(f(6, 5), f(2, 5), f(6, 1), np.int32(3))
def dynamic_updates(x, u, v, a):
    return (
        lax.dynamic_update_slice(x, u, (a, 0)),
        lax.dynamic_update_slice(x, v, (0, a)),
        lax.dynamic_update_slice(x, u[:1, :1], (a * 9, a)),
    )


@program(f(7, 6), f(2, 6))
def cuts(x, y):
    return (
        x[1:5],
        x[:, ::2],
        jnp.concatenate([x, y]),
        jnp.concatenate([x, x, x], 1),
        lax.pad(x, np.float32(1), ((1, 2, 0), (0, 0, 0))),
        lax.pad(x, np.float32(1), ((0, 0, 0), (-1, 2, 1))),
        x[::-1],
        x[:, ::-1],
    )


@program(f(5, 6))
def sources(x):
    table = jnp.asarray(np.arange(30, dtype=np.float32).reshape(5, 6))
    n = lax.broadcasted_iota(jnp.int32, (5, 6), 0)
    return x + table, x * lax.iota(jnp.float32, 6), jnp.where(n > 2, x, 1.5), n, jnp.ones((4, 7))


@program(f(5, 6), i(9, 5, 6))
def sorting(x, n):
    return jnp.sort(x, 0), jnp.argsort(n, 1), lax.sort((n, x), num_keys=2, dimension=0)


@program(f(5, 8))
def top_k(x):
    return lax.top_k(x, 3)


@program(f(5, 4), f(4, 4))
def loops(x, w):
    y = lax.fori_loop(0, 3, lambda k, c: jnp.tanh(c @ w) + k, x)
    z = lax.while_loop(lambda c: jnp.sum(jnp.abs(c)) < 50, lambda c: c * 2 + 1, x)
    return y, z


@program(f(6, 5, 4), f(5, 3), f(4, 3), f(3, 3))
def recurrence(xs, h, w, u):
    def step(c, x):
        c = jnp.tanh(x @ w + c @ u)
        return c, c.sum(0)

    return lax.scan(step, h, xs)


@program(f(5, 4), np.int32(1), np.int32(7))
def branches(x, a, b):
    y = lax.cond(a > 0, lambda v: jnp.sort(v, 0), lambda v: v * 2, x)
    z = lax.switch(b, [jnp.sin, jnp.cos, lambda v: v - v.mean(0)], x)
    return y, z


@program(f(5, 4))
def branch_on_data(x):
    return lax.cond(jnp.sum(x) > 0, lambda v: v @ v.T, lambda v: -(v @ v.T), x)


@program(np.array([1, 2], np.uint32), f(5, 6))
def random(key, x):
    state, bits = lax.rng_bit_generator(key.repeat(2), (5, 6))
    return jax.random.normal(jax.random.wrap_key_data(key), (5, 6)) + x, state, bits


@program(f(4, 6, 8))
def fourier(x):
    return jnp.abs(jnp.fft.rfft(x)), jnp.real(jnp.fft.fft2(x))


@program(f(3, 4, 4), f(3, 4, 2))
def matrices(x, b):
    a = x @ x.swapaxes(1, 2) + 4 * jnp.eye(4)
    low = lax.linalg.cholesky(a)
    return low, lax.linalg.triangular_solve(low, b, left_side=True, lower=True)


@program(f(5, 6), f(6))
def barrier(x, y):
    a, b = lax.optimization_barrier((x, y))
    return a + b


@program(f(1, 1, 6), f(1))
def ones(x, y):
    return x.reshape(6, 1) * y, jnp.sum(x, 0), jnp.argmax(x, 2), jnp.take(y, jnp.zeros(3, int))


@program(f(0, 4), f(4, 5))
def empties(x, w):
    return x @ w, jnp.sum(x, 0), jnp.concatenate([x, w.T])
