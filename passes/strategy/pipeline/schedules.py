"""Pipeline schedules as tables: which action each stage performs in which slot.

A *stage* is a group of devices that holds ``chunks`` pieces of the model; piece ``c`` of stage
``s`` is *virtual stage* ``c · stages + s``, and microbatches run through the virtual stages in
order. Rows are in order of execution: an action starts when the one before it on its stage has
ended and what it needs has arrived. Sources:

- ``gpipe``: Y. Huang et al., "GPipe", NeurIPS 2019;
- ``1f1b``: D. Narayanan et al., "PipeDream", SOSP 2019, with a flush at the end of the step;
- ``interleaved``: D. Narayanan et al., "Efficient Large-Scale Language Model Training on GPU
  Clusters Using Megatron-LM", SC 2021;
- ``zero-bubble``: ZB-H1 of P. Qi et al., "Zero Bubble Pipeline Parallelism", ICLR 2024: the
  gradients by weights are actions of their own and wait, stage ``s`` for ``s`` microbatches, so
  that every stage holds as many activations as the first stage of ``1f1b``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

from pai.runtime.errors import InvalidSchedule


class Kind(StrEnum):
    """What an action does with a microbatch."""

    FORWARD = "F"
    BACKWARD = "B"  # all gradients, or those by activations where WEIGHT is apart
    WEIGHT = "W"  # gradients by weights


class Action(NamedTuple):
    """One action of a stage.

    Args:
        kind: forward, backward or weight.
        microbatch: its number, from 0.
        chunk: which of the stage's pieces of the model.
    """

    kind: Kind
    microbatch: int
    chunk: int = 0

    def __str__(self) -> str:
        """Return such as ``F3``, or ``F3.1`` for a chunk other than the first."""
        return f"{self.kind}{self.microbatch}" + (f".{self.chunk}" if self.chunk else "")


class Entry(NamedTuple):
    """One line of a schedule's table."""

    stage: int
    slot: int
    action: Action


