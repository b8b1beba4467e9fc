"""A module as a light graph: the operations of @main as numbers, and what kind of step each is in.

Reading is one pass over the operations (``partition/fold_graph``); nothing here asks an operation
for its attributes or types. What is asked of operations later is asked of one in each class of
repeated ones (``fold.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pai.dialects.mlir import ir
from pai.dialects.program import Signature
from pai.passes.partition.fold_graph import RESULT_BITS, Graph, read

HEAVY = frozenset(
    {f"stablehlo.{name}" for name in (
        "dot_general", "convolution", "gather", "scatter", "sort", "reduce_window", "fft", "while",
        "select_and_scatter", "cholesky", "triangular_solve", "custom_call", "rng",
        "rng_bit_generator", "dynamic_update_slice", "dynamic_slice", "case", "if")}
    | {"chlo.top_k"}
)  # fmt: skip
_REDUCTIONS = frozenset({"stablehlo.reduce"})
_UNARY = frozenset(
    {"stablehlo.transpose", "stablehlo.convert", "stablehlo.reshape", "stablehlo.broadcast_in_dim"}
)


class Phase(StrEnum):
    """The part of a training step that an operation belongs to; inference is all forward."""

    FORWARD = "forward"
    BACKWARD = "backward"
    WEIGHT = "weight"
    UPDATE = "update"


@dataclass
class FlowGraph:
    """The operations of @main, numbered; arguments come first.

    Args:
        flow: operands, results and signatures by node.
        names: operation name by node, "" for arguments.
        phase: by node.
        free: whether a node depends on constants only, so that any device can compute it.
        stored: whether a node is an argument, or one in another type or order.
        updates: per result that replaces an argument, (returned place, argument).
    """

    flow: Graph
    names: list[str]
    phase: list[Phase]
    free: list[bool]
    stored: list[bool]
    updates: list[tuple[int, int]]


def read_module(main: ir.Operation, signature: Signature) -> FlowGraph:
    """Read ``@main`` of a simplified module.

    Args:
        main: the function.
        signature: its arguments and results; results that update an argument tell a training step.
    """
    block = main.regions[0].blocks[0]
    keys = [value.role.value for value in signature.arguments]
    flow = read(block, keys)
    names = [""] * flow.arguments + [op.name for op in flow.operations]
    place = {value.name: i for i, value in enumerate(signature.arguments)}
    updates = [
        (i, place[value.updates])
        for i, value in enumerate(signature.results)
        if value.updates in place
    ]
    free, stored = _sources(flow, names)
    return FlowGraph(flow, names, _phases(flow, names, updates), free, stored, updates)


def _sources(flow: Graph, names: list[str]) -> tuple[list[bool], list[bool]]:
    """Return which nodes come from constants alone, and which from one argument alone."""
    free = [False] * flow.arguments
    stored = [True] * flow.arguments
    for node in range(flow.arguments, len(names)):
        sources = [value >> RESULT_BITS for value in flow.operands[node]]
        name = names[node]
        free.append(all(free[s] for s in sources) and name not in HEAVY)
        stored.append(name in _UNARY and stored[sources[0]])
    return free, stored


def _phases(flow: Graph, names: list[str], updates: list[tuple[int, int]]) -> list[Phase]:
    """Tell the forward pass, which the results that update nothing need, from what follows.

    What is left and leads to products is the gradient by activations; products and sums that lead
    to none, and what only they need, that lead to none are gradients by weights; the rest updates.
    """
    count = len(names)
    if not updates:
        return [Phase.FORWARD] * count
    updating = {place for place, _ in updates}
    forward = [False] * count
    for place, value in enumerate(flow.returned):
        if place not in updating:
            forward[value >> RESULT_BITS] = True
    leads = [False] * count
    for node in range(count - 1, flow.arguments - 1, -1):
        ahead = leads[node] or names[node] in HEAVY
        for value in flow.operands[node]:
            source = value >> RESULT_BITS
            if forward[node]:
                forward[source] = True
            elif ahead:
                leads[source] = True
    out = [Phase.FORWARD] * count
    sums = [False] * count
    for node in range(count - 1, flow.arguments - 1, -1):
        if not forward[node]:
            sums[node] |= names[node] in HEAVY or names[node] in _REDUCTIONS
            last = Phase.WEIGHT if sums[node] else Phase.UPDATE
            out[node] = Phase.BACKWARD if leads[node] else last
            for value in flow.operands[node] if sums[node] else ():
                sums[value >> RESULT_BITS] = True
    return out
