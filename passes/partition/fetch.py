"""Give each device an interval of a sharded dimension: slices, pads, reversals, halos.

Device shard d wants elements [starts[d], starts[d] + length) of the global dimension; what lies
outside the dimension is ``fill``. There are these ways, and the one that moves the fewest elements
is taken:

- shift: every interval is one whole piece of one shard: slice, one collective_permute.
- halo: the edges of the neighbours, concatenated around the own shard; two shards exchange their
  edges in one step::

      %l = collective_permute (slice %x [L-wl:L])      %r = collective_permute (slice %x [0:wr])
      %y = slice (concatenate %l, %x, %r) at starts[d] - d * L + wl

- pieces: each piece of another shard travels on its own, in rounds in which every device sends at
  most one and receives at most one (``pieces.py``).
- gather: an all_gather, of which each device cuts its interval; noted in ``Emitter.gathered`` when
  the interval is no smaller than the dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from pai.dialects.mlir import ir
from pai.passes.partition.cutting import (
    choose,
    cut,
    dynamic_cut,
    entry,
    is_splat,
    join,
    pad_edges,
    zero_of,
)
from pai.passes.partition.emit import Emitter
from pai.passes.partition.layout import Atoms
from pai.passes.partition.pieces import Piece, fetch_pieces, moved_elements, pairs, pieces


def fetch(
    emit: Emitter,
    value: ir.Value,
    dim: int,
    atoms: Atoms,
    size: int,
    starts: Sequence[int],
    length: int,
    fill: ir.Value | None,
    needed: Sequence[int] | None = None,
) -> ir.Value:
    """Return this device's interval.

    Args:
        emit: where to append.
        value: the local shard; ``dim`` is split by ``atoms``.
        dim: the dimension.
        atoms: what splits it.
        size: its global size.
        starts: per shard, where the wanted interval begins; may be negative.
        length: length of the interval, the same for every shard.
        fill: scalar for what lies outside of [0, size); None when it does not matter.
        needed: per shard, how many elements at the front of its interval matter; all by default.
    """
    lengths = tuple(needed or [length] * len(starts))
    return _Fetch(emit, value, dim, atoms, size, tuple(starts), length, fill, lengths).run()


@dataclass(frozen=True)
class _Fetch:
    """One call of `fetch`; the fields are its arguments."""

    emit: Emitter
    value: ir.Value
    dim: int
    atoms: Atoms
    size: int
    starts: tuple[int, ...]
    length: int
    fill: ir.Value | None
    needed: tuple[int, ...]

    @property
    def local(self) -> int:
        """Elements of a shard."""
        return int(self.value.type.shape[self.dim])

    @property
    def shards(self) -> int:
        return len(self.starts)

    def run(self) -> ir.Value:
        """Choose the way that moves least."""
        if self.length == self.local and self.starts == tuple(self.own_starts()):
            if self.fill is None:
                return self.value
            return self.emit.mask_tail(self.value, self.dim, self.size, self.atoms, self.fill)
        wanted = list(self.wanted())
        if self.is_shift(wanted):
            return self.shift(wanted)
        left, right = self.reach()
        ways: list[tuple[int, Callable[[], ir.Value]]] = [
            (max(left, right) if self.exchanges() else left + right, self.halo),
            ((self.shards - 1) * self.local, self.gather),
            (moved_elements(wanted), lambda: self.pieces(wanted)),
        ]
        return min(ways, key=lambda way: way[0])[1]()

    def wanted(self) -> Iterator[Piece]:
        """Yield the pieces that matter."""
        for piece in pieces(self.starts, self.length, self.local, self.size):
            left = self.needed[piece.target] - piece.target_start
            if left > 0:
                yield replace(piece, size=min(piece.size, left))

    def own_starts(self) -> range:
        """Return where each shard's own elements begin."""
        return range(0, self.shards * self.local, self.local)

    def reach(self) -> tuple[int, int]:
        """Return how many elements before and behind its own some shard needs."""
        left = right = 0
        for own, start, length in zip(self.own_starts(), self.starts, self.needed, strict=True):
            low, high = max(start, 0), min(start + length, self.size)
            if low < high:
                left, right = max(left, own - low), max(right, high - own - self.local)
        return left, right

    # The whole interval of every shard is one piece.

    def is_shift(self, wanted: Sequence[Piece]) -> bool:
        sources, targets = {p.source for p in wanted}, {p.target for p in wanted}
        whole = all(p.size == self.needed[p.target] and not p.target_start for p in wanted)
        places = {p.source_start for p in wanted}
        if not whole or len(places) != 1 or places.pop() + self.length > self.local:
            return False
        return len(sources) == len(targets) == len(wanted)

    def shift(self, wanted: Sequence[Piece]) -> ir.Value:
        begin = wanted[0].source_start
        out = cut(self.emit, self.value, self.dim, begin, begin + self.length)
        moved = any(p.source != p.target for p in wanted)
        if moved:
            out = self.emit.collective_permute(out, pairs(self.emit, self.atoms, wanted))
        received = {p.target for p in wanted}
        everyone = all(d in received or not self.needed[d] for d in range(self.shards))
        if self.fill is None or everyone or (moved and is_splat(self.fill, 0)):
            return out
        has = entry(self.emit, [int(d in received) for d in range(self.shards)], self.atoms)
        mask = self.emit.compare(has, "NE", self.emit.scalar(0))
        return choose(self.emit, mask, out, self.fill)

    # The edges of the neighbours around the own shard.

    def halo(self) -> ir.Value:
        left, _ = self.reach()
        parts = self.exchanged() if self.exchanges() else self.hops()
        whole = join(self.emit, parts, self.dim)
        own = self.own_starts()
        places = [start - o + left for start, o in zip(self.starts, own, strict=True)]
        return self.interval(whole, places)

    def hops(self) -> list[ir.Value]:
        """Return, in order, the parts of shards that lie within reach, from near and far."""
        left, right = self.reach()
        local, out = self.local, []
        for hop in range(-math.ceil(left / local), math.ceil(right / local) + 1):
            begin = max(0, -left - hop * local)
            end = min(local, right + local - hop * local)
            part = cut(self.emit, self.value, self.dim, begin, end)
            if hop:
                places = range(max(0, -hop), min(self.shards, self.shards - hop))
                route = [Piece(d + hop, d) for d in places]
                part = self.emit.collective_permute(part, pairs(self.emit, self.atoms, route))
            out.append(self.masked(part, hop * local + begin, zeros=hop != 0))
        return out

    def exchanges(self) -> bool:
        """Whether there are two shards, each of which wants an edge of the other."""
        left, right = self.reach()
        return self.shards == 2 and min(left, right) > 0 and max(left, right) <= self.local

    def exchanged(self) -> list[ir.Value]:
        """Let two shards swap edges; each has what it received on both of its sides."""
        left, right = self.reach()
        width, emit = max(left, right), self.emit
        start = entry(emit, [self.local - width, 0], self.atoms)
        edge = dynamic_cut(emit, self.value, self.dim, start, width)
        route = pairs(emit, self.atoms, [Piece(0, 1), Piece(1, 0)])
        edge = emit.collective_permute(edge, route)
        before = cut(emit, edge, self.dim, width - left, width)
        behind = cut(emit, edge, self.dim, 0, right)
        return [
            self.masked(before, -left, zeros=False),
            self.masked(self.value, 0, zeros=False),
            self.masked(behind, self.local, zeros=False),
        ]

    def masked(self, part: ir.Value, shift: int, *, zeros: bool) -> ir.Value:
        """Put ``fill`` where a part, which begins ``shift`` behind the own, leaves the dimension.

        Elements that no shard wants stay as they are; so does what nobody sent, if it is ``zeros``
        as it should be.
        """
        if self.fill is None:
            return part
        emit, width = self.emit, part.type.shape[self.dim]
        begins = [own + shift for own in self.own_starts()]
        low = high = partial = False
        for begin, start, length in zip(begins, self.starts, self.needed, strict=True):
            seen = range(max(begin, start), min(begin + width, start + length))
            unsent = begin + width <= 0 or begin >= self.shards * self.local
            if not seen or (zeros and unsent and is_splat(self.fill, 0)):
                continue
            low, high = low or seen.start < 0, high or seen.stop > self.size
            partial = partial or begin < 0 < begin + width or begin < self.size < begin + width
        if not low and not high:
            return part
        base = entry(emit, begins, self.atoms)
        if partial:
            sizes = list(part.type.shape)
            positions = emit.positions(sizes, self.dim, ())
            base = emit.binary("add", positions, emit.broadcast(base, sizes, []))
        for wanted, direction, limit in ((low, "GE", 0), (high, "LT", self.size)):
            if wanted:
                mask = emit.compare(base, direction, emit.constant(base.type, limit))
                part = choose(emit, mask, part, self.fill)
        return part

    def interval(self, value: ir.Value, places: Sequence[int]) -> ir.Value:
        """Cut [places[d], +length) out of ``value``; what lies outside of it is ``fill``."""
        size = value.type.shape[self.dim]
        places = [min(max(place, -self.length), size) for place in places]
        low, high = max(0, -min(places)), max(0, max(places) + self.length - size)
        value = pad_edges(self.emit, value, self.dim, low, high, self.fill)
        starts = [place + low for place in places]
        if len(set(starts)) == 1:
            return cut(self.emit, value, self.dim, starts[0], starts[0] + self.length)
        start = entry(self.emit, starts, self.atoms)
        return dynamic_cut(self.emit, value, self.dim, start, self.length)

    # Pieces one by one, or everything everywhere.

    def pieces(self, wanted: Sequence[Piece]) -> ir.Value:
        fill = zero_of(self.emit, self.value) if self.fill is None else self.fill
        return fetch_pieces(self.emit, self.value, self.dim, self.atoms, wanted, self.length, fill)

    def gather(self) -> ir.Value:
        whole = self.emit.all_gather(self.value, self.dim, self.atoms)
        if self.length >= self.size:
            self.emit.gathered.append((self.value.type, whole.type))
        return self.interval(self.emit.cut_end(whole, self.dim, self.size), self.starts)
