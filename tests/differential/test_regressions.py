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

from pai.compiler.reference import _as_replicas, run_reference_spmd
from pai.dialects.mlir import parse, to_text
from pai.passes.base import run_passes
from pai.passes.partition.partition import partition
from pai.passes.pipelines import COLLECTIVES


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


def test_gathers_of_several_values_are_read_one_by_one_by_the_oracle():
    """XLA's CPU backend joins their blocks in memory order, whatever the dimension: GPT-2's
    training step under random shardings seemed wrong once neighbouring gathers were combined.
    """
    text = """
    func.func @main(%a: tensor<2x1xf32>, %b: tensor<3x1xf32>)
        -> (tensor<2x2xf32>, tensor<3x2xf32>) {
      %0:2 = "stablehlo.all_gather"(%a, %b) <{all_gather_dim = 1 : i64,
          replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>}>
          : (tensor<2x1xf32>, tensor<3x1xf32>) -> (tensor<2x2xf32>, tensor<3x2xf32>)
      return %0#0, %0#1 : tensor<2x2xf32>, tensor<3x2xf32>
    }"""
    alone = _as_replicas(text)
    assert alone.count('"stablehlo.all_gather"(') == 2
    parts = [[np.float32([[d], [2]]), np.float32([[d], [3], [4]])] for d in (0, 1)]
    for left, right in run_reference_spmd(text, parts):
        np.testing.assert_array_equal(left, [[0, 1], [2, 2]])
        np.testing.assert_array_equal(right, [[0, 1], [3, 3], [4, 4]])


def test_free_axes_that_do_not_divide_a_block_of_a_shard_map():
    """Shards of the whole dimension were taken for shards of the body's block."""
    mesh = AbstractMesh((2, 4), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    spec = PartitionSpec(None, "x")

    @partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec, axis_names={"x"})
    def body(a):
        return a * (1 + lax.axis_index("x"))

    x = np.arange(8, dtype=np.int32).reshape(2, 4)
    module = prepare(lower(body, [x]), mesh_of(2, 4), [[None, ("x", "y")]])
    local = partition(module, mesh_of(2, 4))
    run_and_compare(local, [x], [x * np.array([1, 1, 2, 2], np.int32)])


def test_a_window_product_from_two_counts_its_start_as_one_device_does():
    """A halo filled with the initial value took it into the window once for every place."""
    x = np.arange(1, 9, dtype=np.float32)

    def product(a):
        return lax.reduce_window(a, np.float32(2), lax.mul, (2,), (1,), [(2, 2)])

    check(product, [x], mesh_of(4), [["x"]])


def test_values_of_one_barrier_may_be_split_by_the_same_axis():
    """All but one were gathered: a rematerialized model held its activations whole."""
    x, y = (np.arange(n * 8, dtype=np.float32).reshape(n, 8) for n in (4, 6))

    def held(a, b):
        c, d = lax.optimization_barrier((a * 2, b + 1))
        return c, d

    outcome = check(held, [x, y], mesh_of(2), [["x", None], [None, "x"]])
    assert not outcome.local.report.collectives
    assert not outcome.local.report.replicated


def test_an_initial_value_that_counts_is_not_filled_in_as_padding():
    """Halos outside the tensor were filled with reduce_window's initial value; XLA leaves padding
    out of the windows, so a sum that starts from one counted more ones than on one device.
    """
    text = """
    func.func @main(%x: tensor<8xf32>) -> tensor<8xf32> {
      %init = stablehlo.constant dense<1.0> : tensor<f32>
      %0 = "stablehlo.reduce_window"(%x, %init) <{window_dimensions = array<i64: 3>,
        padding = dense<1> : tensor<1x2xi64>}> ({
      ^bb0(%a: tensor<f32>, %b: tensor<f32>):
        %s = stablehlo.add %a, %b : tensor<f32>
        stablehlo.return %s : tensor<f32>
      }) : (tensor<8xf32>, tensor<f32>) -> tensor<8xf32>
      return %0 : tensor<8xf32>
    }"""
    outcome = check(text, [np.arange(8, dtype=np.float32)], mesh_of(4), [["x"]])
    (replication,) = outcome.local.report.replicated
    assert replication.op == "stablehlo.reduce_window"


def test_a_shard_may_keep_several_pieces_of_its_own():
    """Two segments of a joined value that stay on their shard were dealt into one round, in which
    a device has one piece, so the first was lost.
    """
    text = """
    func.func @main(%x: tensor<3xf32>) -> tensor<3xf32> {
      %0 = stablehlo.slice %x [0:1] : (tensor<3xf32>) -> tensor<1xf32>
      %1 = stablehlo.slice %x [1:3] : (tensor<3xf32>) -> tensor<2xf32>
      %2 = stablehlo.concatenate %0, %1, dim = 0
        : (tensor<1xf32>, tensor<2xf32>) -> tensor<3xf32>
      return %2 : tensor<3xf32>
    }"""
    outcome = check(text, [np.arange(3, dtype=np.float32)], mesh_of(2), [["x"]], strict=True)
    assert not outcome.local.report.collectives


