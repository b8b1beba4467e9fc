"""What states cost: the objective of the integer program (``ilp.py``), for given states."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from pai.passes.strategy.intra.prices import Prices
from pai.passes.strategy.intra.problem import Edge, Held, Problem, Spec, State, Step, steps, without

OVERLAP = 0.8
"""Part of a pass's compute behind which collectives may hide: kernels that use all processors
leave the copy engines and the network free, but not at its ends."""
PENALTY_S_PER_BYTE = 1e-8
ONCE = 1 / 8
"""A microbatch's part of what comes once a step (``Edge.once``)."""
STORED_S_PER_BYTE = 1e-16
"""What is stored is stored in shards where that costs nothing: decides between equals only."""


class Coster:
    """Seconds of states and of edges, each computed once."""

    def __init__(self, problem: Problem, prices: Prices) -> None:
        self.problem = problem
        self.prices = prices
        self._nodes: list[dict[State, float]] = [{} for _ in problem.nodes]
        self._edges: dict[tuple[tuple[int, ...], int, int, Spec, Spec], float] = {}
        self._stored: dict[int, list[Held]] = defaultdict(list)
        for held in problem.stored:
            self._stored[held.node].append(held)

    def node(self, number: int, state: State) -> float:
        """Return the compute of a node, and next to nothing for what it stores."""
        known = self._nodes[number]
        if state not in known:
            node = self.problem.nodes[number]
            sizes = self.prices.sizes
            stored = sum(held.bytes(node, state, sizes) for held in self._stored[number])
            known[state] = node.seconds(state, self.prices) + STORED_S_PER_BYTE * stored
        return known[state]

    def edge(self, edge: Edge, source: Spec, target: Spec) -> float:
        """Return the collectives of one tensor."""
        if source == target:
            return 0.0
        key = (edge.shape, edge.itemsize, edge.once, source, target)
        if key not in self._edges:
            now = without(edge.once, source, target)
            moves = steps(edge, now, target, self.prices.sizes)
            self._edges[key] = sum(map(self._step, moves))
            if now != source:
                whole = steps(edge, source, target, self.prices.sizes)
                later = sum(map(self._step, whole)) - self._edges[key]
                self._edges[key] += ONCE * max(later, 0.0)
        return self._edges[key]

    def _step(self, step: Step) -> float:
        return self.prices.collective(step.kind, step.num_bytes, step.axes)


def phase_of(problem: Problem, number: int) -> dict[str, float]:
    """Return the share of a node's work in each part of the step."""
    node = problem.nodes[number]
    parts: dict[str, float] = defaultdict(float)
    for product in node.products:
        parts[product.phase] += product.count * math.prod(
            node.sizes[f] for f in (*product.rows, *product.columns, *product.sums, *product.batch)
        ) / 100.0  # fmt: skip
    for traffic in node.traffic:
        parts[traffic.phase] += traffic.count * traffic.num_bytes
    total = sum(parts.values())
    return {phase: part / total for phase, part in parts.items()} if total else {}


def evaluate(coster: Coster, states: Sequence[State], limit: float) -> float:
    """Return the objective of given states, exactly as the program charges them."""
    problem = coster.problem
    compute: dict[str, float] = defaultdict(float)
    total = 0.0
    for number, state in enumerate(states):
        seconds = coster.node(number, state)
        total += seconds
        for phase, share in phase_of(problem, number).items():
            compute[phase] += seconds * share
    hidden: dict[str, float] = defaultdict(float)
    for edge, seconds in charged(coster, states):
        if edge.hidden:
            hidden[edge.phase] += seconds
        else:
            total += seconds
    for phase, seconds in hidden.items():
        total += max(0.0, seconds - OVERLAP * compute[phase]) + coster.prices.contention * seconds
    if not math.isinf(limit):
        for used in memory_bytes(coster, states).values():
            total += PENALTY_S_PER_BYTE * max(0.0, used - limit)
    return total


def charged(coster: Coster, states: Sequence[State]) -> list[tuple[Edge, float]]:
    """Return the edges that move something, with seconds; what a group shares is listed once."""
    out: list[tuple[Edge, float]] = []
    seen: set[tuple[int, Spec, Spec, float, bool]] = set()
    for edge in coster.problem.edges:
        p, q = edge.source_spec(states[edge.source]), edge.target_spec(states[edge.target])
        seconds = edge.count * coster.edge(edge, p, q)
        key = (edge.group, p, q, seconds, edge.hidden)
        if seconds > 0 and (edge.group < 0 or key not in seen):
            seen.add(key)
            out.append((edge, seconds))
    return out


def memory_bytes(coster: Coster, states: Sequence[State]) -> dict[str, float]:
    """Return the bytes of one device at each point."""
    problem, axes = coster.problem, coster.prices.sizes
    return {
        point: problem.fixed_bytes
        + sum(item.bytes(problem.nodes[item.node], states[item.node], axes) for item in held)
        for point, held in problem.memory.items()
    }
