"""pai-scatter-collectives: an all_reduce of which devices keep their block is a reduce_scatter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pai.dialects.mlir import ir
from pai.passes.base import Pass
from pai.passes.partition.collectives.common import (
    ALL_REDUCE,
    REDUCE_SCATTER,
    body_kind,
    definition,
    group_rows,
    inner_first,
    like,
    only_user,
    operations,
)
from pai.passes.partition.emit import BLOCK_DIM, BLOCK_GROUPS, add_reduction_body
from pai.passes.rewrite import building_before, replace

MOVES = ("stablehlo.reshape", "stablehlo.transpose")


@dataclass(frozen=True)
class ScatterCollectives(Pass):
    """Replace an all_reduce and the cut of each device's own block by a reduce_scatter.

    Reshapes and transposes may stand between the two. When the all_reduce runs over more devices
    than the cut, the blocks are then reduced over the rest. The localizer marks the cuts; the
    marks go.

    Before::

        %1 = "stablehlo.all_reduce"(%0) <{replica_groups = dense<[[0, 1]]> : ...}> ...
        %2 = stablehlo.dynamic_slice %1, %i, sizes = [2] {pai.block_groups = dense<[[0, 1]]> : ...,
                                                          pai.block_dim = 0 : i64}

    After::

        %2 = "stablehlo.reduce_scatter"(%0) <{replica_groups = dense<[[0, 1]]> : ...,
                                              scatter_dimension = 0 : i64}> ...
    """

    name: ClassVar[str] = "pai-scatter-collectives"

    def run(self, module: ir.Module) -> None:
        """Rewrite ``module`` in place."""
        for block in inner_first(module):
            for op in operations(block):
                if op.name == "stablehlo.dynamic_slice" and BLOCK_GROUPS in op.attributes:
                    _scatter(op)


def _scatter(cut: ir.Operation) -> None:
    path = _path(cut)
    if path is None:
        del cut.attributes[BLOCK_GROUPS]
        del cut.attributes[BLOCK_DIM]
        return
    source, *moves = path
    with building_before(cut):
        value = source.operands[0]
        for move in moves:
            clone = move.clone()
            clone.operands[0] = value
            value = clone.results[0]
        value = _reduce_scatter(source, value, cut)
        groups = _across(source, cut)
        if len(groups[0]) > 1:
            attr = ir.DenseElementsAttr.get(np.array(groups, np.int64))
            value = like(source, [value], [value.type], replica_groups=attr).results[0]
        replace(cut, [value])
    for op in (*moves[::-1], source):
        op.erase()


def _path(cut: ir.Operation) -> list[ir.Operation] | None:
    """Return the all_reduce whose blocks ``cut`` takes and the moves between them."""
    moves: list[ir.Operation] = []
    value = cut.operands[0]
    while True:
        op = definition(value)
        if op is None or only_user(value) is None:
            return None
        if op.name == ALL_REDUCE:
            break
        if op.name not in MOVES:
            return None
        moves.insert(0, op)
        value = op.operands[0]
    if len(op.operands) != 1 or op.block != cut.block:
        return None
    reduced = group_rows(op.attributes["replica_groups"])
    within = all(
        any(set(part) <= set(group) for group in reduced)
        for part in group_rows(cut.attributes[BLOCK_GROUPS])
    )
    return [op, *moves] if within else None


def _across(source: ir.Operation, cut: ir.Operation) -> list[list[int]]:
    """Return the devices that hold the same block of the part-sums: what is left to reduce."""
    parts = group_rows(cut.attributes[BLOCK_GROUPS])
    out = []
    for group in group_rows(source.attributes["replica_groups"]):
        inside = sorted(part for part in parts if set(part) <= set(group))
        out += [list(same) for same in zip(*inside, strict=True)]
    return out


def _reduce_scatter(source: ir.Operation, value: ir.Value, cut: ir.Operation) -> ir.Value:
    attributes = {
        "scatter_dimension": cut.attributes[BLOCK_DIM],
        "replica_groups": cut.attributes[BLOCK_GROUPS],
        "channel_handle": source.attributes["channel_handle"],
        "use_global_device_ids": ir.UnitAttr.get(),
    }
    new = ir.Operation.create(
        REDUCE_SCATTER,
        results=[cut.results[0].type],
        operands=[value],
        attributes=attributes,
        regions=1,
    )
    add_reduction_body(new, body_kind(source), value.type.element_type)
    return new.results[0]
