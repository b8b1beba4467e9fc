"""A solved program as a Workload: what one device does, by segment, for the rest of the cost model.

Gathers of stored parameters and reductions of gradients by weights are not among the tasks: the
step (``step.py``) adds them from ``parameters``, the ZeRO stage and the replicas' axes, and so it
does the update. Parameters are counted as the kernels read them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pai.passes.partition.fold_graph import RESULT_BITS
from pai.passes.strategy.intra.coster import Coster, charged
from pai.passes.strategy.intra.graph import Phase
from pai.passes.strategy.intra.lower import Lowered, is_gradient
from pai.passes.strategy.intra.memory import boundaries, held, saved
from pai.passes.strategy.intra.problem import NONE, PARTIAL, Node, Product, State, steps, without
from pai.passes.strategy.intra.segments import AFTER, BEFORE, LAYER
from pai.passes.strategy.kernels import BYTES
from pai.passes.strategy.workload import (
    Attention,
    Collective,
    Dot,
    Recompute,
    Segment,
    Stream,
    Task,
    Workload,
)

_PARTS = {Phase.FORWARD: "forward", Phase.BACKWARD: "backward", Phase.WEIGHT: "weight_backward"}


@dataclass
class _Collected:
    """The tasks of a segment, all of its repetitions together."""

    tasks: dict[str, dict[Task, float]] = field(
        default_factory=lambda: {part: defaultdict(float) for part in _PARTS.values()}
    )
    saved: float = 0.0
    boundary: float = 0.0
    parameters: float = 0.0
    largest: float = 0.0
    experts: float = 0.0
    moved: float = 0.0


class Tasks:
    """Collects the tasks of given states.

    Args:
        lowered: the problem, without recomputation.
        coster: of the same problem.
        states: per node.
        parameters: the arguments that are parameters, by number.
        microbatches: the tasks are those of one of so many parts of the batch.
        samples: per node, the factors that count the batch's samples, where they are known.
        stored: whether parameters count as they are stored, and gathering them and reducing their
            gradients over these axes are tasks: for axes that are not the replicas'. Of an axis
            ``context`` that is so only for the parameters that it splits.
    """

    def __init__(
        self,
        lowered: Lowered,
        coster: Coster,
        states: Sequence[State],
        parameters: frozenset[int],
        microbatches: int = 1,
        samples: Mapping[int, frozenset[int]] = {},
        *,
        stored: bool = False,
    ) -> None:
        self.lowered = lowered
        self.coster = coster
        self.states = states
        self.parameters = parameters
        self.microbatches = microbatches
        self.samples = samples
        self.stored = stored
        self.folded = lowered.merged.folded
        self.segments = lowered.segments
        names = [name for name, _ in coster.prices.mesh.axes]
        self.context = names.index("context") if stored and "context" in names else NONE
        self.found = {name: _Collected() for name in (BEFORE, LAYER, AFTER)}

    def workload(self) -> Workload:
        """Return the segments in order; those without tasks are left out."""
        for number, node in enumerate(self.lowered.problem.nodes):
            self._kernels(node, self.states[number], self.samples.get(number, frozenset()))
        self._collectives()
        self._memory()
        training = bool(self.folded.graph.updates)
        segments = tuple(
            self._segment(name, found)
            for name, found in self.found.items()
            if any(found.tasks.values())
        )
        return Workload(segments, self._tied(), training)

    def _repeat(self, name: str) -> int:
        return self.folded.layers if name == LAYER else 1

    def _add(self, origin: int, task: Task, count: float) -> None:
        part = _PARTS.get(self.lowered.phase(origin))
        if part is not None:
            self.found[self.segments[origin]].tasks[part][task] += count

    def _kernels(self, node: Node, state: State, samples: frozenset[int]) -> None:
        parts = node.shards(state, self.coster.prices.sizes)
        local = [math.ceil(size / n) for size, n in zip(node.sizes, parts, strict=True)]
        for product in node.products:
            task = self._product(product, local, samples)
            if task is not None:
                self._add(product.origin, task, product.count)
        for traffic in node.traffic:
            share = math.prod(parts[f] for f in traffic.factors) * self.microbatches
            self._add(traffic.origin, Stream(traffic.num_bytes / share), traffic.count)

    def _product(
        self, product: Product, local: list[int], samples: frozenset[int]
    ) -> Dot | Attention | None:
        """Return a product as a task; the one that makes attention's scores stands for all."""
        m, n, k, batch = product.local(local)
        if product.fused:
            merged = self.lowered.merged
            if merged.group(product.origin << RESULT_BITS) not in self.lowered.scores:
                return None
            batch = max(1, batch // self.microbatches)
            backward = product.phase != "forward"
            return Attention(batch, m, n, k, product.causal, backward, product.dtype)
        sizes = [m, n, k, batch]
        parts = (product.rows, product.columns, product.sums, product.batch)
        for place in [i for i, factors in enumerate(parts) if samples & set(factors)][:1]:
            sizes[place] = max(1, sizes[place] // self.microbatches)
            m, n, k, batch = sizes
            return Dot(m, n, k, batch, product.dtype)
        return Dot(*self._microbatch(product, m, n, k), batch, product.dtype)

    def _microbatch(self, product: Product, m: int, n: int, k: int) -> tuple[int, int, int]:
        """Return a product's sizes for one part of the batch: only what counts tokens shrinks."""
        parts = self.microbatches
        if self.lowered.phase(product.origin) is Phase.WEIGHT:
            return m, n, max(1, k // parts)
        weights = {
            link.place
            for link in self.lowered.merged.links
            if link.target.heavy == product.origin
            and self.folded.graph.stored[
                self.folded.representative(link.source.value >> RESULT_BITS)
            ]
        }
        return (m, max(1, n // parts), k) if 0 in weights else (max(1, m // parts), n, k)

    def _collectives(self) -> None:
        links_of = dict(
            zip(map(id, self.lowered.problem.edges), self.lowered.edge_links, strict=True)
        )
        names = [name for name, _ in self.coster.prices.mesh.axes]
        for edge, _ in charged(self.coster, self.states):
            if edge.hidden and not self.stored:
                continue
            parts = 1 if edge.hidden else self.microbatches
            p = edge.source_spec(self.states[edge.source])
            q = edge.target_spec(self.states[edge.target])
            if is_gradient(edge, links_of[id(edge)]):
                p = without(self.context, p, q)
            for step in steps(edge, p, q, self.coster.prices.sizes):
                task = Collective(
                    step.kind,
                    step.num_bytes / parts,
                    tuple(names[a] for a in step.axes),
                    edge.hidden,
                )
                for link in links_of[id(edge)]:
                    self._add(link.reader, task, link.count)
                    if self.context in step.axes and not edge.hidden:
                        found = self.found[self.segments[link.reader]]
                        found.moved = max(found.moved, task.num_bytes)

    def _local(self, value: int, count: int) -> float:
        what = held(self.lowered, value, count)
        node = self.lowered.problem.nodes[what.node]
        return what.bytes(node, self.states[what.node], self.coster.prices.sizes)

    def _memory(self) -> None:
        """Count saved bytes, what layers hand on, parameters, and the largest value."""
        for value, _ in saved(self.lowered):
            number = value >> RESULT_BITS
            count = len(self.folded.members[number])
            size = self._local(value, count) / self.microbatches
            found = self.found[self.segments[number]]
            found.saved += size
            found.largest = max(found.largest, size / self._repeat(self.segments[number]))
        for value, _ in boundaries(self.lowered):
            count = len(self.folded.members[value >> RESULT_BITS])
            self.found[LAYER].boundary += self._local(value, count) / self.microbatches
        for number, members in enumerate(self.folded.members):
            if members[0] in self.parameters:
                name = self.segments[number]
                elements = self._elements(number) * len(members)
                self.found[name].parameters += elements
                self.found[name].experts += elements * self._apart(number)

    def _elements(self, number: int) -> float:
        """Return the elements of a parameter that a device's kernels read, or that it stores."""
        value = number << RESULT_BITS
        tensor = self.lowered.merged.tensors[value]
        if self.stored:
            return self._local(value, 1) / tensor.itemsize
        smallest = math.inf
        for edge, links in zip(self.lowered.problem.edges, self.lowered.edge_links, strict=True):
            if all(link.source.value >> RESULT_BITS != number or link.place < 0 for link in links):
                continue
            if self.lowered.phase(links[0].reader) is not Phase.FORWARD:
                continue
            spec = edge.target_spec(self.states[edge.target])
            sizes = self.coster.prices.sizes
            parts = math.prod(
                size for size, dim in zip(sizes, spec, strict=True) if dim > PARTIAL + 1
            )
            smallest = min(smallest, math.prod(tensor.shape) / parts)
        return smallest if smallest < math.inf else float(math.prod(tensor.shape))

    def _apart(self, number: int) -> bool:
        """Whether the context axis splits a parameter."""
        node = self.lowered.node_of(number << RESULT_BITS)
        factors = self.lowered.value_factors(number << RESULT_BITS)
        return self.context >= 0 and self.states[node][self.context] in set(factors) - {NONE}

    def _tied(self) -> float:
        """Return the elements of parameters that the first and the last segment both read."""
        readers: dict[int, set[str]] = defaultdict(set)
        for link in self.lowered.merged.links:
            number = link.source.value >> RESULT_BITS
            if link.source.value < 0 or self.folded.members[number][0] not in self.parameters:
                continue
            if self.lowered.phase(link.reader) is Phase.FORWARD:
                readers[number].add(self.segments[link.reader])
        return sum(self._elements(n) for n, names in readers.items() if {BEFORE, AFTER} <= names)

    def _segment(self, name: str, found: _Collected) -> Segment:
        repeat = self._repeat(name)
        parts = {
            part: tuple(_counted(task, count / repeat) for task, count in tasks.items())
            for part, tasks in found.tasks.items()
        }
        choices = [Recompute("none", found.saved / repeat)]
        if name == LAYER and found.boundary:
            choices += _recomputed(found.boundary / repeat, parts["forward"])
        output = found.boundary if name == LAYER else self.found[LAYER].boundary
        return Segment(
            name, parts["forward"], parts["backward"], parts["weight_backward"], repeat,
            found.parameters / repeat, tuple(choices),
            0.0 if name == AFTER else output / self.folded.layers,
            2 * found.largest + found.moved,
            found.experts / repeat,
        )  # fmt: skip


def _recomputed(boundary: float, forward: tuple[Task, ...]) -> list[Recompute]:
    """Return what a layer may do again: everything, or all but attention, whose result is kept.

    Fused attention is much work for its memory (W. Liang et al., "TorchTitan", 2024, keep it too).
    """
    full = Recompute("full", boundary, forward)
    kept = [task for task in forward if isinstance(task, Attention)]
    if not kept:
        return [full]
    size = sum(task.batch * task.query * task.head * BYTES.get(task.dtype, 4) for task in kept)
    others = tuple(task for task in forward if not isinstance(task, Attention))
    return [Recompute("selective", boundary + size, others), full]


def _counted(task: Task, count: float) -> Task:
    """Return a task so many times; of a part of one, its work is scaled."""
    whole = max(1, round(count))
    share = count / whole
    if isinstance(task, Dot):
        return replace(task, m=max(1, round(task.m * share)), count=whole)
    if isinstance(task, Attention):
        return replace(task, batch=max(1, round(task.batch * count)))
    return replace(task, num_bytes=task.num_bytes * share, count=whole)
