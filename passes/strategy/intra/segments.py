"""Which segment of the model an operation belongs to: before the layers, a layer, or after them.

Backward operations belong to where their forward ones do: those that the layers' backward pass
leads to stand before the layers, the others after them.
"""

from __future__ import annotations

from pai.passes.partition.fold_graph import RESULT_BITS
from pai.passes.strategy.intra.fold import Folded
from pai.passes.strategy.intra.graph import Phase

BEFORE, LAYER, AFTER = "embedding", "layer", "head"


def segments_of(folded: Folded) -> list[str]:
    """Return the segment of each class; all are AFTER without repeated layers."""
    if folded.layers == 1:
        return [AFTER] * len(folded.members)
    graph = folded.graph
    inside = [folded.layered[number] for number in folded.classes]
    ahead = _leading(folded, inside)
    behind = _following(folded, inside)
    out = []
    for number, members in enumerate(folded.members):
        node = members[len(members) // 2]
        if folded.layered[number]:
            out.append(LAYER)
        elif graph.phase[node] is Phase.FORWARD:
            out.append(BEFORE if ahead[node] else AFTER)
        else:
            out.append(BEFORE if behind[node] else AFTER)
    return out


def _leading(folded: Folded, inside: list[bool]) -> list[bool]:
    """Return the forward nodes that lead into a layer's forward pass."""
    graph = folded.graph
    leads = [False] * len(inside)
    for node in range(len(inside) - 1, graph.flow.arguments - 1, -1):
        if graph.phase[node] is Phase.FORWARD and (inside[node] or leads[node]):
            for value in graph.flow.operands[node]:
                leads[value >> RESULT_BITS] = True
    return leads


def _following(folded: Folded, inside: list[bool]) -> list[bool]:
    """Return the nodes that a layer's backward pass leads to."""
    graph = folded.graph
    follows = [False] * len(inside)
    for node in range(graph.flow.arguments, len(inside)):
        if graph.phase[node] is Phase.FORWARD:
            continue
        for value in graph.flow.operands[node]:
            source = value >> RESULT_BITS
            backward = graph.phase[source] is Phase.BACKWARD
            follows[node] = follows[node] or follows[source] or (inside[source] and backward)
    return follows
