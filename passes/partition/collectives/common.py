"""What the passes over collectives share: finding them, their groups, their bodies."""

from __future__ import annotations

from collections.abc import Iterator

from pai.dialects.mlir import ir
from pai.dialects.types import dtype_name, num_elements
from pai.passes.partition.emit import REDUCTIONS, add_reduction_body
from pai.runtime.dtypes import itemsize

ALL_REDUCE, ALL_GATHER = "stablehlo.all_reduce", "stablehlo.all_gather"
REDUCE_SCATTER = "stablehlo.reduce_scatter"
KINDS = frozenset(
    f"stablehlo.{name}"
    for name in ["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "collective_permute"]
)
_KIND_OF_BODY = {name: kind for kind, name in REDUCTIONS.items()}


def blocks(op: ir.Operation) -> Iterator[ir.Block]:
    """Yield the blocks inside ``op``, outer ones first."""
    for region in op.regions:
        for block in region.blocks:
            yield block
            for inner in block.operations:
                if inner.operation.regions:
                    yield from blocks(inner.operation)


def inner_first(module: ir.Module) -> list[ir.Block]:
    """Return the blocks of a module, inner ones first: an erased collective takes its region."""
    return list(blocks(module.operation))[::-1]


def operations(block: ir.Block) -> list[ir.Operation]:
    """Return the operations of a block, a list that survives rewriting."""
    return [op.operation for op in block.operations]


def collectives(module: ir.Module) -> Iterator[ir.Operation]:
    """Yield the collectives of a module in order."""
    for block in blocks(module.operation):
        for op in block.operations:
            if op.operation.name in KINDS:
                yield op.operation


def body_kind(op: ir.Operation) -> str:
    """Return the key of REDUCTIONS that a collective's region combines with, "" without one."""
    if not len(op.regions):
        return ""
    return _KIND_OF_BODY[op.regions[0].blocks[0].operations[0].operation.name]


def definition(value: ir.Value) -> ir.Operation | None:
    """Return the operation that defines ``value``, None for an argument of a block."""
    owner = value.owner
    return None if isinstance(owner, ir.Block) else owner.operation


def only_user(value: ir.Value) -> ir.Operation | None:
    """Return the operation that uses ``value`` if it is used once, else None."""
    uses = list(value.uses)
    return uses[0].owner.operation if len(uses) == 1 else None


def group_rows(groups: ir.Attribute) -> list[list[int]]:
    """Return replica groups as lists of devices."""
    dense = ir.DenseIntElementsAttr(groups)
    width = ir.RankedTensorType(dense.type).shape[1]
    values = [int(v) for v in dense]
    return [values[i : i + width] for i in range(0, len(values), width)]


def bytes_of(value: ir.Value) -> int:
    """Return the bytes of a value on one device."""
    return num_elements(value.type) * itemsize(dtype_name(value.type))


def attribute_names(op: ir.Operation) -> list[str]:
    """Return the names of an operation's attributes, sorted."""
    return sorted(getattr(named, "name", named) for named in op.attributes)


def like(
    op: ir.Operation, operands: list[ir.Value], types: list[ir.Type], **changed: ir.Attribute
) -> ir.Operation:
    """Append a collective like ``op`` on other operands, with some attributes replaced.

    ``operands`` and the body of ``op`` have to agree on the element type.
    """
    attributes = {name: op.attributes[name] for name in attribute_names(op)} | changed
    new = ir.Operation.create(
        op.name,
        results=types,
        operands=operands,
        attributes=attributes,
        regions=len(op.regions),
    )
    if len(op.regions):
        add_reduction_body(new, body_kind(op), operands[0].type.element_type)
    return new
