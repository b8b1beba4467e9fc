"""The inner level of the search: what each operation splits inside a replica, per microbatch.

The batch is taken out of the choice: replicas and microbatches divide it (``hybrid.py``). For every
size of the tensor axis and number of samples the program over that one axis is solved with the
batch's factors fixed and cut to those samples, so that weights are gathered only where that moves
less than activations do.

Beside it there may be an axis ``context``, which may split the batch's factors too, when it divides
the samples: tokens are spread over it, by sample or along sequences, and experts, with all_to_alls
between (S. A. Jacobs et al., "DeepSpeed Ulysses", 2023; D. Lepikhin et al., "GShard", 2020). The
gradients of what tokens meet on all of its devices are added up over it once a step (``step.py``).
The solver takes them as if that were so in each microbatch, so that it splits experts even where
replicas could hold them whole: that is what the other points of the outer level are for.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pai.dialects.mlir import ir
from pai.dialects.program import Role, Signature
from pai.passes.partition.fold_graph import RESULT_BITS
from pai.passes.strategy.hybrid_point import CONTEXT, TENSOR
from pai.passes.strategy.intra.coster import ONCE, Coster
from pai.passes.strategy.intra.descent import descend
from pai.passes.strategy.intra.ilp import Limits
from pai.passes.strategy.intra.layouts import Constraint, Layouts
from pai.passes.strategy.intra.lower import Lowered, is_gradient
from pai.passes.strategy.intra.prices import Prices
from pai.passes.strategy.intra.problem import NONE, Node, Problem, State
from pai.passes.strategy.intra.solution import read_problem
from pai.passes.strategy.intra.tasks import Tasks
from pai.passes.strategy.workload import Workload
from pai.runtime.errors import InvalidInput
from pai.runtime.mesh import Mesh, Sharding
from pai.runtime.topology import ClusterSpec

Experts = Mapping[int, int]
"""Per node of a product, the factor that counts experts."""

BatchFactors = Mapping[int, frozenset[int]]
"""Per node, the factors that are the batch."""

SOLVED = (1, 256, 16384)
"""Samples of a microbatch for which the program is solved; others take the next smaller one's."""

_GATHER = "stablehlo.gather"

ACROSS = 64
"""Devices of a context axis across hosts for which the program is solved."""

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


def expert_factors(lowered: Lowered) -> Experts:
    """Return the batch of products whose other operand, a parameter, has it too: experts."""
    folded = lowered.merged.folded
    out = {}
    for link in lowered.merged.links:
        heavy, value = link.target.heavy, link.source.value
        if (
            heavy < 0
            or value < 0
            or not folded.graph.stored[folded.representative(value >> RESULT_BITS)]
        ):
            continue
        number = lowered.heavies[heavy]
        for product in lowered.problem.nodes[number].products:
            shared = set(product.batch) & set(link.target.dims)
            if shared:
                out[number] = min(shared)
    return out


def for_samples(
    lowered: Lowered,
    batch: BatchFactors,
    share: float,
    names: Sequence[str] = (),
    experts: Mapping[int, int] = {},
    *,
    by_sample: bool = False,
) -> Problem:
    """Return the problem of a part of the batch, whose batch no axis splits.

    Args:
        lowered: of the whole batch; not changed.
        batch: the batch's factors.
        share: the part.
        names: of the axes, where there are others than the tensor axis.
        experts: what the context axis splits of products of experts.
        by_sample: whether the context axis may split the batch after all.
    """
    none: frozenset[int] = frozenset()
    once = names.index(CONTEXT) if CONTEXT in names else NONE
    update = 1.0 if once < 0 else ONCE

    def shorter(size: int) -> int:
        return max(1, round(size * share))

    def barred_of(number: int, node: Node, cut: frozenset[int]) -> tuple[frozenset[int], ...]:
        some = frozenset({NONE, *range(len(node.sizes))} - {experts.get(number, NONE)})
        inside = some if number in experts else none if by_sample else cut
        return tuple(inside if name == CONTEXT else cut for name in names)

    def node_of(number: int, node: Node) -> Node:
        cut = batch.get(number, none)
        return replace(
            copy.copy(node),
            sizes=[shorter(n) if f in cut else n for f, n in enumerate(node.sizes)],
            fixed=node.fixed if by_sample else node.fixed | cut,
            barred=barred_of(number, node, cut),
            traffic=[
                replace(t, num_bytes=t.num_bytes * (share if cut & set(t.factors) else 1.0))
                if t.phase != "update"
                else replace(t, num_bytes=t.num_bytes * update)
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
            once=once if is_gradient(edge, links) else NONE,
        )
        for edge, links in zip(lowered.problem.edges, lowered.edge_links, strict=True)
    ]
    return Problem([node_of(i, node) for i, node in enumerate(lowered.problem.nodes)], edges)


