"""Stages of a pipeline: what a range of the model costs on some devices, and the divided model.

The model is a *chain* of segments, the same name for equal ones, so that a range of it costs what
its counts of each name cost: a table of a few hundred entries, however deep the model.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from pai.passes.strategy.pipeline.schedules import make_schedule
from pai.passes.strategy.pipeline.simulate import ChunkTimes, Simulation, simulate
from pai.passes.strategy.workload import Workload

Floats = NDArray[np.float64]
Chain = Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Submesh:
    """A choice of devices for one stage.

    Args:
        kind: the kind of device, by which the pools count.
        devices: how many.
        memory_bytes: memory of each.
    """

    kind: str
    devices: int
    memory_bytes: float


@dataclass(frozen=True)
class StageRange:
    """A contiguous part of the chain.

    Args:
        counts: (name, how many) of its segments; a name that is not there is left out.
        last: name of its last segment, whose output is handed on.
    """

    counts: tuple[tuple[str, int], ...]
    last: str


@dataclass(frozen=True)
class StageCost:
    """What a range costs on a submesh: seconds for a microbatch, bytes on each device.

    Args:
        forward: forward pass.
        backward: gradients by activations, recomputation included.
        weight: gradients by weights.
        send: handing the output to the next stage; the gradient comes back in the same time.
        static_bytes: parameters, gradients, optimizer state.
        activation_bytes: kept for each microbatch in flight.
        transient_bytes: temporaries and buffers.
        parameters: on each device, in elements, ZeRO not counted.
        experts: those of them that the context axis splits (``Segment.experts``).
    """

    forward: float
    backward: float = 0.0
    weight: float = 0.0
    send: float = 0.0
    static_bytes: float = 0.0
    activation_bytes: float = 0.0
    transient_bytes: float = 0.0
    parameters: float = 0.0
    experts: float = 0.0

    @property
    def seconds(self) -> float:
        """Compute of one microbatch."""
        return self.forward + self.backward + self.weight

    def memory(self, microbatches: int) -> float:
        """Return the bytes on a device with this many microbatches in flight."""
        return self.static_bytes + microbatches * self.activation_bytes + self.transient_bytes


CostFunction = Callable[[StageRange, Submesh], StageCost]


@dataclass(frozen=True)
class Stage:
    """One (virtual) stage of the result.

    Args:
        first: place of its first segment in the unfolded chain.
        end: place behind its last.
        submesh: its devices.
        cost: what it costs.
        memory_bytes: on each of its devices; those of a stage of several chunks have it together.
    """

    first: int
    end: int
    submesh: Submesh
    cost: StageCost
    memory_bytes: float


@dataclass(frozen=True)
class PipelinePlan:
    """Stages and their schedule.

    Args:
        schedule: name of the schedule.
        microbatches: of a step.
        chunks: virtual stages of each stage.
        stages: the virtual stages, in the model's order.
        seconds: modelled time of a step, without gathers, reductions and the update.
    """

    schedule: str
    microbatches: int
    chunks: int
    stages: tuple[Stage, ...]
    seconds: float

    @property
    def num_stages(self) -> int:
        """Stages of the pipeline."""
        return len(self.stages) // self.chunks

    def times(self) -> tuple[ChunkTimes, ...]:
        """Return the times for `simulate`, by virtual stage."""
        sends = [0.0] + [stage.cost.send for stage in self.stages[:-1]]
        return tuple(
            ChunkTimes(s.cost.forward, s.cost.backward, s.cost.weight, s.cost.send, back)
            for s, back in zip(self.stages, sends, strict=True)
        )

    def simulate(self, *, overlap_sends: bool = True, timeline: bool = False) -> Simulation:
        """Return the simulated step."""
        schedule = make_schedule(self.schedule, self.num_stages, self.microbatches, self.chunks)
        return simulate(schedule, self.times(), overlap_sends=overlap_sends, timeline=timeline)


def chain_of(workload: Workload) -> tuple[tuple[str, int], ...]:
    """Return the chain of a workload's segments."""
    return tuple((segment.name, segment.repeat) for segment in workload.segments)


def additive(
    costs: Mapping[tuple[str, str], StageCost], tensor: Callable[[Submesh], str] | None = None
) -> CostFunction:
    """Return the function that adds up the costs of segments.

    Transient memory is that of the segment with most, and the last segment's output is sent.

    Args:
        costs: by name of the segment and kind of submesh.
        tensor: names the kind of a submesh; its device kind when left out.
    """

    def cost(part: StageRange, submesh: Submesh) -> StageCost:
        kind = tensor(submesh) if tensor else submesh.kind
        found = [(costs[name, kind], count) for name, count in part.counts]
        added = {
            f.name: sum(getattr(one, f.name) * count for one, count in found)
            for f in fields(StageCost)
        }
        transient = max(one.transient_bytes for one, _ in found)
        send = costs[part.last, kind].send
        return replace(StageCost(**added), transient_bytes=transient, send=send)

    return cost


class CostTable:
    """The costs of all ranges of a chain on all submeshes, each distinct range asked for once.

    Args:
        chain: (name, repeat) in the model's order; a name may come again.
        submeshes: the choices.
        cost: called for each distinct range and submesh.
    """

    def __init__(self, chain: Chain, submeshes: Sequence[Submesh], cost: CostFunction) -> None:
        self.chain = tuple(chain)
        self.submeshes = tuple(submeshes)
        self.names = [name for name, repeat in chain for _ in range(repeat)]
        self.length = len(self.names)
        kinds = list(dict.fromkeys(self.names))
        numbers = np.array([kinds.index(name) for name in self.names])
        prefix = np.zeros((self.length + 1, len(kinds)), np.int64)
        prefix[1:] = np.cumsum(np.eye(len(kinds), dtype=np.int64)[numbers], axis=0)
        first, end = np.triu_indices(self.length + 1, 1)
        keys = np.concatenate([prefix[end] - prefix[first], numbers[end - 1, None]], axis=1)
        distinct, index = np.unique(keys, axis=0, return_inverse=True)
        ranges = [
            StageRange(
                tuple((kinds[i], int(n)) for i, n in enumerate(key[:-1]) if n), kinds[int(key[-1])]
            )
            for key in distinct
        ]
        self.costs = [[cost(part, submesh) for part in ranges] for submesh in self.submeshes]
        self._index = np.full((self.length + 1,) * 2, -1)  # by (segments, first)
        self._index[end - first, first] = index.reshape(-1)

    def on(self, submeshes: Sequence[Submesh]) -> CostTable:
        """Return the same costs for submeshes that differ in their memory."""
        other = copy.copy(self)
        other.submeshes = tuple(submeshes)
        return other

    def at(self, submesh: int, first: int, end: int) -> StageCost:
        """Return the cost of segments ``first`` to ``end`` (exclusive)."""
        return self.costs[submesh][int(self._index[end - first, first])]

    def matrix(self, submesh: int, value: Callable[[StageCost], float]) -> Floats:
        """Return a number of each range, by (segments, first); infinite where there is none."""
        values = np.array([*map(value, self.costs[submesh]), math.inf])
        return values[self._index]
