"""simulated: the course of a step as a plan predicts it, by stage and microbatch.

The predicted times are those of the busiest stage; the others have what their share of the layers
makes of them. Transfers between stages are part of the predicted communication, not bars of their
own.
"""

from __future__ import annotations

from pai.passes.strategy.pipeline.schedules import make_schedule
from pai.passes.strategy.pipeline.simulate import ChunkTimes, Simulation, simulate
from pai.passes.strategy.plan_data import Plan
from pai.passes.strategy.staged import FORWARD, stage_shares


def simulated(plan: Plan) -> Simulation:
    """Return the simulated step of a plan with its timeline; of a training step, if it has stages.

    A plan of one stage has a forward and a backward bar for each microbatch.
    """
    pipeline, predicted = plan.pipeline, plan.predicted
    name = "1f1b" if pipeline.schedule == "none" else pipeline.schedule
    schedule = make_schedule(name, pipeline.stages, pipeline.microbatches, pipeline.virtual)
    shares = stage_shares(pipeline)
    busiest = max(sum(shares[stage :: pipeline.stages]) for stage in range(pipeline.stages))
    busy = predicted.time_s - predicted.bubble_s - predicted.update_s
    times = []
    for share in shares:
        seconds = busy * share / busiest / pipeline.microbatches
        weight = seconds * (1 - FORWARD) / 2 if schedule.splits_backward else 0.0
        backward = seconds * (1 - FORWARD) - weight
        times.append(ChunkTimes(seconds * FORWARD, backward, weight))
    update = [predicted.update_s] * pipeline.stages
    return simulate(schedule, times, update=update, timeline=True)
