"""pai-optimize-collectives: cheaper collectives for the same values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from pai.dialects.mlir import ir
from pai.dialects.types import dtype_name, num_elements
from pai.passes.base import Pass
from pai.passes.partition.emit import (
    BLOCK_DIM,
    BLOCK_GROUPS,
    add_reduction_body,
    channel,
)
from pai.runtime.dtypes import itemsize

ALL_REDUCE, REDUCE_SCATTER = "stablehlo.all_reduce", "stablehlo.reduce_scatter"
KINDS = frozenset(
    f"stablehlo.{name}"
    for name in ["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "collective_permute"]
)


@dataclass(frozen=True)
class OptimizeCollectives(Pass):
    """Share, shrink and combine collectives.

    Equal collectives of one value in a block become one. An all_reduce of which every device only
    takes its own block becomes a reduce_scatter. All_reduces of the same groups, kind and type
    that can stand at the same place become one with several operands, up to ``combine_bytes``.
    Last, every collective gets a channel of its own.

    Before::

        %1 = "stablehlo.all_reduce"(%0) <{replica_groups = dense<[[0, 1]]> : ...}> ...
        %2 = stablehlo.dynamic_slice %1, %i, sizes = [2] {pai.block_groups = dense<[[0, 1]]> : ...,
                                                          pai.block_dim = 0 : i64}

    After::

        %2 = "stablehlo.reduce_scatter"(%0) <{replica_groups = dense<[[0, 1]]> : ...,
                                              scatter_dimension = 0 : i64}> ...

    Args:
        combine_bytes: largest sum of bytes of a combined all_reduce; 0 combines nothing.
    """

    name: ClassVar[str] = "pai-optimize-collectives"
    combine_bytes: int = 32 << 20

    def run(self, module: ir.Module) -> None:
        """Rewrite ``module`` in place."""
        with module.context, ir.Location.unknown():
            # Inner blocks first: an erased collective takes its region along.
            for block in reversed(list(_blocks(module.operation))):
                _share(block)
                _scatter(block)
                if self.combine_bytes:
                    _combine(block, self.combine_bytes)
            for number, op in enumerate(collectives(module), start=1):
                op.attributes["channel_handle"] = channel(number)


def collectives(module: ir.Module) -> Iterator[ir.Operation]:
    """Yield the collectives of a module in order."""
    for block in _blocks(module.operation):
        for op in block.operations:
            if op.operation.name in KINDS:
                yield op.operation


def _blocks(op: ir.Operation) -> Iterator[ir.Block]:
    for region in op.regions:
        for block in region.blocks:
            yield block
            for inner in block.operations:
                if inner.operation.regions:
                    yield from _blocks(inner.operation)


def body_kind(op: ir.Operation) -> str:
    """Return the operation that a collective's region combines with, "" without a region."""
    return op.regions[0].blocks[0].operations[0].operation.name if len(op.regions) else ""


def _key(op: ir.Operation) -> tuple[object, ...]:
    """Return what makes two collectives do the same to the same operand."""
    names = [getattr(named, "name", named) for named in op.attributes]
    kept = tuple((n, op.attributes[n]) for n in sorted(names) if n != "channel_handle")
    return (op.name, body_kind(op), kept, *op.operands)


def _share(block: ir.Block) -> None:
    seen: dict[tuple[object, ...], ir.Operation] = {}
    for op in [o.operation for o in block.operations if o.operation.name in KINDS]:
        first = seen.setdefault(_key(op), op)
        if first is not op:
            for old, new in zip(op.results, first.results, strict=True):
                old.replace_all_uses_with(new)
            op.erase()


def _scatter(block: ir.Block) -> None:
    for op in [o.operation for o in block.operations]:
        if op.name != "stablehlo.dynamic_slice" or BLOCK_GROUPS not in op.attributes:
            continue
        source = op.operands[0].owner if not _is_argument(op.operands[0]) else None
        if isinstance(source, ir.OpView):
            source = source.operation
        if source is not None and _takes_own_block(source, op):
            _to_reduce_scatter(source, op)
            continue
        del op.attributes[BLOCK_GROUPS]
        del op.attributes[BLOCK_DIM]


