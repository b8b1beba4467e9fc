"""Forms that need text or a mesh of their own: reshards, sub-axes, shard_map, libraries."""

from __future__ import annotations

import random
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

sys.path.insert(0, str(Path(__file__).parent))
from harness import check, mesh_of, prepare, run_and_compare, sharding_of, specs_of

from pai.dialects.mlir import parse, to_text
from pai.dialects.sdy import sharding_attr
from pai.passes.partition import LocalModule, partition
from pai.passes.partition.localize import localize
from pai.runtime.errors import InvalidSharding, UnsupportedOp
from pai.runtime.mesh import AxisRef, Sharding

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("sizes", [(2, 2, 2), (3, 2), (4, 2)], ids=str)
@pytest.mark.parametrize("shape", [(8, 12), (5, 7), (1, 4), (64, 13)], ids=str)
def test_any_reshard_moves_values_to_their_place(sizes, shape):
    mesh = mesh_of(*sizes)
    pick = random.Random(f"{sizes} {shape}")
    specs = specs_of(2, "xyz"[: len(sizes)])
    steps = [sharding_attr_text(pick.choice(specs)) for _ in range(12)]
    kind = f"tensor<{shape[0]}x{shape[1]}xf32>"
    axes = ", ".join(f'"{name}"={size}' for name, size in mesh.axes)
    lines = [f"%{k} = sdy.reshard %{k - 1} <@mesh, {s}> : {kind}" for k, s in enumerate(steps, 1)]
    # Every step is a result, so that none is skipped over.
    results = ", ".join(f"{kind} {{sdy.sharding = #sdy.sharding<@mesh, {s}>}}" for s in steps)
    names = ", ".join(f"%{k}" for k in range(1, len(steps) + 1))
    module = parse(
        f"sdy.mesh @mesh = <[{axes}]>\n"
        f"func.func @main(%a: {kind}) -> ({results}) {{\n"
        f"%0 = stablehlo.negate %a : {kind}\n"
        + "\n".join(lines)
        + f"\nreturn {names} : {', '.join([kind] * len(steps))}\n}}"
    )
    out = localize(module, mesh=mesh)
    array = normal(*shape)
    local = LocalModule(module, mesh, out.arguments, out.results)
    run_and_compare(local, [array], [-array] * len(steps))


def sharding_attr_text(spec):
    return "[" + ", ".join("{" + ", ".join(f'"{a}"' for a in axes) + "}" for axes in spec) + "]"


def test_sub_axes_split_a_dimension_in_part():
    text = """
    func.func @main(%x: tensor<4x6xf32>, %w: tensor<6x5xf32>) -> (tensor<4x5xf32>, tensor<6xf32>) {
      %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
        : (tensor<4x6xf32>, tensor<6x5xf32>) -> tensor<4x5xf32>
      %z = stablehlo.constant dense<0.0> : tensor<f32>
      %1 = stablehlo.reduce(%x init: %z) applies stablehlo.add across dimensions = [0]
        : (tensor<4x6xf32>, tensor<f32>) -> tensor<6xf32>
      return %0, %1 : tensor<4x5xf32>, tensor<6xf32>
    }"""
    mesh = mesh_of(8)
    from pai.compiler.reference import run_reference
    from pai.dialects.sdy import set_argument_sharding

    module = prepare(text, mesh, [None, None])
    main = module.body.operations[1]
    halves = Sharding(((AxisRef("x", 1, 2),), (AxisRef("x", 2, 2),)))
    with module.context:
        set_argument_sharding(main, 0, sharding_attr(halves, open=True))
    local = partition(module, mesh)
    arrays = [normal(4, 6), normal(6, 5)]
    run_and_compare(local, arrays, run_reference(text, arrays))


@pytest.mark.parametrize("manual", [{"x", "y"}, {"x"}], ids=str)
def test_shard_map_bodies_are_taken_as_they_are(manual):
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    spec = PartitionSpec("x", "y" if "y" in manual else None)

    @partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec, axis_names=manual)
    def body(x):
        y = lax.psum(x, "x") + lax.ppermute(x, "x", [(k, (k + 1) % 4) for k in range(4)])
        return y * (1 + lax.axis_index("x"))

    def function(x):
        return body(x * 2) + 1

    array = normal(8, 6)
    expected = np.asarray(jax.jit(function)(array))
    text = jax.jit(function).lower(array).as_text()
    local = partition(prepare(text, mesh_of(4, 2), [[None, "y"]]), mesh_of(4, 2))
    run_and_compare(local, [array], [expected])


def test_cholesky_and_triangular_solve_keep_their_batch_split():
    text = """
    func.func @main(%a: tensor<3x4x4xf32>, %b: tensor<3x4x2xf32>)
        -> (tensor<3x4x4xf32>, tensor<3x4x2xf32>) {
      %0 = stablehlo.cholesky %a, lower = true : tensor<3x4x4xf32>
      %1 = "stablehlo.triangular_solve"(%0, %b) {left_side = true, lower = true,
        unit_diagonal = false, transpose_a = #stablehlo<transpose NO_TRANSPOSE>}
        : (tensor<3x4x4xf32>, tensor<3x4x2xf32>) -> tensor<3x4x2xf32>
      return %0, %1 : tensor<3x4x4xf32>, tensor<3x4x2xf32>
    }"""
    a = normal(3, 4, 4)
    a = a @ a.swapaxes(1, 2) + 4 * np.eye(4, dtype=np.float32)
    arrays = [a, normal(3, 4, 2)]
    outcome = check(text, arrays, mesh_of(2), [["x", None, None], None])
    assert not outcome.local.report.collectives
    check(text, arrays, mesh_of(2, 2), [[None, "x", "y"], [None, "y", "x"]])


