"""The same random numbers whatever the mesh: jax.random stays split, generators draw the whole."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

sys.path.insert(0, str(Path(__file__).parent))
from harness import check, mesh_of, run_and_compare

from pai.compiler.reference import run_reference
from pai.dialects.mlir import parse
from pai.passes.partition import partition

KEY = np.array([1, 2], np.uint32)
SHAPE = (6, 9)
DRAWS = {
    "uniform": lambda key: jax.random.uniform(key, SHAPE),
    "normal": lambda key: jax.random.normal(key, SHAPE),
    "truncated_normal": lambda key: jax.random.truncated_normal(key, -2, 2, SHAPE),
    "bernoulli": lambda key: jax.random.bernoulli(key, 0.3, SHAPE),
    "dropout": lambda key: jnp.where(jax.random.bernoulli(key, 0.9, SHAPE), jnp.ones(SHAPE), 0),
    "randint": lambda key: jax.random.randint(key, SHAPE, 0, 10),
    "half": lambda key: jax.random.normal(key, SHAPE, jnp.bfloat16),
    "gumbel": lambda key: jax.random.gumbel(key, SHAPE),
    "categorical": lambda key: jax.random.categorical(key, jnp.ones((*SHAPE, 5))),
    "fold_in": lambda key: jax.random.uniform(jax.random.fold_in(key, 3), SHAPE),
    "split": lambda key: jax.random.uniform(jax.random.split(key, 4)[2], SHAPE),
}


def split_over(*axes):
    mesh = jax.make_mesh((2, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    return NamedSharding(mesh, PartitionSpec(*axes))


@pytest.mark.parametrize("name", DRAWS)
def test_a_split_draw_needs_no_communication(name):
    def function(key):
        out = DRAWS[name](jax.random.wrap_key_data(key))
        return lax.with_sharding_constraint(out, split_over("x", "y"))

    outcome = check(function, [KEY], mesh_of(2, 2), [None])
    assert not outcome.local.report.collectives
    assert not outcome.local.report.replicated
    assert outcome.local.result_shardings[0].local_shape(SHAPE, outcome.local.mesh) == (3, 5)


def test_a_permutation_of_split_rows():
    def function(key):
        x = lax.with_sharding_constraint(jnp.arange(48.0).reshape(12, 4), split_over("x", "y"))
        return jax.random.permutation(jax.random.wrap_key_data(key), x)

    check(function, [KEY], mesh_of(2, 2), [None])


def test_the_gradient_of_a_dropout_uses_the_same_mask():
    def loss(x, key):
        mask = jax.random.bernoulli(jax.random.wrap_key_data(key), 0.5, x.shape)
        return jnp.sum(jnp.where(mask, 2 * x, 0) ** 2)

    x = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    check(jax.value_and_grad(loss), [x, KEY], mesh_of(2, 3), [["x", "y"], None])


GENERATORS = {"THREE_FRY": 2, "DEFAULT": 2, "PHILOX": 2}


@pytest.mark.parametrize("sizes", [(2,), (3,), (2, 2)], ids=str)
@pytest.mark.parametrize("algorithm", GENERATORS)
def test_generators_draw_the_same_numbers_on_every_mesh(algorithm, sizes):
    words = GENERATORS[algorithm]
    result = '{sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>}'
    state, bits = f"tensor<{words}xui64>", "tensor<7x4xui32>"

    def text(result=""):
        return (
            f"func.func @main(%s: {state}) -> ({state}, {bits} {result}) {{\n"
            f"  %0, %1 = stablehlo.rng_bit_generator %s, algorithm = {algorithm}"
            f" : ({state}) -> ({state}, {bits})\n"
            f"  return %0, %1 : {state}, {bits}\n}}"
        )

    mesh = mesh_of(*sizes)
    axes = ", ".join(f'"{name}"={size}' for name, size in mesh.axes)

    seed = [np.arange(1, words + 1).astype(np.uint64)]
    local = partition(parse(f"sdy.mesh @mesh = <[{axes}]>\n{text(result)}"), mesh)
    run_and_compare(local, seed, run_reference(text(), seed))
    assert not local.report.collectives


def test_keys_of_the_generator_of_xla():
    def function(key):
        out = jax.random.normal(jax.random.wrap_key_data(key, impl="rbg"), SHAPE)
        return lax.with_sharding_constraint(out, split_over("x", "y"))

    check(function, [np.array([1, 2, 3, 4], np.uint32)], mesh_of(2, 2), [None])
