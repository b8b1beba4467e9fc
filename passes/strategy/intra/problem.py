"""The search as plain data: nodes that choose a factor for each mesh axis, edges that reshard.

A *state* of a node gives, per mesh axis, the factor that the axis splits, or NONE. A tensor's
*spec* gives, per mesh axis, the dimension that the axis splits, NONE, or PARTIAL where devices
along the axis hold addends. Both ends of an edge project their state onto the edge's tensor; the
edge costs what it takes to get from one spec to the other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pai.passes.strategy.intra.prices import Prices

NONE, PARTIAL = -1, -2
State = tuple[int, ...]
Spec = tuple[int, ...]
UNEVEN = 8
"""A dimension that an axis does not divide may be split when shards have this many elements."""


@dataclass(frozen=True)
class Product:
    """A matrix product of a node.

    Args:
        rows: factors of the result and the left operand.
        columns: factors of the result and the right operand.
        sums: factors that are summed over.
        batch: factors of all three.
        dtype: of the operands.
        count: how many.
        phase: the part of the step.
        extra: elements summed that are no factor, as a small window.
        fused: whether it is part of fused attention.
        causal: whether half of a fused product is skipped.
        origin: class of the operation (``fold.py``).
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    sums: tuple[int, ...]
    batch: tuple[int, ...]
    dtype: str
    count: int
    phase: str
    extra: int = 1
    fused: bool = False
    causal: bool = False
    origin: int = -1

    def local(self, sizes: Sequence[int]) -> tuple[int, int, int, int]:
        """Return rows, columns, sums and batch of one device, given its sizes of factors."""
        m, n, k, batch = (
            math.prod(sizes[f] for f in factors)
            for factors in (self.rows, self.columns, self.sums, self.batch)
        )
        return m, n, k * self.extra, batch

    def seconds(self, sizes: Sequence[int], prices: Prices) -> float:
        """Return the time of one, given a device's sizes of factors."""
        m, n, k, batch = self.local(sizes)
        if self.fused:
            flops = 2.0 * m * n * k * batch * (0.5 if self.causal else 1.0)
            return prices.fused(flops, self.dtype, backward=self.phase != "forward")
        return prices.product(m, n, k, batch, self.dtype)


@dataclass(frozen=True)
class Traffic:
    """Bytes that kernels of a node read or write: a tensor whose dimensions have ``factors``.

    ``origin`` is the class of the operation (``fold.py``).
    """

    num_bytes: float
    factors: tuple[int, ...]
    count: int
    phase: str
    origin: int = -1


@dataclass
class Node:
    """Something that chooses how it is split: a heavy operation, or values that are laid out alike.

    Args:
        name: for messages.
        sizes: of its factors.
        fixed: factors that must not be split.
        even: factors that axes have to divide.
        products: its matrix products.
        traffic: its bytes.
        barred: per axis, factors that it must not split, and NONE where it has to split one; ()
            bars nothing.
    """

    name: str
    sizes: list[int]
    fixed: set[int] = field(default_factory=set)
    even: set[int] = field(default_factory=set)
    products: list[Product] = field(default_factory=list)
    traffic: list[Traffic] = field(default_factory=list)
    barred: tuple[frozenset[int], ...] = ()

    def shards(self, state: State, axes: tuple[int, ...]) -> list[int]:
        """Return the number of parts of each factor."""
        out = [1] * len(self.sizes)
        for factor, size in zip(state, axes, strict=True):
            if factor >= 0:
                out[factor] *= size
        return out

    def allows(self, state: State, axes: tuple[int, ...]) -> bool:
        """Whether the factors can be split so."""
        if any(factor in barred for factor, barred in zip(state, self.barred, strict=False)):
            return False
        for factor, parts in enumerate(self.shards(state, axes)):
            size = self.sizes[factor]
            if parts > 1 and (
                factor in self.fixed
                or (size % parts and (factor in self.even or size < UNEVEN * parts))
            ):
                return False
        return True

    def start(self, axes: tuple[int, ...]) -> State:
        """Return a state that is allowed, NONE where it can be."""
        whole = (NONE,) * len(axes)
        return whole if self.allows(whole, axes) else next(self.states(axes))

    def states(self, axes: tuple[int, ...]) -> Iterator[State]:
        """Yield every state, NONE first."""
        choices = [NONE, *(f for f in range(len(self.sizes)) if f not in self.fixed)]
        for state in itertools.product(choices, repeat=len(axes)):
            if self.allows(state, axes):
                yield state

    def seconds(self, state: State, prices: Prices) -> float:
        """Return the time of its kernels in a state."""
        parts = self.shards(state, prices.sizes)
        local = [math.ceil(size / n) for size, n in zip(self.sizes, parts, strict=True)]
        total = 0.0
        for product in self.products:
            total += product.count * product.seconds(local, prices)
        for traffic in self.traffic:
            share = math.prod(parts[f] for f in traffic.factors)
            total += traffic.count * prices.stream(traffic.num_bytes / share)
        return total


