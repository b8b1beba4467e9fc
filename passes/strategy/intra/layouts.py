"""From states back to the module: layouts of arguments, and constraints on values inside.

Arguments are laid out as stored. Inside, values are pinned to their cluster's layout,
and operands to what their operation reads wherever that is another; propagation is left with
constants and broadcasts. Where a heavy operation or a reduction leaves another layout than its
result's cluster has, the result takes one after the other.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pai.dialects.mlir import ir
from pai.dialects.sdy import (
    SHARDING,
    mesh_from_attr,
    mesh_ops,
    sharding_attr,
    sharding_list_attr,
)
from pai.passes.partition.fold_graph import RESULT_BITS, RESULT_MASK
from pai.passes.strategy.annotate import main_function
from pai.passes.strategy.intra.lower import Lowered
from pai.passes.strategy.intra.merge import Link, UnionFind
from pai.passes.strategy.intra.problem import NONE, PARTIAL, Edge, Spec, State
from pai.runtime.errors import PassFailure
from pai.runtime.mesh import AxisRef, Mesh, Sharding


@dataclass(frozen=True)
class Constraint:
    """A layout of a value inside the module.

    Args:
        operation: number of the operation in ``@main`` of the simplified module.
        operand: which operand it reads so; -1 for a result.
        result: which result; -1 for an operand.
        shardings: the layouts to take, one after the other.
        again: whether to bring the operand there anew, though the forward pass has done so: what
            is gathered is then not kept from one pass to the other.
    """

    operation: int
    operand: int
    result: int
    shardings: tuple[Sharding, ...]
    again: bool = False


class Layouts:
    """The layouts that given states mean.

    Args:
        lowered: the problem.
        states: per node.
        mesh: the axes that states name by number.
    """

    def __init__(self, lowered: Lowered, states: Sequence[State], mesh: Mesh) -> None:
        self.lowered = lowered
        self.states = states
        self.mesh = mesh
        self.names = [name for name, _ in mesh.axes]
        self.major = self._major_axes()

    def sharding(self, rank: int, spec: Spec, first: Sequence[int] = ()) -> Sharding:
        """Return a spec as a sharding; of one dimension's axes those in ``first`` are major."""
        dims: list[tuple[AxisRef, ...]] = [()] * rank
        order = sorted(range(len(spec)), key=lambda a: (a not in first, a))
        for axis in order:
            if spec[axis] >= 0 and self.mesh.axes[axis][1] > 1:
                dims[spec[axis]] = (*dims[spec[axis]], AxisRef(self.names[axis]))
        return Sharding(tuple(dims))

    def value_spec(self, value: int) -> Spec:
        """Return the dimension that each axis splits of a value, as its cluster has it."""
        factors = self.lowered.value_factors(value)
        state = self.states[self.lowered.node_of(value)]
        return tuple(factors.index(f) if f >= 0 and f in factors else NONE for f in state)

    def arguments(self, ranks: Sequence[int]) -> list[Sharding]:
        """Return the sharding of every argument, given their ranks."""
        classes = self.lowered.merged.folded.classes
        values = [classes[argument] << RESULT_BITS for argument in range(len(ranks))]
        return [self.value(value, rank) for value, rank in zip(values, ranks, strict=True)]

    def value(self, value: int, rank: int) -> Sharding:
        """Return the layout of a value of a cluster."""
        first = self.major.get(self.lowered.node_of(value), ())
        return self.sharding(rank, self.value_spec(value), first)

    def _major_axes(self) -> dict[int, tuple[int, ...]]:
        """Return per node the axes that are major where several split a dimension.

        Nodes that an edge connects without moving anything have the same. They are what the other
        ends of the edges that move something have too: the other axes are then gathered, or
        sliced, without permuting devices. The most bytes decide.
        """
        edges = self.lowered.problem.edges
        groups = UnionFind()
        for _ in self.states:
            groups.new()
        votes: dict[int, Counter[tuple[int, ...]]] = defaultdict(Counter)
        specs = [
            (e.source_spec(self.states[e.source]), e.target_spec(self.states[e.target]))
            for e in edges
        ]
        for edge, (p, q) in zip(edges, specs, strict=True):
            if p == q and _shares_dims(p):
                groups.join(edge.source, edge.target)
        for edge, (p, q) in zip(edges, specs, strict=True):
            same = tuple(a for a in range(len(p)) if p[a] >= 0 and p[a] == q[a])
            for node, spec in ((edge.source, p), (edge.target, q)):
                shared = {spec[a] for a in same}
                if p != q and any(spec[a] in shared for a in range(len(p)) if a not in same):
                    size = edge.count * edge.itemsize * math.prod(edge.shape)
                    votes[groups.find(node)][same] += size
        chosen = {group: max(c, key=lambda same: (c[same], same)) for group, c in votes.items()}
        nodes = range(len(self.states))
        return {n: chosen[groups.find(n)] for n in nodes if groups.find(n) in chosen}

    def constraints(self) -> tuple[Constraint, ...]:
        """Return the constraints on values inside, in the order of the operations."""
        out: dict[tuple[int, int, int], Constraint] = {}
        for item in self._values():
            out[item.operation, item.operand, item.result] = item
        problem = self.lowered.problem
        for edge, links in zip(problem.edges, self.lowered.edge_links, strict=True):
            p = edge.source_spec(self.states[edge.source])
            q = edge.target_spec(self.states[edge.target])
            for link in links:
                for item in self._of_link(edge, link, p, q):
                    out[item.operation, item.operand, item.result] = item
        return tuple(out[key] for key in sorted(out))

    def _nodes(self, number: int) -> list[int]:
        """Return the numbers of the operations of a class."""
        folded = self.lowered.merged.folded
        first = folded.graph.flow.arguments
        return [node - first for node in folded.members[number] if node >= first]

    def _values(self) -> Iterator[Constraint]:
        """Yield the layouts of what follows a cluster."""
        merged = self.lowered.merged
        for value, tensor in merged.tensors.items():
            number = value >> RESULT_BITS
            if number in merged.merging and merged.group(value) in self.lowered.clusters:
                sharding = self.value(value, len(tensor.shape))
                for node in self._nodes(number):
                    yield Constraint(node, -1, value & RESULT_MASK, (sharding,))

    def _of_link(self, edge: Edge, link: Link, p: Spec, q: Spec) -> list[Constraint]:
        if link.result >= 0:  # a heavy operation's or a reduction's result
            rank = len(edge.shape)
            own = tuple(NONE if dim == PARTIAL else dim for dim in p)
            before, after = self.major.get(edge.source, ()), self.major.get(edge.target, ())
            chain = [self.sharding(rank, own, before), self.sharding(rank, q, after)]
            if chain[0] == chain[1]:
                chain = chain[1:]
            nodes = self._nodes(link.reader)
            return [Constraint(n, -1, link.result, tuple(chain)) for n in nodes]
        wanted = self._operand(link)
        if p == q or link.place < 0 or wanted is None:
            return []
        again = edge.hidden and edge.phase != "forward"
        readers = [n for n in self._nodes(link.reader) if self._reads(n, link)]
        return [Constraint(n, link.place, -1, (wanted,), again) for n in readers]

    def _reads(self, node: int, link: Link) -> bool:
        folded = self.lowered.merged.folded
        flow = folded.graph.flow
        value = flow.operands[node + flow.arguments][link.place]
        carried = (folded.classes[value >> RESULT_BITS] << RESULT_BITS) | (value & RESULT_MASK)
        return carried == link.carried

    def _operand(self, link: Link) -> Sharding | None:
        """Return the layout in which a reader takes an operand, all of its dimensions."""
        lowered, merged = self.lowered, self.lowered.merged
        rank = len(merged.tensors[link.carried].shape)
        if link.target.heavy >= 0:
            factors = merged.splits[link.target.heavy].operands[link.place]
            node = lowered.heavies[link.target.heavy]
        elif len(link.target.dims) == rank:
            node = lowered.node_of(link.target.value)
            factors = lowered.element_factors(node, link.target.dims)
        else:
            return None
        state = self.states[node]
        spec = tuple(factors.index(f) if f >= 0 and f in factors else NONE for f in state)
        return self.sharding(rank, spec, self.major.get(node, ()))


