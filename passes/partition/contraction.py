"""Whether to add up partial products over devices, or to bring the factors together first.

A contraction split along what it sums leaves a partial result on each device, and an all_reduce
of it. Where the result is much larger than the operands, as the input's gradient of a projection
to few channels is, gathering the operands sends fewer bytes; every device then computes what the
others compute too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pai.dialects.mlir import ir
from pai.dialects.types import dtype_name
from pai.passes.partition.layout import Atoms, Grid, Layout, used
from pai.passes.partition.rule import Rule, layout_of
from pai.runtime.dtypes import itemsize

FLOPS_PER_BYTE = 32
"""Operations that take as long as sending a byte: about 10 on CPUs and over 1,000 on GPUs with
fast links, so that work is repeated only where sending clearly costs more on either."""

Distance = Callable[[ir.Value, Layout, Layout], float]


@dataclass(frozen=True)
class Contraction:
    """One operation that sums products, and the layouts around it.

    Args:
        rule: its factors.
        operands: its operands on global shapes.
        result: its result.
        have: how each operand is laid out.
        wanted: how the result is to be laid out.
        multiplications: of the whole operation.
    """

    rule: Rule
    operands: Sequence[ir.Value]
    result: ir.Value
    have: Sequence[Layout]
    wanted: Layout
    multiplications: int

    def cheapest(self, axes: Sequence[Atoms], grid: Grid, distance: Distance) -> list[Atoms]:
        """Return ``axes`` without the contracted factors that are better gathered.

        Args:
            axes: the atoms of each factor, as the operands and the result suggest.
            grid: the devices.
            distance: bytes a device sends to bring a value from one layout to another.
        """
        best = list(axes)
        for factor in self.contracted():
            if best[factor]:
                gathered = [() if f == factor else atoms for f, atoms in enumerate(best)]
                if self.cost(gathered, grid, distance) < self.cost(best, grid, distance):
                    best = gathered
        return best

    def contracted(self) -> list[int]:
        """Return the factors of operands that the result lacks."""
        kept = {f for dims in self.rule.results[0] for f in dims}
        inputs = {f for operand in self.rule.operands for dims in operand for f in dims}
        return sorted(inputs - kept)

    def cost(self, axes: Sequence[Atoms], grid: Grid, distance: Distance) -> float:
        """Return the bytes that a device sends, and its operations as bytes."""
        total = 0.0
        for value, dims, have in zip(self.operands, self.rule.operands, self.have, strict=True):
            total += distance(value, have, layout_of(dims, axes))
        out = layout_of(self.rule.results[0], axes)
        summed = tuple(atom for factor in self.contracted() for atom in axes[factor])
        total += self._summing(summed, out, grid)
        if summed and set(summed) <= used(self.wanted):
            out = self.wanted  # a reduce_scatter leads there
        total += distance(self.result, out, self.wanted)
        shards = math.prod(grid.count(atoms) for atoms in axes)
        return total + 2 * self.multiplications / shards / FLOPS_PER_BYTE

    def _summing(self, atoms: Atoms, out: Layout, grid: Grid) -> float:
        """Return the bytes of the all_reduce, or of the reduce_scatter when that is enough."""
        count = grid.count(atoms)
        width = itemsize(dtype_name(self.result.type))
        size = width * math.prod(grid.local_shape(self.result.type.shape, out))
        passes = 1 if set(atoms) <= used(self.wanted) else 2
        return passes * size * (count - 1) / count


_MOVES = ("stablehlo.reshape", "stablehlo.transpose", "sdy.reshard", "sdy.all_reduce")


def accumulates(op: ir.Operation) -> bool:
    """Whether a loop adds up the results of ``op``: then they are reduced once, behind the loop."""
    value = op.results[0]
    while True:
        uses = list(value.uses)
        if len(uses) != 1:
            return False
        user = uses[0].owner.operation
        if user.name == "stablehlo.add":
            others = [term for term in user.operands if term != value]
            return len(others) == 1 and _is_carried(others[0])
        if user.name not in _MOVES:
            return False
        value = user.results[0]


def _is_carried(value: ir.Value) -> bool:
    owner = value.owner
    return isinstance(owner, ir.Block) and owner.owner.operation.name == "stablehlo.while"
