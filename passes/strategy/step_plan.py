"""choose_step_plan: the plan of a training step, pipelines and microbatches included.

The inner level (``intra/inner.py``) says what every operation splits over the axes ``context`` and
``tensor``, the outer one (``hybrid.py``) how many stages, replicas, microbatches and devices along
those axes there are, and ZeRO and recompute. Both see one of the layers that repeat. The result is
written as layouts of the arguments: the batch over ``data``, and what the inner level chose.

A step whose microbatches need to know of each other (``pipeline/microbatching.py``) is searched
again without microbatches, and the plan says so.
"""

from __future__ import annotations

import math
from dataclasses import replace

from pai.dialects.mlir import ir
from pai.dialects.program import Role, Signature
from pai.passes.partition.isolation import warm_up
from pai.passes.strategy.annotate import has_shardings
from pai.passes.strategy.hybrid import HybridOptions
from pai.passes.strategy.hybrid_plan import HybridProblem, plan_of_result, search_or_suggest
from pai.passes.strategy.hybrid_point import CONTEXT, DATA, TENSOR, Hybrid
from pai.passes.strategy.intra.inner import Inner, inner_search
from pai.passes.strategy.intra.layouts import Layouts, gathered_arguments
from pai.passes.strategy.intra.problem import NONE
from pai.passes.strategy.intra.problem import State as Split
from pai.passes.strategy.memory import State
from pai.passes.strategy.pipeline.microbatching import Legality, folded_microbatching
from pai.passes.strategy.plan import Alternative, Plan, TensorLayout
from pai.passes.strategy.plan_values import fold_entries
from pai.passes.strategy.plan_zero import is_training, optimizer_state
from pai.passes.strategy.search import choose_plan
from pai.runtime.errors import InvalidInput
from pai.runtime.mesh import Mesh
from pai.runtime.topology import ClusterSpec

MOST_CONTEXT = 64
"""Devices of one replica among which tokens are spread, at most."""


def choose_any_plan(module: ir.Module, signature: Signature, cluster: ClusterSpec) -> Plan:
    """Return the fastest plan that fits, whether packages of it can be made yet or not.

    Training steps without shardings of their own get ``choose_step_plan``; other programs, and
    steps whose inputs share no batch, ``choose_plan``.

    Raises:
        InfeasiblePlan: when nothing fits.
    """
    if cluster.num_devices > 1 and is_training(signature) and not has_shardings(module):
        try:
            return choose_step_plan(module, signature, cluster)
        except InvalidInput as error:
            plan = choose_plan(module, signature, cluster)
            note = Alternative("pipelines and microbatches", error.what)
            return replace(plan, alternatives=(*plan.alternatives, note))
    return choose_plan(module, signature, cluster)


def choose_step_plan(
    module: ir.Module,
    signature: Signature,
    cluster: ClusterSpec,
    options: HybridOptions | None = None,
) -> Plan:
    """Return the plan of a training step.

    Args:
        module: the simplified global module; not changed.
        signature: its arguments and results.
        cluster: the devices.
        options: what the outer level tries, everything when left out; the state is the program's.

    Raises:
        InfeasiblePlan: when nothing fits.
        InvalidInput: when the inputs share no batch dimension.
    """
    warm_up()
    inner = inner_search(module, signature, cluster)
    options = options_of(inner, options)
    problem = HybridProblem(inner, inner.batch, cluster, options)
    result = search_or_suggest(problem, _precision(signature))
    legality = Legality(inner.batch)
    if result.best[0].hybrid.microbatches > 1:
        legality = folded_microbatching(module, signature)
        if not legality.ok:
            problem = replace(problem, options=replace(options, microbatches=False))
            result = search_or_suggest(problem, _precision(signature))
    plan = plan_of_result(problem, result)
    notes = tuple(
        Alternative("microbatches", f"{item.op} at {item.where}: {item.why}")
        for item in legality.offences[:1]
    )
    point = result.best[0].hybrid
    return replace(
        plan,
        patterns=layouts_of_point(inner, point),
        alternatives=(*plan.alternatives, *notes),
    )


def options_of(inner: Inner, options: HybridOptions | None = None) -> HybridOptions:
    """Return options, everything, with what the program says: its training state, its experts."""
    options = options or HybridOptions(context=MOST_CONTEXT)
    return replace(options, state=state_of(inner.signature), experts=inner.experts)


def state_of(signature: Signature) -> State:
    """Return the bytes of a parameter, its gradient, and what the step keeps beside it."""
    learned = [v for v in signature.arguments if v.role is Role.PARAMETER]
    kept = optimizer_state(signature)
    elements = sum(math.prod(value.shape) for value in learned) or 1
    parameter = sum(value.num_bytes for value in learned) / elements
    beside = sum(value.num_bytes for value in signature.arguments if value.name in kept)
    return State(parameter, parameter, beside / elements)


def _precision(signature: Signature) -> str:
    """Return the one element type of all parameters; "" when there are several."""
    found = {value.dtype for value in signature.arguments if value.role is Role.PARAMETER}
    return found.pop() if len(found) == 1 else ""


def layouts_of_point(inner: Inner, point: Hybrid) -> tuple[tuple[str, TensorLayout], ...]:
    """Return layouts of arguments: the batch over ``data``, the inner level's over the other axes.

    Those of repeated layers are one pattern each.
    """
    inside = tuple((name, size) for name, size in point.mesh.axes if name in (CONTEXT, TENSOR))
    mesh = Mesh(((DATA, point.replicas), *sorted(inside)))
    solved = inner.prices(point.tensor, point.context).mesh
    found = inner.states(point.tensor, point.microbatch, point.context)
    states = [
        (_batch(inner, node, point), *_of_axes(state, solved, mesh))
        for node, state in enumerate(found)
    ]
    values = inner.signature.arguments
    ranks = [len(value.shape) for value in values]
    shardings = Layouts(inner.lowered, states, mesh).arguments(ranks)
    gathered = gathered_arguments(inner.lowered, states)
    entries = [
        (value.name, TensorLayout(sharding, (int(place in gathered),) * rank))
        for place, (value, sharding, rank) in enumerate(zip(values, shardings, ranks, strict=True))
        if any(sharding.dims)
    ]
    return fold_entries(entries, [value.name for value in values])


def _of_axes(state: Split, solved: Mesh, mesh: Mesh) -> Split:
    """Return a state over a mesh's axes but the first, of which some were not solved for."""
    said = dict(zip((name for name, _ in solved.axes), state, strict=True))
    return tuple(said.get(name, NONE) for name, _ in mesh.axes[1:])


def _batch(inner: Inner, node: int, point: Hybrid) -> int:
    """Return the factor of a node that replicas split."""
    found = [f for f in inner.factors.get(node, ()) if point.replicas > 1]
    return min(found, default=NONE)
