"""pai-combine-collectives: neighbouring collectives over the same groups become one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from pai.dialects.mlir import ir
from pai.passes.base import Pass
from pai.passes.partition.collectives.common import (
    ALL_GATHER,
    ALL_REDUCE,
    KINDS,
    body_kind,
    bytes_of,
    like,
    operations,
)
from pai.passes.partition.emit import channel
from pai.passes.rewrite import collect


@dataclass(frozen=True)
class CombineCollectives(Pass):
    """Combine all_reduces, and all_gathers, that can stand at the same place; number all.

    All_reduces have to share groups, body and element type; all_gathers groups and dimension.
    All_gathers are combined only when nothing that computes stands between them, so that no
    gathered value lives longer than before. Last, every collective gets a channel of its own.

    Before::

        %2 = all_reduce(%0)
        %3 = all_reduce(%1)

    After::

        %2:2 = all_reduce(%0, %1)

    Args:
        combine_bytes: largest sum of bytes of a combined collective; 0 combines nothing.
    """

    name: ClassVar[str] = "pai-combine-collectives"
    combine_bytes: int = 32 << 20

    def run(self, module: ir.Module) -> None:
        """Rewrite ``module`` in place."""
        with module.context, ir.Location.unknown():
            if self.combine_bytes:
                by_block: dict[ir.Block, list[ir.Operation]] = {}
                for op in collect(module, ALL_REDUCE, ALL_GATHER):
                    by_block.setdefault(op.block, []).append(op)
                for block, found in by_block.items():
                    _combine(block, found, self.combine_bytes)
            for number, op in enumerate(collect(module, *KINDS), start=1):
                op.attributes["channel_handle"] = channel(number)


@dataclass
class _Bucket:
    """Collectives that will become one, and the operations that have to wait for it."""

    ops: list[ir.Operation] = field(default_factory=list)
    size: int = 0
    results: set[ir.Value] = field(default_factory=set)
    waiting: list[ir.Operation] = field(default_factory=list)
    moved: int = 0

    def add(self, op: ir.Operation, size: int) -> None:
        """Add a collective; what waits so far stands before it and has to move."""
        self.ops.append(op)
        self.size += size
        self.results.add(op.results[0])
        self.moved = len(self.waiting)


def _combine(block: ir.Block, collectives: list[ir.Operation], limit: int) -> None:
    sizes: dict[tuple[object, ...], list[int]] = {}
    for op in collectives:
        key = _key(op)
        if key is not None:
            sizes.setdefault(key, []).append(bytes_of(op.results[0]))
    for key, found in sizes.items():
        if len(found) > 1 and sum(sorted(found)[:2]) <= limit:
            _combine_kind(block, key, limit, min(found))


def _key(op: ir.Operation) -> tuple[object, ...] | None:
    """Return what collectives must share to become one; None for other operations."""
    if op.name not in (ALL_REDUCE, ALL_GATHER) or len(op.operands) != 1:
        return None
    groups = op.attributes["replica_groups"]
    if op.name == ALL_GATHER:
        return (op.name, groups, op.attributes["all_gather_dim"])
    return (op.name, groups, body_kind(op), op.operands[0].type.element_type)


def _combine_kind(block: ir.Block, key: tuple[object, ...], limit: int, smallest: int) -> None:
    """Grow a bucket down the block; a collective that depends on it starts the next one.

    What depends on a bucket's first members moves below its last one. A bucket without room for
    the ``smallest`` collective is done.
    """
    bucket, done = _Bucket(), []
    for op in operations(block):
        depends = not bucket.results.isdisjoint(_used(op)) if bucket.ops else False
        if _key(op) == key:
            size = bytes_of(op.results[0])
            if depends or bucket.size + size > limit:
                done.append(bucket)
                bucket, depends = _Bucket(), False
            bucket.add(op, size)
            if bucket.size + smallest > limit:
                done.append(bucket)
                bucket = _Bucket()
        elif "has_side_effect" in op.attributes or (depends and key[0] == ALL_GATHER):
            done.append(bucket)
            bucket = _Bucket()
        elif depends:
            bucket.waiting.append(op)
            bucket.results |= set(op.results)
    for ready in (*done, bucket):
        if len(ready.ops) > 1:
            _merge(ready)


def _used(op: ir.Operation) -> Iterator[ir.Value]:
    """Yield the values an operation reads, those its regions capture included."""
    yield from op.operands
    for region in op.regions:
        for block in region.blocks:
            for inner in block.operations:
                yield from _used(inner.operation)


def _merge(bucket: _Bucket) -> None:
    ops = bucket.ops
    last = ops[-1]
    below = last
    for op in bucket.waiting[: bucket.moved]:
        op.move_after(below)
        below = op
    with last.location, ir.InsertionPoint(last):
        operands = [op.operands[0] for op in ops]
        new = like(last, operands, [op.results[0].type for op in ops])
    for op, result in zip(ops, new.results, strict=True):
        op.results[0].replace_all_uses_with(result)
        op.erase()
