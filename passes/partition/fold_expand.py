"""Put the layers that were left out back into the program of one device.

Each is a copy of the layer below the cut whose operands are shifted along; what reads across the
cut reads the nearest copy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pai.dialects.mlir import ir
from pai.passes.partition.accounts import Localized
from pai.passes.partition.annotations import without_shardings
from pai.passes.partition.fold_graph import RESULT_BITS, Graph
from pai.passes.partition.fold_match import ARGUMENT, Match, Member, Template
from pai.passes.partition.fold_order import order
from pai.passes.partition.fold_reduce import MARK
from pai.passes.partition.report import Replication
from pai.passes.rewrite import where

Item = tuple[int, int]
"""An operation of the reduced program and the layer of its copy, -1 for itself."""


def expand(match: Match, main: ir.Operation, body: ir.Block) -> ir.Operation:
    """Append the whole local function to ``body`` and return it.

    The operations of the reduced function are moved to it.

    Args:
        match: the reduced program.
        main: the whole function before partitioning.
        body: a module's.
    """
    results = [
        match.tie(match.last.operands[below], match.last.operands[above])
        for below, above in match.result_places()
    ]
    entries = order(match)
    function = _function(match, main, body)
    block = function.regions[0].blocks[0]
    expander = _Expander(match, block)
    for _, _, index, layer in entries:
        expander.emit((index, layer))
    returned = [
        expander.result(number, below, tied)
        for number, ((below, _), tied) in enumerate(
            zip(match.result_places(), results, strict=True)
        )
    ]
    with ir.InsertionPoint(block), match.last.location:
        ir.Operation.create("func.return", operands=returned)
    return function


def _function(match: Match, main: ir.Operation, body: ir.Block) -> ir.Operation:
    """Append the empty function."""
    arguments, results = list(match.block.arguments), list(match.last.operands)
    inputs = [arguments[n].type for n in match.argument_places()]
    outputs = [results[below].type for below, _ in match.result_places()]
    attributes = without_shardings(main)
    attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(inputs, outputs))
    with main.location, ir.InsertionPoint(body):
        new = ir.Operation.create("func.func", attributes=attributes, regions=1)
    locations = [a.location for a in main.regions[0].blocks[0].arguments]
    new.regions[0].blocks.append(*inputs, arg_locs=locations)
    return new


@dataclass(frozen=True)
class _Recipe:
    """How a template is copied.

    Args:
        op: the operation.
        nodes: the node of each layer, for locations.
        shared: the operations of the values that all layers share.
        shifted: (place, member, layers from the copy to the member, template that makes it).
        plain: whether it has no regions.
    """

    op: ir.Operation
    nodes: list[int]
    shared: list[int]
    shifted: list[tuple[int, Member, int, int]]
    plain: bool


class _Expander:
    """Moves and copies operations to the whole function's block."""

    def __init__(self, match: Match, block: ir.Block) -> None:
        self.match = match
        self.block = block
        self.end = ir.InsertionPoint(block)
        self.arguments = list(block.arguments)
        self.results = list(match.last.operands)
        self.done: dict[Item, ir.Operation] = {}
        self.recipes = {t.index: self.recipe(t) for t in match.templates.values()}
        for old, node in zip(match.block.arguments, match.reduced.arguments, strict=True):
            old.replace_all_uses_with(self.arguments[node])

    def recipe(self, template: Template) -> _Recipe:
        """Return how a template is copied."""
        match = self.match
        sources = [source for source, _ in match.operands[template.index]]
        op = match.ops[template.index]
        return _Recipe(
            op,
            match.chains[match.chain[match.nodes[template.index]]],
            [
                source
                for source, member in zip(sources, template.operands, strict=True)
                if member is None and source != ARGUMENT
            ],
            [
                (place, member, member.layer - match.cut.below, self.maker(member))
                for place, member in enumerate(template.operands)
                if member is not None
            ],
            not len(op.regions),
        )

    def maker(self, member: Member) -> int:
        """Return the template that makes a member, ARGUMENT for an argument."""
        if member.number == ARGUMENT:
            return ARGUMENT
        return self.match.templates[member.chain, member.number].index

    def emit(self, item: Item) -> None:
        """Append an item, after what it reads."""
        work = [item]
        while work:
            item = work[-1]
            if item in self.done:
                work.pop()
                continue
            missing = self.move(*item) if item[1] < 0 else self.copy(*item)
            work += missing
            if not missing:
                work.pop()

    def move(self, index: int, none: int) -> list[Item]:
        """Move an operation that stays, or return what has to be there first."""
        match = self.match
        changed: list[tuple[int, Item, Member]] = []
        missing: list[Item] = []
        for place, (source, _) in enumerate(match.operands[index]):
            crossing = match.crossings.get((index, place))
            item = (source, none)
            if crossing is not None:
                item = self.item(crossing.member, crossing.layer)
                changed.append((place, item, crossing.member))
            if item[0] != ARGUMENT and item not in self.done:
                missing.append(item)
        if missing:
            return missing
        op = match.ops[index]
        self.block.append(op)
        for place, item, member in changed:
            op.operands[place] = self.value(item, member)
        _relocate(op, match.graph, match.nodes[index])
        self.done[index, none] = op
        return []

    def copy(self, index: int, layer: int) -> list[Item]:
        """Append the copy of a template for a layer, or return what has to be there first."""
        recipe, done = self.recipes[index], self.done
        below, above = self.match.cut.below, self.match.cut.above
        missing: list[Item] = [(i, -1) for i in recipe.shared if (i, -1) not in done]
        values: list[tuple[int, ir.Value]] = []
        for place, member, shift, maker in recipe.shifted:
            at = layer + shift
            if maker == ARGUMENT:
                values.append((place, self.arguments[self.match.chains[member.chain][at]]))
                continue
            if below < at < above:
                item = (maker, at)
            else:
                item = (self.match.lists[member.chain, at][member.number], -1)
            made = done.get(item)
            if made is None:
                missing.append(item)
            else:
                values.append((place, made.results[member.result]))
        if missing:
            return missing
        new = recipe.op.clone(self.end)
        operands = new.operands
        for place, value in values:
            operands[place] = value
        node = recipe.nodes[layer]
        if recipe.plain:
            new.location = self.match.graph.location(node)
        else:
            _relocate(new, self.match.graph, node)
        done[index, layer] = new
        return []

    def item(self, member: Member, layer: int) -> Item:
        """Return what makes a member in a layer of the whole module."""
        if member.number == ARGUMENT:
            return ARGUMENT, self.match.chains[member.chain][layer]
        if self.match.cut.holds(layer):
            return self.match.lists[member.chain, layer][member.number], -1
        return self.match.templates[member.chain, member.number].index, layer

    def value(self, item: Item, member: Member) -> ir.Value:
        """Return the value of a member that ``item`` makes."""
        if item[0] == ARGUMENT:
            return self.arguments[item[1]]
        return self.done[item].results[member.result]

    def result(self, number: int, below: int, tied: Member | None) -> ir.Value:
        """Return a result of the whole function, like result ``below`` of the reduced one."""
        match = self.match
        if tied is None:
            source, place = match.sources[self.results[below]]
            if source == ARGUMENT:
                return self.arguments[match.reduced.arguments[place]]
            return self.results[below]
        layer = match.layer[match.graph.returned[number] >> RESULT_BITS]
        shift = layer - match.cut.below
        return self.value(self.item(tied, tied.layer + shift), tied)


