"""Find repeated layers: chains of operations that a shift by one layer maps onto each other.

A *chain* lists what is the same operation, or argument, in every layer, by layer number. The first
chain comes from operations that look alike to some depth and follow each other in the dataflow at
equal distances; a repeated layer has such an operation. From there chains grow along operands and
users: what stands at one operand place of a chain's members is a chain again, or one value that all
layers share. So constants, masks and step counts never glue layers together, the weights, moments
and gradients of a layer are found through its operations, and numbers count along the dataflow of
that first chain, whatever the order of the operations in the text.

Nothing here is taken on trust: `_window` keeps the layers in which every operand of every chain is
the same shared value, or the member of the same chain at the same distance in layers.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pai.passes.partition.fold_align import align
from pai.passes.partition.fold_graph import RESULT_BITS, RESULT_MASK, Graph, Ints, node_of

Bools = npt.NDArray[np.bool_]

LEAST = 4
TRIES = 4
ROUNDS = (4, 2)


@dataclass(frozen=True)
class Layers:
    """The repeated layers of a graph.

    Args:
        chains: node by chain and layer, -1 where a layer has none.
        chain: per node, its chain, or -1.
        layer: per node, its number in the chain.
        reach: the longest distance, in layers, of an operand.
        first: the first layer that is like all up to ``last``.
        last: the last one.
    """

    chains: Ints
    chain: Ints
    layer: Ints
    reach: int
    first: int
    last: int

    @property
    def count(self) -> int:
        """The number of layers."""
        return int(self.chains.shape[1])


def find_layers(graph: Graph) -> Layers | None:
    """Return the repeated layers that hold the most operations, or None without any."""
    return _best(graph, np.zeros(len(graph.signatures), bool), several=False)


def _best(graph: Graph, taken: Bools, *, several: bool) -> Layers | None:
    """Return the repeated layers that hold the most of the nodes that are not taken.

    Args:
        graph: the program.
        taken: the nodes that are in no layer.
        several: whether there may be several stacks of layers that partly look alike.
    """
    users = graph.users()
    best: Layers | None = None
    for seed in _seeds(graph, taken, several=several):
        found = _Chains(graph, users, len(seed), taken).grow(seed)
        if found is not None and (best is None or _gain(found) > _gain(best)):
            best = found
        if best is not None and 2 * _gain(best) > len(graph.signatures) - taken.sum():
            break
    return best


def find_stacks(graph: Graph) -> list[Layers]:
    """Return repeated layers of several kinds, as an encoder's and a decoder's, most first.

    Another kind is looked for where a quarter of the operations, and more, are in no layer.
    """
    out: list[Layers] = []
    taken = np.zeros(len(graph.signatures), bool)
    while (found := _best(graph, taken, several=True)) is not None:
        out.append(found)
        taken |= found.chain >= 0
        if 4 * (len(taken) - taken.sum()) < len(taken):
            break
    return out


def _gain(layers: Layers) -> int:
    return (layers.last - layers.first) * len(layers.chains)


def _seeds(graph: Graph, taken: Bools, *, several: bool) -> Iterator[Ints]:
    """Yield nodes that look alike and follow each other, the most frequent number first.

    What looks alike in several stacks of layers is a seed of each of them.
    """
    depths = graph.depths()
    tried: set[int] = set()
    free = graph.arguments + np.flatnonzero(~taken[graph.arguments :])
    for rounds in ROUNDS:
        _, number, counts = np.unique(
            graph.colours(rounds)[free], return_inverse=True, return_counts=True
        )
        totals = Counter({int(n): int(n * k) for n, k in Counter(counts.tolist()).items()})
        members = np.split(np.argsort(number, kind="stable"), np.cumsum(counts)[:-1])
        for size, _ in totals.most_common(TRIES):
            if size < LEAST or size in tried:
                continue
            alike = [free[members[index]] for index in np.flatnonzero(counts == size)]
            alike = [nodes[np.argsort(depths[nodes], kind="stable")] for nodes in alike]
            found = next((seeds for nodes in alike if (seeds := _even(nodes, depths))), [])
            if several and not found:
                found = next((seeds for nodes in alike if (seeds := _runs(nodes, depths))), [])
            tried |= {size} if found else set()
            yield from found


def _even(nodes: Ints, depths: Ints) -> list[Ints]:
    """Return nodes, by depth, that follow each other at equal distances, but for the ends."""
    steps = np.diff(depths[nodes])[1:-1]
    return [nodes] if steps[0] > 0 and np.all(steps == steps[0]) else []


def _runs(nodes: Ints, depths: Ints) -> list[Ints]:
    """Return the parts of nodes, by depth, that follow each other at equal distances."""
    steps = np.diff(depths[nodes])
    ends = [0, *(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(steps)]
    return [
        nodes[first : last + 1]
        for first, last in itertools.pairwise(ends)
        if last + 1 - first >= LEAST and steps[first] > 0
    ]


class _Chains:
    """Grows chains from a seed."""

    def __init__(
        self, graph: Graph, users: list[list[tuple[int, int]]], count: int, taken: Bools
    ) -> None:
        self.graph = graph
        self.taken = taken
        self.users = users
        self.count = count
        self.middle = count // 2
        self.signatures = np.array(graph.signatures, np.int64)
        self.chain = np.full(len(graph.signatures), -1, np.int64)
        self.layer = np.zeros(len(graph.signatures), np.int64)
        self.chains: list[Ints] = []
        self.work: deque[int] = deque()

    def grow(self, seed: Ints) -> Layers | None:
        """Return the layers around the chain ``seed``, or None when they are not alike."""
        self.add(seed)
        unclear: deque[tuple[int, list[int]]] = deque()
        while self.work or unclear:
            if self.work:
                number = self.work.popleft()
                self.follow_operands(self.chains[number])
                unclear += [(number, group) for group in self.follow_users(self.chains[number])]
            else:
                self.split(*unclear.popleft())
        return self.window()

    def add(self, nodes: Ints) -> None:
        """Enter a chain, without the members that are of another kind or in a chain already."""
        middle = nodes[self.middle]
        kind = self.signatures[middle]
        free = (self.chain[nodes] < 0) & ~self.taken[nodes]
        fits = (nodes >= 0) & (self.signatures[nodes] == kind) & free
        if not fits[self.middle] or not fits[self.middle - 1] or self._repeats(nodes[fits]):
            return
        nodes = np.where(fits, nodes, -1)
        self.chain[nodes[fits]] = len(self.chains)
        self.layer[nodes[fits]] = np.flatnonzero(fits)
        self.work.append(len(self.chains))
        self.chains.append(nodes)

    @staticmethod
    def _repeats(nodes: Ints) -> bool:
        return len(set(nodes.tolist())) < len(nodes)

    def follow_operands(self, nodes: Ints) -> None:
        """Enter the chains of a chain's operands."""
        operands = self.graph.operands
        middle, before = operands[nodes[self.middle]], operands[nodes[self.middle - 1]]
        for place, value in enumerate(middle):
            if value == before[place] or self.chain[node_of(value)] >= 0:
                continue
            column = [
                node_of(operands[n][place]) if n >= 0 and place < len(operands[n]) else -1
                for n in nodes.tolist()
            ]
            self.add(np.array(column, np.int64))

    def follow_users(self, nodes: Ints) -> list[list[int]]:
        """Enter the chains of a chain's users; return the middle's that are not told apart."""
        unclear: list[list[int]] = []
        kinds = self._kinds(int(nodes[self.middle]))
        known = [kind for kind, users in kinds.items() if self.chain[users[0]] < 0]
        if not known:
            return unclear
        columns = [self._kinds(n) if n >= 0 else {} for n in nodes.tolist()]
        for kind in known:
            if len(kinds[kind]) > 1:
                unclear.append(kinds[kind])
                continue
            found = [column.get(kind, []) for column in columns]
            self.add(np.array([f[0] if len(f) == 1 else -1 for f in found], np.int64))
        return unclear

    def _kinds(self, node: int) -> dict[tuple[int, int], list[int]]:
        """Return the users of a node that are in no chain, by what they are and the place used."""
        out: dict[tuple[int, int], list[int]] = {}
        signatures = self.graph.signatures
        for user, place in self.users[node]:
            out.setdefault((signatures[user], place), []).append(user)
        return out

    def split(self, number: int, group: list[int]) -> None:
        """Enter the chains of users that only their order tells apart (the window checks them)."""
        if all(self.chain[user] >= 0 for user in group):
            return
        nodes = self.chains[number].tolist()
        place = next(p for u, p in self.users[nodes[self.middle]] if u == group[0])
        kind = (self.graph.signatures[group[0]], place)
        columns = [self._kinds(n).get(kind, []) if n >= 0 else [] for n in nodes]
        for rank, user in enumerate(group):
            if self.chain[user] < 0:
                same = [c[rank] if len(c) == len(group) else -1 for c in columns]
                self.add(np.array(same, np.int64))

    def align(self) -> None:
        """Renumber the chains so that operands come from the same layer as far as possible."""
        links = []
        members = []
        first = self.graph.arguments
        for number, nodes in enumerate(self.chains):
            before, here, after = (nodes[self.middle - 1 : self.middle + 2] - first).tolist()
            members.append((before if min(here, after) >= 0 else -1, here, after))
            for value in self.graph.operands[nodes[self.middle]]:
                other = int(self.chain[node_of(value)])
                if other >= 0:
                    distance = int(self.layer[node_of(value)]) - self.middle
                    links.append((number, other, distance))
        table = np.array(links or np.zeros((0, 3)), np.int64)
        self._shift(align(len(self.chains), table, members))

    def _shift(self, shifts: Ints) -> None:
        """Add ``shifts[chain]`` to the layer numbers of each chain."""
        low = int(shifts.min())
        wide = int(shifts.max()) - low
        for number, nodes in enumerate(self.chains):
            offset = int(shifts[number]) - low
            self.chains[number] = np.pad(nodes, (offset, wide - offset), constant_values=-1)
        inside = self.chain >= 0
        self.layer[inside] += shifts[self.chain[inside]] - low
        self.count += wide
        self.middle = self.count // 2

    def window(self) -> Layers | None:
        """Return the layers around the middle that are alike in every chain."""
        self.align()
        first, last, reach = 0, self.count - 1, 0
        for nodes in self.chains:
            low, high, far = self._alike(nodes)
            first, last, reach = max(first, low), min(last, high), max(reach, far)
        if last - first + 1 < LEAST - 1:
            return None
        chains = np.array(self.chains, np.int64)
        return Layers(chains, self.chain, self.layer, reach, first, last)

    def _alike(self, nodes: Ints) -> tuple[int, int, int]:
        """Return the first and last layer whose operands agree with the middle's, and the reach."""
        operands = self.graph.operands
        good = nodes >= 0
        if not good[self.middle - 1 : self.middle + 1].all():
            return self.middle, self.middle, 0
        reach = 0
        middle = operands[nodes[self.middle]]
        values = np.array([operands[n] if n >= 0 else middle for n in nodes.tolist()], np.int64)
        places = np.arange(self.count)
        for place, value in enumerate(middle):
            column = values[:, place]
            source = column >> RESULT_BITS
            own = node_of(value)
            if self.chain[own] < 0 or self._shared(column):
                good &= column == value
                continue
            distance = self.layer[own] - self.middle
            reach = max(reach, abs(int(distance)))
            good &= (
                (self.chain[source] == self.chain[own])
                & (self.layer[source] - places == distance)
                & ((column & RESULT_MASK) == (value & RESULT_MASK))
            )
        bad = np.flatnonzero(~good)
        low = int(bad[bad < self.middle].max(initial=-1)) + 1
        high = int(bad[bad > self.middle].min(initial=self.count)) - 1
        return (low, high, reach) if good[self.middle] else (self.middle, self.middle, reach)

    def _shared(self, column: Ints) -> bool:
        return bool(column[self.middle] == column[self.middle - 1])
