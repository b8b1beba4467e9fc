"""What can be read off a loop."""

from __future__ import annotations

import re

import numpy as np

from pai.dialects.mlir import ir


def trip_count(op: ir.Operation) -> int:
    """Return how often a while runs when it counts to a constant, else 1."""
    condition = op.regions[0].blocks[0]
    compares = [
        o.operation for o in condition.operations if o.operation.name == "stablehlo.compare"
    ]
    for compare in compares:
        bound = _constant(compare.operands[1])
        counter = compare.operands[0]
        if bound is not None and isinstance(counter.owner, ir.Block):
            start = _constant(op.operands[ir.BlockArgument(counter).arg_number])
            match = re.search(r"(LT|LE)\b", str(compare.attributes["comparison_direction"]))
            if start is not None and match:
                return max(bound - start + (match[1] == "LE"), 0)
    return 1


def _constant(value: ir.Value) -> int | None:
    owner = value.owner
    if isinstance(owner, ir.Block) or owner.name != "stablehlo.constant":
        return None
    attr = ir.DenseElementsAttr(owner.attributes["value"])
    element = str(ir.RankedTensorType(value.type).element_type)
    if not attr.is_splat or not re.fullmatch(r"u?i\d+", element):
        return None
    return int(np.asarray(attr).reshape(-1)[0])
