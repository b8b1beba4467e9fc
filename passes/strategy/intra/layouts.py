"""From states back to the module: layouts of arguments, and constraints on values inside.

Arguments are laid out as stored. Inside, every heavy operation's result is pinned to the layout of
its cluster, and operands to what their operation reads wherever that is another layout; propagation
does the rest. Where the operation itself leaves another layout than its result's cluster has, the
result is pinned twice, to one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pai.dialects.mlir import ir
from pai.dialects.sdy import mesh_from_attr, mesh_ops, sharding_attr
from pai.passes.partition.fold_graph import RESULT_BITS, RESULT_MASK
from pai.passes.strategy.annotate import main_function
from pai.passes.strategy.intra.lower import Lowered
from pai.passes.strategy.intra.merge import Link
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
        folded = self.lowered.merged.folded
        kept = self._kept_axes()
        out = []
        for argument, rank in enumerate(ranks):
            value = folded.classes[argument] << RESULT_BITS
            node = self.lowered.node_of(value)
            out.append(self.sharding(rank, self.value_spec(value), kept.get(node, ())))
        return out

    def _kept_axes(self) -> dict[int, list[int]]:
        """Return per node the axes that its readers keep: gathering the others is then local."""
        kept: dict[int, list[int]] = {}
        problem = self.lowered.problem
        for edge in problem.edges:
            p = edge.source_spec(self.states[edge.source])
            q = edge.target_spec(self.states[edge.target])
            if p != q:
                same = [a for a in range(len(p)) if p[a] >= 0 and p[a] == q[a]]
                kept.setdefault(edge.source, same)
        return kept

    def constraints(self) -> tuple[Constraint, ...]:
        """Return the constraints on values inside, in the order of the operations."""
        out: dict[tuple[int, int, int], Constraint] = {}
        problem = self.lowered.problem
        for edge, links in zip(problem.edges, self.lowered.edge_links, strict=True):
            p = edge.source_spec(self.states[edge.source])
            q = edge.target_spec(self.states[edge.target])
            for link in links:
                for item in self._of_link(edge, link, p, q):
                    out[item.operation, item.operand, item.result] = item
        return tuple(out[key] for key in sorted(out))

    def _of_link(self, edge: Edge, link: Link, p: Spec, q: Spec) -> list[Constraint]:
        folded = self.lowered.merged.folded
        first = folded.graph.flow.arguments
        nodes = [n for n in folded.members[link.reader] if n >= first]
        if link.result >= 0:  # a heavy operation's or a reduction's result
            rank = len(edge.shape)
            own = tuple(NONE if dim == PARTIAL else dim for dim in p)
            if link.source.heavy < 0 and p == q:
                return []
            chain = [self.sharding(rank, own), self.sharding(rank, q)]
            if own == q:
                chain = chain[1:]
            return [Constraint(n - first, -1, link.result, tuple(chain)) for n in nodes]
        if p == q or link.place < 0:
            return []
        wanted = self._operand(link)
        if wanted is None:
            return []
        readers = [n for n in nodes if self._reads(n, link)]
        again = edge.hidden and edge.phase != "forward"
        return [Constraint(n - first, link.place, -1, (wanted,), again) for n in readers]

    def _reads(self, node: int, link: Link) -> bool:
        folded = self.lowered.merged.folded
        value = folded.graph.flow.operands[node][link.place]
        carried = (folded.classes[value >> RESULT_BITS] << RESULT_BITS) | (value & RESULT_MASK)
        return carried == link.carried

    def _operand(self, link: Link) -> Sharding | None:
        """Return the layout in which a reader takes an operand, all of its dimensions."""
        lowered, merged = self.lowered, self.lowered.merged
        rank = len(merged.tensors[link.carried].shape)
        if link.target.heavy >= 0:
            factors = merged.splits[link.target.heavy].operands[link.place]
            state = self.states[lowered.heavies[link.target.heavy]]
        elif len(link.target.dims) == rank:
            node = lowered.node_of(link.target.value)
            factors = lowered.element_factors(node, link.target.dims)
            state = self.states[node]
        else:
            return None
        spec = tuple(factors.index(f) if f >= 0 and f in factors else NONE for f in state)
        return self.sharding(rank, spec)


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
    made: dict[tuple[ir.Value, Sharding, bool], ir.Value] = {}
    with module.context, ir.Location.unknown():
        for item in constraints:
            op = operations[item.operation]
            if item.result >= 0:
                _pin_result(op, operations[item.operation + 1], item, symbol)
        for item in constraints:
            if item.operand >= 0:
                _pin_operand(operations[item.operation], item, symbol, made)


def _pin_operand(
    op: ir.Operation,
    item: Constraint,
    symbol: str,
    made: dict[tuple[ir.Value, Sharding, bool], ir.Value],
) -> None:
    value = op.operands[item.operand]
    (sharding,) = item.shardings
    key = (value, sharding, item.again)
    if key not in made:
        source = value
        if item.again:
            source = ir.Operation.create(
                "stablehlo.optimization_barrier",
                results=[value.type],
                operands=[value],
                ip=ir.InsertionPoint(op),
            ).result
        made[key] = _constraint(source, sharding, symbol, op)
    op.operands[item.operand] = made[key]


def _pin_result(op: ir.Operation, after: ir.Operation, item: Constraint, symbol: str) -> None:
    value = op.results[item.result]
    uses = [(use.owner, use.operand_number) for use in value.uses]
    last = value
    for sharding in item.shardings:
        last = _constraint(last, sharding, symbol, after)
    for owner, place in uses:
        owner.operation.operands[place] = last


def _constraint(
    value: ir.Value, sharding: Sharding, symbol: str, before: ir.Operation
) -> ir.Value:
    attribute = sharding_attr(sharding, symbol, ctx=value.context)
    op = ir.Operation.create(
        "sdy.sharding_constraint",
        results=[value.type],
        operands=[value],
        attributes={"sharding": attribute},
        ip=ir.InsertionPoint(before),
    )
    return op.result