def _shares_dims(spec: Spec) -> bool:
    """Whether several axes split one dimension."""
    split = [dim for dim in spec if dim >= 0]
    return len(split) > len(set(split))


def gathered_arguments(lowered: Lowered, states: Sequence[State]) -> set[int]:
    """Return the numbers of arguments that some operation reads less split than they are stored."""
    out: set[int] = set()
    for edge, links in zip(lowered.problem.edges, lowered.edge_links, strict=True):
        has, reads = edge.source_spec(states[edge.source]), edge.target_spec(states[edge.target])
        if any(dim >= 0 and dim != other for dim, other in zip(has, reads, strict=True)):
            out |= {link.source.value >> RESULT_BITS for link in links if link.source.value >= 0}
    folded = lowered.merged.folded
    return {n for n in range(folded.graph.flow.arguments) if folded.classes[n] in out}


def constrain(module: ir.Module, constraints: Sequence[Constraint], mesh: Mesh) -> None:
    """Write constraints into a simplified module, as ``sdy.sharding_constraint``, in place.

    The module has to be the one that was searched, and to carry the mesh (``annotate``).

    Raises:
        PassFailure: when the module has no such mesh.
    """
    symbol = next(
        (
            ir.StringAttr(op.attributes["sym_name"]).value
            for op in mesh_ops(module)
            if mesh_from_attr(op.attributes["mesh"]) == mesh
        ),
        None,
    )
    if symbol is None:
        raise PassFailure(f"the module does not carry the mesh {mesh}", hint="annotate it first")
    block = main_function(module).regions[0].blocks[0]
    operations = [view.operation for view in block.operations]
    results: dict[int, list[Constraint]] = {}
    for item in constraints:
        if item.result >= 0:
            results.setdefault(item.operation, []).append(item)
    with module.context, ir.Location.unknown():
        writer = _Writer(symbol)
        for number, items in results.items():
            writer.results(operations[number], operations[number + 1], items)
        for item in constraints:
            if item.operand >= 0:
                writer.operand(operations[item.operation], item)


