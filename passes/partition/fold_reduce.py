"""Build the module without the middle layers, and check that its layers are laid out alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pai.dialects.mlir import ir
from pai.dialects.sdy import SHARDING, mesh_ops
from pai.passes.partition.annotations import function_attributes
from pai.passes.partition.fold_graph import RESULT_BITS, RESULT_MASK, Graph, node_of
from pai.passes.partition.fold_layers import Layers

MARK = "pai-fold"


class Refused(Exception):
    """The layers cannot be folded; says why."""


@dataclass(frozen=True)
class Cut:
    """Which layers are left out: those between ``below`` and ``above``.

    Layers of the reduced module are numbered on without a gap; ``reduced`` turns a layer of the
    whole module into one of the reduced.
    """

    below: int
    above: int

    @property
    def size(self) -> int:
        """How many layers are left out."""
        return self.above - self.below - 1

    def holds(self, layer: int) -> bool:
        """Whether a layer stays."""
        return not self.below < layer < self.above

    def reduced(self, layer: int) -> int:
        """Return the number of a layer that stays."""
        return layer if layer <= self.below else layer - self.size


@dataclass(frozen=True)
class Reduced:
    """The reduced module and the places, in the whole one, of its arguments and results."""

    module: ir.Module
    arguments: tuple[int, ...]
    results: tuple[int, ...]


def choose_cut(layers: Layers) -> Cut:
    """Return the cut that leaves as many layers alike on each side as operands reach.

    One more stays where there are enough, for propagation to settle.

    Raises:
        Refused: when there are too few layers.
    """
    reach = max(layers.reach, 1)
    alike = layers.last - layers.first + 1
    around = reach - 1 + (alike > 4 * reach + 2)
    cut = Cut(layers.first + around, layers.last - around)
    if cut.size < reach:
        raise Refused(f"only {alike} layers are alike")
    return cut


def mark(node: int, context: ir.Context) -> ir.Location:
    """Return the location that stands for a node while its module is reduced."""
    return ir.Location.file(MARK, node, 0, context=context)


def marked(location: ir.Location) -> int:
    """Return the node a location stands for, -1 for other locations."""
    if getattr(location, "filename", None) == MARK:
        return int(location.start_line)
    return -1


def reduce_module(
    module: ir.Module, main: ir.Operation, graph: Graph, layers: Layers, cut: Cut
) -> Reduced:
    """Copy ``module`` without the layers that ``cut`` leaves out.

    Raises:
        Refused: when an operation outside the layers, or far away, reads what is left out.
    """
    kept = _Reducer(graph, layers, cut)
    with module.context, ir.Location.unknown():
        new = ir.Module.create()
        for mesh in mesh_ops(module):
            new.body.append(mesh.operation.clone())
        arguments, results = kept.function(main, new.body)
    return Reduced(new, arguments, results)


class _Reducer:
    def __init__(self, graph: Graph, layers: Layers, cut: Cut) -> None:
        self.graph = graph
        self.layers = layers
        self.cut = cut
        inner = (layers.layer > cut.below) & (layers.layer < cut.above)
        self.gone: list[bool] = ((layers.chain >= 0) & inner).tolist()
        self.chain: list[int] = layers.chain.tolist()
        self.layer: list[int] = layers.layer.tolist()

    def function(
        self, main: ir.Operation, body: ir.Block
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Append the reduced ``main`` to ``body``; return the arguments and results that stay."""
        arguments = tuple(n for n in range(self.graph.arguments) if not self.gone[n])
        results = tuple(
            n for n, value in enumerate(self.graph.returned) if not self.gone[node_of(value)]
        )
        self.check_results(main)
        kind = ir.FunctionType(ir.TypeAttr(main.attributes["function_type"]).value)
        inputs, outputs = list(kind.inputs), list(kind.results)
        inputs = [inputs[n] for n in arguments]
        attributes = dict(main.attributes.items())
        attributes["function_type"] = ir.TypeAttr.get(
            ir.FunctionType.get(inputs, [outputs[n] for n in results])
        )
        for name, numbers in (("arg_attrs", arguments), ("res_attrs", results)):
            if name in attributes:
                entries = list(ir.ArrayAttr(attributes[name]))
                attributes[name] = ir.ArrayAttr.get([entries[n] for n in numbers])
        with ir.InsertionPoint(body):
            new = ir.Operation.create("func.func", attributes=attributes, regions=1)
        locations = [mark(n, main.context) for n in arguments]
        block = new.regions[0].blocks.append(*inputs, arg_locs=locations)
        self.operations(block, arguments, results)
        return arguments, results

    def check_results(self, main: ir.Operation) -> None:
        """Check that the results of the layers around the cut are wanted in the same layout."""
        wanted = function_attributes(main, "res_attrs") or [None] * len(self.graph.returned)
        found: dict[tuple[int, int], object] = {}
        for value, sharding in zip(self.graph.returned, wanted, strict=True):
            node = node_of(value)
            if self.chain[node] >= 0 and self.cut.below <= self.layer[node] <= self.cut.above:
                key = (self.chain[node], value & RESULT_MASK)
                if found.setdefault(key, _said(sharding)) != _said(sharding):
                    raise Refused("the results of the layers are sharded differently")

    def operations(self, block: ir.Block, arguments: Sequence[int], results: Sequence[int]) -> None:
        """Append the operations that stay to ``block``."""
        values: dict[int, list[ir.Value]] = {
            node: [value] for node, value in zip(arguments, block.arguments, strict=True)
        }
        end = ir.InsertionPoint(block)
        for node in range(self.graph.arguments, len(self.graph.operands)):
            if not self.gone[node] and node not in values:
                self.copy(node, values, end)
        returned = [self.graph.returned[n] for n in results]
        with end:
            ir.Operation.create(
                "func.return",
                operands=[values[v >> RESULT_BITS][v & RESULT_MASK] for v in returned],
            )

    def copy(self, root: int, values: dict[int, list[ir.Value]], end: ir.InsertionPoint) -> None:
        """Append the copy of a node, after what it reads that is not there yet."""
        work = [root]
        while work:
            node = work[-1]
            op = self.graph.operations[node - self.graph.arguments]
            if node in self.graph.capturing:
                raise Refused(f"{op.name} has regions that read values from outside")
            sources = [self.source(node, value) for value in self.graph.operands[node]]
            missing = [v >> RESULT_BITS for v in sources if v >> RESULT_BITS not in values]
            if missing:
                if len(work) > len(self.gone):
                    raise self.refused(node, "depends on itself without the middle layers")
                work += missing
                continue
            work.pop()
            if node in values:
                continue
            new = op.clone(end)
            new.location = mark(node, op.context)
            for place, value in enumerate(sources):
                new.operands[place] = values[value >> RESULT_BITS][value & RESULT_MASK]
            values[node] = list(new.results)

    def source(self, node: int, value: int) -> int:
        """Return the value that stands for an operand of a node that stays."""
        source = value >> RESULT_BITS
        if self.chain[source] < 0:
            return value
        if self.chain[node] < 0:
            if self.gone[source]:
                raise self.refused(node, "reads every layer")
            return value
        upper = self.layer[node] >= self.cut.above
        layer = self.layer[source]
        if not self.gone[source]:
            if upper != (layer >= self.cut.above):
                raise self.refused(node, "reads a layer far away")
            return value
        other = layer - self.cut.size if upper else layer + self.cut.size
        moved = int(self.layers.chains[self.chain[source], other])
        if moved < 0 or self.gone[moved]:
            raise self.refused(node, "reads a layer far away")
        return (moved << RESULT_BITS) + (value & RESULT_MASK)

    def refused(self, node: int, why: str) -> Refused:
        """Return the refusal for what an operation does."""
        return Refused(f"{self.graph.operations[node - self.graph.arguments].name} {why}")


