"""pai-cse: compute the same thing once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pai.dialects.mlir import ir, run_pipeline
from pai.passes.base import Pass


@dataclass(frozen=True)
class CommonSubexpressions(Pass):
    """Merge operations with the same name, operands, attributes and regions.

    Upstream ``cse`` does it; its equivalence looks into regions, so equal reductions and sorts
    merge too. Random numbers and custom calls with side effects are left alone.

    Before::

        %0 = stablehlo.exponential %a : tensor<4xf32>
        %1 = stablehlo.exponential %a : tensor<4xf32>
        %2 = stablehlo.add %0, %1 : tensor<4xf32>

    After::

        %0 = stablehlo.exponential %a : tensor<4xf32>
        %1 = stablehlo.add %0, %0 : tensor<4xf32>
    """

    name: ClassVar[str] = "pai-cse"

    def run(self, module: ir.Module) -> None:
        """Merge equal operations of ``module`` in place."""
        run_pipeline(module, "func.func(cse)")
