"""Discrete-event simulation of one step of a pipeline: stages × microbatches × streams.

Every stage has four streams that run at the same time and each work off what they are given in
order:

- *compute*: the actions of the schedule's row, each when its input has arrived;
- *send*: what a stage hands to its neighbours, in the order in which it was made;
- *receive*: the other end of the neighbours' sends;
- *collective*: gathers of parameters before a chunk's first forward action, reductions of
  gradients behind its last gradient action.

All times follow from the schedule, so this is a longest path; it is found in one pass over the
actions. The update starts when all stages have reduced their gradients, as a norm over all of them
wants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pai.passes.strategy.pipeline.schedules import Action, Kind, Schedule
from pai.runtime.errors import InvalidSchedule

STREAMS = ("compute", "send", "receive", "collective")


@dataclass(frozen=True)
class ChunkTimes:
    """What one virtual stage costs, in seconds; for a microbatch where nothing else is said.

    Args:
        forward: forward pass.
        backward: gradients by activations, recomputation included.
        weight: gradients by weights; a schedule that does not split the backward pass runs them
            with ``backward``.
        send_forward: activations to the next virtual stage.
        send_backward: gradients to the one before.
        gather: gathering the parameters, once a step.
        reduce: reducing the gradients, once a step.
        buckets: parts of ``gather`` and ``reduce`` that overlap with the first forward and the
            last gradient action of the chunk, as layers do; 1 waits for the whole.
    """

    forward: float
    backward: float
    weight: float = 0.0
    send_forward: float = 0.0
    send_backward: float = 0.0
    gather: float = 0.0
    reduce: float = 0.0
    buckets: int = 1


class Event(NamedTuple):
    """One bar of the timeline; seconds from the start of the step.

    Args:
        stage: whose stream.
        stream: one of ``STREAMS``.
        name: the action, or what is moved for it.
        start: begin.
        end: end.
    """

    stage: int
    stream: str
    name: str
    start: float
    end: float


@dataclass(frozen=True)
class StageUse:
    """How a stage spends the step, in seconds.

    ``compute``, ``exposed``, ``bubble`` and ``update`` add up to the step's time.

    Args:
        compute: its actions.
        exposed: waiting for data on its way, and for collectives.
        bubble: waiting for other stages to compute.
        update: the optimizer.
        send: busy time of the send stream.
        receive: busy time of the receive stream.
        collective: busy time of the collective stream.
        in_flight: most microbatches (of a chunk) kept at once.
    """

    compute: float
    exposed: float
    bubble: float
    update: float
    send: float
    receive: float
    collective: float
    in_flight: int


@dataclass(frozen=True)
class Simulation:
    """The course of one step.

    Args:
        total: seconds of the step.
        stages: by stage.
        timeline: the bars, when they were asked for.
    """

    total: float
    stages: tuple[StageUse, ...]
    timeline: tuple[Event, ...] = field(default=(), repr=False)

    @property
    def bubble_fraction(self) -> float:
        """Idle over compute time (the definition of D. Narayanan et al., SC 2021), on average."""
        compute = sum(stage.compute for stage in self.stages)
        return sum(stage.bubble for stage in self.stages) / compute if compute else 0.0

    @property
    def exposed(self) -> float:
        """Seconds of communication that no compute hides, on the stage with most of it."""
        return max(stage.exposed for stage in self.stages)


def simulate(
    schedule: Schedule,
    times: Sequence[ChunkTimes],
    *,
    update: Sequence[float] = (),
    overlap_sends: bool = True,
    overlap_collectives: bool = True,
    timeline: bool = False,
) -> Simulation:
    """Return the course of one step.

    Args:
        schedule: what each stage does; one that `Schedule.check` accepts.
        times: by virtual stage.
        update: seconds of the optimizer, by stage; none when left out.
        overlap_sends: whether a stage computes while it sends.
        overlap_collectives: whether collectives run beside compute; otherwise they come before
            the first action and behind the last.
        timeline: whether to keep the bars (one of each action and of each transfer's two ends).

    Raises:
        InvalidSchedule: when ``times`` or ``update`` do not fit, or the schedule deadlocks.
    """
    if len(times) != schedule.virtual_stages or len(update) not in (0, schedule.stages):
        raise InvalidSchedule(
            f"{len(times)} chunk times and {len(update)} updates for {schedule.stages} stages of "
            f"{schedule.chunks} chunks",
            f"schedule '{schedule.name}'",
        )
    run = _Run(schedule, times, overlap_sends, overlap_collectives, timeline)
    run.execute()
    return run.finish(list(update) or [0.0] * schedule.stages)


class _Stage:
    """The state of one stage's streams."""

    def __init__(self, row: Sequence[Action]) -> None:
        self.row = row
        self.slot = 0
        self.free = self.sending = self.collecting = 0.0  # when each stream is free
        self.compute = self.exposed = self.bubble = 0.0
        self.send = self.receive = self.collective = 0.0


class _Run:
    def __init__(
        self,
        schedule: Schedule,
        times: Sequence[ChunkTimes],
        overlap_sends: bool,
        overlap_collectives: bool,
        timeline: bool,
    ) -> None:
        self.schedule = schedule
        self.times = times
        self.overlap_sends = overlap_sends
        self.buckets = [t.buckets if overlap_collectives else 0 for t in times]
        self.events: list[Event] | None = [] if timeline else None
        self.stages = [_Stage(row) for row in schedule.rows]
        count = schedule.virtual_stages
        # By virtual stage: when each microbatch's input is there, and when it was made.
        self.inputs: dict[Kind, list[dict[int, tuple[float, float]]]] = {
            Kind.FORWARD: [{} for _ in range(count)],
            Kind.BACKWARD: [{} for _ in range(count)],
        }
        everything = dict.fromkeys(range(schedule.microbatches), (0.0, 0.0))
        self.inputs[Kind.FORWARD][0] = everything
        self.inputs[Kind.BACKWARD][-1] = everything
        self.seconds = {
            Kind.FORWARD: [t.forward for t in times],
            Kind.BACKWARD: [
                t.backward + (0.0 if schedule.splits_backward else t.weight) for t in times
            ],
            Kind.WEIGHT: [t.weight for t in times],
        }
        self.first_forward: dict[int, Action] = {}
        self.last_gradient: dict[int, Action] = {}
        self._find_ends()
        self.gathered: list[tuple[float, float]] = [(0.0, 0.0)] * count  # first bucket, all

    def _find_ends(self) -> None:
        """Find, by virtual stage, what needs its parameters first and makes its gradients whole."""
        last = Kind.WEIGHT if self.schedule.splits_backward else Kind.BACKWARD
        for stage, row in enumerate(self.schedule.rows):
            for action in row:
                virtual = self.schedule.virtual_stage(stage, action.chunk)
                if action.kind is Kind.FORWARD:
                    self.first_forward.setdefault(virtual, action)
                elif action.kind is last:
                    self.last_gradient[virtual] = action

    def execute(self) -> None:
        """Run all actions; a stage goes on until it lacks an input, its makers wake it."""
        for number in range(len(self.stages)):
            self.gather(number)
        waiting = list(range(len(self.stages) - 1, -1, -1))
        while waiting:
            number = waiting.pop()
            before = self.stages[number].slot
            self.advance(number)
            if self.stages[number].slot > before:
                waiting += {(number + 1) % len(self.stages), (number - 1) % len(self.stages)}
        for number, stage in enumerate(self.stages):
            if stage.slot < len(stage.row):
                raise self.schedule.deadlock(number, stage.slot)

    def gather(self, number: int) -> None:
        """Put the gathers of a stage, by chunk, on its collective stream."""
        stage = self.stages[number]
        for chunk in range(self.schedule.chunks):
            virtual = self.schedule.virtual_stage(number, chunk)
            seconds, buckets = self.times[virtual].gather, self.buckets[virtual]
            start = stage.collecting
            self.collect(number, f"gather {virtual}", start, seconds)
            first = start + (seconds / buckets if buckets else seconds)
            self.gathered[virtual] = (first, stage.collecting)
            if not buckets:
                stage.exposed += seconds
                stage.free = stage.collecting

    def collect(self, number: int, name: str, start: float, seconds: float) -> None:
        """Book a collective."""
        stage = self.stages[number]
        stage.collecting = start + seconds
        stage.collective += seconds
        if self.events is not None and seconds > 0:
            self.events.append(Event(number, "collective", name, start, stage.collecting))

    def advance(self, number: int) -> None:
        """Run the actions of a stage until one lacks its input."""
        stage, schedule = self.stages[number], self.schedule
        row, slot, free = stage.row, stage.slot, stage.free
        while slot < len(row):
            action = row[slot]
            kind, microbatch, chunk = action
            virtual = chunk * schedule.stages + number
            if kind is not Kind.WEIGHT:
                there = self.inputs[kind][virtual].get(microbatch)
                if there is None:
                    break
                arrival, made = there
                if arrival > free:
                    made = min(max(made, free), arrival)
                    stage.bubble += made - free
                    stage.exposed += arrival - made
                    free = arrival
            seconds = self.seconds[kind][virtual]
            start, end = free, free + seconds
            if self.times[virtual].gather and action == self.first_forward[virtual]:
                start, end = self.after_gather(stage, virtual, free, seconds)
            stage.compute += seconds
            if self.events is not None:
                self.events.append(Event(number, "compute", str(action), start, end))
            if action == self.last_gradient[virtual] and self.buckets[virtual]:
                self.reduce(number, virtual, end - seconds, end)
            free = end
            if kind is not Kind.WEIGHT:
                free = self.hand_on(number, action, virtual, end)
            slot += 1
        stage.slot, stage.free = slot, free

    def after_gather(
        self, stage: _Stage, virtual: int, free: float, seconds: float
    ) -> tuple[float, float]:
        """Return begin and end of a chunk's first action, whose parts wait for their bucket."""
        first, whole = self.gathered[virtual]
        start = max(free, first)
        part = seconds / max(self.buckets[virtual], 1)
        end = max(start + seconds, whole + part)
        stage.exposed += end - free - seconds
        return start, end

    def reduce(self, number: int, virtual: int, start: float, end: float) -> None:
        """Put a chunk's reduction on the collective stream, its buckets as they come."""
        stage = self.stages[number]
        seconds, buckets = self.times[virtual].reduce, max(self.buckets[virtual], 1)
        begin = max(stage.collecting, start + (end - start) / buckets)
        done = max(begin + seconds, end + seconds / buckets)
        self.collect(number, f"reduce {virtual}", done - seconds, seconds)

    def hand_on(self, number: int, action: Action, virtual: int, end: float) -> float:
        """Send an action's result to the next virtual stage; return when compute goes on."""
        kind, microbatch, _ = action
        forward = kind is Kind.FORWARD
        target = virtual + 1 if forward else virtual - 1
        if not 0 <= target < self.schedule.virtual_stages:
            return end
        times, receiver = self.times[virtual], target % self.schedule.stages
        seconds = times.send_forward if forward else times.send_backward
        if receiver == number or seconds == 0.0:
            self.inputs[kind][target][microbatch] = (end, end)
            return end
        stage = self.stages[number]
        start = max(end, stage.sending)
        stage.sending = arrival = start + seconds
        stage.send += seconds
        self.stages[receiver].receive += seconds
        if self.events is not None:
            self.events.append(Event(number, "send", f"{action} to {receiver}", start, arrival))
            self.events.append(
                Event(receiver, "receive", f"{action} from {number}", start, arrival)
            )
        self.inputs[kind][target][microbatch] = (arrival, end)
        if self.overlap_sends:
            return end
        stage.exposed += arrival - end
        return arrival

    def finish(self, update: Sequence[float]) -> Simulation:
        """Reduce what has waited, update, and sum up."""
        ready = []
        for number, stage in enumerate(self.stages):
            for virtual in range(number, self.schedule.virtual_stages, self.schedule.stages):
                if not self.buckets[virtual]:
                    self.reduce_behind(number, virtual)
            ready.append(max(stage.free, stage.collecting))
            stage.exposed += ready[-1] - stage.free
        together = max(ready) if any(update) else 0.0
        total = max(max(end, together) + u for end, u in zip(ready, update, strict=True))
        uses = []
        for number, (stage, end, seconds) in enumerate(
            zip(self.stages, ready, update, strict=True)
        ):
            if self.events is not None and seconds > 0:
                begin = max(end, together)
                self.events.append(Event(number, "compute", "update", begin, begin + seconds))
            uses.append(
                StageUse(
                    stage.compute, stage.exposed, stage.bubble + total - seconds - end, seconds,
                    stage.send, stage.receive, stage.collective,
                    int(self.schedule.peak_activations(number)),
                )
            )  # fmt: skip
        bars = sorted(self.events or (), key=lambda event: (event.stage, event.start, event.end))
        return Simulation(total, tuple(uses), tuple(bars))

    def reduce_behind(self, number: int, virtual: int) -> None:
        """Reduce a chunk's gradients when all compute of its stage is done."""
        stage = self.stages[number]
        start = max(stage.free, stage.collecting)
        self.collect(number, f"reduce {virtual}", start, self.times[virtual].reduce)
