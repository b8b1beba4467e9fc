"""Turn clusters, heavy operations and links into the problem that the solver sees."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pai.passes.partition.fold_graph import RESULT_BITS, RESULT_MASK
from pai.passes.strategy.intra.graph import Phase
from pai.passes.strategy.intra.merge import End, Link, Merged
from pai.passes.strategy.intra.problem import NONE, Edge, Held, Node, Problem, Product, Traffic
from pai.passes.strategy.intra.rules import contraction_of, moved_bytes
from pai.passes.strategy.intra.segments import segments_of

_POOL = {
    Phase.FORWARD: "forward",
    Phase.BACKWARD: "backward",
    Phase.WEIGHT: "backward",
    Phase.UPDATE: "update",
}


@dataclass
class Lowered:
    """The problem, and what its numbers stand for.

    Args:
        merged: where it comes from.
        problem: nodes and edges.
        microbatches: parts in which the batch is run.
        fused: see ``lower``.
        clusters: node by group of values.
        heavies: node by class of a heavy operation.
        factors: per node, the factor of each set of elements.
        edge_links: per edge, its links.
        scores: groups of values inside fused attention.
        causal: whether attention is masked by position.
        saved: what ``memory.saved`` has found, None before.
    """

    merged: Merged
    problem: Problem
    microbatches: int = 1
    fused: bool = True
    clusters: dict[int, int] = field(default_factory=dict)
    heavies: dict[int, int] = field(default_factory=dict)
    factors: dict[int, dict[int, int]] = field(default_factory=dict)
    edge_links: list[list[Link]] = field(default_factory=list)
    scores: set[int] = field(default_factory=set)
    causal: bool = False
    saved: list[tuple[int, Held]] | None = field(default=None, compare=False)

    @functools.cached_property
    def segments(self) -> list[str]:
        """The segment of each class."""
        return segments_of(self.merged.folded)

    def node_of(self, value: int) -> int:
        """Return the node of a value's cluster."""
        return self.clusters[self.merged.group(value)]

    def value_factors(self, value: int) -> tuple[int, ...]:
        """Return the factor of each dimension of a value, of its node; NONE for single elements."""
        return self.element_factors(self.node_of(value), self.merged.elements[value])

    def element_factors(self, node: int, elements: tuple[int, ...]) -> tuple[int, ...]:
        """Return the factors of elements in a node."""
        known, find = self.factors[node], self.merged.dims.find
        return tuple(known.get(find(e), NONE) if e >= 0 else NONE for e in elements)

    def phase(self, number: int) -> Phase:
        """Return the phase of a class."""
        folded = self.merged.folded
        return folded.graph.phase[folded.representative(number)]

    def name(self, number: int) -> str:
        """Return the operation's name of a class."""
        folded = self.merged.folded
        return folded.graph.names[folded.representative(number)]


def lower(merged: Merged, microbatches: int = 1, *, fused: bool = True) -> Lowered:
    """Return the problem of a merged graph, without its memory (``memory.py``).

    Args:
        merged: the clusters and links.
        microbatches: parts in which the batch is run; what is gathered from storage for one part
            is gathered again for the next.
        fused: whether attention is one kernel, and kernels of the backward pass compute again
            what follows element by element from something saved.
    """
    out = Lowered(merged, Problem([], []), microbatches, fused)
    _clusters(out)
    _heavies(out)
    _edges(out)
    out.scores = _attention(out) if fused else set()
    out.causal = bool(out.scores) and _is_causal(out)
    _products(out)
    _traffic(out)
    return out


def _clusters(out: Lowered) -> None:
    """Make a node of every cluster that a link touches."""
    merged = out.merged
    fixed = {merged.dims.find(e) for e in merged.fixed}
    touched = {
        merged.group(end.value)
        for link in merged.links
        for end in (link.source, link.target)
        if end.value >= 0
    }
    flow = merged.folded.graph.flow
    for value, tensor in merged.tensors.items():
        group = merged.group(value)
        argument = merged.folded.representative(value >> RESULT_BITS) < flow.arguments
        if value in merged.views or (group not in touched and not argument):
            continue
        if group not in out.clusters:
            out.clusters[group] = len(out.problem.nodes)
            out.factors[out.clusters[group]] = {}
            name = out.name(value >> RESULT_BITS) or "argument"
            out.problem.nodes.append(Node(f"{name} {list(tensor.shape)}", []))
        number = out.clusters[group]
        node, factors = out.problem.nodes[number], out.factors[number]
        roots = [merged.dims.find(e) for e in merged.elements[value]]
        for root, size in zip(roots, tensor.shape, strict=True):
            if size <= 1:
                continue
            factor = factors.setdefault(root, len(node.sizes))
            if factor == len(node.sizes):
                node.sizes.append(size)
            node.sizes[factor] = min(size, node.sizes[factor])
            if root in fixed or roots.count(root) > 1:
                node.fixed.add(factor)


