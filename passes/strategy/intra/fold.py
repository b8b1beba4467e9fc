"""Fold repeated layers: operations that a shift by one layer maps onto each other are one class.

The chains of ``partition/fold_layers`` are the colours: forward, backward, update and arguments of
a layer, found through the dataflow. A class stands for all its members, in whatever layer, so that
the search sees a model of two layers or of ninety-six as about the same graph. The chains leave out
parts of the first and last layers, whose neighbours differ; what looks like one chain's members
from nearby joins them, and from there on what stands at the same place of an operation, or uses it
alike (``_Joiner``). The rest are classes of their own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from pai.dialects.mlir import ir
from pai.passes.partition.fold_graph import RESULT_BITS, RESULT_MASK
from pai.passes.partition.fold_layers import Layers, find_stacks
from pai.passes.strategy.intra.graph import FlowGraph, Phase


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
        crossing: classes of forward operations that another layer reads.
    """

    graph: FlowGraph
    members: list[list[int]]
    operands: list[list[Counter[int]]]
    classes: list[int]
    layers: int
    layered: list[bool]
    crossing: set[int]

    def representative(self, number: int) -> int:
        """Return the node that stands for a class: one in the middle."""
        members = self.members[number]
        return members[len(members) // 2]


def fold_graph(graph: FlowGraph, *, fold: bool = True) -> Folded:
    """Return the classes of a graph's nodes; each node is its own when ``fold`` is not set."""
    flow = graph.flow
    stacks = find_stacks(flow) if fold else []
    chain, count = [-1] * len(graph.names), 0
    for layers in stacks:
        own = np.where(layers.chain >= 0, layers.chain + count, chain)
        chain, count = own.tolist(), count + len(layers.chains)
    if stacks:
        chain = _Joiner(graph, chain).run()
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
    crossing = set().union(*(_crossing(graph, layers, classes) for layers in stacks))
    sizes = Counter(len(m) for m, inside in zip(members, layered, strict=True) if inside)
    count = sizes.most_common(1)[0][0] if sizes else 1
    return Folded(graph, members, operands, classes, count, layered, crossing)


def _crossing(graph: FlowGraph, layers: Layers, classes: list[int]) -> set[int]:
    """Return the classes whose values go from layer to layer in the forward pass."""
    chain, layer = layers.chain.tolist(), layers.layer.tolist()
    out = set()
    for node, values in enumerate(graph.flow.operands):
        if chain[node] < 0 or graph.phase[node] is not Phase.FORWARD:
            continue
        for value in values:
            source = value >> RESULT_BITS
            if chain[source] >= 0 and layer[source] != layer[node]:
                out.add(classes[source])
    return out


def _operands(graph: FlowGraph, nodes: list[int], classes: list[int]) -> list[Counter[int]]:
    """Return per place the values that the members read there, as values of classes."""
    operands = graph.flow.operands
    out: list[Counter[int]] = [Counter() for _ in operands[nodes[0]]]
    for node in nodes:
        for counter, value in zip(out, operands[node], strict=True):
            counter[(classes[value >> RESULT_BITS] << RESULT_BITS) | (value & RESULT_MASK)] += 1
    return out


class _Joiner:
    """Adds operations of the first and last layers to the chains that they belong to."""

    def __init__(self, graph: FlowGraph, chain: list[int]) -> None:
        self.graph = graph
        self.flow = graph.flow
        self.chain = chain
        self.kinds = list(
            zip(graph.flow.signatures, graph.phase, graph.free, graph.stored, strict=True)
        )
        self.one: dict[int, int] = {}
        for node, number in enumerate(chain):
            self.one[number] = node  # the last member; the middle ones are alike
        counts = Counter(chain)
        seen: Counter[int] = Counter()
        for node, number in enumerate(chain):
            seen[number] += 1
            if 2 * seen[number] == counts[number] or counts[number] == 1:
                self.one[number] = node
        self.users = graph.flow.users()

    def run(self) -> list[int]:
        """Return the chain of each node, -1 for none."""
        work = [node for rounds in (3, 2, 1) for node in self.by_colour(rounds)]
        while work:
            work = [other for node in work for other in self.beside(node)]
        return self.chain

    def by_colour(self, rounds: int) -> list[int]:
        """Join nodes that look from nearby like the members of one chain only."""
        colours = self.flow.colours(rounds)
        chain = np.array(self.chain)
        inside = np.flatnonzero(chain >= 0)
        owner: dict[int, int] = {}
        for colour, number in zip(colours[inside].tolist(), chain[inside].tolist(), strict=True):
            if owner.setdefault(colour, number) != number:
                owner[colour] = -1
        joined = []
        for node in np.flatnonzero(chain < 0).tolist():
            number = owner.get(int(colours[node]), -1)
            if number >= 0 and self.join(node, number):
                joined.append(node)
        return joined

    def join(self, node: int, number: int) -> bool:
        """Enter a node into a chain, unless it is in one or of another kind."""
        model = self.one[number]
        if self.chain[node] >= 0 or self.kinds[node] != self.kinds[model]:
            return False
        if self.operand_types(node) != self.operand_types(model):
            return False
        self.chain[node] = number
        return True

    def operand_types(self, node: int) -> list[ir.Type]:
        """Return the types that an operation reads; a signature does not say them."""
        first = self.flow.arguments
        return (
            [v.type for v in self.flow.operations[node - first].operands] if node >= first else []
        )

    def beside(self, node: int) -> list[int]:
        """Join what stands beside a member as chains stand beside each other."""
        model = self.one[self.chain[node]]
        joined = []
        for mine, theirs in zip(self.flow.operands[node], self.flow.operands[model], strict=False):
            source, number = mine >> RESULT_BITS, self.chain[theirs >> RESULT_BITS]
            if number >= 0 and self.join(source, number):
                joined.append(source)
        theirs_by_kind = self.users_by_kind(model)
        for key, mine_users in self.users_by_kind(node).items():
            other = theirs_by_kind.get(key, [])
            if len(mine_users) == len(other) == 1:
                number = self.chain[other[0]]
                if number >= 0 and self.join(mine_users[0], number):
                    joined.append(mine_users[0])
        return joined

    def users_by_kind(self, node: int) -> dict[tuple[int, int], list[int]]:
        """Return the users of a node by what they are and the place they use it at."""
        out: dict[tuple[int, int], list[int]] = {}
        for user, place in self.users[node]:
            out.setdefault((self.flow.signatures[user], place), []).append(user)
        return out