class _Writer:
    """Writes shardings of one mesh into a block."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.attributes: dict[Sharding, ir.Attribute] = {}
        self.made: dict[tuple[ir.Value, Sharding, bool], ir.Value] = {}

    def attribute(self, sharding: Sharding) -> ir.Attribute:
        """Return the attribute of a closed sharding."""
        if sharding not in self.attributes:
            self.attributes[sharding] = sharding_attr(sharding, self.symbol)
        return self.attributes[sharding]

    def results(self, op: ir.Operation, after: ir.Operation, items: list[Constraint]) -> None:
        """Give an operation's results their first layouts, and append the steps to the last."""
        first = {item.result: self.attribute(item.shardings[0]) for item in items}
        shardings = [
            first[n] if n in first else self.open(value) for n, value in enumerate(op.results)
        ]
        op.attributes[SHARDING] = sharding_list_attr(shardings)
        for item in items:
            value = last = op.results[item.result]
            uses = [(use.owner, use.operand_number) for use in value.uses]
            for sharding in item.shardings[1:]:
                last = self.constraint(last, sharding, after)
            for owner, place in uses if last != value else ():
                owner.operation.operands[place] = last

    def open(self, value: ir.Value) -> ir.Attribute:
        """Return the sharding that leaves a value to propagation."""
        return sharding_attr(Sharding.replicated(value.type.rank), self.symbol, open=True)

    def operand(self, op: ir.Operation, item: Constraint) -> None:
        """Let an operation read an operand in a layout."""
        value = op.operands[item.operand]
        (sharding,) = item.shardings
        key = (value, sharding, item.again)
        if key not in self.made:
            source = value
            if item.again:
                source = ir.Operation.create(
                    "stablehlo.optimization_barrier",
                    results=[value.type],
                    operands=[value],
                    ip=ir.InsertionPoint(op),
                ).result
            self.made[key] = self.constraint(source, sharding, op)
        op.operands[item.operand] = self.made[key]

    def constraint(self, value: ir.Value, sharding: Sharding, before: ir.Operation) -> ir.Value:
        """Insert a constraint; return what it returns."""
        return ir.Operation.create(
            "sdy.sharding_constraint",
            results=[value.type],
            operands=[value],
            attributes={"sharding": self.attribute(sharding)},
            ip=ir.InsertionPoint(before),
        ).result