def _heavies(out: Lowered) -> None:
    for number, split in out.merged.splits.items():
        out.heavies[number] = len(out.problem.nodes)
        fixed = set(split.fixed) | {f for f, size in enumerate(split.sizes) if size <= 1}
        shapes = [
            list(out.merged.tensors[(number << RESULT_BITS) | r].shape)
            for r in range(len(split.results))
        ]
        name = f"{out.name(number)} {shapes[0] if shapes else ''}"
        out.problem.nodes.append(Node(name, list(split.sizes), fixed, set(split.even)))


def _end(out: Lowered, end: End) -> tuple[int, tuple[int, ...]]:
    if end.heavy >= 0:
        return out.heavies[end.heavy], end.dims
    node = out.node_of(end.value)
    return node, out.element_factors(node, end.dims)


def _edges(out: Lowered) -> None:
    """Make edges of the links; those that say the same are one with their counts added."""
    merged = out.merged
    found: dict[Edge, list[Link]] = defaultdict(list)
    groups: dict[tuple[int, int, str], int] = {}
    stored = merged.folded.graph.stored
    for link in merged.links:
        source, dims = _end(out, link.source)
        target, wanted = _end(out, link.target)
        if link.source.heavy >= 0:
            summed = link.summed
        else:
            summed = frozenset(out.element_factors(source, tuple(sorted(link.summed)))) - {NONE}
        phase = out.phase(link.reader)
        update = link.place < 0 and link.result < 0
        from_store = (
            link.source.value >= 0
            and stored[merged.folded.representative(link.source.value >> RESULT_BITS)]
        )
        pool = "forward" if update else _POOL[phase]
        key = (source, link.carried, pool)
        edge = Edge(
            source, target, link.tensor.shape, link.tensor.itemsize, dims, wanted, summed,
            count=1, phase=pool, group=groups.setdefault(key, len(groups)),
            hidden=update or (phase is Phase.WEIGHT and link.result >= 0) or from_store,
        )  # fmt: skip
        found[edge].append(link)
    for edge, links in found.items():
        count = sum(link.count for link in links)
        if edge.hidden and links[0].source.value >= 0 and links[0].place >= 0:
            count *= out.microbatches if edge.phase in ("forward", "backward") else 1
        out.problem.edges.append(replace(edge, count=count))
        out.edge_links.append(links)


def is_gradient(edge: Edge, links: Sequence[Link]) -> bool:
    """Whether an edge carries the gradient by a parameter from what makes it."""
    return edge.hidden and links[0].result >= 0


def _attention(out: Lowered) -> set[int]:
    """Return the clusters of attention scores: exponentials between products with a batch."""
    merged = out.merged
    exponential = {
        merged.group(value)
        for value, tensor in merged.tensors.items()
        if out.name(value >> RESULT_BITS) == "stablehlo.exponential" and len(tensor.shape) > 2
    }
    made: dict[int, int] = defaultdict(int)
    read: dict[int, int] = defaultdict(int)
    plain: set[int] = set()
    for link in merged.links:
        for end, other, counter in (
            (link.source, link.target, read),
            (link.target, link.source, made),
        ):
            if end.value < 0 or merged.group(end.value) not in exponential or other.heavy < 0:
                continue
            split = merged.splits[other.heavy]
            batched = out.name(other.heavy) == "stablehlo.dot_general" and (
                set(split.operands[0]) & set(split.operands[1]) & set(split.results[0]) - {NONE}
            )
            if batched:
                counter[merged.group(end.value)] += 1
            else:
                plain.add(merged.group(end.value))
    return {group for group in exponential if made[group] and read[group]} - plain


