"""Peak memory of one device in a training step, by what fills it.

Activations: what a segment keeps for a microbatch (its ``Recompute``) times the microbatches in
flight, which for 1F1B is the distance to the last stage and for the interleaved schedule
(p·v + p - 1) chunks of layers on the first (V. Korthikanti et al., "Reducing Activation
Recomputation in Large Transformer Models", 2022, §4.2.3). State by ZeRO stage: S. Rajbhandari et
al., "ZeRO", SC'20. The fullest stage counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from pai.passes.strategy.pipeline.schedules import in_flight
from pai.passes.strategy.step import Execution, spread
from pai.passes.strategy.workload import Segment, Workload

FRAGMENTATION = 0.075
"""What a caching allocator holds beyond what is alive, as a part of it.

torchtitan.csv's first row: 82.4 GiB reserved, 76 GiB by the parts below without this one.
"""


@dataclass(frozen=True)
class State:
    """Bytes of training state for a parameter.

    Args:
        parameter: the parameter itself.
        gradient: its gradient.
        optimizer: moments and the master copy.
    """

    parameter: float = 2
    gradient: float = 2
    optimizer: float = 12


@dataclass(frozen=True)
class MemoryCost:
    """Bytes of one device at its fullest moment.

    Args:
        parameters: parameters it holds all the time.
        gradients: gradients it holds all the time.
        optimizer: optimizer state.
        activations: kept for the backward passes of microbatches in flight.
        temporaries: alive inside a segment at the peak: recomputed values, logits, gradients.
        buffers: gathered parameters and gradients on their way (ZeRO-3), messages.
        fragmentation: held by the allocator and not used.
    """

    parameters: float
    gradients: float
    optimizer: float
    activations: float
    temporaries: float
    buffers: float
    fragmentation: float

    @property
    def total(self) -> float:
        """Bytes of all parts."""
        return (
            self.parameters
            + self.gradients
            + self.optimizer
            + self.activations
            + self.temporaries
            + self.buffers
            + self.fragmentation
        )


def memory_cost(workload: Workload, run: Execution, state: State | None = None) -> MemoryCost:
    """Return the memory of the fullest stage.

    Args:
        workload: the work of a microbatch, after tensor and context parallelism.
        run: stages, schedule, replicas, ZeRO stage and recompute.
        state: bytes of state for a parameter.
    """
    costs = [_stage(workload, run, state or State(), stage) for stage in range(run.stages)]
    return max(costs, key=lambda cost: cost.total)


def microbatches_kept(run: Execution, stage: int) -> float:
    """Return how many microbatches' activations of all its layers a stage holds at most."""
    chunks = run.virtual
    return in_flight(run.schedule_name, run.stages, run.microbatches, stage, chunks) / chunks


def kept(segment: Segment, recompute: str) -> float:
    """Return the bytes that a segment keeps for a microbatch under a choice of recompute."""
    choices = {choice.name: choice.saved_bytes for choice in segment.recompute}
    return choices.get(recompute, choices["none"])


def _stage(workload: Workload, run: Execution, state: State, stage: int) -> MemoryCost:
    held = _segments(workload, run, stage)
    parameters = sum(count * segment.parameters for segment, count in held)
    if 0 < stage == run.stages - 1:
        parameters += workload.tied
    experts = sum(count * segment.experts for segment, count in held)
    parts = [run.owned(parameters, experts, level) for level in (3, 2, 1)]
    live = sum(count * kept(segment, run.recompute) for segment, count in held)
    alive = (
        state.parameter * parts[0],
        state.gradient * parts[1],
        state.optimizer * parts[2],
        live * microbatches_kept(run, stage),
        max(_transient(segment, run.recompute) for segment, _ in held),
        _buffers(held, run),
    )
    return MemoryCost(*alive, FRAGMENTATION * sum(alive))


def _segments(workload: Workload, run: Execution, stage: int) -> list[tuple[Segment, float]]:
    """Return the segments of a stage and how many of each."""
    layers, place = workload.layers, workload.place
    held: list[tuple[Segment, float]] = [(layers, spread(layers.repeat, run.stages)[stage])]
    if stage == 0:
        held += [(segment, segment.repeat) for segment in workload.segments[:place]]
    if stage == run.stages - 1:
        held += [(segment, segment.repeat) for segment in workload.segments[place + 1 :]]
    return held


def _transient(segment: Segment, recompute: str) -> float:
    """Return what is alive inside a segment besides what it keeps."""
    again = kept(segment, "none") - kept(segment, recompute)
    return segment.transient_bytes + max(0.0, again)


def gathered_elements(segment: Segment, run: Execution) -> float:
    """Return the parameters of a segment that devices have in shards, on one of them gathered."""
    return sum(elements for elements, _ in run.alike(segment.parameters, segment.experts))


def _buffers(held: list[tuple[Segment, float]], run: Execution) -> float:
    """Return gathered parameters and the gradients of the largest segment.

    ZeRO-3 holds two layers and all that is not a layer; ZeRO-2 by segments gathers once for both
    passes and holds everything.
    """
    if not run.by_segment:
        return 0.0
    (layer, count), *others = held
    gathered = (2 if run.zero == 3 else count) * gathered_elements(layer, run)
    gathered += sum(gathered_elements(segment, run) * times for segment, times in others)
    largest = max(gathered_elements(segment, run) for segment, _ in held)
    return gathered * run.gather_bytes + largest * (run.gather_bytes + run.reduce_bytes)
