"""top_k, argmax and sorts along split dimensions: ties, NaNs, infinities, padded tails."""

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
    localize_raw,
    lower,
    mesh_of,
    prepare,
    run_and_compare,
    sharding_of,
    specs_of,
)

from pai.compiler.reference import run_reference
from pai.dialects.sdy import set_argument_sharding, set_mesh, sharding_attr
from pai.frontends.stablehlo.importer import load
from pai.passes.base import run_passes
from pai.passes.partition import partition
from pai.passes.pipelines import expand
from pai.passes.rewrite import main_function
from pai.runtime.errors import UnsupportedOp

NAN = np.float32(np.nan)
NEGATIVE_NAN = np.copysign(NAN, np.float32(-1))


def ties(*shape, dtype=np.float32):
    """Return few different values in many places."""
    return np.random.default_rng(sum(shape)).integers(0, 4, shape).astype(dtype)


def specials(*shape):
    """Return values with NaNs of both signs, infinities and zeros of both signs."""
    pool = np.array([0, -0.0, 1, -1, np.inf, -np.inf, NAN, NEGATIVE_NAN], np.float32)
    return pool[np.random.default_rng(sum(shape)).integers(0, len(pool), shape)]


INPUTS = {
    "ties": ties(3, 23),
    "specials": specials(3, 23),
    "lowest": np.full((3, 23), -np.inf, np.float32),
    "below": np.full((3, 23), NEGATIVE_NAN, np.float32),
    "bytes": ties(3, 23, dtype=np.uint8),
    "signed": ties(3, 23, dtype=np.int8) - np.int8(126),
    "half": ties(3, 23).astype(jnp.bfloat16),
}
MESHES = [
    ((2,), [None, "x"]),
    ((8,), [None, "x"]),
    ((2, 3), ["x", "y"]),
    ((2, 2), [None, ("x", "y")]),
]


@pytest.mark.parametrize(("sizes", "spec"), MESHES, ids=str)
@pytest.mark.parametrize("name", INPUTS)
def test_top_k(name, sizes, spec):
    def function(x):
        return lax.top_k(x, 5)

    outcome = check(function, [INPUTS[name]], mesh_of(*sizes), [spec])
    assert not outcome.local.report.replicated
    moved = sum(use.bytes_per_device for use in outcome.local.report.collectives)
    assert moved <= 2 * 3 * 5 * 4 * np.prod(sizes)  # the values and places of five of each shard


@pytest.mark.parametrize("seed", range(8))
def test_top_k_in_any_layout(seed):
    pick = random.Random(seed)
    sizes = pick.choice([(2,), (3,), (2, 2), (3, 2)])
    mesh = mesh_of(*sizes)

    def any_spec(rank):
        return pick.choice(specs_of(rank, "xy"[: len(sizes)]))

    x = specials(2, 5, 23)
    text = lower(lambda a: lax.top_k(a, 4), [x])
    module = prepare(text, mesh, [any_spec(3)])
    run_and_compare(localize_raw(module, mesh, any_spec), [x], run_reference(text, [x]))


def test_top_k_of_most_of_a_dimension_gathers_it():
    outcome = check(lambda x: lax.top_k(x, 20), [INPUTS["ties"]], mesh_of(2), [[None, "x"]])
    assert "stablehlo.sort" not in outcome.text


def test_the_routing_of_experts_stays_split():
    def route(x, w):
        values, chosen = lax.top_k(jax.nn.softmax(x @ w), 2)
        return values / values.sum(-1, keepdims=True), chosen

    x, w = ties(6, 4) / 4, ties(4, 16) / 8
    check(route, [x, w], mesh_of(2, 2), [["x", None], [None, "y"]])


@pytest.mark.parametrize(("sizes", "spec"), MESHES, ids=str)
@pytest.mark.parametrize("name", INPUTS)
def test_argmax_and_argmin(name, sizes, spec):
    def function(x):
        return jnp.argmax(x, 1), jnp.argmin(x, 1), jnp.argmax(x), jnp.argmin(x, 0)

    check(function, [INPUTS[name]], mesh_of(*sizes), [spec])


@pytest.mark.parametrize("name", ["specials", "ties"])
def test_extremes_that_ignore_or_spread_nans(name):
    def function(x):
        ignored = jnp.nanmax(x, 1), jnp.nanargmax(x, 1), jnp.nanmin(x), jnp.any(jnp.isnan(x), 0)
        return *ignored, jnp.max(x, 1), jnp.min(x)

    x = INPUTS[name].copy()
    x[:, 0] = 1
    check(function, [x], mesh_of(2, 2), [[None, ("x", "y")]])


@pytest.mark.parametrize(("sizes", "spec"), MESHES, ids=str)
@pytest.mark.parametrize("name", ["ties", "specials", "bytes"])
def test_sorts_along_a_split_dimension_are_stable(name, sizes, spec):
    def function(x):
        return jnp.sort(x, 1), jnp.argsort(x, 1, stable=True), jnp.argsort(x, 1, descending=True)

    check(function, [INPUTS[name]], mesh_of(*sizes), [spec])


def simplified(function, x, mesh, spec):
    """Return a function as the simplify stage leaves it, its argument split."""
    module = load(lower(function, [x])).module
    run_passes(module, expand("simplify"))
    set_mesh(module, mesh)
    with module.context:
        set_argument_sharding(main_function(module), 0, sharding_attr(sharding_of(spec)))
    return module


@pytest.mark.parametrize("function", [lax.approx_max_k, lax.approx_min_k], ids=["max", "min"])
def test_approximate_ones_are_exact(function):
    x, mesh = np.random.default_rng(0).permutation(96).reshape(4, 24).astype(np.float32), mesh_of(2)

    def both(a):
        return *function(a, 3), *function(a, 2, reduction_dimension=0)

    want = [np.asarray(value) for value in jax.jit(both)(x)]
    for spec in ([None, "x"], ["x", None]):
        run_and_compare(partition(simplified(both, x, mesh, spec), mesh), [x], want)


def test_an_approximate_one_that_keeps_more_is_refused():
    def function(x):
        return lax.approx_max_k(x, 3, reduction_input_size_override=23, aggregate_to_topk=False)

    with pytest.raises(UnsupportedOp, match="'ApproxTopK' runs code that is not in the model"):
        simplified(function, INPUTS["ties"], mesh_of(2), [None, "x"])