@dataclass
class Inner:
    """Workloads of a module by sizes of tensor and context axis and samples of a microbatch.

    Args:
        lowered: the problem of the whole batch.
        signature: arguments and results of the module.
        cluster: the devices; the tensor axis is on neighbouring ones, then the context axis.
        batch: samples of a step.
        limits: of each program.
        solved: samples of a microbatch for which the program is solved.
    """

    lowered: Lowered
    signature: Signature
    cluster: ClusterSpec
    batch: int
    limits: Limits = LIMITS
    solved: tuple[int, ...] = SOLVED

    def __post_init__(self) -> None:
        self.factors = batch_factors(self.lowered, self.signature)
        self.expert_factors = expert_factors(self.lowered)
        self.parameters = frozenset(
            i for i, v in enumerate(self.signature.arguments) if v.role is Role.PARAMETER
        )
        self._workloads: dict[tuple[int, int, int], Workload] = {}
        self._prices: dict[tuple[int, int], Prices] = {}
        self._states: dict[tuple[int, int, int, bool], tuple[State, ...]] = {}

    def __call__(self, tensor: int, samples: int, context: int = 1) -> Workload | None:
        """Return the work of one device; None when samples do not divide the batch."""
        if self.batch % samples:
            return None
        key = (tensor, samples, context)
        if key not in self._workloads:
            self._workloads[key] = self._workload(*key)
        return self._workloads[key]

    def _workload(self, tensor: int, samples: int, context: int) -> Workload:
        coster = Coster(self.lowered.problem, self.prices(tensor, context))
        states = self.states(tensor, samples, context)
        parts = self.batch // samples
        tasks = Tasks(
            self.lowered, coster, states, self.parameters, parts, self.factors, stored=True
        )
        return tasks.workload()

    def states(self, tensor: int, samples: int, context: int = 1) -> tuple[State, ...]:
        """Return what every node splits over the context axis, if it has devices, and tensor's."""
        by_sample = samples % context == 0
        each = samples // context if by_sample else samples
        near = max(size for size in self.solved if size <= each)
        key = (*self.solved_for(tensor, context), near, by_sample)
        if key not in self._states:
            prices = self.prices(*key[:2])
            share = near * (key[1] if by_sample else 1) / self.batch
            problem = self.problem(share, prices.mesh, by_sample=by_sample)
            coster = Coster(problem, prices)
            self._states[key] = tuple(descend(problem, coster, self.limits, 1).states)
        return self._states[key]

    def problem(self, share: float, mesh: Mesh, *, by_sample: bool) -> Problem:
        """Return what is solved for a part of the batch; see ``for_samples``."""
        names = [name for name, _ in mesh.axes]
        experts = self.expert_factors if CONTEXT in names else {}
        return for_samples(self.lowered, self.factors, share, names, experts, by_sample=by_sample)

    @property
    def experts(self) -> int:
        """What the experts of all layers are a multiple of; 0 without experts.

        Tables that are most of the parameters, of which samples read single rows, are like experts
        that any number of devices may share (M. Naumov et al., "DLRM", 2019).
        """
        nodes = self.lowered.problem.nodes
        found = math.gcd(*(nodes[n].sizes[f] for n, f in self.expert_factors.items()))
        return found or (self.batch if self._has_tables() else 0)

    def _has_tables(self) -> bool:
        merged, folded = self.lowered.merged, self.lowered.merged.folded
        sizes = {
            number: len(members) * math.prod(merged.tensors[number << RESULT_BITS].shape)
            for number, members in enumerate(folded.members)
            if members[0] in self.parameters
        }
        read = {
            link.source.value >> RESULT_BITS
            for link in merged.links
            if link.target.heavy >= 0 and self.lowered.name(link.target.heavy) == _GATHER
        }
        return 2 * sum(size for n, size in sizes.items() if n in read) > sum(sizes.values())

    def solved_for(self, tensor: int, context: int = 1) -> tuple[int, int]:
        """Return the sizes of the axes whose solution serves for ``tensor`` and ``context``.

        Those of a host, when they divide whatever the sizes asked for divide: the choices are the
        same. So it is for a context axis across hosts and the largest such (``ACROSS``).
        """
        host = self.cluster.hosts[0].devices
        solved = self._similar(tensor, host)
        if context == 1:
            return solved, 1
        if solved * context > self.cluster.num_devices:
            solved = tensor
        across = min(ACROSS, self.cluster.num_devices // solved)
        return solved, self._similar(context, across if tensor * context > host else host // solved)

    def _similar(self, size: int, other: int) -> int:
        """Return ``other`` when it divides whatever ``size`` divides, and else ``size``."""
        if not 1 < size < other or other % size:
            return size
        sizes = {n for node in self.lowered.problem.nodes for n in node.sizes}
        return size if any(n % size == 0 and n % other for n in sizes) else other

    def prices(self, tensor: int, context: int = 1) -> Prices:
        """Return what kernels and collectives cost on ``context`` times ``tensor`` devices."""
        if (tensor, context) not in self._prices:
            axes = ((CONTEXT, context), (TENSOR, tensor))
            mesh = Mesh(tuple((name, size) for name, size in axes if size > 1))
            self._prices[tensor, context] = Prices(mesh, self.cluster)
        return self._prices[tensor, context]

    def layouts(
        self, tensor: int, samples: int, context: int = 1
    ) -> tuple[tuple[Sharding, ...], tuple[Constraint, ...]]:
        """Return how arguments are laid out over the axes of a replica, and values inside."""
        mesh = self.prices(tensor, context).mesh
        found = Layouts(self.lowered, list(self.states(tensor, samples, context)), mesh)
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
