"""Give each device an interval of a sharded dimension: slices, pads, reversals, halos.

Device shard d wants elements [starts[d], starts[d] + length) of the global dimension; what lies
outside the dimension is ``fill``. There are four ways, and the one that moves the fewest elements
is taken:

- shift: every interval is one whole piece of one shard: slice, one collective_permute.
- halo: the edges of the neighbours, concatenated around the own shard::

      %l = collective_permute (slice %x [L-wl:L])      %r = collective_permute (slice %x [0:wr])
      %y = slice (concatenate %l, %x, %r) at starts[d] - d * L + wl

- pieces: each piece of another shard travels on its own, in rounds in which every device sends at
  most one and receives at most one (``pieces.py``).
- gather: an all_gather, of which each device cuts its interval; counted in ``Emitter.gathered`` when
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
from pai.passes.partition.layout import Atoms
from pai.passes.partition.pieces import Piece, fetch_pieces, pairs, pieces, rounds


@dataclass(frozen=True)
class Wish:
    """The intervals [starts[d], +length) of a dimension of ``size``, in shards of ``local``."""

    size: int
    local: int
    starts: tuple[int, ...]
    length: int

    @property
    def unmoved(self) -> bool:
        """Whether every shard wants exactly what it holds."""
        own = (d * self.local for d in range(len(self.starts)))
        return self.length == self.local and self.starts == tuple(own)

    def reach(self) -> tuple[int, int]:
        """Return how many elements before and behind its own some shard needs."""
        left = right = 0
        for d, start in enumerate(self.starts):
            low, high = max(start, 0), min(start + self.length, self.size)
            if low < high:
                left = max(left, d * self.local - low)
                right = max(right, high - (d + 1) * self.local)
        return left, right


def fetch(
    emit: Emitter,
    value: ir.Value,
    dim: int,
    atoms: Atoms,
    size: int,
    starts: Sequence[int],
    length: int,
    fill: ir.Value | None,
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
    """
    wish = Wish(size, value.type.shape[dim], tuple(starts), length)
    wanted = pieces(wish.starts, length, wish.local, size)
    if wish.unmoved:
        covered = fill is None or len(starts) * wish.local == size
        return value if covered else emit.mask_tail(value, dim, size, atoms, fill)
    if _is_shift(wish, wanted):
        return _shift(emit, value, dim, atoms, wish, wanted, fill)
    moves = [group for group in rounds(wanted) if group[0].source != group[0].target]
    costs = {
        _halo: sum(wish.reach()),
        _gather: (len(starts) - 1) * wish.local,
        fetch_pieces: sum(max(p.size for p in group) for group in moves),
    }
    cheapest = min(costs, key=lambda form: costs[form])
    if cheapest is fetch_pieces:
        zero = fill if fill is not None else zero_of(emit, value)
        return fetch_pieces(emit, value, dim, atoms, wanted, length, zero)
    form = _halo if cheapest is _halo else _gather
    return form(emit, value, dim, atoms, wish, fill)


# The whole interval of every shard is one piece.


def _is_shift(wish: Wish, wanted: Sequence[Piece]) -> bool:
    sources, targets = {p.source for p in wanted}, {p.target for p in wanted}
    whole = all(p.size == wish.length and not p.target_start for p in wanted)
    place = {p.source_start for p in wanted}
    return whole and len(place) == 1 and len(sources) == len(targets) == len(wanted)


def _shift(
    emit: Emitter,
    value: ir.Value,
    dim: int,
    atoms: Atoms,
    wish: Wish,
    wanted: Sequence[Piece],
    fill: ir.Value | None,
) -> ir.Value:
    begin = wanted[0].source_start
    out = cut(emit, value, dim, begin, begin + wish.length)
    if any(p.source != p.target for p in wanted):
        out = emit.collective_permute(out, pairs(emit, atoms, wanted))
    elif len(wanted) == len(wish.starts) or fill is None:
        return out
    received = {p.target for p in wanted}
    if fill is None or len(received) == len(wish.starts):
        return out
    has = [int(d in received) for d in range(len(wish.starts))]
    return choose(emit, emit.compare(entry(emit, has, atoms), "NE", emit.scalar(0)), out, fill)


