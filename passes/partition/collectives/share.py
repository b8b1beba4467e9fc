"""pai-share-collectives: equal collectives of one value become one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pai.dialects.mlir import ir
from pai.passes.base import Pass
from pai.passes.partition.collectives.common import (
    KINDS,
    attribute_names,
    body_kind,
    inner_first,
    operations,
)
from pai.passes.rewrite import replace


@dataclass(frozen=True)
class ShareCollectives(Pass):
    """Let what needs the same collective of the same value share it, block by block.

    Before::

        %1 = "stablehlo.all_gather"(%0) <{all_gather_dim = 0 : i64, channel 1 ...}>
        %2 = "stablehlo.all_gather"(%0) <{all_gather_dim = 0 : i64, channel 2 ...}>

    After: ``%1`` in both places. (CSE leaves them apart, for their channels differ.)
    """

    name: ClassVar[str] = "pai-share-collectives"

    def run(self, module: ir.Module) -> None:
        """Rewrite ``module`` in place."""
        for block in inner_first(module):
            _share(block)


def _share(block: ir.Block) -> None:
    seen: dict[tuple[object, ...], ir.Operation] = {}
    for op in operations(block):
        if op.name not in KINDS:
            continue
        first = seen.setdefault(_key(op), op)
        if first is not op:
            replace(op, list(first.results))


def _key(op: ir.Operation) -> tuple[object, ...]:
    """Return what makes two collectives do the same to the same operand."""
    kept = tuple((n, op.attributes[n]) for n in attribute_names(op) if n != "channel_handle")
    return (op.name, body_kind(op), kept, *op.operands)
