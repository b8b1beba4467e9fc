"""Operations with regions that hold tensors: while, case, if, and shard_map's manual regions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pai.dialects.mlir import ir, sdy
from pai.passes.partition.layout import Layout
from pai.passes.rewrite import where
from pai.runtime.errors import InvalidSharding

if TYPE_CHECKING:
    from pai.passes.partition.localize import Localizer

Step = Callable[["Localizer", ir.Operation], None]


def localize_while(self: Localizer, op: ir.Operation) -> None:
    """Carry every value of the loop in the layout of the loop's result."""
    layouts = self.layouts(op, "sdy.sharding", op.results)
    inits = [self.get(v, a) for v, a in zip(op.operands, layouts, strict=True)]
    types = [value.type for value in inits]
    new = self.emit.op("stablehlo.while", types, inits, regions=2)
    returned: list[list[Layout]] = [[()], layouts]
    for region, target, wanted in zip(op.regions, new.regions, returned, strict=True):
        old = region.blocks[0]
        block = target.blocks.append(*types, arg_locs=[v.location for v in old.arguments])
        for value, local, layout in zip(old.arguments, block.arguments, layouts, strict=True):
            self.values[value] = (local, layout)
        self.block(old, block, wanted, "stablehlo.return")
    for value, local, layout in zip(op.results, new.results, layouts, strict=True):
        self.values[value] = (local, layout)


def localize_branches(self: Localizer, op: ir.Operation) -> None:
    """Return from every branch in the layout of the operation's result."""
    layouts = self.layouts(op, "sdy.sharding", op.results)
    types = [self.local_type(v.type, a) for v, a in zip(op.results, layouts, strict=True)]
    index = self.get(op.operands[0], ())
    new = self.emit.op(op.name, types, [index], regions=len(op.regions))
    for region, target in zip(op.regions, new.regions, strict=True):
        self.block(region.blocks[0], target.blocks.append(), layouts, "stablehlo.return")
    for value, local, layout in zip(op.results, new.results, layouts, strict=True):
        self.values[value] = (local, layout)


def localize_manual(self: Localizer, op: ir.Operation) -> None:
    """Inline a body that is already local along its manual axes."""
    axes = set(sdy.ManualAxesAttr(op.attributes["manual_axes"]))
    manual = {i for i, atom in enumerate(self.grid.atoms) if atom.axis in axes}
    inputs = self.layouts(op, "in_shardings", op.operands)
    outputs = self.layouts(op, "out_shardings", op.results)
    body = op.regions[0].blocks[0]
    for value, argument, layout in zip(op.operands, body.arguments, inputs, strict=True):
        self.values[argument] = (self.get(value, layout), _free(layout, manual))
    self.manual += 1
    returned = self.operations(body, [_free(layout, manual) for layout in outputs])
    self.manual -= 1
    for value, local, layout in zip(op.results, returned, outputs, strict=True):
        self.values[value] = (local, layout)


def _free(layout: Layout, manual: set[int]) -> Layout:
    return tuple(tuple(a for a in atoms if a not in manual) for atoms in layout)


def localize_named(self: Localizer, op: ir.Operation) -> None:
    """Inline a named computation."""
    inputs = self.layouts(op, "in_shardings", op.operands)
    outputs = self.layouts(op, "out_shardings", op.results)
    body = op.regions[0].blocks[0]
    for value, argument, layout in zip(op.operands, body.arguments, inputs, strict=True):
        self.values[argument] = (self.get(value, layout), layout)
    returned = self.operations(body, outputs)
    for value, local, layout in zip(op.results, returned, outputs, strict=True):
        self.values[value] = (local, layout)


def forward(self: Localizer, op: ir.Operation) -> None:
    """Drop an operation that only speaks to the propagation."""
    for result, operand in zip(op.results, op.operands, strict=True):
        self.values[result] = self.values[operand]


def refuse(self: Localizer, op: ir.Operation) -> None:
    """Refuse partial values that outlive their operation."""
    raise InvalidSharding(f"{op.name}: unreduced values are not supported", where(op))


CONTROL: dict[str, Step] = {
    "stablehlo.while": localize_while,
    "stablehlo.case": localize_branches,
    "stablehlo.if": localize_branches,
}
STRUCTURE: dict[str, Step] = {
    "sdy.manual_computation": localize_manual,
    "sdy.named_computation": localize_named,
    "sdy.propagation_barrier": forward,
    "sdy.data_flow_edge": forward,
    "sdy.sharding_group": forward,
    "sdy.sharded_to_unreduced": refuse,
    "sdy.replicated_to_unreduced": refuse,
}
