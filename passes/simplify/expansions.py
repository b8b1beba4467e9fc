"""The table of operations that pai-legalize rewrites itself, and what they become."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pai.dialects.constants import constant_value
from pai.dialects.mlir import ir
from pai.passes.rewrite import constant_operand, where
from pai.runtime.errors import UnsupportedOp

# Builds the replacement at the insertion point (before the operation, with its location) and
# returns one value per result, or None when the operation is to stay.
Expansion = Callable[[ir.Operation], Sequence[ir.Value] | None]

EXPANSIONS: dict[str, Expansion] = {}


def expands(*names: str) -> Callable[[Expansion], Expansion]:
    """Register a function as the expansion of the operations with these names."""

    def register(function: Expansion) -> Expansion:
        for name in names:
            EXPANSIONS[name] = function
        return function

    return register


def refuse(op: ir.Operation, why: str, hint: str = "") -> UnsupportedOp:
    """Return (to be raised) the error that says why ``op`` cannot be compiled."""
    return UnsupportedOp(why, where(op), hint)


def constant_ints(op: ir.Operation, index: int, what: str) -> list[int]:
    """Return operand ``index`` as a list of integers; refuse when it is not constant."""
    defining = constant_operand(op.operands[index])
    if defining is None:
        raise refuse(
            op,
            f"its {what} depends on the data, so shapes would too",
            "make it a constant of the model",
        )
    return [int(number) for number in constant_value(defining).reshape(-1)]
