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
from collections.abc import Sequence
from dataclasses import dataclass

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
from pai.passes.partition.intervals import Intervals
from pai.passes.partition.layout import Atoms
from pai.passes.partition.pieces import Piece, fetch_pieces, pairs


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
    local = int(value.type.shape[dim])
    lengths = tuple(needed or [length] * len(starts))
    want = Intervals(local, size, tuple(starts), length, lengths)
    return _Fetch(emit, value, dim, atoms, want, fill).run()


@dataclass(frozen=True)
class _Fetch:
    """One call of `fetch`; the fields are its arguments."""

    emit: Emitter
    value: ir.Value
    dim: int
    atoms: Atoms
    want: Intervals
    fill: ir.Value | None

    def run(self) -> ir.Value:
        """Choose the way that moves least."""
        if self.want.are_own():
            if self.fill is None:
                return self.value
            size = self.want.size
            return self.emit.mask_tail(self.value, self.dim, size, self.atoms, self.fill)
        if self.want.is_shift():
            return self.shift()
        ways = {"halo": self.halo, "gather": self.gather, "pieces": self.pieces}
        return ways[min(self.want.ways(), key=lambda way: way[0])[1]]()

    # The whole interval of every shard is one piece.

    def shift(self) -> ir.Value:
        wanted = self.want.wanted()
        begin = wanted[0].source_start
        out = cut(self.emit, self.value, self.dim, begin, begin + self.want.length)
        moved = any(p.source != p.target for p in wanted)
        if moved:
            out = self.emit.collective_permute(out, pairs(self.emit, self.atoms, wanted))
        received = {p.target for p in wanted}
        shards, needed = self.want.shards, self.want.needed
        everyone = all(d in received or not needed[d] for d in range(shards))
        if self.fill is None or everyone or (moved and is_splat(self.fill, 0)):
            return out
        has = entry(self.emit, [int(d in received) for d in range(shards)], self.atoms)
        mask = self.emit.compare(has, "NE", self.emit.scalar(0))
        return choose(self.emit, mask, out, self.fill)

    # The edges of the neighbours around the own shard.

    def halo(self) -> ir.Value:
        left, _ = self.want.reach()
        parts = self.exchanged() if self.want.exchanges() else self.hops()
        whole = join(self.emit, parts, self.dim)
        own = self.want.own_starts()
        places = [start - o + left for start, o in zip(self.want.starts, own, strict=True)]
        return self.interval(whole, places)

    def hops(self) -> list[ir.Value]:
        """Return, in order, the parts of shards that lie within reach, from near and far."""
        left, right = self.want.reach()
        local, out = self.want.local, []
        for hop in range(-math.ceil(left / local), math.ceil(right / local) + 1):
            begin = max(0, -left - hop * local)
            end = min(local, right + local - hop * local)
            part = cut(self.emit, self.value, self.dim, begin, end)
            if hop:
                places = range(max(0, -hop), min(self.want.shards, self.want.shards - hop))
                route = [Piece(d + hop, d) for d in places]
                part = self.emit.collective_permute(part, pairs(self.emit, self.atoms, route))
            out.append(self.masked(part, hop * local + begin, zeros=hop != 0))
        return out

    def exchanged(self) -> list[ir.Value]:
        """Let two shards swap edges; each has what it received on both of its sides."""
        left, right = self.want.reach()
        width, emit = max(left, right), self.emit
        start = entry(emit, [self.want.local - width, 0], self.atoms)
        edge = dynamic_cut(emit, self.value, self.dim, start, width)
        route = pairs(emit, self.atoms, [Piece(0, 1), Piece(1, 0)])
        edge = emit.collective_permute(edge, route)
        before = cut(emit, edge, self.dim, width - left, width)
        behind = cut(emit, edge, self.dim, 0, right)
        return [
            self.masked(before, -left, zeros=False),
            self.masked(self.value, 0, zeros=False),
            self.masked(behind, self.want.local, zeros=False),
        ]

    def masked(self, part: ir.Value, shift: int, *, zeros: bool) -> ir.Value:
        """Put ``fill`` where a part, which begins ``shift`` behind the own, leaves the dimension.

        Elements that no shard wants stay as they are; so does what nobody sent, if it is ``zeros``
        as it should be.
        """
        if self.fill is None:
            return part
        emit, width = self.emit, part.type.shape[self.dim]
        begins = [own + shift for own in self.want.own_starts()]
        low = high = partial = False
        for begin, start, length in zip(begins, self.want.starts, self.want.needed, strict=True):
            seen = range(max(begin, start), min(begin + width, start + length))
            unsent = begin + width <= 0 or begin >= self.want.shards * self.want.local
            if not seen or (zeros and unsent and is_splat(self.fill, 0)):
                continue
            low, high = low or seen.start < 0, high or seen.stop > self.want.size
            partial = partial or begin < 0 < begin + width or begin < self.want.size < begin + width
        if not low and not high:
            return part
        base = entry(emit, begins, self.atoms)
        if partial:
            sizes = list(part.type.shape)
            positions = emit.positions(sizes, self.dim, ())
            base = emit.binary("add", positions, emit.broadcast(base, sizes, []))
        for wanted, direction, limit in ((low, "GE", 0), (high, "LT", self.want.size)):
            if wanted:
                mask = emit.compare(base, direction, emit.constant(base.type, limit))
                part = choose(emit, mask, part, self.fill)
        return part

    def interval(self, value: ir.Value, places: Sequence[int]) -> ir.Value:
        """Cut [places[d], +length) out of ``value``; what lies outside of it is ``fill``."""
        size = value.type.shape[self.dim]
        places = [min(max(place, -self.want.length), size) for place in places]
        low, high = max(0, -min(places)), max(0, max(places) + self.want.length - size)
        value = pad_edges(self.emit, value, self.dim, low, high, self.fill)
        starts = [place + low for place in places]
        if len(set(starts)) == 1:
            return cut(self.emit, value, self.dim, starts[0], starts[0] + self.want.length)
        start = entry(self.emit, starts, self.atoms)
        return dynamic_cut(self.emit, value, self.dim, start, self.want.length)

    # Pieces one by one, or everything everywhere.

    def pieces(self) -> ir.Value:
        fill = zero_of(self.emit, self.value) if self.fill is None else self.fill
        wanted, length = self.want.wanted(), self.want.length
        return fetch_pieces(self.emit, self.value, self.dim, self.atoms, wanted, length, fill)

    def gather(self) -> ir.Value:
        whole = self.emit.all_gather(self.value, self.dim, self.atoms)
        if self.want.length >= self.want.size:
            self.emit.gathered.append((self.value.type, whole.type))
        return self.interval(self.emit.cut_end(whole, self.dim, self.want.size), self.want.starts)