def test_batch_norm_operations():
    text = """
    func.func @main(%x: tensor<4x3x6xf32>, %s: tensor<6xf32>, %o: tensor<6xf32>, %v: tensor<6xf32>)
        -> (tensor<4x3x6xf32>, tensor<4x3x6xf32>, tensor<6xf32>, tensor<6xf32>) {
      %0 = "stablehlo.batch_norm_inference"(%x, %s, %o, %o, %v)
        {epsilon = 0.01 : f32, feature_index = 2 : i64}
        : (tensor<4x3x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>)
        -> tensor<4x3x6xf32>
      %1:3 = "stablehlo.batch_norm_training"(%x, %s, %o)
        {epsilon = 0.01 : f32, feature_index = 2 : i64}
        : (tensor<4x3x6xf32>, tensor<6xf32>, tensor<6xf32>)
        -> (tensor<4x3x6xf32>, tensor<6xf32>, tensor<6xf32>)
      return %0, %1#0, %1#1, %1#2
        : tensor<4x3x6xf32>, tensor<4x3x6xf32>, tensor<6xf32>, tensor<6xf32>
    }"""
    arrays = [normal(4, 3, 6), normal(6), normal(6), np.abs(normal(6)) + 1]
    for spec in (["x", None, None], [None, None, "y"], ["y", "x", None]):
        check(text, arrays, mesh_of(2, 3), [spec, None, ["y"], None])


def test_rng_gives_every_device_the_same_numbers():
    text = """
    func.func @main(%a: tensor<f32>, %b: tensor<f32>) -> tensor<8xf32> {
      %n = stablehlo.constant dense<8> : tensor<1xi64>
      %0 = stablehlo.rng %a, %b, %n, distribution = UNIFORM
        : (tensor<f32>, tensor<f32>, tensor<1xi64>) -> tensor<8xf32>
      return %0 : tensor<8xf32>
    }"""
    local = partition(prepare(text, mesh_of(4), [None, None]), mesh_of(4))
    assert "stablehlo.all_reduce" in to_text(local.module)
    from pai.compiler.reference import run_reference_spmd

    one = [np.float32(0), np.float32(1)]
    results = run_reference_spmd(to_text(local.module), [one] * 4)
    assert len(set(results[0][0].tolist())) == 8
    for (got,) in results:
        np.testing.assert_array_equal(got, results[0][0])


OPAQUE = """
func.func @main(%x: tensor<4x6xf32>) -> tensor<4x6xf32> {
  %0 = stablehlo.custom_call @opaque(%x) : (tensor<4x6xf32>) -> tensor<4x6xf32>
  return %0 : tensor<4x6xf32>
}"""


def opaque_with_split_operand():
    axes = 'sdy.mesh @mesh = <["x"=2]>\n'
    split = '#sdy.sharding<@mesh, [{"x"}, {}]>'
    return parse(
        axes
        + OPAQUE.replace("%x: tensor<4x6xf32>", f"%x: tensor<4x6xf32> {{sdy.sharding = {split}}}")
    )


def test_an_unknown_operation_gets_its_operand_whole_and_is_reported():
    module = opaque_with_split_operand()
    out = localize(module)
    (replication,) = out.replicated
    assert replication.op == "stablehlo.custom_call"
    assert replication.extra_bytes == 4 * 6 * 4 // 2
    assert "stablehlo.all_gather" in to_text(module)


def test_strict_refuses_what_would_be_replicated():
    with pytest.raises(InvalidSharding, match="custom_call has no sharded form"):
        localize(opaque_with_split_operand(), strict=True)


def test_a_collective_in_the_global_program_is_refused():
    text = """
    func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<ui32>) {
      %0 = stablehlo.partition_id : tensor<ui32>
      return %x, %0 : tensor<4xf32>, tensor<ui32>
    }"""
    with pytest.raises(UnsupportedOp, match="partition_id has no meaning"):
        partition(prepare(text, mesh_of(2), [["x"]]), mesh_of(2))


def test_spatially_split_convolution_fetches_only_its_halo():
    def convolve(x, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)

    specs = [[None, "x", None, None], None]
    outcome = check(convolve, [normal(1, 16, 4, 3), normal(3, 3, 3, 2)], mesh_of(4), specs)
    (use,) = outcome.local.report.collectives
    assert (use.kind, use.count) == ("collective_permute", 2)
    assert use.bytes_per_device == 2 * 4 * 3 * 4  # one row of 4 x 3 floats from each side
    assert not outcome.local.report.replicated


def test_a_split_of_a_fused_projection_moves_less_than_a_gather():
    def project(x, w):
        q, k, v = jnp.split(x @ w, 3, axis=1)
        return q * k + v

    specs = [None, [None, "x"]]
    outcome = check(project, [normal(4, 6), normal(6, 24)], mesh_of(4), specs)
    (use,) = outcome.local.report.collectives
    assert use.kind == "collective_permute"
    gathered = 3 * 4 * 24 * 4
    assert use.bytes_per_device < gathered / 2
    assert not outcome.local.report.replicated


def test_gspmd_annotations_are_refused():
    module = parse(OPAQUE.replace("@opaque", "@SPMDFullToShardShape"))
    with pytest.raises(UnsupportedOp, match="belongs to GSPMD"):
        localize(module, mesh=mesh_of(2))


def test_sharding_of_specs():
    assert sharding_of(["x", None, ("x", "y")]).dims[2] == (AxisRef("x"), AxisRef("y"))
