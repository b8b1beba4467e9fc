"""staged: the time and memory of a plan with pipeline stages or microbatches, from those of one.

What is known is the whole program on the mesh of one stage, for the whole batch. A virtual stage
has the share of it that its layers have among all layers (an equal share where the plan does not
say), each microbatch a part of the batch, and the schedule is simulated (``pipeline/simulate.py``).
A training step's backward pass is taken to be twice its forward pass. Left out, and noted: what
stages send to each other, and what recomputation saves and costs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pai.passes.strategy.pipeline.schedules import Schedule, make_schedule
from pai.passes.strategy.pipeline.simulate import ChunkTimes, simulate
from pai.passes.strategy.plan import Pipeline, Plan, Prediction
from pai.passes.strategy.plan_segments import parse_chunk

FORWARD = 1 / 3
"""Part of a training step: two products of the backward pass for one of the forward pass."""
NO_SENDS = "what pipeline stages send to each other is not in the time"
NO_RECOMPUTE = "recomputation is in neither time nor memory"


def staged(whole: Prediction, plan: Plan, *, training: bool) -> Prediction:
    """Return the modelled cost of ``plan``.

    Args:
        whole: the program on the mesh of one stage, the batch at once.
        plan: its pipeline.
        training: whether the program has a backward pass and an update.
    """
    pipeline = plan.pipeline
    notes = whole.notes
    if any(how != "none" for _, how in plan.recompute):
        notes += (NO_RECOMPUTE,)
    if (pipeline.stages, pipeline.microbatches) == (1, 1):
        return replace(whole, notes=notes)
    if pipeline.stages > 1:
        notes += (NO_SENDS,)
    name = "1f1b" if pipeline.schedule == "none" else pipeline.schedule
    schedule = make_schedule(name, pipeline.stages, pipeline.microbatches, pipeline.virtual)
    shares = stage_shares(pipeline)
    timed = _times(whole, schedule, shares, training=training)
    return replace(_memory(timed, schedule, shares, training=training), notes=notes)


def stage_shares(pipeline: Pipeline) -> list[float]:
    """Return the part of the model in each virtual stage, in the order of execution.

    The segment with the most repetitions counts, and others are free; equal parts when the plan
    does not say how many a stage has.
    """
    count = pipeline.stages * pipeline.virtual
    chunks = [parse_chunk(text) for text in pipeline.order()]
    parts = [part for chunk in chunks for part in chunk if part.stop]
    if not parts:
        return [1 / count] * count
    layers = max(parts, key=lambda part: part.stop).name
    sizes = [sum(p.stop - p.start for p in chunk if p.name == layers) for chunk in chunks]
    return [size / sum(sizes) for size in sizes]


def _times(
    whole: Prediction, schedule: Schedule, shares: list[float], *, training: bool
) -> Prediction:
    """Return ``whole`` with the times of the busiest stage and the bubble of the schedule."""
    count = schedule.microbatches
    busy = whole.compute_s + whole.memory_bound_s + whole.communication_s + whole.update_s
    times = []
    for share in shares:
        seconds = share * (busy / count + whole.overhead_s)  # every microbatch launches its kernels
        forward = seconds * FORWARD if training else seconds
        backward = seconds - forward
        weight = backward / 2 if schedule.splits_backward else 0.0
        times.append(ChunkTimes(forward, backward - weight, weight))
    total = simulate(schedule, times).total
    most = max(sum(shares[stage :: schedule.stages]) for stage in range(schedule.stages))
    parts: dict[str, Any] = {
        "compute_s": whole.compute_s * most,
        "memory_bound_s": whole.memory_bound_s * most,
        "communication_s": whole.communication_s * most,
        "update_s": whole.update_s * most,
        "overhead_s": whole.overhead_s * most * count,
    }
    bubble = max(0.0, total - sum(parts.values()))
    uses = tuple(replace(use, seconds=use.seconds * most) for use in whole.collectives)
    return replace(
        whole,
        time_s=sum(parts.values()) + bubble,
        **parts,
        bubble_s=bubble,
        hidden_s=whole.hidden_s * most,
        collectives=uses,
    )


def _memory(
    whole: Prediction, schedule: Schedule, shares: list[float], *, training: bool
) -> Prediction:
    """Return ``whole`` with the memory of the fullest stage."""
    stages = [
        _stage_memory(whole, schedule, shares, stage, training=training)
        for stage in range(schedule.stages)
    ]
    return max(stages, key=lambda predicted: predicted.memory_bytes)


def _stage_memory(
    whole: Prediction, schedule: Schedule, shares: list[float], stage: int, *, training: bool
) -> Prediction:
    own = shares[stage :: schedule.stages]
    share, count = sum(own), schedule.microbatches
    values = (whole.temporary_bytes + whole.activation_bytes) / count
    alive = schedule.peak_activations(stage, own) if training else max(own)
    gradients = whole.gradient_bytes * share
    if training and count > 1:  # they are added up over the microbatches
        gradients = max(gradients, whole.parameter_bytes * share)
    return replace(
        whole,
        parameter_bytes=int(whole.parameter_bytes * share),
        state_bytes=int(whole.state_bytes * share),
        gradient_bytes=int(gradients),
        activation_bytes=int(values * alive) if training else 0,
        temporary_bytes=0 if training else int(values * alive),
    )
