"""What localizing finds out besides the module, and the bytes that are held beyond the shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pai.dialects.mlir import ir
from pai.dialects.types import dtype_name, num_elements
from pai.passes.partition.layout import Grid, Layout
from pai.passes.partition.report import Replication
from pai.passes.rewrite import where
from pai.runtime.dtypes import itemsize
from pai.runtime.errors import InvalidSharding
from pai.runtime.mesh import Mesh, Sharding


@dataclass
class Localized:
    """What localizing a module found out."""

    mesh: Mesh
    arguments: tuple[Sharding, ...] = ()
    results: tuple[Sharding, ...] = ()
    replicated: list[Replication] = field(default_factory=list)
    uneven_arguments: list[tuple[int, int, int, int]] = field(default_factory=list)
    uneven_results: list[tuple[int, int, int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Accounts:
    """Keeps the books of what has to be gathered because an operation has no sharded form.

    Args:
        grid: the devices.
        out: where replications are recorded.
        strict: refuse them instead.
    """

    grid: Grid
    out: Localized
    strict: bool

    def account(
        self,
        op: ir.Operation,
        operands: Sequence[ir.Value],
        have: Sequence[Layout],
        need: Sequence[Layout],
    ) -> None:
        """Record operands of which a device needs more than its shard."""
        extra = self.extra(operands, have, need)
        if extra:
            self.replicate(op, extra)

    def extra(
        self, operands: Sequence[ir.Value], have: Sequence[Layout], need: Sequence[Layout]
    ) -> int:
        """Return the bytes a device needs beyond its shards."""
        return sum(
            max(0, self._bytes(value, after) - self._bytes(value, before))
            for value, before, after in zip(operands, have, need, strict=True)
            if before != after
        )

    def fetched(self, op: ir.Operation, gathered: list[tuple[ir.Type, ir.Type]]) -> None:
        """Record what the building of ``op`` gathered for want of a cheaper way."""
        if not gathered:
            return
        extra = sum(
            num_elements(kind) * itemsize(dtype_name(kind)) * sign
            for types in gathered
            for kind, sign in zip(types, (-1, 1), strict=True)
        )
        gathered.clear()
        self.replicate(op, extra)

    def replicate(self, op: ir.Operation, extra: int) -> None:
        """Record bytes beyond the shards that ``op`` needs; refuse them in strict mode."""
        if self.strict:
            raise InvalidSharding(
                f"{op.name} has no sharded form for the way its operands are split",
                where(op),
                "leave that dimension whole, or allow replication",
            )
        self.out.replicated.append(Replication(op.name, where(op), extra))

    def _bytes(self, value: ir.Value, layout: Layout) -> int:
        size = itemsize(dtype_name(value.type))
        for dim in self.grid.local_shape(value.type.shape, layout):
            size *= dim
        return size
