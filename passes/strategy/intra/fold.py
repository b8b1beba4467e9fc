"""Fold repeated layers: operations that a shift by one layer maps onto each other are one class.

The chains of ``partition/fold_layers`` are the colours: forward, backward, update and arguments of
a layer, found through the dataflow. A class stands for all its members, in whatever layer, so that
the search sees a model of two layers or of ninety-six as about the same graph. Operations of the
first and last layers that differ from the others are classes of their own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pai.passes.partition.fold_graph import RESULT_BITS, RESULT_MASK
from pai.passes.partition.fold_layers import find_layers
from pai.passes.strategy.intra.graph import FlowGraph


@dataclass
class Folded:
    """The classes of a graph's nodes.

    Args:
        graph: what was folded.
        members: per class, its nodes in order.
        operands: per class and place, the values (of classes) read, with how many members read it.
        classes: the class of each node.
        layers: how many layers repeat; 1 when none do.
        layered: per class, whether its members are one of each layer.
    """

    graph: FlowGraph
    members: list[list[int]]
    operands: list[list[Counter[int]]]
    classes: list[int]
    layers: int
    layered: list[bool]

    def representative(self, number: int) -> int:
        """Return the node that stands for a class: one in the middle."""
        members = self.members[number]
        return members[len(members) // 2]


def fold_graph(graph: FlowGraph, *, fold: bool = True) -> Folded:
    """Return the classes of a graph's nodes; each node is its own when ``fold`` is not set."""
    flow = graph.flow
    layers = find_layers(flow) if fold else None
    chain = layers.chain.tolist() if layers is not None else [-1] * len(graph.names)
    numbers: dict[int, int] = {}
    classes: list[int] = []
    members: list[list[int]] = []
    layered: list[bool] = []
    for node in range(len(graph.names)):
        key = chain[node] if chain[node] >= 0 else -1 - node
        number = numbers.setdefault(key, len(numbers))
        if number == len(members):
            members.append([])
            layered.append(key >= 0)
        members[number].append(node)
        classes.append(number)
    operands = [_operands(graph, nodes, classes) for nodes in members]
    sizes = Counter(len(m) for m, inside in zip(members, layered, strict=True) if inside)
    count = sizes.most_common(1)[0][0] if sizes else 1
    return Folded(graph, members, operands, classes, count, layered)


def _operands(graph: FlowGraph, nodes: list[int], classes: list[int]) -> list[Counter[int]]:
    """Return per place the values that the members read there, as values of classes."""
    operands = graph.flow.operands
    out: list[Counter[int]] = [Counter() for _ in operands[nodes[0]]]
    for node in nodes:
        for counter, value in zip(out, operands[node], strict=True):
            counter[(classes[value >> RESULT_BITS] << RESULT_BITS) | (value & RESULT_MASK)] += 1
    return out