@dataclass(frozen=True)
class Edge:
    """A tensor that one node lays out and another reads.

    Args:
        source: node that lays it out.
        target: node that reads it.
        shape: of the tensor.
        itemsize: bytes of an element.
        source_dims: per dimension, the source's factor, or NONE.
        target_dims: per dimension, the target's factor, or NONE.
        partial: the source's factors over which devices hold addends.
        count: how many such tensors.
        phase: of the reader.
        hidden: whether compute of the same phase may hide the collectives.
        group: edges of one group carry the same tensor; what they need alike is moved once.
        once: axis along which a gradient is completed once a step and not in each microbatch.
    """

    source: int
    target: int
    shape: tuple[int, ...]
    itemsize: int
    source_dims: tuple[int, ...]
    target_dims: tuple[int, ...]
    partial: frozenset[int] = frozenset()
    count: int = 1
    phase: str = "forward"
    hidden: bool = False
    group: int = -1
    once: int = NONE

    def source_spec(self, state: State) -> Spec:
        """Return how the source lays the tensor out."""
        return tuple(PARTIAL if f in self.partial else _dim(self.source_dims, f) for f in state)

    def target_spec(self, state: State) -> Spec:
        """Return how the target reads the tensor."""
        return tuple(_dim(self.target_dims, f) for f in state)


def _dim(dims: tuple[int, ...], factor: int) -> int:
    return dims.index(factor) if factor >= 0 and factor in dims else NONE


def without(axis: int, source: Spec, target: Spec) -> Spec:
    """Return a source's spec with an axis as the target has it, where the target is whole."""
    if axis < 0 or target[axis] >= 0:
        return source
    return (*source[:axis], target[axis], *source[axis + 1 :])


@dataclass(frozen=True)
class Held:
    """Bytes that a node's state decides, held at a point of the program."""

    node: int
    num_bytes: float
    factors: tuple[int, ...]

    def bytes(self, node: Node, state: State, axes: tuple[int, ...]) -> float:
        """Return the bytes of one device."""
        parts = node.shards(state, axes)
        return self.num_bytes / math.prod(parts[f] for f in self.factors)


@dataclass
class Problem:
    """Nodes, edges, and what is in memory at points of the program.

    Args:
        nodes: what chooses.
        edges: what it costs to choose differently.
        memory: per point, what is held then.
        fixed_bytes: bytes of one device that no choice changes.
        limit: bytes of one device.
        stored: what is held all the time; where nothing else decides, in shards.
    """

    nodes: list[Node]
    edges: list[Edge]
    memory: dict[str, list[Held]] = field(default_factory=dict)
    fixed_bytes: float = 0.0
    limit: float = math.inf
    stored: list[Held] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """One collective: the larger side's bytes of one device, and the numbers of its axes."""

    kind: str
    num_bytes: float
    axes: tuple[int, ...]


def steps(edge: Edge, source: Spec, target: Spec, axes: tuple[int, ...]) -> list[Step]:
    """Return the collectives that bring a tensor from one spec to another.

    Slices come first, for they are free and leave less to move; then sums, each scattered where
    the target splits a dimension over its axis; then all_to_alls, then gathers.
    """
    if source == target:
        return []
    spec, out = list(source), []

    def local() -> float:
        parts = [1] * len(edge.shape)
        for axis, dim in enumerate(spec):
            if dim >= 0:
                parts[dim] *= axes[axis]
        return edge.itemsize * math.prod(
            math.ceil(size / n) for size, n in zip(edge.shape, parts, strict=True)
        )

    def move(kind: str, moved: list[int]) -> None:
        if moved:
            before = local()
            for axis in moved:
                spec[axis] = target[axis]
            out.append(Step(kind, max(before, local()), tuple(moved)))

    where = range(len(axes))
    for axis in where:
        if source[axis] == NONE and target[axis] >= 0:
            spec[axis] = target[axis]
    move("reduce_scatter", [a for a in where if source[a] == PARTIAL and target[a] >= 0])
    move("all_reduce", [a for a in where if source[a] == PARTIAL and target[a] == NONE])
    for axis in where:
        if source[axis] >= 0 and target[axis] >= 0 and source[axis] != target[axis]:
            move("all_to_all", [axis])
    for dim in sorted({source[a] for a in where if source[a] >= 0 and target[a] == NONE}):
        move("all_gather", [a for a in where if source[a] == dim and target[a] == NONE])
    return out
