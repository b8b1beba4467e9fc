"""shard_map: collectives of manual bodies, bodies that are manual in part, gradients, nesting."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

sys.path.insert(0, str(Path(__file__).parent))
from harness import check, mesh_of, prepare, run_and_compare

from pai.dialects.mlir import parse
from pai.passes.partition import partition

X = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
CYCLE = [(k, (k + 1) % 4) for k in range(4)]
BOTH = frozenset({"x", "y"})


BLOCKS, ROWS, COLUMNS, WHOLE = P("x", "y"), P("x", None), P(None, "y"), P(None, None)


def manual(function, inputs=BLOCKS, outputs=BLOCKS, names=BOTH):
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    return jax.shard_map(
        function, mesh=mesh, in_specs=inputs, out_specs=outputs, axis_names=set(names)
    )


def gradient(function):
    return jax.grad(lambda a: jnp.sum(function(a) ** 2))


def inner(a):
    return jax.shard_map(
        lambda b: lax.psum(b, "y"), in_specs=P(None, "y"), out_specs=P(), axis_names={"y"}
    )(a)


def scanned(a):
    swap = [(0, 1), (1, 0)]
    return lax.scan(lambda c, r: (c + r, lax.ppermute(c, "y", swap)), jnp.zeros_like(a[0]), a)[1]


SCATTER = {"scatter_dimension": 1, "tiled": True}
PROGRAMS = {
    "psum": manual(lambda a: lax.psum(a, "x"), outputs=COLUMNS),
    "psum_of_both": manual(lambda a: lax.psum(a, ("x", "y")), outputs=WHOLE),
    "psum_of_integers": manual(lambda a: lax.psum((a * 9).astype(jnp.int8), "x"), outputs=COLUMNS),
    "pmax": manual(lambda a: lax.pmax(a, "x"), outputs=COLUMNS),
    "pmin": manual(lambda a: lax.pmin(a, "y"), outputs=ROWS),
    "pmean": manual(lambda a: lax.pmean(a, "x"), outputs=COLUMNS),
    "psum_scatter": manual(lambda a: lax.psum_scatter(a, "y", **SCATTER)),
    "all_gather": manual(lambda a: lax.all_gather(a, "x", axis=0, tiled=True) * 1.0),
    "all_gather_untiled": manual(lambda a: lax.all_gather(a, "x").sum(0)),
    "all_to_all": manual(
        lambda a: lax.all_to_all(a, "x", 1, 0, tiled=True), ROWS, P(None, "x"), {"x"}
    ),
    "ppermute": manual(lambda a: lax.ppermute(a, "x", CYCLE)),
    "ppermute_to_some": manual(lambda a: lax.ppermute(a, "y", [(0, 1)])),
    "pshuffle": manual(lambda a: lax.pshuffle(a, "x", [3, 1, 0, 2])),
    "axis_index": manual(lambda a: a * lax.axis_index("x") + lax.axis_index("y")),
    "partial_index": manual(lambda a: a * lax.axis_index("x"), ROWS, ROWS, {"x"}),
    "partial_product": manual(lambda a: lax.psum(a @ a.T, "x"), ROWS, P(), {"x"}),
    "partial_columns": manual(lambda a: lax.psum(jnp.sin(a), "y"), COLUMNS, P(), {"y"}),
    "partial_max": manual(lambda a: a - lax.pmax(a, "y").sum(0), COLUMNS, COLUMNS, {"y"}),
    "in_a_loop": lambda a: lax.fori_loop(
        0, 3, lambda k, c: manual(lambda b: lax.ppermute(b, "x", CYCLE) * 1.5)(c), a
    ),
    "around_a_loop": manual(
        lambda a: lax.fori_loop(0, 3, lambda k, c: lax.ppermute(c, "x", CYCLE), a)
    ),
    "around_a_scan": manual(scanned),
    "around_a_branch": manual(
        lambda a: lax.cond(lax.axis_index("x") > 1, lambda v: v * 2, lambda v: v - 1, a)
    ),
    "between_products": lambda a: manual(lambda b: lax.psum(b, "x"), outputs=COLUMNS)(
        jnp.sin(a) @ a.T
    ).sum(0),
    "nested": manual(inner, ROWS, ROWS, {"x"}),
    "gradient_of_psum": gradient(manual(lambda b: lax.psum((b**2).sum(), ("x", "y")), outputs=P())),
    "gradient_of_all_gather": gradient(
        manual(lambda b: lax.all_gather(b, "y", axis=1, tiled=True) @ jnp.ones((8, 4)))
    ),
    "gradient_of_psum_scatter": gradient(
        manual(lambda b: lax.psum_scatter(jnp.sin(b), "y", **SCATTER))
    ),
    "gradient_of_ppermute": gradient(manual(lambda b: jnp.sin(lax.ppermute(b, "x", CYCLE)))),
    "gradient_in_part": gradient(
        manual(lambda b: lax.psum(jnp.tanh(b @ b.T), "x"), ROWS, P(), {"x"})
    ),
}
SPECS = {"whole": [None, None], "same": ["x", "y"], "crossed": ["y", "x"]}


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_bodies(name, spec):
    function = jax.jit(PROGRAMS[name])
    want = np.asarray(function(X))
    mesh = mesh_of(4, 2)
    local = partition(prepare(function.lower(X).as_text(), mesh, [SPECS[spec]]), mesh)
    run_and_compare(local, [X], [want])


def test_what_is_split_along_other_axes_stays_split():
    function = jax.jit(PROGRAMS["partial_columns"])
    mesh = mesh_of(4, 2)
    local = partition(prepare(function.lower(X).as_text(), mesh, [["x", "y"]]), mesh)
    assert [use.kind for use in local.report.collectives] == ["all_reduce"]
    assert not local.report.replicated


KINDS = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "multiply": np.multiply}


@pytest.mark.parametrize("dtype", [bool, np.int32, np.uint8], ids=["i1", "i32", "ui8"])
@pytest.mark.parametrize("kind", KINDS)
def test_bitwise_reductions_of_a_body(kind, dtype):
    element = {bool: "i1", np.int32: "i32", np.uint8: "ui8"}[dtype]
    text = f"""
    sdy.mesh @mesh = <["x"=4]>
    func.func @main(%a: tensor<8x{element}>) -> tensor<2x{element}> {{
      %0 = sdy.manual_computation(%a) in_shardings=[<@mesh, [{{"x"}}]>]
          out_shardings=[<@mesh, [{{}}]>] manual_axes={{"x"}} (%b: tensor<2x{element}>) {{
        %1 = "stablehlo.all_reduce"(%b) <{{
          channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>,
          replica_groups = dense<[[0, 1, 2, 3]]> : tensor<1x4xi64>, use_global_device_ids}}> ({{
        ^bb0(%p: tensor<{element}>, %q: tensor<{element}>):
          %s = stablehlo.{kind} %p, %q : tensor<{element}>
          stablehlo.return %s : tensor<{element}>
        }}) : (tensor<2x{element}>) -> tensor<2x{element}>
        sdy.return %1 : tensor<2x{element}>
      }} : (tensor<8x{element}>) -> tensor<2x{element}>
      return %0 : tensor<2x{element}>
    }}"""
    bits = np.array([13, 0, 7, 5, 3, 0, 0, 9]).astype(dtype)
    local = partition(parse(text), mesh_of(4))
    run_and_compare(local, [bits], [KINDS[kind].reduce(bits.reshape(4, 2)).astype(dtype)])


@pytest.mark.parametrize("name", ["and", "or", "xor"])
@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32], ids=str)
def test_bitwise_reductions_of_split_dimensions(name, dtype):
    operation = {"and": lax.bitwise_and, "or": lax.bitwise_or, "xor": lax.bitwise_xor}[name]
    start = np.array(-1 if name == "and" else 0).astype(dtype)

    def function(a):
        return lax.reduce(a, start, operation, (0,)), lax.reduce(a, dtype(5), operation, (0, 1))

    a = np.random.default_rng(0).integers(0, 100, (7, 6)).astype(dtype)
    check(function, [a], mesh_of(2, 2), [["x", "y"]])
    check(function, [a], mesh_of(4), [["x", None]])


def test_named_computations_are_inlined_in_their_layouts():
    text = """
    sdy.mesh @mesh = <["x"=2]>
    func.func @main(%a: tensor<4x6xf32>) -> tensor<6xf32> {
      %0 = sdy.named_computation<"layer">(%a) in_shardings=[<@mesh, [{"x"}, {}]>]
          out_shardings=[<@mesh, [{"x"}]>] (%b: tensor<4x6xf32>) {
        %z = stablehlo.constant dense<0.0> : tensor<f32>
        %1 = stablehlo.reduce(%b init: %z) applies stablehlo.add across dimensions = [0]
          : (tensor<4x6xf32>, tensor<f32>) -> tensor<6xf32>
        sdy.return %1 : tensor<6xf32>
      } : (tensor<4x6xf32>) -> tensor<6xf32>
      return %0 : tensor<6xf32>
    }"""
    a = X[:4, :6]
    local = partition(parse(text), mesh_of(2))
    run_and_compare(local, [a], [a.sum(0)])
