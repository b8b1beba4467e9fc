"""The inner level of the search: what each operation splits over the tensor axis, per microbatch.

The batch is taken out of the choice: replicas and microbatches divide it (``hybrid.py``). For every
size of the tensor axis and number of samples the program over that one axis is solved with the
batch's factors fixed and cut to those samples, so that weights are gathered only where that moves
less than activations do.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pai.dialects.mlir import ir
from pai.dialects.program import Role, Signature
from pai.passes.partition.fold_graph import RESULT_BITS
from pai.passes.strategy.hybrid_point import TENSOR
from pai.passes.strategy.intra.coster import Coster
from pai.passes.strategy.intra.descent import descend
from pai.passes.strategy.intra.ilp import Limits
from pai.passes.strategy.intra.layouts import Constraint, Layouts
from pai.passes.strategy.intra.lower import Lowered
from pai.passes.strategy.intra.prices import Prices
from pai.passes.strategy.intra.problem import Node, Problem, State
from pai.passes.strategy.intra.solution import read_problem
from pai.passes.strategy.intra.tasks import Tasks
from pai.passes.strategy.workload import Workload
from pai.runtime.errors import InvalidInput
from pai.runtime.mesh import Mesh, Sharding
from pai.runtime.topology import ClusterSpec

BatchFactors = Mapping[int, frozenset[int]]
"""Per node, the factors that are the batch."""

SOLVED = (1, 256, 16384)
"""Samples of a microbatch for which the program is solved; others take the next smaller one's."""

LIMITS = Limits(gap=1e-3)
"""Of each program: what the outer level decides by is coarser."""


def batch_factors(lowered: Lowered, signature: Signature) -> BatchFactors:
    """Return what the first dimension of the inputs becomes along the edges."""
    beside: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for edge in lowered.problem.edges:
        for a, b in zip(edge.source_dims, edge.target_dims, strict=True):
            if a >= 0 and b >= 0:
                beside[edge.source, a].append((edge.target, b))
                beside[edge.target, b].append((edge.source, a))
    found: set[tuple[int, int]] = set()
    work: list[tuple[int, int]] = []
    merged = lowered.merged
    for place, argument in enumerate(signature.arguments):
        value = merged.folded.classes[place] << RESULT_BITS
        if argument.role is not Role.INPUT or not argument.shape:
            continue
        if merged.group(value) in lowered.clusters and lowered.value_factors(value)[0] >= 0:
            work.append((lowered.node_of(value), lowered.value_factors(value)[0]))
    while work:
        item = work.pop()
        if item not in found:
            found.add(item)
            work += beside[item]
    out: dict[int, set[int]] = defaultdict(set)
    for node, factor in found:
        out[node].add(factor)
    return {node: frozenset(factors) for node, factors in out.items()}


def for_samples(lowered: Lowered, batch: BatchFactors, share: float) -> Problem:
    """Return the problem of a part of the batch, whose batch no axis splits.

    Args:
        lowered: of the whole batch; not changed.
        batch: the batch's factors.
        share: the part.
    """
    none: frozenset[int] = frozenset()

    def shorter(size: int) -> int:
        return max(1, round(size * share))

    def node_of(number: int, node: Node) -> Node:
        cut = batch.get(number, none)
        return replace(
            copy.copy(node),
            sizes=[shorter(n) if f in cut else n for f, n in enumerate(node.sizes)],
            fixed=node.fixed | cut,
            traffic=[
                replace(t, num_bytes=t.num_bytes * (share if cut & set(t.factors) else 1.0))
                for t in node.traffic
            ],
        )

    edges = [
        replace(
            edge,
            shape=tuple(
                shorter(n)
                if a in batch.get(edge.source, none) or b in batch.get(edge.target, none)
                else n
                for n, a, b in zip(edge.shape, edge.source_dims, edge.target_dims, strict=True)
            ),
        )
        for edge in lowered.problem.edges
    ]
    return Problem([node_of(i, node) for i, node in enumerate(lowered.problem.nodes)], edges)


@dataclass
class Inner:
    """Workloads of a module by size of the tensor axis and samples of a microbatch.

    Args:
        lowered: the problem of the whole batch.
        signature: arguments and results of the module.
        cluster: the devices; the tensor axis is on neighbouring ones.
        batch: samples of a step.
        limits: of each program.
    """

    lowered: Lowered
    signature: Signature
    cluster: ClusterSpec
    batch: int
    limits: Limits = LIMITS

    def __post_init__(self) -> None:
        self.factors = batch_factors(self.lowered, self.signature)
        self.parameters = frozenset(
            i for i, v in enumerate(self.signature.arguments) if v.role is Role.PARAMETER
        )
        self._prices: dict[int, Prices] = {}
        self._states: dict[tuple[int, int], tuple[State, ...]] = {}

    def __call__(self, tensor: int, samples: int) -> Workload | None:
        """Return the work of one device; None when samples do not divide the batch."""
        if self.batch % samples:
            return None
        coster = Coster(self.lowered.problem, self.prices(tensor))
        states = self.states(tensor, samples)
        parts = self.batch // samples
        tasks = Tasks(self.lowered, coster, states, self.parameters, parts, stored=True)
        return tasks.workload()

    def states(self, tensor: int, samples: int) -> tuple[State, ...]:
        """Return what every node splits over the tensor axis."""
        near = max(size for size in SOLVED if size <= samples)
        key = (self.solved_for(tensor), near)
        if key not in self._states:
            problem = for_samples(self.lowered, self.factors, near / self.batch)
            coster = Coster(problem, self.prices(key[0]))
            self._states[key] = tuple(descend(problem, coster, self.limits, 1).states)
        return self._states[key]

    def solved_for(self, tensor: int) -> int:
        """Return the size of the tensor axis whose solution serves for ``tensor``.

        That of a host, when it divides whatever ``tensor`` divides: it has the same choices.
        """
        host = self.cluster.hosts[0].devices
        if not 1 < tensor < host or host % tensor:
            return tensor
        sizes = {n for node in self.lowered.problem.nodes for n in node.sizes}
        return tensor if any(n % tensor == 0 and n % host for n in sizes) else host

    def prices(self, tensor: int) -> Prices:
        """Return what kernels and collectives cost on ``tensor`` devices."""
        if tensor not in self._prices:
            axes = ((TENSOR, tensor),) if tensor > 1 else ()
            self._prices[tensor] = Prices(Mesh(axes), self.cluster)
        return self._prices[tensor]

    def layouts(
        self, tensor: int, samples: int
    ) -> tuple[tuple[Sharding, ...], tuple[Constraint, ...]]:
        """Return how arguments are laid out over the tensor axis, and values inside."""
        mesh = self.prices(tensor).mesh
        found = Layouts(self.lowered, list(self.states(tensor, samples)), mesh)
        ranks = [len(value.shape) for value in self.signature.arguments]
        return tuple(found.arguments(ranks)), found.constraints()


def inner_search(module: ir.Module, signature: Signature, cluster: ClusterSpec) -> Inner:
    """Read a module for the inner level.

    Args:
        module: simplified; kept, and not changed.
        signature: its arguments and results.
        cluster: the devices.

    Raises:
        InvalidInput: when the inputs share no batch dimension.
    """
    sizes = {v.shape[0] for v in signature.arguments if v.role is Role.INPUT and v.shape}
    if len(sizes) != 1:
        raise InvalidInput(
            f"the inputs have no batch dimension in common: {sorted(sizes)}",
            hint="give every input the batch as its first dimension",
        )
    lowered = read_problem(module, signature, float("inf"))
    return Inner(lowered, signature, cluster, sizes.pop())
