"""What plans predict is what comes of them: collectives to the byte, memory within 10 %.

``python -m benchmarks.plan_truth`` runs ten models; these are three, one of them as a package.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.intra_truth import measure_intra
from benchmarks.plan_truth import LIMIT, Truth, measure, measure_program
from pai.compiler.options import CompileOptions
from pai.dialects.mlir import context, parse
from pai.dialects.program import Program, Role, Signature, Value, Weights


def check(truth: Truth) -> None:
    assert truth.collectives_agree, (truth.planned, truth.partitioned, truth.run)
    assert truth.memory_ratio == pytest.approx(1, abs=LIMIT)
    for key in ("parameters", "states", "inputs", "outputs"):
        assert truth.predicted[key] == truth.held[key]
    assert truth.predicted["temporaries"] == pytest.approx(truth.held["temporaries"], rel=0.02)


@pytest.mark.parametrize(("model", "plan"), [("gpt2", "cpu"), ("gpt2", "zero"), ("resnet", "cpu")])
def test_a_plan_predicts_the_program(model: str, plan: str, tmp_path: Path) -> None:
    truth = measure(model, plan, tmp_path, run=False)
    check(truth)
    assert truth.planned
    assert truth.copies <= truth.held["outputs"]


def test_a_plan_predicts_what_a_package_does(tmp_path: Path) -> None:
    """Parameters and moments in shards: gathered and reduced in every step of the recurrence."""
    truth = measure("lstm", "zero", tmp_path)
    check(truth)
    kinds = {kind for kind, _ in truth.run}
    assert {"all_gather", "reduce_scatter"} <= kinds
    # Parameters and moments are in shards, an eighth each.
    assert truth.held["states"] < 2.1 * truth.held["parameters"]


LOOP = """
func.func @main(%x: tensor<8x64xf32> {pai.name = "x", pai.role = "input"},
                %w: tensor<64x256xf32> {pai.name = "w", pai.role = "parameter"},
                %v: tensor<256x64xf32> {pai.name = "v", pai.role = "parameter"})
    -> (tensor<8x64xf32> {pai.name = "y"}) {
  %zero = stablehlo.constant dense<0> : tensor<i32>
  %one = stablehlo.constant dense<1> : tensor<i32>
  %five = stablehlo.constant dense<5> : tensor<i32>
  %0:2 = stablehlo.while(%i = %zero, %a = %x) : tensor<i32>, tensor<8x64xf32>
  cond {
    %p = stablehlo.compare LT, %i, %five : (tensor<i32>, tensor<i32>) -> tensor<i1>
    stablehlo.return %p : tensor<i1>
  } do {
    %j = stablehlo.add %i, %one : tensor<i32>
    %h = stablehlo.dot_general %a, %w, contracting_dims = [1] x [0]
        : (tensor<8x64xf32>, tensor<64x256xf32>) -> tensor<8x256xf32>
    %t = stablehlo.tanh %h : tensor<8x256xf32>
    %b = stablehlo.dot_general %t, %v, contracting_dims = [1] x [0]
        : (tensor<8x256xf32>, tensor<256x64xf32>) -> tensor<8x64xf32>
    stablehlo.return %j, %b : tensor<i32>, tensor<8x64xf32>
  }
  return %0#1 : tensor<8x64xf32>
}"""


def test_what_a_loop_sends_counts_in_every_round(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = {"w": (64, 256), "v": (256, 64)}
    weights = {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}
    arguments = [Value("x", Role.INPUT, "f32", (8, 64))]
    arguments += [Value(name, Role.PARAMETER, "f32", s) for name, s in shapes.items()]
    signature = Signature(tuple(arguments), (Value("y", Role.OUTPUT, "f32", (8, 64)),))
    loaders = Weights({"w": lambda: weights["w"], "v": lambda: weights["v"]})
    program = Program("loop", parse(LOOP, "loop", context()), signature, loaders)
    plan = tmp_path / "plan.toml"
    plan.write_text('[mesh]\nmodel = 8\n[arguments]\n"w" = ["", "model"]\n"v" = ["model", ""]\n')
    inputs = {"x": rng.standard_normal((8, 64)).astype(np.float32)}
    truth = measure_program(program, inputs, CompileOptions(8, "cpu", plan=plan), tmp_path)
    check(truth)
    assert truth.run == {("all_reduce", 8): (5, 5 * 8 * 64 * 4)}


def test_the_intra_operator_program_predicts_what_is_sent() -> None:
    """The loss, a scalar, is summed behind its back."""
    truth = measure_intra("gpt2", (8,))
    kinds = truth.partitioned.keys() | truth.predicted.keys()
    for kind in kinds:
        assert truth.partitioned[kind] == pytest.approx(truth.predicted[kind], abs=8)