def _is_argument(value: ir.Value) -> bool:
    return isinstance(value, ir.BlockArgument)


def _takes_own_block(source: ir.Operation, op: ir.Operation) -> bool:
    if source.name != ALL_REDUCE or len(source.operands) != 1:
        return False
    if len(list(source.results[0].uses)) != 1:
        return False
    return _as_sets(source.attributes["replica_groups"]) == _as_sets(op.attributes[BLOCK_GROUPS])


def _as_sets(groups: ir.Attribute) -> set[frozenset[int]]:
    dense = ir.DenseIntElementsAttr(groups)
    width = ir.RankedTensorType(dense.type).shape[1]
    values = [int(v) for v in dense]
    return {frozenset(values[i : i + width]) for i in range(0, len(values), width)}


def _to_reduce_scatter(source: ir.Operation, op: ir.Operation) -> None:
    attributes = {
        "scatter_dimension": op.attributes[BLOCK_DIM],
        "replica_groups": op.attributes[BLOCK_GROUPS],
        "channel_handle": source.attributes["channel_handle"],
        "use_global_device_ids": ir.UnitAttr.get(),
    }
    kind = body_kind(source)
    with op.location, ir.InsertionPoint(op):
        new = ir.Operation.create(
            REDUCE_SCATTER,
            results=[op.results[0].type],
            operands=[source.operands[0]],
            attributes=attributes,
            regions=1,
        )
        _body(new, kind)
    op.results[0].replace_all_uses_with(new.results[0])
    op.erase()
    source.erase()


def _body(op: ir.Operation, kind: str) -> None:
    from pai.passes.partition.handlers.reductions import KINDS as NAMES  # noqa: PLC0415

    add_reduction_body(op, NAMES[kind], op.operands[0].type.element_type)


def _bytes(value: ir.Value) -> int:
    return num_elements(value.type) * itemsize(dtype_name(value.type))


@dataclass
class _Bucket:
    """All_reduces that will become one, and the operations that have to wait for it."""

    ops: list[ir.Operation] = field(default_factory=list)
    size: int = 0
    results: set[ir.Value] = field(default_factory=set)
    waiting: list[ir.Operation] = field(default_factory=list)
    moved: int = 0

    def add(self, op: ir.Operation, size: int) -> None:
        """Add an all_reduce; what waits so far stands before it and has to move."""
        self.ops.append(op)
        self.size += size
        self.results.add(op.results[0])
        self.moved = len(self.waiting)


def _combine(block: ir.Block, limit: int) -> None:
    keys = Counter(_combine_key(op.operation) for op in block.operations)
    for key, count in keys.items():
        if key is not None and count > 1:
            _combine_kind(block, key, limit)


def _combine_key(op: ir.Operation) -> tuple[object, ...] | None:
    """Return what all_reduces must share to become one; None for other operations."""
    if op.name != ALL_REDUCE or len(op.operands) != 1:
        return None
    return (body_kind(op), op.attributes["replica_groups"], op.operands[0].type.element_type)


def _combine_kind(block: ir.Block, key: tuple[object, ...], limit: int) -> None:
    """Grow a bucket down the block; an all_reduce that depends on it starts the next one.

    What depends on a bucket's first members moves below its last one.
    """
    bucket, done = _Bucket(), []
    for op in [o.operation for o in block.operations]:
        depends = not bucket.results.isdisjoint(_used(op)) if bucket.ops else False
        if _combine_key(op) == key:
            size = _bytes(op.operands[0])
            if depends or bucket.size + size > limit:
                done.append(bucket)
                bucket, depends = _Bucket(), False
            bucket.add(op, size)
        elif "has_side_effect" in op.attributes:
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
    names = ("replica_groups", "channel_handle", "use_global_device_ids")
    operands = [op.operands[0] for op in ops]
    with last.location, ir.InsertionPoint(last):
        new = ir.Operation.create(
            ALL_REDUCE,
            results=[value.type for value in operands],
            operands=operands,
            attributes={name: last.attributes[name] for name in names if name in last.attributes},
            regions=1,
        )
        _body(new, body_kind(last))
    for op, result in zip(ops, new.results, strict=True):
        op.results[0].replace_all_uses_with(result)
        op.erase()
