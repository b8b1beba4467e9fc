"""Operations with regions that hold tensors: while, case, if, and shard_map's manual regions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pai.dialects.mlir import ir, sdy
from pai.dialects.sdy import unreduced_from_attr
from pai.passes.partition.annotations import shardings_in
from pai.passes.partition.layout import Atoms, Layout

if TYPE_CHECKING:
    from pai.passes.partition.localizer import Localizer

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


def localize_barrier(self: Localizer, op: ir.Operation) -> None:
    """Hold every value in the layout of its result: they have nothing to do with each other."""
    layouts = self.layouts(op, "sdy.sharding", op.results)
    held = [self.get(v, a) for v, a in zip(op.operands, layouts, strict=True)]
    new = self.emit.op(op.name, [value.type for value in held], held)
    for value, local, layout in zip(op.results, new.results, layouts, strict=True):
        self.values[value] = (local, layout)


def localize_manual(self: Localizer, op: ir.Operation) -> None:
    """Inline a body that is already local along its manual axes.

    The body adds up what is unreduced along them, so the first device brings the value and the
    others bring zeros; what it returns unreduced is added up here.
    """
    axes = set(sdy.ManualAxesAttr(op.attributes["manual_axes"]))
    manual = {i for i, atom in enumerate(self.grid.atoms) if atom.axis in axes}
    inputs, outputs = (
        [_nested(self, v, a, manual) for v, a in zip(values, layouts, strict=True)]
        for values, layouts in (
            (op.operands, self.layouts(op, "in_shardings", op.operands)),
            (op.results, self.layouts(op, "out_shardings", op.results)),
        )
    )
    pending = [_pending(self, op, name, manual) for name in ("in_shardings", "out_shardings")]
    body = op.regions[0].blocks[0]
    for value, argument, layout, atoms in zip(
        op.operands, body.arguments, inputs, pending[0], strict=True
    ):
        local = self.get(value, layout)
        self.values[argument] = (_on_first(self, local, atoms), _free(layout, manual))
    self.manual += 1
    returned = self.operations(body, [_free(layout, manual) for layout in outputs])
    self.manual -= 1
    for value, local, layout, atoms in zip(op.results, returned, outputs, pending[1], strict=True):
        kind = "or" if str(local.type.element_type) == "i1" else "add"
        self.values[value] = (self.emit.all_reduce([local], kind, atoms)[0], layout)


def _pending(self: Localizer, op: ir.Operation, name: str, manual: set[int]) -> list[Atoms]:
    """Return per value the manual atoms along which the body sees addends of it."""
    out = []
    for attr in shardings_in(op.attributes[name]):
        atoms = [a for axis in unreduced_from_attr(attr) for a in self.grid.atoms_of(axis)]
        out.append(tuple(a for a in atoms if a in manual))
    return out


def _on_first(self: Localizer, local: ir.Value, atoms: Atoms) -> ir.Value:
    """Return ``local`` on the first device along ``atoms``, and zeros on the others."""
    if not atoms:
        return local
    emit = self.emit
    first = emit.compare(emit.shard_index(atoms), "EQ", emit.scalar(0))
    return emit.select(first, local, emit.constant(local.type, 0))


def _nested(self: Localizer, value: ir.Value, layout: Layout, manual: set[int]) -> Layout:
    """Leave only the manual axes on a dimension that all its axes do not divide.

    The shards of the whole dimension are then not the shards of the blocks that the body sees.
    """
    return tuple(
        atoms if size % self.grid.count(atoms) == 0 else tuple(a for a in atoms if a in manual)
        for size, atoms in zip(value.type.shape, layout, strict=True)
    )


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


CONTROL: dict[str, Step] = {
    "stablehlo.while": localize_while,
    "stablehlo.case": localize_branches,
    "stablehlo.if": localize_branches,
    "stablehlo.optimization_barrier": localize_barrier,
}
STRUCTURE: dict[str, Step] = {
    "sdy.manual_computation": localize_manual,
    "sdy.named_computation": localize_named,
    "sdy.propagation_barrier": forward,
    "sdy.data_flow_edge": forward,
    "sdy.sharding_group": forward,
}
