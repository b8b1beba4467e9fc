"""The order of the whole local program: that of the module it was made from."""

from __future__ import annotations

from pai.passes.partition.fold_match import ARGUMENT, Match
from pai.passes.partition.fold_reduce import Refused

Entry = tuple[int, float, int, int]
"""Place in the whole module, in the reduced program, operation, and layer; -1 for what stays."""


def order(match: Match) -> list[Entry]:
    """Return what stays and the copies of templates, sorted."""
    latest = _latest(match)
    cut = match.cut
    out: list[Entry] = [(node, index, index, -1) for index, node in enumerate(latest)]
    for template in match.templates.values():
        index, node = template.index, latest[template.index]
        chain = match.chain[node] if node >= 0 else -1
        step = (template.above - index) / (cut.size + 1)
        for layer in range(cut.below + 1, cut.above):
            if chain >= 0:
                whole = _moved(match, node, layer - cut.below)
                out.append((whole, index, index, layer))
            else:
                out.append((node, index + step * (layer - cut.below), index, layer))
    return sorted(out)


def _latest(match: Match) -> list[int]:
    """Return the node at which each local operation stands: not before its operands."""
    shifts = {
        key: crossing.layer - match.layer[match.nodes[match.operands[key[0]][key[1]][0]]]
        for key, crossing in match.crossings.items()
        if crossing.member.number != ARGUMENT
    }
    out = _anchors(match, shifts)
    for index, operands in enumerate(match.operands):
        for place, (source, _) in enumerate(operands):
            if source != ARGUMENT:
                moved = _moved(match, out[source], shifts.get((index, place), 0))
                out[index] = max(out[index], moved)
    return out


def _anchors(match: Match, shifts: dict[tuple[int, int], int]) -> list[int]:
    """Return the operation of the whole module at which each local one stands.

    That is the one it was made for; what was made for an argument stands before its first use.
    """
    out = list(match.nodes)
    for index in range(len(out) - 1, -1, -1):
        for place, (source, _) in enumerate(match.operands[index]):
            if source != ARGUMENT and match.nodes[source] < match.graph.arguments:
                out[source] = _moved(match, out[index], -shifts.get((index, place), 0))
    return out


def _moved(match: Match, node: int, layers: int) -> int:
    """Return the same node some layers on."""
    if not layers or node < 0 or match.chain[node] < 0:
        return node
    chain, layer = match.chains[match.chain[node]], match.layer[node] + layers
    if not 0 <= layer < len(chain) or chain[layer] < 0:
        raise Refused("an operation is tied to a layer that the module does not have")
    return chain[layer]
