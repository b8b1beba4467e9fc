"""The cost model's workloads as costs of pipeline stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pai.passes.strategy.kernels import Kernels
from pai.passes.strategy.memory import FRAGMENTATION, State, gathered_elements, kept
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
        gathered, passing = self.gathered_bytes(segment)
        saved = kept(segment, run.recompute)
        again = max(0.0, kept(segment, "none") - saved)
        return StageCost(
            seconds.forward,
            seconds.backward,
            seconds.weight,
            self.network("send", segment.output_bytes, run.stage_axes),
            whole * (self.state_bytes(segment.parameters, segment.experts) + gathered),
            whole * saved,
            whole * (segment.transient_bytes + again + passing),
            segment.parameters,
            segment.experts,
        )

    def gathered_bytes(self, segment: Segment) -> tuple[float, float]:
        """Return the bytes of gathered parameters that stay, and of those on their way.

        As ``memory.py``, with the largest segment of all on its way: ZeRO-3 keeps what is not
        repeated and two of the layers, ZeRO-2 by segments all of them.
        """
        run = self.run
        if not run.by_segment:
            return 0.0, 0.0
        layer = max(self.workload.segments, key=lambda other: other.repeat)
        largest = max(gathered_elements(other, run) for other in self.workload.segments)
        passing = largest * (run.gather_bytes + run.reduce_bytes)
        if run.zero == 3:
            passing += 2 * gathered_elements(layer, run) * run.gather_bytes
        stays = run.zero == 2 or segment is not layer
        return gathered_elements(segment, run) * run.gather_bytes * stays, passing

    def state_bytes(self, parameters: float, experts: float = 0.0) -> float:
        """Return the bytes of parameters, gradients and optimizer state on one device."""
        state, run = self.state, self.run
        each = ((state.parameter, 3), (state.gradient, 2), (state.optimizer, 1))
        return sum(size * run.owned(parameters, experts, level) for size, level in each)


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
