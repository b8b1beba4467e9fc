"""load_plan: a plan file, held to the program and the cluster, and costed again.

A plan that the outer search wrote (``step_plan.py``) and whose layouts nobody changed is costed as
the search did; any other is partitioned for real (``search.py``), and its stages and microbatches
are added (``staged.py``).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from pai.dialects.mlir import ir
from pai.dialects.program import Signature
from pai.passes.strategy.annotate import has_shardings
from pai.passes.strategy.explain import largest
from pai.passes.strategy.hybrid_plan import (
    HybridProblem,
    hybrid_insights,
    hybrid_of_plan,
    prediction_of_hybrid,
)
from pai.passes.strategy.hybrid_point import CONTEXT, DATA, TENSOR
from pai.passes.strategy.intra.inner import inner_search
from pai.passes.strategy.plan import Plan, PlanFile, read_plan
from pai.passes.strategy.plan_check import check_plan
from pai.passes.strategy.plan_values import check_values
from pai.passes.strategy.plan_zero import expand_zero, is_training
from pai.passes.strategy.search import predict_plan
from pai.passes.strategy.staged import staged
from pai.passes.strategy.step_plan import layouts_of_point, options_of
from pai.passes.strategy.units import bytes_text
from pai.runtime.errors import InfeasiblePlan, InvalidInput, InvalidSharding
from pai.runtime.topology import ClusterSpec


def load_plan(
    path: str | Path, module: ir.Module, signature: Signature, cluster: ClusterSpec
) -> Plan:
    """Return the plan of a file, checked against the program and costed again.

    Args:
        path: a plan as ``plan_to_toml`` writes it, perhaps edited, or written by hand.
        module: the simplified global module; not changed.
        signature: its arguments and results.
        cluster: the devices.

    Raises:
        InvalidSharding: for bad syntax, an unknown argument or axis, or a wrong rank.
        InvalidCluster: when the plan is for another number of devices.
        InfeasiblePlan: when it does not fit the devices' memory.
    """
    file = read_plan(path)
    check_plan(file, signature, cluster)
    check_values(file, module)
    plan = _as_searched(file.plan, module, signature, cluster)
    if plan is None:
        plan, devices = file.plan, cluster.take(file.plan.num_devices)
        whole = predict_plan(expand_zero(plan, signature), module, signature, devices)
        plan = replace(plan, predicted=staged(whole, plan, training=is_training(signature)))
    plan = replace(plan, cluster=cluster.name, device_memory_bytes=cluster.memory_bytes)
    _require_memory(file, plan)
    return plan


def _as_searched(
    plan: Plan, module: ir.Module, signature: Signature, cluster: ClusterSpec
) -> Plan | None:
    """Return a plan as the outer search wrote it, costed and explained by it; None for others."""
    axes = {name for name, _ in plan.mesh.axes}
    others = plan.arguments or plan.values or has_shardings(module)
    if axes - {CONTEXT} != {DATA, TENSOR} or others or not is_training(signature):
        return None
    try:
        inner = inner_search(module, signature, cluster)
        point = hybrid_of_plan(plan, inner.batch)
    except (InvalidInput, InvalidSharding):
        return None
    if plan.patterns != layouts_of_point(inner, point):
        return None
    problem = HybridProblem(inner, inner.batch, cluster, options_of(inner))
    cost = problem.cost(point)
    if cost is None:
        return None
    insights = partial(hybrid_insights, problem, cost)
    return replace(plan, predicted=prediction_of_hybrid(cost), insights=insights)


def _require_memory(file: PlanFile, plan: Plan) -> None:
    need, limit = plan.predicted.memory_bytes, plan.device_memory_bytes
    if need > limit:
        raise InfeasiblePlan(
            f"the plan needs {bytes_text(need)} a device of {bytes_text(limit)}, most of it "
            f"{largest(plan.predicted)}",
            file.place(("mesh",)),
            "shard more, use more devices, or leave the plan to the search",
        )
