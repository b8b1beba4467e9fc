"""The cost model's workloads as costs of pipeline stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pai.passes.strategy.kernels import Kernels
from pai.passes.strategy.memory import FRAGMENTATION, State, kept
from pai.passes.strategy.pipeline.stages import (
    CostFunction,
    StageCost,
    StageRange,
    Submesh,
    additive,
)
from pai.passes.strategy.step import Execution, Network, segment_seconds
from pai.passes.strategy.workload import Segment, Workload


@dataclass(frozen=True)
class StageWork:
    """How the segments of a model run on the devices of a submesh.

    Args:
        workload: the work of one device for one microbatch.
        run: replicas inside the stage, ZeRO stage, recompute; its stages say nothing here.
        kernels: the clock of the devices.
        network: seconds of collectives, and of a ``send`` to the next stage.
        state: bytes of state for a parameter.
    """

    workload: Workload
    run: Execution
    kernels: Kernels
    network: Network
    state: State = field(default_factory=State)

    def costs(self) -> dict[str, StageCost]:
        """Return the cost of each segment by name."""
        return {segment.name: self.segment(segment) for segment in self.workload.segments}

    def segment(self, segment: Segment) -> StageCost:
        """Return the cost of one segment."""
        run = self.run
        seconds = segment_seconds(segment, run, self.kernels, self.network)
        whole = 1 + FRAGMENTATION
        gathered = 3 * run.gather_bytes + run.reduce_bytes if run.zero == 3 else 0.0
        saved = kept(segment, run.recompute)
        again = max(0.0, kept(segment, "none") - saved)
        return StageCost(
            seconds.forward,
            seconds.backward,
            seconds.weight,
            self.network("send", segment.output_bytes, run.stage_axes),
            whole * self.state_bytes(segment.parameters),
            whole * saved,
            whole * (segment.transient_bytes + again + gathered * segment.parameters),
            segment.parameters,
        )

    def state_bytes(self, parameters: float) -> float:
        """Return the bytes of parameters, gradients and optimizer state on one device."""
        shares = [self.run.replicas if self.run.zero >= level else 1 for level in (3, 2, 1)]
        state = self.state
        return parameters * (
            state.parameter / shares[0] + state.gradient / shares[1] + state.optimizer / shares[2]
        )


def workload_costs(works: Callable[[Submesh], StageWork]) -> CostFunction:
    """Return the cost function of a model's stages.

    A table that the first and the last segment share is on both of their stages.

    Args:
        works: the work on each submesh; all workloads have the same segments.
    """
    known: dict[Submesh, tuple[StageWork, CostFunction]] = {}

    def cost(part: StageRange, submesh: Submesh) -> StageCost:
        if submesh not in known:
            work = works(submesh)
            costs = {(name, ""): found for name, found in work.costs().items()}
            known[submesh] = (work, additive(costs, lambda _: ""))
        work, add = known[submesh]
        total = add(part, submesh)
        names = {name for name, _ in part.counts}
        first, last = work.workload.segments[0].name, work.workload.segments[-1].name
        if last in names and first not in names:
            tied = (1 + FRAGMENTATION) * work.state_bytes(work.workload.tied)
            total = replace(
                total,
                static_bytes=total.static_bytes + tied,
                parameters=total.parameters + work.workload.tied,
            )
        return total

    return cost
