"""Collective operations as instructions."""

from __future__ import annotations

from typing import Any

import numpy as np

from pai.dialects.mlir import ir
from pai.dialects.types import dtype_name, shape_of
from pai.runtime.errors import PassFailure
from pai.runtime.program import Collective

COLLECTIVES = frozenset(
    f"stablehlo.{kind}"
    for kind in (
        "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "collective_permute",
        "collective_broadcast",
    )
)  # fmt: skip
_REDUCTIONS = {
    "stablehlo.add": "add", "stablehlo.multiply": "mul", "stablehlo.maximum": "max",
    "stablehlo.minimum": "min", "stablehlo.and": "and", "stablehlo.or": "or",
    "stablehlo.xor": "xor",
}  # fmt: skip
_DIMS = {
    "all_gather": ("all_gather_dim",),
    "reduce_scatter": ("scatter_dimension",),
    "all_to_all": ("split_dimension", "concat_dimension"),
}


def collective(op: ir.Operation, sources: tuple[int, ...], targets: tuple[int, ...]) -> Collective:
    """Return the instruction of a collective operation on the given storages.

    Raises:
        PassFailure: for a reduction that is not one operation per operand.
    """
    kind = op.name.removeprefix("stablehlo.")
    fields: dict[str, Any] = {}
    if kind == "collective_permute":
        pairs = _table(op.attributes["source_target_pairs"])
        fields["pairs"] = tuple((int(a), int(b)) for a, b in pairs)
    else:
        groups = _table(op.attributes["replica_groups"])
        fields["groups"] = tuple(tuple(int(d) for d in row if d >= 0) for row in groups)
    if len(op.regions):
        fields["reductions"] = _reductions(op)
    fields["dims"] = tuple(
        ir.IntegerAttr(op.attributes[name]).value for name in _DIMS.get(kind, ())
    )
    dtypes = tuple(dtype_name(value.type) for value in op.operands)
    shapes = tuple(shape_of(value.type) for value in op.operands)
    return Collective(kind, sources, targets, dtypes, shapes, **fields)


def _table(attribute: ir.Attribute) -> np.ndarray:
    dense = ir.DenseIntElementsAttr(attribute)
    return np.array([int(value) for value in dense], np.int64).reshape(dense.type.shape)


def _reductions(op: ir.Operation) -> tuple[str, ...]:
    """Return the reduction per operand; the k-th result must combine the k-th pair of arguments."""
    block = op.regions[0].blocks[0]
    returned = list(block.operations)[-1].operands
    half = len(block.arguments) // 2
    names = []
    for k, value in enumerate(returned):
        body = value.owner
        if isinstance(body, ir.Block) or body.operation.name not in _REDUCTIONS:
            raise PassFailure(f"cannot schedule the reduction of {op.name}", str(op.location))
        if set(body.operation.operands) != {block.arguments[k], block.arguments[half + k]}:
            raise PassFailure(f"the reduction of {op.name} mixes operands", str(op.location))
        names.append(_REDUCTIONS[body.operation.name])
    # One reduction on several operands is spelled with one pair of arguments.
    return tuple(names) if len(names) > 1 else tuple(names) * len(op.operands)
