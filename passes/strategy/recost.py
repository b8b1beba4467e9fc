"""Costing variants of a plan: the same program with other layouts, or on another cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from pai.dialects.mlir import ir
from pai.dialects.program import Signature
from pai.passes.partition import LocalModule
from pai.passes.strategy.annotate import main_function
from pai.passes.strategy.cost import cost_local_module
from pai.passes.strategy.insights import Insights, analyze, stored_groups
from pai.passes.strategy.plan import Plan, Prediction
from pai.passes.strategy.plan_zero import expand_zero, is_training
from pai.passes.strategy.search import partition_copy, prediction_of
from pai.passes.strategy.staged import staged
from pai.passes.strategy.uses import Use, parameter_uses
from pai.runtime.mesh import Sharding
from pai.runtime.topology import ClusterSpec


def with_insights(
    plan: Plan, module: ir.Module, signature: Signature, cluster: ClusterSpec
) -> Plan:
    """Return ``plan`` with what ``explain`` asks of the cost model when it is called.

    A plan that has insights of its own, from the outer search, keeps them and gets the memory of
    its parameters; any other is partitioned, and costed again with other layouts.

    Args:
        plan: a costed plan.
        module: the simplified global module; kept, and not changed.
        signature: its arguments and results.
        cluster: the devices.
    """
    if plan.insights is not None:
        own = partial(_with_parameters, plan.insights, plan, module, signature)
        return replace(plan, insights=own)
    stored = expand_zero(plan, signature)
    return replace(plan, insights=partial(_insights, stored, _Recost(module, signature), cluster))


def _with_parameters(
    own: Callable[[], Insights], plan: Plan, module: ir.Module, signature: Signature
) -> Insights:
    stored = expand_zero(plan, signature)
    return replace(own(), parameters=stored_groups(stored, signature, _uses(module)))


def _uses(module: ir.Module) -> dict[int, Use]:
    return parameter_uses(main_function(module).regions[0].blocks[0])


def _insights(plan: Plan, recost: _Recost, cluster: ClusterSpec) -> Insights:
    shardings = recost.argument_shardings(plan)
    uses = _uses(recost.module)
    return analyze(plan, recost.signature, cluster, recost.predict, shardings, uses)


@dataclass
class _Recost:
    """The cost model for one program; the local module of the first plan is kept."""

    module: ir.Module
    signature: Signature
    first: dict[Plan, LocalModule] = field(default_factory=dict)

    def argument_shardings(self, plan: Plan) -> tuple[Sharding, ...]:
        """Return how propagation lays out each argument."""
        return self.local(plan).argument_shardings

    def predict(self, plan: Plan, cluster: ClusterSpec) -> Prediction:
        """Return the modelled time and memory of ``plan`` on ``cluster``."""
        local = self.local(plan)
        cost = cost_local_module(local.module, plan.mesh, cluster)
        whole = prediction_of(cost, self.signature)
        return staged(whole, plan, training=is_training(self.signature))

    def local(self, plan: Plan) -> LocalModule:
        if plan not in self.first:
            local = partition_copy(self.module, plan)
            if self.first:
                return local
            self.first[plan] = local
        return self.first[plan]
