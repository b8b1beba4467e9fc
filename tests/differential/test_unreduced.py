"""Unreduced axes, as JAX writes them in explicit sharding: what is meant is the sum."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

sys.path.insert(0, str(Path(__file__).parent))
from harness import mesh_of, run_and_compare

from pai.dialects.mlir import parse
from pai.passes.partition import partition

A = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
B = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
SUM = P(None, None, unreduced={"x"})


def compare(function, want):
    mesh = jax.make_mesh((2, 2), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        a = jax.device_put(A, NamedSharding(mesh, P(None, "x")))
        b = jax.device_put(B, NamedSharding(mesh, P("x", None)))
        text = jax.jit(function).lower(a, b).as_text()
    assert "unreduced" in text
    local = partition(parse(text), mesh_of(2, 2))
    run_and_compare(local, [A, B], want)
    return [(use.kind, use.count) for use in local.report.collectives]


def product(a, b):
    return jnp.einsum("ij,jk->ik", a, b, out_sharding=SUM)


def test_a_product_that_is_reduced_later():
    got = compare(lambda a, b: jax.reshard(product(a, b), P(None, None)), [A @ B])
    assert got == [("all_reduce", 1)]


def test_a_product_that_is_scattered_later():
    got = compare(lambda a, b: jax.reshard(product(a, b), P("x", None)), [A @ B])
    assert got == [("reduce_scatter", 1)]


def test_sums_of_products_are_reduced_once():
    def function(a, b):
        return jax.reshard(product(a, b) + product(2 * a, b), P(None, None))

    compare(function, [3 * (A @ B)])


def test_an_unreduced_result_is_whole():
    compare(product, [A @ B])
