"""Match the local operations of the layers on both sides of a cut with each other.

The reduced program holds, for every layer that stayed, that layer's local operations; marks in
their locations say which operation of the whole module each one was made for. The layers next to
the cut have to be equal, operation by operation, with operands that are shifted along by one layer
or are the same value; a *template* says so for one operation. What reads across the cut has to do
so as its template does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pai.dialects.mlir import ir
from pai.passes.partition.fold_graph import RESULT_BITS, Graph, node_of, signature
from pai.passes.partition.fold_layers import Layers
from pai.passes.partition.fold_reduce import Cut, Reduced, Refused, marked

ARGUMENT = -1
"""In place of an operation's number among those of its layer and chain: an argument."""

PLAIN = frozenset(
    {
        "add", "and", "broadcast_in_dim", "clamp", "compare", "constant", "convert", "divide",
        "dynamic_slice", "iota", "maximum", "minimum", "multiply", "not", "or", "partition_id",
        "remainder", "reshape", "select", "slice", "subtract",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A value of a layer: ``result`` of the ``number``-th operation for the member of a chain.

    Layers above the cut follow those below it without a gap.
    """

    chain: int
    layer: int
    number: int
    result: int

    def shifted(self, layers: int) -> Member:
        """Return the same value of another layer."""
        return replace(self, layer=self.layer + layers)


@dataclass(frozen=True)
class Template:
    """An operation of the layer below the cut, to be copied.

    Args:
        index: its place in the reduced program.
        above: the place of its counterpart above the cut.
        operands: by place, what the operand is; None for a value that all layers share.
    """

    index: int
    above: int
    operands: list[Member | None]


@dataclass(frozen=True)
class Crossing:
    """An operand that is read across the cut: what it is, and its layer in the whole module."""

    member: Member
    layer: int


class Match:
    """The local operations of a reduced program by chain and layer.

    Args:
        local: the reduced local function.
        graph: the operations of the whole module.
        layers: its layers.
        cut: the layers left out.
        reduced: where the reduced arguments and results come from.

    Raises:
        Refused: when the layers next to the cut differ, or are not tied as they should be.
    """

    def __init__(
        self, local: ir.Operation, graph: Graph, layers: Layers, cut: Cut, reduced: Reduced
    ) -> None:
        self.graph = graph
        self.cut = cut
        self.reduced = reduced
        self.chain: list[int] = layers.chain.tolist()
        self.layer: list[int] = layers.layer.tolist()
        self.chains: list[list[int]] = layers.chains.tolist()
        self.block: ir.Block = local.regions[0].blocks[0]
        *self.ops, self.last = [op.operation for op in self.block.operations]
        self.nodes: list[int] = []
        self.lists: dict[tuple[int, int], list[int]] = {}
        self.numbers: list[int] = []
        self.sources: dict[ir.Value, tuple[int, int]] = {}
        self.operands: list[list[tuple[int, int]]] = []
        self.templates: dict[tuple[int, int], Template] = {}
        self.shared: set[ir.Value] = set()
        self._read()
        for chain in range(len(self.chains)):
            self._compare(chain)
        self._check_neighbours()
        self.crossings = self._crossings()

    def _read(self) -> None:
        """Sort the local operations by chain and layer; what has no mark goes with its user."""
        for number, value in enumerate(self.block.arguments):
            self.sources[value] = (ARGUMENT, number)
        for index, op in enumerate(self.ops):
            self.operands.append([self.sources[value] for value in op.operands])
            for result, value in enumerate(op.results):
                self.sources[value] = (index, result)
        self.nodes = [marked(op.location) for op in self.ops]
        unmarked = {index for index, node in enumerate(self.nodes) if node < 0}
        common = self._common()
        for index in range(len(self.ops) - 1, -1, -1):
            for source, _ in self.operands[index]:
                if source in unmarked:
                    self.nodes[source] = self.nodes[index]
        for index in common:
            self.nodes[index] = -1
        for index, node in enumerate(self.nodes):
            key = (self.chain[node], self.layer[node]) if node >= 0 else (-1, 0)
            group = self.lists.setdefault(key, [])
            self.numbers.append(len(group))
            group.append(index)

    def _common(self) -> set[int]:
        """Return what is made of constants and the device's number: it belongs to no layer."""
        out: set[int] = set()
        for index, op in enumerate(self.ops):
            known = all(source in out for source, _ in self.operands[index])
            if known and op.name.removeprefix("stablehlo.") in PLAIN:
                out.add(index)
        return out

    def member(self, value: ir.Value) -> Member | None:
        """Return a value as part of a layer, or None."""
        index, result = self.sources[value]
        node = self.reduced.arguments[result] if index == ARGUMENT else self.nodes[index]
        if node < 0 or self.chain[node] < 0:
            return None
        layer = self.cut.reduced(self.layer[node])
        if index == ARGUMENT:
            return Member(self.chain[node], layer, ARGUMENT, 0)
        return Member(self.chain[node], layer, self.numbers[index], result)

    def _compare(self, chain: int) -> None:
        """Make the templates of a chain from the layers below and above the cut."""
        below = self.lists.get((chain, self.cut.below), [])
        above = self.lists.get((chain, self.cut.above), [])
        if len(below) != len(above):
            raise Refused("the local layers have different operations")
        for number, (left, right) in enumerate(zip(below, above, strict=True)):
            op, other = self.ops[left], self.ops[right]
            key, captured = signature(op)
            if captured or (key, captured) != signature(other):
                raise Refused(f"{op.name} differs between the local layers")
            ties = [self.tie(a, b) for a, b in zip(op.operands, other.operands, strict=True)]
            self.templates[chain, number] = Template(left, right, ties)

    def _check_neighbours(self) -> None:
        """Check that the layers that copies may read are like those next to the cut."""
        reach = max(
            (
                abs(member.layer - self.cut.below)
                for template in self.templates.values()
                for member in template.operands
                if member is not None
            ),
            default=0,
        )
        for step in range(1, reach):
            for layer in (self.cut.below - step, self.cut.above + step):
                for chain in range(len(self.chains)):
                    if self._forms(chain, layer) != self._forms(chain, self.cut.below):
                        raise Refused("the local layers near the cut have different operations")

    def _forms(self, chain: int, layer: int) -> list[object]:
        """Return what the local operations of a chain's member are."""
        return [signature(self.ops[index]) for index in self.lists.get((chain, layer), [])]

    def tie(self, below: ir.Value, above: ir.Value) -> Member | None:
        """Return what an operand is, given those of both sides; None when they are one value."""
        if below == above:
            self.shared.add(below)
            return None
        left, right = self.member(below), self.member(above)
        if left is None or right is None or left.shifted(1) != right or below.type != above.type:
            raise Refused("an operand is not the same in the local layers")
        return left

    def _crossings(self) -> dict[tuple[int, int], Crossing]:
        """Return, by operation and place, the operands that are across the cut."""
        out: dict[tuple[int, int], Crossing] = {}
        above = self.cut.reduced(self.cut.above)
        for index, op in enumerate(self.ops):
            node = self.nodes[index]
            if node < 0 or self.chain[node] < 0:
                continue
            layer = self.layer[node]
            here, upper = self.cut.reduced(layer), layer >= self.cut.above
            for place, value in enumerate(op.operands):
                found = self.member(value)
                if found is None or (found.layer >= above) == upper:
                    continue
                template = self._template(index)
                if template is not None:
                    wanted = template.operands[place]
                elif value in self.shared:
                    wanted = None
                else:
                    raise Refused(f"{op.name} reads another layer in its own way")
                if wanted is not None:
                    if wanted.shifted(here - self.cut.below) != found:
                        raise Refused(f"{op.name} reads another layer than its like")
                    out[index, place] = Crossing(found, layer + found.layer - here)
                elif value not in self.shared:
                    raise Refused(f"{op.name} reads another layer than its like")
        return out

    def _template(self, index: int) -> Template | None:
        """Return the template that an operation of any layer is like."""
        template = self.templates.get((self.chain[self.nodes[index]], self.numbers[index]))
        if template is None or signature(self.ops[template.index]) != signature(self.ops[index]):
            return None
        return template

    def argument_places(self) -> list[int]:
        """Return, per argument of the whole function, the reduced one that it is like."""
        place = {node: n for n, node in enumerate(self.reduced.arguments)}
        below = self.cut.below
        return [
            place[node if node in place else self.chains[self.chain[node]][below]]
            for node in range(self.graph.arguments)
        ]

    def result_places(self) -> list[tuple[int, int]]:
        """Return, per result of the whole function, the reduced ones below and above like it."""
        place = {number: n for n, number in enumerate(self.reduced.results)}
        returned = self.graph.returned
        same: dict[int, list[int]] = {}
        ranks = []
        for number, value in enumerate(returned):
            ranks.append(len(same.setdefault(value, [])))
            same[value].append(number)
        out = []
        for number, value in enumerate(returned):
            if number in place:
                out.append((place[number], place[number]))
                continue
            node = node_of(value)
            ends = []
            for end in (self.cut.below, self.cut.above):
                shift = (self.chains[self.chain[node]][end] - node) << RESULT_BITS
                like = same.get(value + shift, [])
                if len(like) != len(same[value]):
                    raise Refused("the layers return different results")
                ends.append(place[like[ranks[number]]])
            out.append((ends[0], ends[1]))
        return out
