"""pai-apply-plan: write a plan file into the module."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from pai.dialects.mlir import ir
from pai.passes.base import Pass
from pai.passes.strategy.auto_shard import signature_of
from pai.passes.strategy.plan_check import check_plan
from pai.passes.strategy.plan_read import read_plan
from pai.passes.strategy.plan_values import apply_plan, check_values
from pai.passes.strategy.plan_zero import expand_zero
from pai.runtime.errors import InvalidSharding
from pai.runtime.topology import load_cluster


@dataclass(frozen=True)
class ApplyPlan(Pass):
    """Write the layouts of a plan file as Shardy shardings, without costing them.

    Before::

        func.func @main(%x: tensor<64x32xf32>, %w: tensor<32x16xf32> {pai.role = "parameter"})

    After, with ``[mesh] data = 4``, ``[zero] data = 3`` and ``"x" = ["data", ""]``::

        sdy.mesh @mesh = <["data"=4]>
        func.func @main(%x: ... {sdy.sharding = #sdy.sharding<@mesh, [{"data"}, {}]>},
                        %w: ... {sdy.sharding = #sdy.sharding<@mesh, [{"data"}p1, {}]>})

    Args:
        file: path of the plan.
    """

    name: ClassVar[str] = "pai-apply-plan"
    file: str = ""

    def run(self, module: ir.Module) -> None:
        """Rewrite ``module`` in place; raises InvalidSharding or InvalidCluster."""
        if not self.file:
            raise InvalidSharding("no plan file was given", self.name, "pass {file=PLAN.toml}")
        plan_file = read_plan(self.file)
        plan, signature = plan_file.plan, signature_of(module)
        devices = replace(load_cluster("cpu", 1), scale=True)
        check_plan(plan_file, signature, devices.take(plan.num_devices * plan.replicas))
        check_values(plan_file, module)
        apply_plan(module, expand_zero(plan, signature))