@dataclass(frozen=True)
class Schedule:
    """What every stage does, in order.

    Args:
        name: one of ``SCHEDULES``, or the user's own.
        stages: stages of the pipeline.
        microbatches: microbatches of a step.
        rows: the actions of each stage, in order.
        chunks: pieces of the model on each stage.
        splits_backward: whether gradients by weights are actions of their own.
    """

    name: str
    stages: int
    microbatches: int
    rows: tuple[tuple[Action, ...], ...]
    chunks: int = 1
    splits_backward: bool = False

    @property
    def virtual_stages(self) -> int:
        """Pieces of the model."""
        return self.stages * self.chunks

    def virtual_stage(self, stage: int, chunk: int) -> int:
        """Return the place in the model of a stage's chunk."""
        return chunk * self.stages + stage

    def table(self) -> Iterator[Entry]:
        """Yield (stage, slot, action), stage by stage."""
        for stage, row in enumerate(self.rows):
            for slot, action in enumerate(row):
                yield Entry(stage, slot, action)

    def peak_activations(self, stage: int, sizes: Sequence[float] = ()) -> float:
        """Return the most that a stage keeps of microbatches that are not done.

        A microbatch is kept from its forward action to its last gradient action.

        Args:
            stage: the stage.
            sizes: what one microbatch of each chunk takes; 1 each when left out.
        """
        sizes = sizes or (1.0,) * self.chunks
        last = Kind.WEIGHT if self.splits_backward else Kind.BACKWARD
        held = peak = 0.0
        for kind, _, chunk in self.rows[stage]:
            if kind is Kind.FORWARD:
                held += sizes[chunk]
                peak = max(peak, held)
            elif kind is last:
                held -= sizes[chunk]
        return peak

    def check(self) -> Schedule:
        """Return the schedule when it can be executed.

        Raises:
            InvalidSchedule: when an action is missing, unknown or twice, or comes before one of its
                own stage that it needs, or when stages wait for each other for ever.
        """
        if len(self.rows) != self.stages:
            raise self._error(f"there are {len(self.rows)} rows for {self.stages} stages")
        for stage, row in enumerate(self.rows):
            self._check_row(stage, row)
        self._check_order()
        return self

    def _check_row(self, stage: int, row: tuple[Action, ...]) -> None:
        place = {action: slot for slot, action in enumerate(row)}
        kinds = [Kind.FORWARD, Kind.BACKWARD] + [Kind.WEIGHT] * self.splits_backward
        wanted = {
            Action(kind, microbatch, chunk)
            for kind in kinds
            for microbatch in range(self.microbatches)
            for chunk in range(self.chunks)
        }
        where = f"stage {stage}"
        if len(place) < len(row):
            twice = next(action for slot, action in enumerate(row) if place[action] != slot)
            raise self._error(f"{twice} is there twice", where)
        for action in sorted(wanted ^ place.keys()):
            what = "is missing" if action in wanted else "does not belong to the schedule"
            raise self._error(f"{action} {what}", where)
        for _, microbatch, chunk in filter(lambda action: action.kind is Kind.FORWARD, row):
            chain = [Action(kind, microbatch, chunk) for kind in kinds]
            for before, after in pairwise(chain):
                if place[before] > place[after]:
                    raise self._error(f"{after} comes before {before}", where)

    def _check_order(self) -> None:
        """Execute the rows without times."""
        done: set[tuple[Kind, int, int]] = set()  # with virtual stages for chunks
        slots = [0] * self.stages
        moved = True
        while moved:
            moved = False
            for stage, row in enumerate(self.rows):
                slot = slots[stage]
                while slot < len(row) and self._ready(stage, row[slot], done):
                    kind, microbatch, chunk = row[slot]
                    done.add((kind, microbatch, self.virtual_stage(stage, chunk)))
                    slot += 1
                moved = moved or slot > slots[stage]
                slots[stage] = slot
        for stage, slot in enumerate(slots):
            if slot < len(self.rows[stage]):
                raise self.deadlock(stage, slot)

    def _ready(self, stage: int, action: Action, done: set[tuple[Kind, int, int]]) -> bool:
        kind, microbatch, chunk = action
        virtual = self.virtual_stage(stage, chunk)
        if kind is Kind.FORWARD:
            return virtual == 0 or (kind, microbatch, virtual - 1) in done
        if kind is Kind.BACKWARD:
            last = virtual == self.virtual_stages - 1
            return last or (kind, microbatch, virtual + 1) in done
        return True

    def deadlock(self, stage: int, slot: int) -> InvalidSchedule:
        """Return the error for a stage that never gets what the action of a slot needs."""
        action = self.rows[stage][slot]
        return self._error(f"{action} waits for ever: its input never comes", f"stage {stage}")

    def _error(self, what: str, where: str = "") -> InvalidSchedule:
        place = f"schedule '{self.name}'" + (f", {where}" if where else "")
        return InvalidSchedule(what, place)

    def to_text(self) -> str:
        """Return one line a stage, such as ``F0 F1 B0 B1``."""
        return "\n".join(" ".join(map(str, row)) for row in self.rows)


def schedule_from_text(name: str, text: str) -> Schedule:
    """Return the schedule that ``Schedule.to_text`` spelled, checked.

    Args:
        name: its name.
        text: one line a stage; sizes follow from the actions.

    Raises:
        InvalidSchedule: names the line and the word that is no action, or see ``Schedule.check``.
    """
    rows = tuple(
        tuple(_parse(word, f"schedule '{name}', line {number}") for word in line.split())
        for number, line in enumerate(text.strip().splitlines(), 1)
    )
    actions = [action for row in rows for action in row]
    return Schedule(
        name,
        len(rows),
        max((action.microbatch for action in actions), default=0) + 1,
        rows,
        max((action.chunk for action in actions), default=0) + 1,
        any(action.kind is Kind.WEIGHT for action in actions),
    ).check()


def _parse(word: str, where: str) -> Action:
    found = re.fullmatch(r"([FBW])(\d+)(?:\.(\d+))?", word)
    if not found:
        raise InvalidSchedule(f"'{word}' is no action", where, "write such as F3, B0 or W1.2")
    return Action(Kind(found[1]), int(found[2]), int(found[3] or 0))


def _actions(kind: Kind, microbatches: int) -> list[Action]:
    return [Action(kind, number) for number in range(microbatches)]


def gpipe(stages: int, microbatches: int, chunks: int = 1) -> Schedule:
    """Return all forward passes, then all backward passes."""
    _check_sizes("gpipe", stages, microbatches, chunks, most_chunks=1)
    row = (*_actions(Kind.FORWARD, microbatches), *_actions(Kind.BACKWARD, microbatches))
    return Schedule("gpipe", stages, microbatches, (row,) * stages)


