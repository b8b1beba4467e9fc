"""A product as groups of dimensions, and how its result is cut."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import prod

from pai.compiler.codegen.cpu.emit.builder import Builder, Index


@dataclass(frozen=True)
class Group:
    """Dimensions that act as one: extents and strides in elements, outermost first."""

    extents: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of index values."""
        return prod(self.extents)

    @property
    def stride(self) -> int | None:
        """The one stride of the whole group, or None when there is none."""
        kept = [(e, s) for e, s in zip(self.extents, self.strides, strict=True) if e != 1]
        for (_, outer), (extent, inner) in itertools.pairwise(kept):
            if outer != extent * inner:
                return None
        return kept[-1][1] if kept else 1

    def offset(self, b: Builder, index: Index) -> Index:
        """Return the distance of an index from the group's start, in elements."""
        stride = self.stride
        if stride is not None:
            return b.mul(index, stride)
        total: Index = 0
        for i, s in zip(b.delinear(index, self.extents), self.strides, strict=True):
            total = b.add(total, b.mul(i, s))
        return total


@dataclass(frozen=True)
class Problem:
    """A product as groups: A is addressed by (batch, m, k), B by (batch, k, n).

    C is addressed by ``batch_c``, then rows of ``row_c`` elements; None: it is dense.
    """

    batch_a: Group
    batch_b: Group
    m: Group
    n: Group
    k_a: Group
    k_b: Group
    batch_c: Group | None = None
    row_c: int | None = None

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Batch, m, n, k."""
        return self.batch_a.size, self.m.size, self.n.size, self.k_a.size


@dataclass(frozen=True)
class Blocks:
    """How C is cut.

    Args:
        tile_rows: rows of a tile.
        panel: columns of a panel.
        rows: rows of a part.
        panels: panels of a part.
        k: values of k that are summed in registers at a time.
    """

    tile_rows: int
    panel: int
    rows: int
    panels: int
    k: int
