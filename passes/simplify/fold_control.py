"""Branches and loops whose conditions are known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pai.dialects.constants import constant_value
from pai.dialects.mlir import ir
from pai.dialects.types import num_elements
from pai.passes.simplify.fold_evaluate import evaluate

Known = Mapping[ir.Value, np.ndarray]


def chosen_region(op: ir.Operation, known: Known) -> ir.Region | None:
    """Return the branch that an ``if`` or ``case`` takes, or None when that is not known.

    A case index out of range takes the last branch.
    """
    index = known.get(op.operands[0])
    if index is None:
        return None
    number = int(index)
    if op.name == "stablehlo.if":
        return op.regions[0 if number else 1]
    inside = 0 <= number < len(op.regions)
    return op.regions[number if inside else len(op.regions) - 1]


def loop_never_runs(op: ir.Operation, known: Known) -> bool:
    """Whether the condition of a ``while`` is false for its first values."""
    block = op.regions[0].blocks[0]
    local = {
        argument: known[value]
        for argument, value in zip(block.arguments, op.operands, strict=True)
        if value in known
    }
    for view in block.operations:
        inner = view.operation
        if inner.name == "stablehlo.return":
            result = _lookup(inner.operands[0], local, known)
            return result is not None and not bool(result)
        if len(inner.results) != 1 or len(inner.regions):
            continue
        if inner.name == "stablehlo.constant":
            if num_elements(inner.results[0].type) == 1:
                local[inner.results[0]] = constant_value(inner)
            continue
        operands = [_lookup(value, local, known) for value in inner.operands]
        if operands and all(value is not None for value in operands):
            value = evaluate(inner, [v for v in operands if v is not None])
            if value is not None:
                local[inner.results[0]] = value
    return False


def _lookup(value: ir.Value, local: Known, known: Known) -> np.ndarray | None:
    found = local.get(value)
    return known.get(value) if found is None else found
