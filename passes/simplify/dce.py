"""pai-dce: remove operations whose results nobody uses, and unused private functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pai.dialects.mlir import ir, run_pipeline
from pai.passes.base import Pass
from pai.passes.rewrite import functions, is_private, is_unused

# Anything else of these dialects only computes its results.
_PURE_DIALECTS = frozenset({"stablehlo", "chlo", "arith", "tensor", "shape", "mhlo", "sdy"})
_KEPT = frozenset(
    {
        "sdy.mesh",
        "sdy.sharding_group",
        "stablehlo.infeed",
        "stablehlo.outfeed",
        "stablehlo.recv",
        "stablehlo.send",
        "stablehlo.return",
    }
)
_COLLECTIVES = frozenset(
    {
        "stablehlo.all_gather",
        "stablehlo.all_reduce",
        "stablehlo.all_to_all",
        "stablehlo.collective_broadcast",
        "stablehlo.collective_permute",
        "stablehlo.reduce_scatter",
    }
)


def has_effect(op: ir.Operation) -> bool:
    """Whether ``op`` does more than compute its results, so that it stays even when unused.

    Collectives may be removed: every device runs the same program, so none waits for another.
    """
    name = op.name
    if name == "stablehlo.custom_call":
        effect = op.attributes.get("has_side_effect")
        return effect is not None and bool(ir.BoolAttr(effect).value)
    if name in _KEPT or name.partition(".")[0] not in _PURE_DIALECTS:
        return True
    return len(op.regions) > 0 and any(
        has_effect(inner.operation)
        for region in op.regions
        for block in region.blocks
        for inner in block.operations
        if inner.operation.name not in {"stablehlo.return", "sdy.return", "mhlo.return"}
    )


@dataclass(frozen=True)
class DeadCode(Pass):
    """Remove unused pure operations (StableHLO, CHLO) and private functions without callers.

    A ``custom_call`` with ``has_side_effect = true`` stays, and so does a loop around one.

    Before::

        func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {
          %0 = stablehlo.exponential %a : tensor<4xf32>
          return %a : tensor<4xf32>
        }

    After::

        func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {
          return %a : tensor<4xf32>
        }
    """

    name: ClassVar[str] = "pai-dce"

    def run(self, module: ir.Module) -> None:
        """Erase dead code of ``module`` in place, last operation first, in one walk."""
        table = functions(module)
        for func in table.values():
            for region in func.regions:
                _clean_region(region)
        if any(is_private(func) for func in table.values()):
            table.clear()
            run_pipeline(module, "symbol-dce")


def _clean_region(region: ir.Region) -> None:
    for block in region.blocks:
        for view in reversed(list(block.operations)):
            op = view.operation
            if len(op.results) and is_unused(op) and not has_effect(op):
                op.erase()
                continue
            for inner in op.regions:
                _clean_region(inner)