def check_layouts(main: ir.Operation, reduced: Reduced, layers: Layers, cut: Cut) -> None:
    """Check that propagation laid the layers next to the cut out alike.

    Then the layouts of those layers are a fixed point, whatever number of layers stands there.

    Raises:
        Refused: when they are not.
    """
    found: dict[int, list[object]] = {}
    shardings = function_attributes(main, "arg_attrs") or [None] * len(reduced.arguments)
    for node, sharding in zip(reduced.arguments, shardings, strict=True):
        found[node] = [_said(sharding)]
    for view in main.regions[0].blocks[0].operations:
        op = view.operation
        node = marked(op.location)
        if node >= 0:
            found.setdefault(node, []).append((op.name, _said(op.attributes.get(SHARDING))))
    reach = max(layers.reach, 1)
    numbers = [*range(cut.below - reach + 1, cut.below + 1)]
    numbers += [*range(cut.above, cut.above + reach)]
    for chain in layers.chains[:, numbers].tolist():
        first, *rest = [found.get(node) for node in chain]
        if any(other != first for other in rest):
            raise Refused("propagation shards the layers differently")


def _said(sharding: ir.Attribute | None) -> tuple[bool, ir.Attribute | None]:
    """Return a sharding as something to compare: attributes do not compare with None."""
    return sharding is not None, sharding
