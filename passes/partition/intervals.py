"""Which elements of a split dimension each shard wants, and how many travel for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pai.passes.partition.pieces import Piece, moved_elements, pieces


@dataclass(frozen=True)
class Intervals:
    """Shard d wants elements [starts[d], starts[d] + length) of a dimension.

    Args:
        local: elements of a shard.
        size: elements of the dimension; the last shards may hold padding.
        starts: per shard, where its interval begins; may be negative.
        length: length of every interval.
        needed: per shard, how many elements at the front of its interval matter.
    """

    local: int
    size: int
    starts: tuple[int, ...]
    length: int
    needed: tuple[int, ...]

    @property
    def shards(self) -> int:
        """The number of shards."""
        return len(self.starts)

    def wanted(self) -> list[Piece]:
        """Return the pieces that matter."""
        return list(self._wanted())

    def _wanted(self) -> Iterator[Piece]:
        for piece in pieces(self.starts, self.length, self.local, self.size):
            left = self.needed[piece.target] - piece.target_start
            if left > 0:
                yield replace(piece, size=min(piece.size, left))

    def own_starts(self) -> range:
        """Return where each shard's own elements begin."""
        return range(0, self.shards * self.local, self.local)

    def are_own(self) -> bool:
        """Whether every shard wants just what it has."""
        return self.length == self.local and self.starts == tuple(self.own_starts())

    def reach(self) -> tuple[int, int]:
        """Return how many elements before and behind its own some shard needs."""
        left = right = 0
        for own, start, length in zip(self.own_starts(), self.starts, self.needed, strict=True):
            low, high = max(start, 0), min(start + length, self.size)
            if low < high:
                left, right = max(left, own - low), max(right, high - own - self.local)
        return left, right

    def exchanges(self) -> bool:
        """Whether there are two shards, each of which wants an edge of the other."""
        left, right = self.reach()
        return self.shards == 2 and min(left, right) > 0 and max(left, right) <= self.local

    def is_shift(self) -> bool:
        """Whether the whole interval of every shard is one piece."""
        wanted = self.wanted()
        sources, targets = {p.source for p in wanted}, {p.target for p in wanted}
        whole = all(p.size == self.needed[p.target] and not p.target_start for p in wanted)
        places = {p.source_start for p in wanted}
        if not whole or len(places) != 1 or places.pop() + self.length > self.local:
            return False
        return len(sources) == len(targets) == len(wanted)

    def ways(self) -> list[tuple[int, str]]:
        """Return the ways to fetch them with the elements a device receives."""
        left, right = self.reach()
        return [
            (max(left, right) if self.exchanges() else left + right, "halo"),
            ((self.shards - 1) * self.local, "gather"),
            (moved_elements(self.wanted()), "pieces"),
        ]

    def moved(self) -> int:
        """Return the elements a device receives in the way that moves least."""
        if self.are_own():
            return 0
        return self.length if self.is_shift() else min(way[0] for way in self.ways())
