"""Rewrites a program into one function of plain StableHLO on static shapes."""

from __future__ import annotations

from pai.dialects.mlir import ir
from pai.passes.base import run_passes
from pai.passes.pipelines import STAGES


def simplify(module: ir.Module) -> None:
    """Run the simplify stage on ``module`` in place.

    Raises:
        InvalidModel: for recursion or an operation whose operands contradict each other.
        UnsupportedOp: for what has no plain form.
        InvalidShape: for a dimension that stays dynamic.
    """
    run_passes(module, STAGES["simplify"])
