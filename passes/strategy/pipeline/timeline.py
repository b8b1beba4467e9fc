"""The stages and the course of one training step: what the closed forms of ``step.py`` estimate.

The layers are divided among the stages (``divide.py``), unevenly where embedding and head, memory
or unlike devices ask for it, and the step is simulated with what happens once in it: gathers of
parameters, reductions of gradients, the update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pai.passes.strategy.kernels import Kernels
from pai.passes.strategy.memory import State
from pai.passes.strategy.pipeline.divide import divide
from pai.passes.strategy.pipeline.schedules import make_schedule
from pai.passes.strategy.pipeline.segment_costs import StageWork, workload_costs
from pai.passes.strategy.pipeline.simulate import ChunkTimes, Simulation, simulate
from pai.passes.strategy.pipeline.stages import (
    CostTable,
    PipelinePlan,
    Stage,
    Submesh,
    chain_of,
)
from pai.passes.strategy.step import Execution, Network
from pai.passes.strategy.workload import Workload


@dataclass(frozen=True)
class StageDevices:
    """Devices of one kind that stages can be made of.

    Args:
        kernels: the clock of the kind.
        memory_bytes: of one device.
        stages: how many stages there are devices for.
    """

    kernels: Kernels
    memory_bytes: float
    stages: int


@dataclass(frozen=True)
class Timeline:
    """A divided and simulated step.

    Args:
        plan: the stages; their memory, and the kind of their devices.
        simulation: the course of the step.
    """

    plan: PipelinePlan
    simulation: Simulation

    @property
    def seconds(self) -> float:
        """Seconds of the step."""
        return self.simulation.total

    @property
    def memory_bytes(self) -> float:
        """Bytes of the fullest device."""
        return max(stage.memory_bytes for stage in self.plan.stages)


def timeline(
    workload: Workload,
    run: Execution,
    devices: Sequence[StageDevices],
    network: Network,
    *,
    state: State | None = None,
    bars: bool = False,
) -> Timeline | None:
    """Return the best division of a model among the stages of ``run`` and its step.

    Args:
        workload: the work of one device for one microbatch, the same on all kinds of device.
        run: stages, schedule, microbatches, replicas, ZeRO, recompute, what overlaps.
        devices: the kinds of devices, each kind once; with chunks there has to be one kind.
        network: seconds of collectives, the same for all stages.
        state: bytes of state for a parameter.
        bars: whether the simulation keeps its timeline, for a trace.

    Returns:
        None when no division fits the memory, or there are fewer segments than stages.
    """
    known = {
        Submesh(kind.kernels.device.kind, 1, kind.memory_bytes): StageWork(
            workload, run, kind.kernels, network, state or State()
        )
        for kind in devices
    }
    table = CostTable(chain_of(workload), tuple(known), workload_costs(known.__getitem__))
    pools = {kind.kernels.device.kind: kind.stages for kind in devices}
    plan = divide(table, pools, run.schedule_name, run.stages, run.microbatches, run.virtual)
    if plan is None:
        return None
    schedule = make_schedule(plan.schedule, run.stages, run.microbatches, run.virtual)
    simulation = simulate(
        schedule,
        [
            _with_replicas(times, stage, run, network)
            for times, stage in zip(plan.times(), plan.stages, strict=True)
        ],
        update=[_update(plan, stage, run, known) for stage in range(run.stages)],
        # 1f1b sends as soon as it can; chunks wait for theirs unless they are sent beside.
        overlap_sends=run.overlap_send or run.virtual == 1,
        overlap_collectives=run.overlap_reduce,
        timeline=bars,
    )
    return Timeline(replace(plan, seconds=simulation.total), simulation)


def _with_replicas(times: ChunkTimes, stage: Stage, run: Execution, network: Network) -> ChunkTimes:
    """Return a virtual stage's times with what its replicas exchange once in the step."""
    if run.copies == 1 or run.by_segment:
        return times
    parts = run.alike(stage.cost.parameters, stage.cost.experts)
    buckets = max(stage.end - stage.first, 1)

    def seconds(kind: str, each: float) -> float:
        return sum(network(kind, elements * each, axes) for elements, axes in parts)

    if run.zero == 0:
        return replace(times, reduce=seconds("all_reduce", run.reduce_bytes), buckets=buckets)
    return replace(
        times,
        gather=seconds("all_gather", run.gather_bytes),
        reduce=seconds("reduce_scatter", run.reduce_bytes),
        buckets=buckets,
    )


def _update(
    plan: PipelinePlan, stage: int, run: Execution, known: dict[Submesh, StageWork]
) -> float:
    """Return the seconds of a stage's update."""
    chunks = plan.stages[stage :: run.stages]
    owned = sum(run.owned(c.cost.parameters, c.cost.experts, 1) for c in chunks)
    return owned * run.update_bytes / known[chunks[0].submesh].kernels.bandwidth