def _relocate(op: ir.Operation, graph: Graph, node: int) -> None:
    """Give an operation, with its regions, the location of the one it was made for."""
    if node < 0:
        return
    location = graph.location(node)
    op.location = location
    for region in op.regions:
        for block in region.blocks:
            for value in block.arguments:
                value.set_location(location)
            for inner in block.operations:
                _relocate(inner.operation, graph, node)


def expand_account(out: Localized, match: Match) -> Localized:
    """Return what localizing the whole module would have found out."""
    arguments = match.argument_places()
    results = [below for below, _ in match.result_places()]
    return Localized(
        out.mesh,
        tuple(out.arguments[n] for n in arguments),
        tuple(out.results[n] for n in results),
        [entry for old in out.replicated for entry in _replications(old, match)],
        _again(out.uneven_arguments, arguments),
        _again(out.uneven_results, results),
    )


def _again(
    entries: Sequence[tuple[int, int, int, int]], places: Sequence[int]
) -> list[tuple[int, int, int, int]]:
    """Return the notes on arguments or results for each that is like one of the reduced ones."""
    by_place: dict[int, list[tuple[int, int, int]]] = {}
    for place, *note in entries:
        by_place.setdefault(place, []).append((note[0], note[1], note[2]))
    return [(n, *note) for n, place in enumerate(places) for note in by_place.get(place, [])]


def _replications(entry: Replication, match: Match) -> Sequence[Replication]:
    """Return a replication with the user's locations, once for each layer it stands for."""
    found = re.match(rf"{MARK}:(\d+):", entry.location)
    if found is None:
        return [entry]
    node, graph, cut = int(found[1]), match.graph, match.cut
    nodes = [node]
    if match.chain[node] >= 0 and match.layer[node] == cut.below:
        nodes += match.chains[match.chain[node]][cut.below + 1 : cut.above]
    places = [where(graph.operations[n - graph.arguments]) for n in nodes]
    return [replace(entry, location=place) for place in places]
