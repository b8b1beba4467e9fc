"""What the search unifies and what it does not, on modules of a few operations."""

from __future__ import annotations

import math

from pai.dialects.mlir import context, parse
from pai.dialects.program import Role, Signature, Value
from pai.passes.partition.fold_graph import RESULT_BITS
from pai.passes.strategy.annotate import main_function
from pai.passes.strategy.intra.fold import fold_graph
from pai.passes.strategy.intra.graph import Phase, read_module
from pai.passes.strategy.intra.merge import Merged, merge
from pai.passes.strategy.intra.solution import read_problem


def signature(updates: bool = False) -> Signature:
    """Return the signature of the modules below: x, y and w, and what they return."""
    given = [Value(n, Role.INPUT, "f32", (64, 32)) for n in "xy"]
    given.append(Value("w", Role.PARAMETER, "f32", (32,)))
    made = [Value("a", Role.OUTPUT, "f32", ()), Value("b", Role.OUTPUT, "f32", ())]
    if updates:
        made[1] = Value("b", Role.OUTPUT, "f32", (32,), "w")
    return Signature(tuple(given), tuple(made))


def merged(body: str, results: str, *, updates: bool = False) -> Merged:
    """Return the clusters of a module with this body."""
    text = f"""func.func @main(%x: tensor<64x32xf32>, %y: tensor<64x32xf32>, %w: tensor<32xf32>)
        -> ({results}) {{ {body} }}"""
    module = parse(text, "test", context())
    graph = read_module(main_function(module).operation, signature(updates))
    return merge(fold_graph(graph))


def groups(found: Merged, name: str) -> list[int]:
    """Return the clusters of the results of all operations called so."""
    names = found.folded.graph.names
    return [
        found.group(number << RESULT_BITS)
        for number, members in enumerate(found.folded.members)
        if names[members[0]] == f"stablehlo.{name}"
    ]


TYPE = "tensor<64x32xf32>"


def test_shared_broadcasts_of_parameters_and_constants_glue_nothing() -> None:
    found = merged(
        f"""%c = stablehlo.constant dense<2.0> : {TYPE}
        %b = stablehlo.broadcast_in_dim %w, dims = [1] : (tensor<32xf32>) -> {TYPE}
        %0 = stablehlo.multiply %x, %b : {TYPE}
        %1 = stablehlo.add %0, %c : {TYPE}
        %2 = stablehlo.multiply %y, %b : {TYPE}
        %3 = stablehlo.add %2, %c : {TYPE}
        return %1, %3 : {TYPE}, {TYPE}""",
        f"{TYPE}, {TYPE}",
    )
    first, second = groups(found, "add")
    assert first != second
    assert set(groups(found, "multiply")) == {first, second}
    (weight,) = [found.group(2 << RESULT_BITS)]
    assert weight not in (first, second)


def test_a_normalization_is_one_cluster_and_a_gradient_of_a_gain_is_not() -> None:
    found = merged(
        f"""%z = stablehlo.constant dense<0.0> : tensor<f32>
        %0 = stablehlo.exponential %x : {TYPE}
        %1 = stablehlo.reduce(%0 init: %z) applies stablehlo.add across dimensions = [1]
          : ({TYPE}, tensor<f32>) -> tensor<64xf32>
        %2 = stablehlo.broadcast_in_dim %1, dims = [0] : (tensor<64xf32>) -> {TYPE}
        %3 = stablehlo.divide %0, %2 : {TYPE}
        %4 = stablehlo.reduce(%3 init: %z) applies stablehlo.add across dimensions = [0]
          : ({TYPE}, tensor<f32>) -> tensor<32xf32>
        %5 = stablehlo.add %4, %w : tensor<32xf32>
        return %3, %5 : {TYPE}, tensor<32xf32>""",
        f"{TYPE}, tensor<32xf32>",
    )
    rows, columns = groups(found, "reduce")
    assert groups(found, "exponential") == groups(found, "divide") == [rows]
    assert columns != rows


def test_phases_of_a_step() -> None:
    text = f"""func.func @main(%x: {TYPE}, %y: {TYPE}, %w: tensor<32xf32>)
          -> (tensor<f32>, tensor<32xf32>) {{
        %z = stablehlo.constant dense<0.0> : tensor<f32>
        %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
          : ({TYPE}, tensor<32xf32>) -> tensor<64xf32>
        %1 = stablehlo.tanh %0 : tensor<64xf32>
        %2 = stablehlo.reduce(%1 init: %z) applies stablehlo.add across dimensions = [0]
          : (tensor<64xf32>, tensor<f32>) -> tensor<f32>
        %3 = stablehlo.negate %1 : tensor<64xf32>
        %4 = stablehlo.dot_general %3, %x, contracting_dims = [0] x [0]
          : (tensor<64xf32>, {TYPE}) -> tensor<32xf32>
        %5 = stablehlo.subtract %w, %4 : tensor<32xf32>
        return %2, %5 : tensor<f32>, tensor<32xf32> }}"""
    module = parse(text, "test", context())
    graph = read_module(main_function(module).operation, signature(updates=True))
    phase = dict(zip(graph.names, graph.phase, strict=True))
    assert phase["stablehlo.tanh"] is Phase.FORWARD
    assert phase["stablehlo.negate"] is Phase.BACKWARD
    assert phase["stablehlo.subtract"] is Phase.UPDATE
    dots = [p for n, p in zip(graph.names, graph.phase, strict=True) if n.endswith("dot_general")]
    assert dots == [Phase.FORWARD, Phase.WEIGHT]
    problem = read_problem(module, signature(updates=True), math.inf).problem
    sums = [edge for edge in problem.edges if edge.hidden and edge.partial]
    assert [(edge.shape, edge.phase) for edge in sums] == [((32,), "backward")]