def test_one_element_of_a_split_dimension_travels_alone():
    """The last token of a split sequence was laid over the devices again and the padding sent."""

    def function(h):
        return h[:, -1], h[:, 0] * 2, h[:, 5, 2]

    h = np.random.default_rng(0).standard_normal((2, 15, 6)).astype(np.float32)
    outcome = check(function, [h], mesh_of(4), [[None, "x", None]])
    uses = outcome.local.report.collectives
    assert {use.kind for use in uses} == {"all_reduce"}
    assert sum(use.bytes_per_device for use in uses) == 4 * (12 + 12 + 2)
    check(function, [h], mesh_of(2, 3), [[None, "x", "y"]])


def test_a_cache_split_along_its_sequence_is_written_in_place():
    """Shardy gathers an operand of which it cannot split what is indexed; the scatter need not."""

    def write(cache, new, at):
        return jax.vmap(lambda c, n, k: jax.lax.dynamic_update_slice(c, n, (k, 0)))(cache, new, at)

    rng = np.random.default_rng(0)
    cache, new = (rng.standard_normal(s).astype(np.float32) for s in ((3, 10, 4), (3, 1, 4)))
    at = np.array([0, 9, 4], np.int32)
    outcome = check(write, [cache, new, at], mesh_of(4), [[None, "x", None], None, None])
    assert not outcome.local.report.collectives


def test_a_cut_beside_a_picked_element_fetches_edges():
    """A slice to one element of a dimension gathered the other dimensions that it cuts."""
    x = np.arange(2 * 64 * 3, dtype=np.float32).reshape(2, 64, 3)
    outcome = check(lambda a: a[:, 1:, 2:] * 2, [x], mesh_of(8), [[None, "x", None]], strict=True)
    assert {use.kind for use in outcome.local.report.collectives} == {"collective_permute"}


def test_an_all_gather_of_a_manual_body_joins_what_differs():
    """Gathering a broadcast was taken for a wider broadcast, also of a value of one's own."""
    mesh = AbstractMesh((4,), ("x",), axis_types=(AxisType.Auto,))

    @partial(jax.shard_map, mesh=mesh, in_specs=PartitionSpec("x"), out_specs=PartitionSpec("x"))
    def body(a):
        wide = jax.numpy.broadcast_to(a, (2, *a.shape))
        rows = lax.all_gather(a, "x"), lax.all_gather(wide, "x", tiled=True)
        return sum(r.sum(0) for r in rows) + lax.all_gather(lax.axis_index("x"), "x").sum()

    x = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    mesh = mesh_of(4)
    local = partition(prepare(lower(body, [x]), mesh, [["x", None]]), mesh)
    want = 3 * np.tile(x.reshape(4, 2, 3).sum(0), (4, 1)) + 6
    run_and_compare(local, [x], [want])


def test_an_all_gather_of_a_complex_constant_is_a_wider_constant():
    """The bindings cannot hold a complex constant's attribute: reading it ended the pass."""
    text = """
    func.func @main(%a: tensor<4xcomplex<f32>>) -> tensor<4xcomplex<f32>> {
      %0 = stablehlo.constant dense<(1.0, 2.0)> : tensor<2xcomplex<f32>>
      %1 = "stablehlo.all_gather"(%0) {all_gather_dim = 0 : i64,
        replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>,
        channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, use_global_device_ids}
        : (tensor<2xcomplex<f32>>) -> tensor<4xcomplex<f32>>
      %2 = stablehlo.add %a, %1 : tensor<4xcomplex<f32>>
      return %2 : tensor<4xcomplex<f32>>
    }"""
    module = parse(text)
    run_passes(module, COLLECTIVES)
    assert "all_gather" not in to_text(module)
    assert "dense<(1.000000e+00,2.000000e+00)> : tensor<4xcomplex<f32>>" in to_text(module)


def moved_by_a_reshard(mesh, shape, source, target):
    """Return the bytes that moving a negated array between two layouts sends."""
    axes = ", ".join(f'"{name}"={size}' for name, size in mesh.axes)
    kind = f"tensor<{'x'.join(map(str, shape))}xf32>"
    text = f"""
    sdy.mesh @mesh = <[{axes}]>
    func.func @main(%a: {kind} {{sdy.sharding = #sdy.sharding<@mesh, {source}>}})
        -> ({kind} {{sdy.sharding = #sdy.sharding<@mesh, {target}>}}) {{
      %0 = stablehlo.negate %a : {kind}
      return %0 : {kind}
    }}"""
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    local = partition(parse(text), mesh)
    run_and_compare(local, [x], [-x])
    return sum(use.moved_bytes for use in local.report.collectives)


def test_blocks_whose_edges_differ_fetch_what_they_lack():
    """Between 6 blocks of 11 and 2 of 32 everything was gathered, and cut again."""
    fine, coarse = '[{}, {"y", "x"}]', '[{}, {"y"}]'
    row = 4 * 4
    assert 0 < moved_by_a_reshard(mesh_of(3, 2), (4, 64), fine, coarse) <= 33 * row
    assert 0 < moved_by_a_reshard(mesh_of(3, 2), (4, 64), coarse, fine) <= 1 * row


def test_blocks_that_are_all_padding_are_not_gathered():
    """A dimension of one element over 8 devices was gathered as 8 elements."""
    shape = (1, 16, 32)
    assert moved_by_a_reshard(mesh_of(8), shape, '[{"x"}, {}, {}]', "[{}, {}, {}]") <= 4 * 2 * 512
