"""Choose schedule, stages, chunks and microbatches together; share a batch among unlike devices."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pai.passes.strategy.pipeline.divide import divide
from pai.passes.strategy.pipeline.stages import (
    Chain,
    CostFunction,
    CostTable,
    PipelinePlan,
    Submesh,
)
from pai.runtime.errors import InfeasiblePlan, InvalidInput


@dataclass(frozen=True)
class PipelineChoices:
    """What a pipeline may be.

    Args:
        chain: (name, repeat) of the model's segments.
        submeshes: the devices that one stage may have.
        pools: devices of each kind.
        costs: from a number of microbatches to the costs of ranges for one of them.
        microbatches: numbers of microbatches that divide the batch.
        stages: numbers of stages.
        schedules: names of schedules.
        chunks: numbers of chunks a stage, for ``interleaved``.
    """

    chain: Chain
    submeshes: tuple[Submesh, ...]
    pools: Mapping[str, int]
    costs: Callable[[int], CostFunction]
    microbatches: Sequence[int]
    stages: Sequence[int]
    schedules: Sequence[str] = ("1f1b",)
    chunks: Sequence[int] = (2, 3, 4)

    def combinations(self) -> Iterator[tuple[int, int, str, int]]:
        """Yield (microbatches, stages, schedule, chunks)."""
        for m, p, schedule in itertools.product(self.microbatches, self.stages, self.schedules):
            if schedule != "interleaved":
                yield m, p, schedule, 1
            elif m % p == 0 and p > 1 and len(self.submeshes) == 1:
                for chunks in self.chunks:
                    yield m, p, schedule, chunks


def choose_pipeline(choices: PipelineChoices, *, simulated: int = 4) -> tuple[PipelinePlan, ...]:
    """Return the plans that fit, fastest first.

    Args:
        choices: what a pipeline may be.
        simulated: how many of the plans that the closed form finds fastest are simulated; they
            are ordered by that time, and come first.

    Raises:
        InfeasiblePlan: when none fits; names the stage that lacks least.
    """
    found = []
    tables: dict[int, CostTable] = {}
    for m, p, schedule, chunks in choices.combinations():
        if m not in tables:
            tables[m] = CostTable(choices.chain, choices.submeshes, choices.costs(m))
        plan = divide(tables[m], choices.pools, schedule, p, m, chunks)
        if plan is not None:
            found.append(plan)
    if not found:
        raise _infeasible(choices, tables)
    found.sort(key=lambda plan: (plan.seconds, plan.num_stages, plan.microbatches))
    best = [replace(plan, seconds=plan.simulate().total) for plan in found[:simulated]]
    best.sort(key=lambda plan: (plan.seconds, plan.num_stages, plan.microbatches))
    return (*best, *found[simulated:])


def _infeasible(choices: PipelineChoices, tables: Mapping[int, CostTable]) -> InfeasiblePlan:
    """Return the error that names the least overflow of all combinations."""
    limits = [submesh.memory_bytes for submesh in choices.submeshes]
    endless = [replace(submesh, memory_bytes=math.inf) for submesh in choices.submeshes]
    closest: list[tuple[float, str]] = []
    for m, p, schedule, chunks in choices.combinations():
        plan = divide(tables[m].on(endless), choices.pools, schedule, p, m, chunks)
        lacks = [
            (stage.memory_bytes - limits[endless.index(stage.submesh)], number, stage.memory_bytes)
            for number, stage in enumerate(plan.stages[:p] if plan else ())
        ]
        if lacks:
            over, number, need = max(lacks)
            text = f"stage {number} of {p} needs {need / 2**30:.1f} GiB of "
            text += f"{(need - over) / 2**30:.1f} GiB with {m} microbatches ({schedule})"
            closest.append((over, text))
    if not closest:
        return InfeasiblePlan("there are fewer segments or devices than stages")
    return InfeasiblePlan(
        "no division into pipeline stages fits the memory", hint=f"closest: {min(closest)[1]}"
    )


def split_batch(
    batch: int, seconds: Sequence[Callable[[int], float]], limits: Sequence[int] = ()
) -> tuple[int, ...]:
    """Return the shares of a batch that let the slowest replica finish first.

    As Whale does for replicas on unlike devices (X. Jia et al., USENIX ATC 2022, section 3.5),
    but exact: each sample in turn goes where it ends earliest, which is optimal when no replica
    becomes faster with more samples.

    Args:
        batch: samples.
        seconds: by replica, the time it takes for a number of samples.
        limits: by replica, the most samples that its memory takes; none when left out.

    Raises:
        InfeasiblePlan: when the limits are too small for the batch.
    """
    if batch < 0 or not seconds or len(limits) not in (0, len(seconds)):
        raise InvalidInput(
            f"a batch of {batch} for {len(seconds)} replicas with {len(limits)} limits",
            hint="give at least one replica, and each one a limit or none",
        )
    most = list(limits) or [batch] * len(seconds)
    if sum(most) < batch:
        raise InfeasiblePlan(
            f"a batch of {batch} does not fit: the replicas have memory for {sum(most)}",
            hint="use a smaller batch or accumulate gradients",
        )
    shares = [0] * len(seconds)
    queue = [(time(1), number) for number, time in enumerate(seconds) if most[number] > 0]
    heapq.heapify(queue)
    for _ in range(batch):
        _, number = heapq.heappop(queue)
        shares[number] += 1
        if shares[number] < most[number]:
            heapq.heappush(queue, (seconds[number](shares[number] + 1), number))
    return tuple(shares)