def _is_causal(out: Lowered) -> bool:
    """Whether a constant compares two positions, as masks do."""
    graph = out.merged.folded.graph
    for value, tensor in out.merged.tensors.items():
        node = out.merged.folded.representative(value >> RESULT_BITS)
        if graph.names[node] == "stablehlo.compare" and graph.free[node]:
            shape = [size for size in tensor.shape if size > 1]
            if len(shape) == 2 and shape[0] == shape[1]:
                return True
    return False


def _products(out: Lowered) -> None:
    """Give heavy nodes their products, or the bytes they move."""
    folded = out.merged.folded
    flow = folded.graph.flow
    fused = _fused_products(out)
    narrow = _narrowest(out, fused)
    for number, index in out.heavies.items():
        op = flow.operations[folded.representative(number) - flow.arguments]
        split, node = out.merged.splits[number], out.problem.nodes[index]
        count, phase = len(folded.members[number]), out.phase(number)
        parts = contraction_of(op, split)
        if parts is not None:
            node.products.append(
                Product(
                    parts.rows, parts.columns, parts.sums, parts.batch,
                    narrow if number in fused else parts.dtype, count,
                    _POOL[phase], parts.extra, number in fused, out.causal, number,
                )
            )  # fmt: skip
        elif out.name(number) not in ("stablehlo.reshape", "stablehlo.while"):
            factors = tuple(sorted({f for row in split.results for f in row if f >= 0}))
            node.traffic.append(Traffic(moved_bytes(op), factors, count, _POOL[phase], number))


def _fused_products(out: Lowered) -> set[int]:
    """Return the classes of products that make or read attention scores."""
    found = set()
    for link in out.merged.links:
        for end, other in ((link.source, link.target), (link.target, link.source)):
            if end.value >= 0 and other.heavy >= 0 and out.merged.group(end.value) in out.scores:
                found.add(other.heavy)
    return found


def _narrowest(out: Lowered, fused: set[int]) -> str:
    """Return the narrowest type that attention's products read: fused kernels multiply in it.

    Scores that automatic differentiation leaves in a wider type never exist there.
    """
    read = [
        link.tensor
        for link in out.merged.links
        if link.target.heavy in fused and link.source.value >= 0
    ]
    return min((t for t in read), key=lambda t: (t.itemsize, t.dtype)).dtype if read else ""


def _traffic(out: Lowered) -> None:
    """Charge clusters for what enters and leaves them in each phase; the rest is fused."""
    charge = _Charges(out)
    folded, merged = out.merged.folded, out.merged
    classes = folded.classes
    known = {link.source.value for link in merged.links}
    for value in folded.graph.flow.returned:
        known.add((classes[value >> RESULT_BITS] << RESULT_BITS) | (value & RESULT_MASK))
    for number in sorted(merged.merging):
        for counter in folded.operands[number]:
            for value, count in counter.items():
                base, _ = merged.base(value)
                if not merged.light[base >> RESULT_BITS]:
                    charge.read(number, base, count)
    for number in sorted(merged.merging):
        if number << RESULT_BITS in known:
            charge.moved(number, number << RESULT_BITS, len(folded.members[number]))


class _Charges:
    """The traffic of clusters, each value once in a phase."""

    def __init__(self, out: Lowered) -> None:
        self.out = out
        self.merged = out.merged
        self.done: set[tuple[int, Phase, int]] = set()

    def home(self, number: int) -> tuple[int, Phase] | None:
        """Return the cluster and phase of a class that follows one."""
        if number not in self.merged.merging:
            return None
        return self.merged.group(number << RESULT_BITS), self.out.phase(number)

    def read(self, number: int, value: int, count: int) -> None:
        """Charge a class for a value, and its maker when that is of the cluster's other phase."""
        here, there = self.home(number), self.home(value >> RESULT_BITS)
        if here is None or there == here:
            return
        self.moved(number, value, count)
        if there is not None and there[0] == here[0]:
            self.moved(value >> RESULT_BITS, value, count)

    def moved(self, number: int, value: int, count: int) -> None:
        """Charge the cluster of a class for a value."""
        out, where, owner = self.out, self.home(number), self.merged.group(value)
        if where is None or where[0] in out.scores or (*where, value) in self.done:
            return
        self.done.add((*where, value))
        if owner not in out.clusters or owner in out.scores:
            return
        tensor = self.merged.tensors[value]
        factors = tuple(f for f in out.value_factors(value) if f >= 0)
        node = out.problem.nodes[out.clusters[owner]]
        node.traffic.append(Traffic(tensor.num_bytes, factors, count, _POOL[where[1]], number))
