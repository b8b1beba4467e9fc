"""Full recomputation of the repeated layers, as a change of the problem.

A layer then keeps only what it hands to the next; its forward pass runs again before its backward
pass, with its collectives, one layer at a time (T. Chen et al., "Training Deep Nets with Sublinear
Memory Cost", 2016). Attention scores are recomputed in any case (``memory.py``), which is what
selective recomputation is about.
"""

from __future__ import annotations

from dataclasses import replace

from pai.passes.partition.fold_graph import RESULT_BITS
from pai.passes.strategy.intra.lower import Lowered
from pai.passes.strategy.intra.memory import FORWARD_END, argument_bytes, boundaries, saved
from pai.passes.strategy.intra.problem import Edge, Node, Problem


def recompute_layers(lowered: Lowered) -> Lowered | None:
    """Return the problem with the layers recomputed; None without layers or a backward pass."""
    folded = lowered.merged.folded
    kept = saved(lowered)
    if folded.layers == 1 or not kept:
        return None
    memory = dict(lowered.problem.memory)
    parts = lowered.microbatches
    activations = []
    for value, what in kept:  # one layer at a time has all of it
        layers = folded.layers if folded.layered[value >> RESULT_BITS] else 1
        activations.append(replace(what, num_bytes=what.num_bytes / layers / parts))
    activations += [replace(h, num_bytes=h.num_bytes / parts) for _, h in boundaries(lowered)]
    memory[FORWARD_END] = [*argument_bytes(lowered), *activations]
    again = _edges_again(lowered)
    problem = Problem(
        [_twice(lowered, node) for node in lowered.problem.nodes],
        [*lowered.problem.edges, *again],
        memory, lowered.problem.fixed_bytes, lowered.problem.limit, lowered.problem.stored,
    )  # fmt: skip
    links = [*lowered.edge_links, *([] for _ in again)]
    return replace(lowered, problem=problem, edge_links=links)


def _twice(lowered: Lowered, node: Node) -> Node:
    """Return a node that runs its forward kernels again, if it is of the layers."""
    layers = lowered.merged.folded.layers
    products = [
        replace(p, phase="backward") for p in node.products if _again(p.phase, p.count, layers)
    ]
    traffic = [
        replace(t, phase="backward") for t in node.traffic if _again(t.phase, t.count, layers)
    ]
    return replace(node, products=[*node.products, *products], traffic=[*node.traffic, *traffic])


def _again(phase: str, count: int, layers: int) -> bool:
    return phase == "forward" and 2 * count > layers


def _edges_again(lowered: Lowered) -> list[Edge]:
    """Return the collectives of the layers' forward pass, for the second time."""
    folded = lowered.merged.folded
    out = []
    last = max((edge.group for edge in lowered.problem.edges), default=0) + 1
    for edge, links in zip(lowered.problem.edges, lowered.edge_links, strict=True):
        inside = any(folded.layered[link.reader] for link in links)
        if inside and edge.phase == "forward" and not edge.hidden:
            out.append(replace(edge, phase="backward", group=edge.group + last))
    return out