# The edges of the neighbours around the own shard.


def _halo(
    emit: Emitter,
    value: ir.Value,
    dim: int,
    atoms: Atoms,
    wish: Wish,
    fill: ir.Value | None,
) -> ir.Value:
    left, right = wish.reach()
    local, count = wish.local, len(wish.starts)
    parts = []
    for hop in range(-math.ceil(left / local), math.ceil(right / local) + 1):
        begin = max(0, -left - hop * local)
        end = min(local, right + local - hop * local)
        part = cut(emit, value, dim, begin, end)
        if hop:
            route = [Piece(d + hop, d) for d in range(count) if 0 <= d + hop < count]
            part = emit.collective_permute(part, pairs(emit, atoms, route))
        part = _masked(emit, part, dim, atoms, wish, hop * local + begin, fill, received=hop != 0)
        parts.append(part)
    whole = join(emit, parts, dim)
    places = [start - d * local + left for d, start in enumerate(wish.starts)]
    return _interval(emit, whole, dim, atoms, places, wish.length, fill)


def _masked(
    emit: Emitter,
    part: ir.Value,
    dim: int,
    atoms: Atoms,
    wish: Wish,
    shift: int,
    fill: ir.Value | None,
    *,
    received: bool,
) -> ir.Value:
    """Put ``fill`` where a part, which begins at d * local + ``shift``, leaves the dimension.

    Devices without a neighbour have received zeros. Elements that no shard wants stay as they are.
    """
    if fill is None:
        return part
    width, local = part.type.shape[dim], wish.local
    begins = [d * local + shift for d in range(len(wish.starts))]
    low = high = partial = False
    for begin, start in zip(begins, wish.starts, strict=True):
        seen = range(max(begin, start), min(begin + width, start + wish.length))
        outside = begin + width <= 0 or begin >= len(begins) * local
        if not seen or (received and outside and is_splat(fill, 0)):
            continue
        low, high = low or seen.start < 0, high or seen.stop > wish.size
        partial = partial or begin < 0 < begin + width or begin < wish.size < begin + width
    if not low and not high:
        return part
    base = entry(emit, begins, atoms)
    if partial:
        sizes = list(part.type.shape)
        positions = emit.positions(sizes, dim, ())
        base = emit.binary("add", positions, emit.broadcast(base, sizes, []))
    if low:
        part = choose(emit, emit.compare(base, "GE", emit.constant(base.type, 0)), part, fill)
    if high:
        limit = emit.constant(base.type, wish.size)
        part = choose(emit, emit.compare(base, "LT", limit), part, fill)
    return part


def _interval(
    emit: Emitter,
    value: ir.Value,
    dim: int,
    atoms: Atoms,
    places: Sequence[int],
    length: int,
    fill: ir.Value | None,
) -> ir.Value:
    """Cut [places[d], +length) out of ``value``; what lies outside of it is ``fill``."""
    size = value.type.shape[dim]
    places = [min(max(place, -length), size) for place in places]
    low = max(0, -min(places))
    high = max(0, max(places) + length - size)
    value = pad_edges(emit, value, dim, low, high, fill)
    starts = [place + low for place in places]
    if len(set(starts)) == 1:
        return cut(emit, value, dim, starts[0], starts[0] + length)
    return dynamic_cut(emit, value, dim, entry(emit, starts, atoms), length)


# Everything everywhere.


def _gather(
    emit: Emitter,
    value: ir.Value,
    dim: int,
    atoms: Atoms,
    wish: Wish,
    fill: ir.Value | None,
) -> ir.Value:
    whole = emit.all_gather(value, dim, atoms)
    if wish.length >= wish.size:
        emit.gathered.append((value.type, whole.type))
    whole = emit.cut_end(whole, dim, wish.size)
    return _interval(emit, whole, dim, atoms, wish.starts, wish.length, fill)
