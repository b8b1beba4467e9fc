"""Loops and branches: nested, with captured and invariant values, gradients, barriers."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

sys.path.insert(0, str(Path(__file__).parent))
from harness import (
    check,
    flatten,
    localize_raw,
    lower,
    mesh_of,
    prepare,
    run_and_compare,
    specs_of,
)

from pai.compiler.reference import run_reference
from pai.passes.base import run_passes
from pai.passes.partition import partition

RNG = np.random.default_rng(0)
PROGRAMS = {}


def f(*shape):
    return (RNG.standard_normal(shape) / 2).astype(np.float32)


def program(*arguments):
    def enter(function):
        PROGRAMS[function.__name__] = (function, arguments)
        return function

    return enter


@program(f(5, 6), f(6, 6))
def nested_loops(x, w):
    def outer(k, c):
        return lax.fori_loop(0, k + 1, lambda j, d: jnp.tanh(d @ w) + j, c) + c.sum(0)

    return lax.fori_loop(0, 3, outer, x)


@program(f(5, 6), f(6, 6), f(6))
def invariant_operands(x, w, b):
    def body(carry):
        k, c, w, b = carry
        return k + 1, jnp.tanh(c @ w + b), w, b

    return lax.while_loop(lambda carry: carry[0] < 3, body, (0, x, w, b))


@program(f(5, 6))
def a_condition_over_split_data(x):
    def body(c):
        return c * 2 - c.mean(1)[:, None]

    return lax.while_loop(lambda c: jnp.max(jnp.abs(c)) < 9, body, x)


@program(f(4, 5, 6), f(5, 6))
def a_scan_in_a_scan(xs, h):
    def inner(c, row):
        return c + row, c * row

    def outer(c, x):
        c, ys = lax.scan(inner, c, x.T)
        return c[::-1], ys.sum(0)

    return lax.scan(outer, h[:, 0], xs)


@program(f(4, 5, 6), f(5, 3), f(6, 3), f(3, 3))
def the_gradient_of_a_scan(xs, h, w, u):
    def loss(w, u, h):
        def step(c, x):
            c = jnp.tanh(x @ w + c @ u)
            return c, c.sum(0)

        return (lax.scan(jax.checkpoint(step), h, xs)[1] ** 2).sum()

    return jax.grad(loss, (0, 1, 2))(w, u, h)


@program(f(5, 6), np.int32(1), np.int32(0))
def branches_in_branches(x, a, b):
    def inner(v):
        return lax.switch(b, [jnp.sin, lambda u: u.at[0].set(1.0), lambda u: u @ u.T @ u], v)

    return lax.cond(a > 0, inner, lambda v: -v, x)


@program(f(5, 6), f(5, 6), np.int32(1))
def a_branch_with_several_results(x, y, a):
    return lax.cond(
        a > 0,
        lambda p, q: (p + q, (p * q).sum(0), p.T),
        lambda p, q: (p - q, p.max(0), q.T),
        x,
        y,
    )


@program(f(5, 6), f(7, 6))
def branches_that_take_other_things(x, table):
    index = jnp.argmax(x[:, 0])

    def second():
        return lax.dynamic_slice(x, (1, 0), (1, 6))[0]

    return lax.cond(x.sum() > 0, lambda: table[index] + x.sum(0), second)


@program(f(5, 6), np.int32(1))
def the_gradient_of_a_branch(x, a):
    def loss(v):
        return jnp.sum(lax.cond(a > 0, lambda u: jnp.sin(u) @ u.T, lambda u: u @ u.T, v) ** 2)

    return jax.grad(loss)(x)


@program(f(6, 8, 4), f(6, 1, 4), np.int32(3))
def a_cache_in_a_loop(cache, new, start):
    def step(k, c):
        row = lax.dynamic_slice(c, (0, start + k, 0), (6, 1, 4))
        return lax.dynamic_update_slice(c, row * 0.5 + new, (0, start + k, 0))

    return lax.fori_loop(0, 3, step, cache)


@program(f(5, 6), f(6, 5), f(4))
def barriers(x, y, z):
    a, b, c = lax.optimization_barrier((x @ y, y, z))
    d, e = lax.optimization_barrier((a + 1, (b, c)))
    return d, e


@program(f(8, 6), f(6, 6))
def remat(x, w):
    layer = jax.checkpoint(lambda v, w: jnp.tanh(v @ w), policy=None)
    return jax.grad(lambda w: (layer(layer(x, w), w) ** 2).sum())(w)


@program(f(5, 6))
def a_loop_in_a_branch_in_a_loop(x):
    def body(k, c):
        return lax.cond(
            k % 2 == 0,
            lambda v: lax.fori_loop(0, 2, lambda j, u: u - u.mean(0), v),
            lambda v: jnp.sort(v, 0),
            c,
        )

    return lax.fori_loop(0, 3, body, x)


@program(f(6, 5), f(5))
def a_map_over_rows(x, w):
    return lax.map(lambda row: jnp.outer(row, w).sum(1), x), jax.lax.associative_scan(jnp.add, x)


@program(f(5, 6), np.arange(5, dtype=np.int32))
def carries_of_many_types(x, n):
    def body(carry):
        k, c, m, flag = carry
        return k + 1, c.astype(jnp.bfloat16).astype(jnp.float32) * 2, m[::-1], flag ^ (m > k)

    return lax.while_loop(lambda carry: carry[0] < 3, body, (jnp.int8(0), x, n, n > 2))


MESHES = [(2,), (4,), (2, 2), (3, 2)]


@pytest.mark.parametrize("mode", ["shardy", "raw"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_control_flow(name, mode):
    function, arguments = PROGRAMS[name]
    text, flat = lower(function, arguments), flatten(arguments)
    expected = run_reference(text, flat)
    for seed in range(2):
        pick = random.Random(f"{name} {mode} {seed}")
        sizes = pick.choice(MESHES)
        mesh = mesh_of(*sizes)

        def any_spec(rank):
            return pick.choice(specs_of(rank, "xyz"[: len(sizes)]))  # noqa: B023

        specs = [any_spec(array.ndim) for array in flat]
        print(name, mode, seed, sizes, specs)
        module = prepare(text, mesh, specs)
        run = partition(module, mesh) if mode == "shardy" else localize_raw(module, mesh, any_spec)
        run_and_compare(run, flat, expected)


def test_tuples_are_taken_apart():
    text = """
    func.func @main(%x: tensor<4x6xf32>) -> tensor<4x6xf32> {
      %0 = stablehlo.negate %x : tensor<4x6xf32>
      %t = stablehlo.tuple %x, %0 : tuple<tensor<4x6xf32>, tensor<4x6xf32>>
      %a = stablehlo.get_tuple_element %t[1] : (tuple<tensor<4x6xf32>, tensor<4x6xf32>>)
        -> tensor<4x6xf32>
      %b = stablehlo.add %a, %a : tensor<4x6xf32>
      return %b : tensor<4x6xf32>
    }"""
    module = prepare(text, mesh_of(2), [["x", None]])
    run_passes(module, "pai-dce")
    x = f(4, 6)
    run_and_compare(partition(module, mesh_of(2)), [x], [-2 * x])


def test_a_loop_carries_its_operands_split():
    function, arguments = PROGRAMS["invariant_operands"]
    specs = [["x", None], None, None]
    outcome = check(function, arguments, mesh_of(2), specs)
    assert not outcome.local.report.collectives
    assert "tensor<3x6xf32>" in outcome.text
