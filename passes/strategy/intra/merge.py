"""Merge dimensions that are split together: what an operation does element by element follows.

Values are unified through elementwise operations and movements, dimension by dimension, and cut
where a layout may change: at products, gathers, scatters and the like (*heavy* operations, which
choose for themselves), at reductions, at arguments (their storage is a choice of its own) and at
broadcasts. Constants, and what comes from constants or scalars alone, take any layout: unifying
through them would glue layers and passes together.
What is left are *clusters* of values that are laid out alike, heavy operations, and edges.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace

from pai.dialects.mlir import ir
from pai.passes.partition.fold_graph import RESULT_BITS, RESULT_MASK
from pai.passes.strategy.intra.absorb import absorb
from pai.passes.strategy.intra.fold import Folded
from pai.passes.strategy.intra.graph import HEAVY
from pai.passes.strategy.intra.rules import (
    ELEMENTWISE,
    MOVING,
    NONE,
    Split,
    Tensor,
    split_of,
    tensor_of,
)

REDUCE = "stablehlo.reduce"
BROADCAST = "stablehlo.broadcast_in_dim"


@dataclass(frozen=True)
class End:
    """One end of a link: a heavy operation's class with factors, or a value with dimensions.

    Args:
        heavy: class of the heavy operation, or -1.
        value: the value, or -1.
        dims: per dimension of the tensor, a factor of the operation or an element, or NONE.
    """

    heavy: int
    value: int
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Link:
    """A tensor between two ends.

    Args:
        source: where it is made.
        target: who reads it.
        tensor: its type.
        carried: the value it is, before views.
        summed: factors, or elements, of the source over which devices hold addends.
        count: how many.
        reader: class of the operation that reads it, or of the argument that is updated.
        place: the operand's number; -1 for a heavy operation's result and for updates.
        result: for heavy results, the number of the result; -1 otherwise.
    """

    source: End
    target: End
    tensor: Tensor
    carried: int
    summed: frozenset[int]
    count: int
    reader: int
    place: int
    result: int = -1


class UnionFind:
    """Sets of numbers."""

    def __init__(self) -> None:
        self.parent: list[int] = []

    def new(self) -> int:
        """Add a set of one."""
        self.parent.append(len(self.parent))
        return len(self.parent) - 1

    def find(self, item: int) -> int:
        """Return the number that stands for the set of ``item``."""
        parent = self.parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def join(self, a: int, b: int) -> None:
        """Unite two sets; the smaller number stands for both."""
        a, b = self.find(a), self.find(b)
        if a != b:
            self.parent[max(a, b)] = min(a, b)


@dataclass
class Merged:
    """Values with their elements, and the links.

    Args:
        folded: what was merged.
        tensors: by value.
        values: sets of values laid out alike, by value's number in ``index``.
        index: value to number.
        elements: by value, the element of each dimension; sets in ``dims``.
        dims: sets of elements split together.
        fixed: elements that must not be split.
        links: all links.
        splits: factors by heavy class.
        light: per class, whether its values take any layout.
        views: broadcast values: (value read, its dimension for each of the base's or NONE).
    """

    folded: Folded
    tensors: dict[int, Tensor] = field(default_factory=dict)
    index: dict[int, int] = field(default_factory=dict)
    values: UnionFind = field(default_factory=UnionFind)
    elements: dict[int, tuple[int, ...]] = field(default_factory=dict)
    dims: UnionFind = field(default_factory=UnionFind)
    fixed: set[int] = field(default_factory=set)
    links: list[Link] = field(default_factory=list)
    splits: dict[int, Split] = field(default_factory=dict)
    light: list[bool] = field(default_factory=list)
    views: dict[int, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    merging: set[int] = field(default_factory=set)

    def group(self, value: int) -> int:
        """Return the number of the cluster of a value."""
        return self.values.find(self.index[value])

    def base(self, value: int) -> tuple[int, tuple[int, ...]]:
        """Look through broadcasts: return the value read and where its dimensions are."""
        if value not in self.views:
            return value, tuple(range(len(self.tensors[value].shape)))
        source, where = self.views[value]
        base, inner = self.base(source)
        return base, tuple(where[d] if d >= 0 else NONE for d in inner)


def merge(folded: Folded) -> Merged:
    """Return the clusters and links of a folded graph."""
    return _Merger(folded).run()


class _Merger:
    def __init__(self, folded: Folded) -> None:
        self.folded = folded
        self.graph = folded.graph
        self.out = Merged(folded)
        self.known: dict[tuple[int, tuple[Tensor, ...]], Split] = {}

    def run(self) -> Merged:
        order = sorted(range(len(self.folded.members)), key=self.folded.representative)
        for number in order:
            self.declare(number)
        self.out.light = [False] * len(self.folded.members)
        for number in order:
            self.out.light[number] = self.is_light(number)
        for number in order:
            if not self.out.light[number] and self.name(number) == BROADCAST:
                self.view(number)
        for number in order:
            if not self.out.light[number]:
                self.visit(number)
        self.updates()
        absorb(self.out, self.stored_values())
        return self.out

    def name(self, number: int) -> str:
        return self.graph.names[self.folded.representative(number)]

    def op(self, number: int) -> ir.Operation:
        flow = self.graph.flow
        return flow.operations[self.folded.representative(number) - flow.arguments]

    def declare(self, number: int) -> None:
        """Enter the values of a class."""
        node = self.folded.representative(number)
        flow = self.graph.flow
        if node < flow.arguments:
            block: ir.Block = flow.operations[0].block
            types = [block.arguments[node].type]
        else:
            types = [value.type for value in self.op(number).results]
        for result, type_ in enumerate(types):
            value = (number << RESULT_BITS) | result
            self.out.tensors[value] = tensor = tensor_of(type_)
            self.out.index[value] = self.out.values.new()
            self.out.elements[value] = tuple(self.out.dims.new() for _ in tensor.shape)

    def is_light(self, number: int) -> bool:
        """Whether any device may compute a class's values for itself."""
        node = self.folded.representative(number)
        if self.graph.free[node]:
            return True
        if self.name(number) in HEAVY:
            return False
        count = 1
        while ((number << RESULT_BITS) | (count - 1)) in self.out.tensors:
            shape = self.out.tensors[(number << RESULT_BITS) | (count - 1)].shape
            if any(size > 1 for size in shape):
                break
            count += 1
        else:
            return True
        if node < self.graph.flow.arguments or self.name(number) == REDUCE:
            return False
        sources = [v for counter in self.folded.operands[number] for v in counter]
        return all(self.out.light[v >> RESULT_BITS] for v in sources)

    def view(self, number: int) -> None:
        """Enter a broadcast as a view of its operand, unless it only adds dimensions of one."""
        (counter,) = self.folded.operands[number]
        result = self.out.tensors[number << RESULT_BITS].num_bytes
        if len(counter) > 1 or self.out.tensors[next(iter(counter))].num_bytes == result:
            return
        split = self.split(number)
        (source,) = counter
        where = tuple(
            split.results[0].index(f) if f in split.results[0] else NONE for f in split.operands[0]
        )
        self.out.views[number << RESULT_BITS] = (source, where)

    def split(self, number: int) -> Split:
        node = self.folded.representative(number)
        taken = tuple(self.out.tensors[next(iter(c))] for c in self.folded.operands[number])
        key = (self.graph.flow.signatures[node], taken)
        if key not in self.known:
            self.known[key] = split_of(self.op(number))
        return self.known[key]

    def visit(self, number: int) -> None:
        name = self.name(number)
        if not name or number << RESULT_BITS in self.out.views:
            return
        split = self.split(number)
        whole = name == REDUCE and split.simple and split.complete
        if whole and split.summed:
            self.reduce(number, split)
        elif whole or (
            (name in ELEMENTWISE or name in MOVING or name == BROADCAST) and split.simple
        ):
            self.follow(number, split)
        else:
            self.heavy(number, split)

    def sources(self, number: int, place: int) -> list[tuple[int, int]]:
        """Return the values, with counts, that are read at a place and have a layout."""
        counter = self.folded.operands[number][place]
        return [(v, n) for v, n in counter.items() if not self.out.light[v >> RESULT_BITS]]

    def follow(self, number: int, split: Split) -> None:
        """Unify the operands of an operation with its results."""
        out = self.out
        out.merging.add(number)
        stored = self.graph.stored[self.folded.representative(number)]
        results = [(number << RESULT_BITS) | r for r in range(len(split.results))]
        first: dict[int, int] = {}
        for value, factors in zip(results, split.results, strict=True):
            for factor, element in zip(factors, out.elements[value], strict=True):
                if factor >= 0:
                    out.dims.join(first.setdefault(factor, element), element)
                    if factor in split.fixed:
                        out.fixed.add(element)
        barrier = self.name(number) == "stablehlo.optimization_barrier"
        for place, factors in enumerate(split.operands):
            target = results[place if barrier else 0]
            for value, count in self.sources(number, place):
                from_store = self.is_stored(value)
                if value in out.views or (from_store and not stored):
                    dims = tuple(first.get(f, NONE) for f in factors)
                    self.link_value(value, End(-1, target, dims), count, number, place)
                    continue
                out.values.join(out.index[value], out.index[target])
                for factor, element in zip(factors, out.elements[value], strict=True):
                    if factor in first and factor not in split.fixed:
                        out.dims.join(first[factor], element)
                    elif out.tensors[value].shape[out.elements[value].index(element)] > 1:
                        out.fixed.add(element)

    def is_stored(self, value: int) -> bool:
        return self.graph.stored[self.folded.representative(value >> RESULT_BITS)]

    def link_value(self, value: int, target: End, count: int, reader: int, place: int) -> None:
        """Link a value, or what it is a broadcast of, to its reader."""
        base, where = self.out.base(value)
        if self.out.light[base >> RESULT_BITS]:
            return
        dims = tuple(target.dims[d] if d >= 0 else NONE for d in where)
        source = End(-1, base, self.out.elements[base])
        self.out.links.append(
            Link(
                source, replace(target, dims=dims), self.out.tensors[base], value, frozenset(),
                count, reader, place,
            )
        )  # fmt: skip

    def reduce(self, number: int, split: Split) -> None:
        """Link the operands of a reduction, summed, to its results."""
        out = self.out
        out.merging.add(number)
        for place, factors in enumerate(split.results):
            target = (number << RESULT_BITS) | place
            for value, count in self.sources(number, place):
                self.materialise(value)
                by_factor = dict(zip(split.operands[place], out.elements[value], strict=True))
                kept = tuple(by_factor.get(f, NONE) for f in factors)
                summed = frozenset(by_factor[f] for f in split.summed if f in by_factor)
                out.links.append(
                    Link(
                        End(-1, value, kept), End(-1, target, out.elements[target]),
                        out.tensors[target], target, summed, count, number, place, place,
                    )
                )  # fmt: skip

    def materialise(self, value: int) -> None:
        """Give a broadcast value a layout of its own."""
        if value in self.out.views:
            target = End(-1, value, self.out.elements[value])
            self.link_value(value, target, 1, value >> RESULT_BITS, 0)
            del self.out.views[value]

    def heavy(self, number: int, split: Split) -> None:
        """Link the operands of an operation to it, and it to its results."""
        out = self.out
        out.splits[number] = split
        count = len(self.folded.members[number])
        for place, factors in enumerate(split.operands):
            for value, times in self.sources(number, place):
                self.link_value(value, End(number, -1, factors), times, number, place)
        for result, factors in enumerate(split.results):
            value = (number << RESULT_BITS) | result
            target = End(-1, value, out.elements[value])
            out.links.append(
                Link(
                    End(number, -1, factors), target, out.tensors[value], value, split.summed,
                    count, number, -1, result,
                )
            )  # fmt: skip

    def updates(self) -> None:
        """Link what replaces an argument to the argument's storage."""
        flow, classes = self.graph.flow, self.folded.classes
        counts: dict[tuple[int, int], int] = defaultdict(int)
        for place, argument in self.graph.updates:
            value = flow.returned[place]
            source = (classes[value >> RESULT_BITS] << RESULT_BITS) | (value & RESULT_MASK)
            counts[source, classes[argument] << RESULT_BITS] += 1
        for (source, target), count in counts.items():
            if self.out.light[source >> RESULT_BITS] or self.out.light[target >> RESULT_BITS]:
                continue
            end = End(-1, target, self.out.elements[target])
            self.link_value(source, end, count, target >> RESULT_BITS, -1)

    def stored_values(self) -> set[int]:
        """Return the values that are arguments, or made of one argument."""
        return {value for value in self.out.index if self.is_stored(value)}
