"""One test for every bug that the generated cases, or anything else, ever found. Append only."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jax import lax
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

sys.path.insert(0, str(Path(__file__).parent))
from harness import check, lower, mesh_of, prepare, run_and_compare

from pai.passes.partition.partition import partition


def test_the_largest_ui64_is_the_identity_of_a_minimum():
    """The bindings take signed integers only: 2**64 - 1 ended the localizer with a bad cast."""
    x = np.arange(1, 11, dtype=np.uint64) * np.uint64(2**60)

    def smallest(a):
        return lax.reduce(a, np.uint64(2**64 - 1), lax.min, (0,))

    check(smallest, [x], mesh_of(4), [["x"]])


def test_a_shard_map_over_an_axis_of_size_one_is_nothing():
    """JAX drops its manual region but not its collectives, which simplification refused."""
    mesh = AbstractMesh((3, 1), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    spec = PartitionSpec(None, "y")

    @partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec, axis_names={"y"})
    def body(a):
        return lax.psum(lax.ppermute(a, "y", [(0, 0)]), "y") * 2 + lax.axis_index("y")

    x = np.arange(12, dtype=np.int32).reshape(3, 4)
    module = prepare(lower(lambda a: body(a) + 1, [x]), mesh_of(3, 1), [["x", None]])
    run_and_compare(partition(module, mesh_of(3, 1)), [x], [2 * x + 1])
