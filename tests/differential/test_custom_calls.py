"""Custom calls: registered ones are split by their rule, others are gathered or refused."""

from __future__ import annotations

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

sys.path.insert(0, str(Path(__file__).parent))
from harness import check, localize_raw, lower, mesh_of, run_and_compare

from pai.compiler.reference import run_reference
from pai.dialects.mlir import parse, to_text
from pai.dialects.sdy import set_mesh
from pai.passes.base import run_passes
from pai.passes.partition import partition
from pai.passes.partition.handlers.custom_calls import CUSTOM_CALLS, register_custom_call
from pai.passes.partition.localize import localize
from pai.passes.simplify.inline import Inline
from pai.runtime.errors import InvalidSharding, UnsupportedOp

A = np.random.default_rng(0).standard_normal((4, 3, 3)).astype(np.float32)
A = A @ A.swapaxes(1, 2) + 3 * np.eye(3, dtype=np.float32)


@pytest.fixture(autouse=True)
def registered():
    before = dict(CUSTOM_CALLS)
    yield
    CUSTOM_CALLS.clear()
    CUSTOM_CALLS.update(before)


def test_a_registered_call_keeps_its_batch_split():
    register_custom_call("lapack_ssyevd_ffi", "... _ _ -> ... _ _, ... _, ...")
    outcome = check(
        lambda a: jnp.linalg.eigh(a, symmetrize_input=False)[0],
        [A],
        mesh_of(2),
        [["x", None, None]],
    )
    assert not outcome.local.report.collectives
    assert "tensor<2x3x3xf32>" in outcome.text


def test_a_registered_call_has_its_whole_dimensions_gathered():
    register_custom_call("lapack_ssyevd_ffi", "... _ _ -> ... _ _, ... _, ...")
    outcome = check(
        lambda a: jnp.linalg.eigh(a, symmetrize_input=False)[0],
        [A],
        mesh_of(3),
        [[None, "x", None]],
    )
    assert [use.kind for use in outcome.local.report.collectives] == ["all_gather"]


def test_calls_of_lapack_share_their_batch():
    text = lower(lambda a: lax.linalg.lu(a)[0], [A])
    mesh = mesh_of(2)
    module = parse(text)
    Inline().run(module)
    set_mesh(module, mesh)
    local = localize_raw(module, mesh, lambda rank: ["x", *[None] * (rank - 1)] if rank else [])
    run_and_compare(local, [A], run_reference(text, [A]))
    assert "-> (tensor<2x3x3xf32>, tensor<2x3xi32>, tensor<2xi32>)" in to_text(module)


def sharded(call: str, *, x: str = '{"x"}, {}', attributes: str = "") -> str:
    """Return a program that calls ``call`` on a split 4x6 tensor and a vector."""
    return (
        f'sdy.mesh @mesh = <["x"=2]>\n'
        f"func.func @main(%x: tensor<4x6xf32> {{sdy.sharding = #sdy.sharding<@mesh, [{x}]>}}, "
        f"%w: tensor<6xf32>) -> tensor<4xf32> {{\n"
        f"  %0 = stablehlo.custom_call @{call}(%x, %w) {attributes}"
        " : (tensor<4x6xf32>, tensor<6xf32>) -> tensor<4xf32>\n"
        "  return %0 : tensor<4xf32>\n}"
    )


def test_partial_results_are_combined_by_the_kind_registered():
    register_custom_call("weigh", "m k, k -> m", reduce="max")
    module = parse(sharded("weigh", x='{}, {"x"}'))
    partition(module, mesh_of(2))
    text = to_text(module)
    assert "tensor<4x3xf32>, tensor<3xf32>) -> tensor<4xf32>" in text
    assert "all_reduce" in text
    assert "stablehlo.maximum" in text


def test_a_rule_may_be_a_function_with_a_form_of_its_own():
    from pai.passes.partition.rule import Rule, whole

    def rule(op):
        out = Rule()
        rows = out.factor(op.operands[0].type.shape[0])
        out.operands, out.results = [[(rows,), ()], whole(1)], [[(rows,)]]
        return out

    def build(site):
        (out,) = site.clone()
        return [site.emit.unary("negate", out)]

    register_custom_call("weigh", rule, build)
    module = parse(sharded("weigh"))
    partition(module, mesh_of(2))
    assert "tensor<2x6xf32>, tensor<6xf32>) -> tensor<2xf32>" in to_text(module)
    assert "negate" in to_text(module)


def test_a_call_may_bring_its_rule():
    rule = "#sdy.op_sharding_rule<([i, j], [j])->([i]) {i=4, j=6} reduction={j}, custom>"
    module = parse(sharded("weigh", attributes=f"{{sdy.sharding_rule = {rule}}}"))
    local = partition(module, mesh_of(2))
    assert "tensor<2x6xf32>, tensor<6xf32>) -> tensor<2xf32>" in to_text(module)
    assert not local.report.replicated


def test_an_unknown_call_is_gathered_and_reported():
    local = partition(parse(sharded("unknown")), mesh_of(2))
    (found,) = local.report.replicated
    assert found.op == "stablehlo.custom_call"


def test_an_unknown_call_with_a_side_effect_is_refused():
    with pytest.raises(UnsupportedOp, match="'print' has a side effect, which every device would"):
        localize(parse(sharded("print", attributes="{has_side_effect = true}")))


def test_simplify_keeps_registered_calls():
    module = parse(sharded("weigh"))
    with pytest.raises(UnsupportedOp, match="runs code that is not in the model"):
        run_passes(module, "pai-legalize")
    register_custom_call("weigh", "m _, _ -> m")
    run_passes(module, "pai-legalize")
    assert "custom_call @weigh" in to_text(module)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("m k, k m", "needs one '->'"),
        ("m k, k -> m", "no result has k"),
        ("m m, k -> m k", "repeat a name"),
    ],
)
def test_a_rule_that_cannot_be_read(rule, message):
    with pytest.raises(InvalidSharding, match=message):
        register_custom_call("weigh", rule)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("m, k -> m", "has 1 names for tensor<4x6xf32>"),
        ("m k, m -> m k", "the sizes of 'm' differ"),
        ("m _ -> m", "the rule is for 1 values"),
    ],
)
def test_a_rule_that_does_not_fit(rule, message):
    register_custom_call("weigh", rule, reduce="add")
    with pytest.raises(InvalidSharding, match=message):
        localize(parse(sharded("weigh")))


def test_marks_of_placement_and_layout_are_dropped():
    text = """
    func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
      %0 = stablehlo.custom_call @annotate_device_placement(%x) {has_side_effect = true,
        mhlo.frontend_attributes = {_xla_buffer_placement = "pinned_host"}}
        : (tensor<4xf32>) -> tensor<4xf32>
      return %0 : tensor<4xf32>
    }"""
    module = parse(text)
    run_passes(module, "pai-legalize")
    assert "custom_call" not in to_text(module)