def one_f_one_b(stages: int, microbatches: int, chunks: int = 1) -> Schedule:
    """Return the schedule that alternates once the pipeline is full, backward passes early."""
    _check_sizes("1f1b", stages, microbatches, chunks, most_chunks=1)
    forward = _actions(Kind.FORWARD, microbatches)
    backward = _actions(Kind.BACKWARD, microbatches)
    rows = tuple(
        _alternate(forward, backward, in_flight("1f1b", stages, microbatches, stage) - 1)
        for stage in range(stages)
    )
    return Schedule("1f1b", stages, microbatches, rows)


def _alternate(
    forward: Sequence[Action], backward: Sequence[Action], ahead: int
) -> tuple[Action, ...]:
    """Return ``ahead`` forward actions, then forward and backward in turn, then the rest."""
    steady = [
        action
        for pair in zip(forward[ahead:], backward[: len(forward) - ahead], strict=True)
        for action in pair
    ]
    return (*forward[:ahead], *steady, *backward[len(forward) - ahead :])


def interleaved(stages: int, microbatches: int, chunks: int) -> Schedule:
    """Return 1f1b over several chunks a stage, ``stages`` microbatches of a chunk at a time.

    Raises:
        InvalidSchedule: when the microbatches are no multiple of the stages.
    """
    _check_sizes("interleaved", stages, microbatches, chunks)
    if microbatches % stages:
        raise InvalidSchedule(
            f"{microbatches} microbatches do not fill {stages} stages evenly",
            "schedule 'interleaved'",
            "take a multiple of the stages",
        )
    orders = {}
    for kind in (Kind.FORWARD, Kind.BACKWARD):
        order = range(chunks) if kind is Kind.FORWARD else range(chunks - 1, -1, -1)
        orders[kind] = [
            Action(kind, first + number, chunk)
            for first in range(0, microbatches, stages)
            for chunk in order
            for number in range(stages)
        ]
    rows = tuple(
        _alternate(
            orders[Kind.FORWARD],
            orders[Kind.BACKWARD],
            in_flight("interleaved", stages, microbatches, stage, chunks) - 1,
        )
        for stage in range(stages)
    )
    return Schedule("interleaved", stages, microbatches, rows, chunks)


def zero_bubble(stages: int, microbatches: int, chunks: int = 1) -> Schedule:
    """Return ZB-H1: stage ``s`` puts the gradients by weights ``s`` microbatches off."""
    _check_sizes("zero-bubble", stages, microbatches, chunks, most_chunks=1)
    forward, backward, weight = (_actions(kind, microbatches) for kind in Kind)
    rows = []
    for stage in range(stages):
        ahead = min(stages - stage, microbatches)
        row = forward[:ahead]
        for number in range(microbatches):
            row.append(backward[number])
            if number >= stage:
                row.append(weight[number - stage])
            row += forward[ahead + number : ahead + number + 1]
        rows.append((*row, *weight[max(microbatches - stage, 0) :]))
    return Schedule("zero-bubble", stages, microbatches, tuple(rows), splits_backward=True)


SCHEDULES: dict[str, Callable[[int, int, int], Schedule]] = {
    "gpipe": gpipe,
    "1f1b": one_f_one_b,
    "interleaved": interleaved,
    "zero-bubble": zero_bubble,
}


def make_schedule(name: str, stages: int, microbatches: int, chunks: int = 1) -> Schedule:
    """Return the schedule of a name.

    Raises:
        InvalidSchedule: for an unknown name, or sizes that the schedule does not take.
    """
    if name not in SCHEDULES:
        raise InvalidSchedule("there is no such schedule", name, f"known: {', '.join(SCHEDULES)}")
    return SCHEDULES[name](stages, microbatches, chunks)


def in_flight(name: str, stages: int, microbatches: int, stage: int, chunks: int = 1) -> int:
    """Return the most microbatches that a stage of a schedule keeps at once.

    With several chunks, those of each chunk count: each is a part of the stage's activations.
    """
    if name == "gpipe":
        return microbatches
    if name == "1f1b":
        return min(stages - stage, microbatches)
    if name == "zero-bubble":
        return min(stages, microbatches)
    ahead = 2 * (stages - stage - 1) + (chunks - 1) * stages
    return min(ahead + 1, microbatches * chunks)


def _check_sizes(
    name: str, stages: int, microbatches: int, chunks: int, most_chunks: int = 1 << 30
) -> None:
    where = f"schedule '{name}'"
    if min(stages, microbatches, chunks) < 1:
        raise InvalidSchedule(
            f"{stages} stages, {microbatches} microbatches and {chunks} chunks: none may be 0",
            where,
        )
    if chunks > most_chunks:
        raise InvalidSchedule("it has one chunk a stage", where, "take 'interleaved'")
