"""What the outer search found as a plan: pipeline, ZeRO, recomputation, costs and reasons."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from pai.passes.strategy.explain import why_lost
from pai.passes.strategy.feasible import NARROWER
from pai.passes.strategy.hybrid import (
    HybridOptions,
    HybridResult,
    Workloads,
    cost_hybrid,
    search_hybrids,
    work_of,
)
from pai.passes.strategy.hybrid_point import CONTEXT, DATA, STAGE, TENSOR, Hybrid, HybridCost
from pai.passes.strategy.insights import Choice, Insights, Sensitivity
from pai.passes.strategy.plan import Alternative, Pipeline, Plan, Prediction, Stage
from pai.passes.strategy.plan_segments import SegmentRange, chunk_to_text
from pai.passes.strategy.scaling import scaled
from pai.passes.strategy.step import spread
from pai.passes.strategy.units import bytes_text
from pai.passes.strategy.workload import Workload
from pai.runtime.errors import InfeasiblePlan, InvalidSharding
from pai.runtime.mesh import Mesh
from pai.runtime.topology import ClusterSpec


@dataclass(frozen=True)
class HybridProblem:
    """What ``search_hybrids`` was asked.

    Args:
        workloads: the work of one device.
        batch: samples of a step.
        cluster: the devices.
        options: what was tried.
    """

    workloads: Workloads
    batch: int
    cluster: ClusterSpec
    options: HybridOptions = field(default_factory=HybridOptions)

    def cost(self, point: Hybrid) -> HybridCost | None:
        """Return what a point costs; None when the program cannot be split so."""
        workload = work_of(self.workloads, point)
        if workload is None:
            return None
        return cost_hybrid(point, workload, self.cluster, self.options)

    def search(self) -> HybridResult:
        """Return the fastest points; raises InfeasiblePlan."""
        return search_hybrids(self.workloads, self.batch, self.cluster, self.options)


def plan_of_result(problem: HybridProblem, result: HybridResult) -> Plan:
    """Return the fastest point as a plan; the plain families and the next best lost."""
    best = result.best[0]
    workload = work_of(problem.workloads, best.hybrid)
    plan = plan_of_hybrid(best, workload, problem.cluster)
    others = {cost.hybrid.name: ("", cost) for cost in result.best[1:]}
    for name, cost in result.families:
        if cost is not None and cost.hybrid != best.hybrid:
            others[cost.hybrid.name] = (f"{name}: ", cost)
    ranked = sorted(others.values(), key=lambda item: item[1].seconds)
    cluster = problem.cluster
    lost = [(family, cost, prediction_of_hybrid(cost)) for family, cost in ranked]
    alternatives = tuple(
        Alternative(
            cost.hybrid.name,
            family + why_lost(predicted, plan.predicted, cluster.memory_bytes),
            predicted.time_s,
            predicted.memory_bytes,
        )
        for family, cost, predicted in lost
    )
    return replace(
        plan,
        cluster=cluster.name,
        device_memory_bytes=cluster.memory_bytes,
        alternatives=alternatives,
        insights=partial(hybrid_insights, problem, best),
    )


def plan_of_hybrid(
    cost: HybridCost, workload: Workload | None, cluster: ClusterSpec | None = None
) -> Plan:
    """Return one point as a plan, with its cost.

    Args:
        cost: the point.
        workload: its work, whose segments the stages share out; None leaves that open.
        cluster: the devices, which say where stages of several kinds are.
    """
    point = cost.hybrid
    inside = tuple((name, size) for name, size in point.mesh.axes if name != STAGE)
    layers = workload.layers.name if workload else "*"
    recompute = ((layers, point.recompute),) if point.recompute != "none" else ()
    parts = _stages(cost, workload, cluster) if workload else ()
    return Plan(
        mesh=Mesh(inside),
        zero=tuple((a, point.zero) for a, _ in inside if a != TENSOR) if point.zero else (),
        recompute=recompute,
        pipeline=Pipeline(point.stages, point.virtual, point.microbatches, point.schedule, parts),
        strategy=point.name,
        predicted=prediction_of_hybrid(cost),
    )


def hybrid_of_plan(plan: Plan, batch: int) -> Hybrid:
    """Return the point that ``plan_of_hybrid`` wrote as ``plan``, to be costed again.

    Args:
        plan: over axes named as the search names them.
        batch: samples of a step.

    Raises:
        InvalidSharding: for other axes, several ZeRO or recompute choices, or a batch that replicas
            and microbatches do not divide.
    """
    sizes, pipeline = dict(plan.mesh.axes), plan.pipeline
    replicas, context, tensor = (sizes.get(axis, 1) for axis in (DATA, CONTEXT, TENSOR))
    choices = {how for _, how in plan.recompute} or {"none"}
    zero = {stage for _, stage in plan.zero} or {0}
    known = {axis for axis, _ in plan.zero} in (set(), {DATA, CONTEXT} & set(sizes))
    if set(sizes) - {DATA, CONTEXT, TENSOR} or max(len(choices), len(zero)) > 1 or not known:
        raise InvalidSharding(
            "the plan is no point of the outer search",
            hint=f"use the axes '{DATA}', '{CONTEXT}' and '{TENSOR}', one recompute choice, and "
            f"one ZeRO stage over '{DATA}' and '{CONTEXT}'",
        )
    parts = replicas * pipeline.microbatches
    if batch % parts:
        raise InvalidSharding(f"{replicas} replicas of {pipeline.microbatches} microbatches do not "
                              f"divide a batch of {batch}")  # fmt: skip
    point = Hybrid(
        stages=pipeline.stages,
        virtual=pipeline.virtual,
        tensor=tensor,
        replicas=replicas,
        microbatch=batch // parts,
        microbatches=pipeline.microbatches,
        zero=zero.pop(),
        recompute=choices.pop(),
        zero_bubble=pipeline.schedule == "zero-bubble",
        context=context,
    )
    return replace(point, order=_order(plan, point))


def _order(plan: Plan, point: Hybrid) -> tuple[str, ...]:
    """Return the order of axes in which the stages have the devices that the plan says."""
    inside = [name for name, _ in plan.mesh.axes if name != CONTEXT]
    inside += [axis for axis in (DATA, TENSOR) if axis not in inside]
    given = plan.pipeline.parts[0].devices if plan.pipeline.parts else ()
    for place in range(len(inside) + 1 if given else 1):
        order = (*inside[:place], STAGE, *inside[place:])
        if not given or _devices(replace(point, order=order), 0, always=True) == given:
            return order
    raise InvalidSharding("the stages' devices follow no order of mesh axes")


def prediction_of_hybrid(cost: HybridCost) -> Prediction:
    """Return time and memory of a point in the terms of a plan."""
    step, memory = cost.step, cost.memory
    return Prediction(
        time_s=step.total,
        compute_s=step.compute,
        memory_bound_s=step.memory_bound,
        communication_s=step.exposed_communication,
        overhead_s=step.overhead,
        bubble_s=step.bubble,
        update_s=step.optimizer,
        parameter_bytes=int(memory.parameters),
        state_bytes=int(memory.optimizer),
        gradient_bytes=int(memory.gradients),
        activation_bytes=int(memory.activations),
        temporary_bytes=int(memory.temporaries),
        buffer_bytes=int(memory.buffers),
        fragmentation_bytes=int(memory.fragmentation),
    )


def _stages(cost: HybridCost, workload: Workload, cluster: ClusterSpec | None) -> tuple[Stage, ...]:
    """Return what each stage holds and where; () when there is nothing to say."""
    point = cost.hybrid
    chunks = _chunks(cost, workload) if point.stages > 1 else []
    if point.stages == 1 or not (chunks or point.order[0] != STAGE):
        return ()
    devices = _by_kind(cost, cluster) or [_devices(point, stage) for stage in range(point.stages)]
    return tuple(
        Stage(tuple(chunks[stage :: point.stages]), devices=devices[stage])
        for stage in range(point.stages)
    )


def _by_kind(cost: HybridCost, cluster: ClusterSpec | None) -> list[tuple[int, ...]]:
    """Return the devices of each stage where stages are of several kinds; [] otherwise."""
    kinds = [kind for _, _, kind in cost.cuts]
    if len(set(kinds)) < 2 or cluster is None:
        return []
    each = cost.hybrid.mesh.num_devices // cost.hybrid.stages
    free: dict[str, list[int]] = {}
    for number, device in enumerate(cluster.devices):
        free.setdefault(device.kind, []).append(number)
    out = []
    for kind in kinds:
        out.append(tuple(free[kind][:each]))
        del free[kind][:each]
    return out


def _chunks(cost: HybridCost, workload: Workload) -> list[str]:
    """Return the segments of each virtual stage; [] when they share layers."""
    unfolded = [(s.name, n) for s in workload.segments for n in range(s.repeat)]
    repeats = {segment.name: segment.repeat for segment in workload.segments}
    point = cost.hybrid
    cuts = [(first, end) for first, end, _ in cost.cuts] or _even_cuts(point, workload)
    out = []
    for first, end in cuts:
        held: dict[str, list[int]] = {}
        for name, number in unfolded[first:end]:
            held.setdefault(name, []).append(number)
        ranges = [
            SegmentRange(name, numbers[0], numbers[-1] + 1)
            if repeats[name] > 1
            else SegmentRange(name)
            for name, numbers in held.items()
        ]
        out.append(chunk_to_text(ranges))
    return out


def _even_cuts(point: Hybrid, workload: Workload) -> list[tuple[int, int]]:
    """Return the cuts of layers spread evenly; [] when stages would share layers."""
    segments, place = workload.segments, workload.place
    counts = spread(workload.layers.repeat, point.stages * point.virtual)
    if any(count < 1 for count in counts):
        return []
    before = sum(segment.repeat for segment in segments[:place])
    ends = list(itertools.accumulate(map(int, counts), initial=before))
    ends[0], ends[-1] = 0, sum(segment.repeat for segment in segments)
    return list(itertools.pairwise(ends))


def _devices(point: Hybrid, stage: int, *, always: bool = False) -> tuple[int, ...]:
    """Return the devices of a stage; () when stages follow each other in line, unless always."""
    if point.order[0] == STAGE and not always:
        return ()
    mesh = point.mesh
    return tuple(d for d in range(mesh.num_devices) if mesh.coordinates(d)[STAGE] == stage)


def hybrid_insights(problem: HybridProblem, best: HybridCost) -> Insights:
    """Return each decision of a point made otherwise, and what more of something would give."""
    choices = [
        Choice(name, cost.seconds, int(cost.memory.total))
        for name, point in _neighbours(best.hybrid, problem)
        if (cost := problem.cost(point)) is not None
    ]
    communication = tuple(_communication(problem, best))
    return Insights((), tuple(_sensitivities(problem, best)), tuple(choices), communication)


def _communication(problem: HybridProblem, best: HybridCost) -> Iterator[tuple[str, float]]:
    """Yield the exposed communication by level: what endlessly fast links there would save."""
    whole = best.step.exposed_communication
    saved = {}
    for level, factors in (("chip", {"inner": 1e9}), ("host", {"outer": 1e9})):
        other = replace(problem, cluster=scaled(problem.cluster, **factors)).cost(best.hybrid)
        saved[level] = max(whole - other.step.exposed_communication, 0.0) if other else 0.0
    for level, seconds in saved.items():
        if seconds:
            yield level, whole * seconds / sum(saved.values())


def _neighbours(best: Hybrid, problem: HybridProblem) -> Iterator[tuple[str, Hybrid]]:
    """Yield the points that differ from the best in one decision, with that decision in words."""
    workload = work_of(problem.workloads, best)
    names = {choice.name for s in workload.segments for choice in s.recompute} if workload else ()
    for name in sorted(names):
        if name != best.recompute:
            yield f"recompute {name}", replace(best, recompute=name)
    for zero in range(4):
        if zero != best.zero and best.replicas > 1 and (zero < 2 or best.stages == 1):
            yield f"ZeRO {zero}", replace(best, zero=zero)
    counts = {"tensor": "devices a layer", "stages": "stages"}
    if best.context > 1 or problem.options.context > 1:
        counts["context"] = "devices a sequence or group of experts"
    for counted, things in counts.items():
        size = getattr(best, counted)
        for other in (size // 2, size * 2):
            point = _resized(best, counted, other, problem)
            if point is not None:
                yield f"{other} {things}", point
    for other in (best.microbatch // 2, best.microbatch * 2):
        if other and problem.batch % (other * best.replicas) == 0:
            count = problem.batch // (other * best.replicas)
            if best.virtual == 1 or count % best.stages == 0:
                point = replace(best, microbatch=other, microbatches=count)
                yield f"microbatches of {other}", point


def _resized(best: Hybrid, counted: str, size: int, problem: HybridProblem) -> Hybrid | None:
    """Return the best with another number of stages or tensor shards, replicas filling up."""
    sizes: dict[str, Any] = {name: getattr(best, name) for name in ("stages", "tensor", "context")}
    sizes[counted] = size
    share, devices = math.prod(sizes.values()), best.mesh.num_devices
    if size < 1 or devices % share:
        return None
    replicas = devices // share
    if problem.batch % (replicas * best.microbatch):
        return None
    count = problem.batch // (replicas * best.microbatch)
    virtual = best.virtual if sizes["stages"] > 1 and count % sizes["stages"] == 0 else 1
    point = replace(best, replicas=replicas, microbatches=count, virtual=virtual)
    return replace(point, **sizes)


def _sensitivities(problem: HybridProblem, best: HybridCost) -> Iterator[Sensitivity]:
    """Yield what the best plan would be with twice as much of each thing."""
    cluster = problem.cluster
    clusters = {
        "arithmetic twice as fast": scaled(cluster, flops=2),
        "memory bandwidth twice as high": scaled(cluster, bandwidth=2),
        "memory twice as large": scaled(cluster, memory=2),
        "links inside a host twice as fast": scaled(cluster, inner=2),
    }
    if len(cluster.hosts) > 1:
        clusters["links between hosts twice as fast"] = scaled(cluster, outer=2)
    found = []
    for name, other in clusters.items():
        winner = replace(problem, cluster=other).search().best[0]
        strategy = winner.hybrid.name if winner.hybrid.name != best.hybrid.name else ""
        found.append(Sensitivity(name, min(winner.seconds, best.seconds), strategy))
    yield from sorted(found, key=lambda item: (item.time_s, item.change))


def search_or_suggest(problem: HybridProblem, precision: str = "") -> HybridResult:
    """Return the fastest points.

    Args:
        problem: what is asked.
        precision: element type of the parameters, where it is known.

    Raises:
        InfeasiblePlan: when nothing fits; the hint names the smallest changes that are enough.
    """
    try:
        return problem.search()
    except InfeasiblePlan as error:
        hint = smallest_changes(problem, precision)
        raise InfeasiblePlan(error.what, error.where, hint) from error


def smallest_changes(problem: HybridProblem, precision: str = "") -> str:
    """Return what makes a problem feasible that is not, the smallest change first.

    More devices and smaller batches are searched, by factors of two; memory is grown to what the
    smallest point needs; parameters and gradients of half the width are subtracted there. What is
    not enough by itself is left out.
    """
    roomy = replace(problem.options, memory_share=1e9)
    try:
        smallest = replace(problem, options=roomy).search().smallest.memory
    except InfeasiblePlan as error:  # the batch cannot be spread at all
        return error.hint
    cluster, factors = problem.cluster, (2, 4, 8, 16)
    found = [(smallest.total / cluster.memory_bytes, f"devices of {bytes_text(smallest.total)}")]
    for factor in factors:
        wider = replace(cluster, scale=True).take(cluster.num_devices * factor)
        if _feasible(replace(problem, cluster=wider)):
            found.append((factor, f"{wider.num_devices} such devices"))
            break
    for factor in factors:
        batch, rest = divmod(problem.batch, factor)
        if not rest and _feasible(replace(problem, batch=batch)):
            found.append((factor, f"a batch of {batch} instead of {problem.batch}"))
            break
    halved = smallest.total - (smallest.parameters + smallest.gradients) / 2
    if precision in NARROWER and halved <= cluster.memory_bytes:
        found.append((2, f"parameters of {NARROWER[precision]} instead of {precision}"))
    return "it would fit with " + ", or ".join(text for _, text in sorted(found))


def _feasible(problem: HybridProblem) -> bool:
    try:
        problem.search()
    except InfeasiblePlan:
        return False
    return True
