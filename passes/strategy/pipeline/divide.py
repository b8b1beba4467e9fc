"""Divide a model into pipeline stages on submeshes: dynamic programming, optimal.

With m microbatches, stages with times t_i and boundaries that take x_i, a step takes about

    (m - 1) · max t_i + Σ (t_i + x_i)

(L. Zheng et al., "Alpa", OSDI 2022, section 5.2; D. Narayanan et al., "PipeDream", SOSP 2019);
``objective`` has the like for the other schedules. Under a bound on the maximum, the smallest sum
is found from the last stage to the first, over (segments left, devices left of each kind). The sum
can only fall when the bound rises, so branch and bound over the bounds gives the optimum. Stages
that do not fit the memory, with the activations that the schedule keeps at that place of the
pipeline, are left out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pai.passes.strategy.pipeline.schedules import in_flight, make_schedule
from pai.passes.strategy.pipeline.stages import (
    CostTable,
    Floats,
    PipelinePlan,
    Stage,
    StageCost,
)

Choice = tuple[int, int, int]  # submesh, first, end


@dataclass(frozen=True)
class Objective:
    """A step takes about ``repeats · max t_i + Σ fill(stage i) + sends · Σ x_i``.

    Args:
        repeats: how often the slowest (virtual) stage counts.
        fill: what each stage adds.
        sends: how often each boundary between stages counts.
    """

    repeats: float
    fill: Callable[[StageCost], float]
    sends: float


def objective(schedule: str, stages: int, microbatches: int, chunks: int = 1) -> Objective:
    """Return the approximate time of a step as a sum over virtual stages.

    ``gpipe`` and ``1f1b`` fill and drain once; ``interleaved`` does so with one chunk of each
    stage; ``zero-bubble`` drains into gradients by weights, and its bubble is
    (p - 1)(forward + backward - weight) (P. Qi et al., "Zero Bubble Pipeline Parallelism", 2024).
    """
    if schedule == "zero-bubble":
        part = (stages - 1) / stages
        return Objective(
            microbatches, lambda c: part * max(c.forward + c.backward - c.weight, 0.0), 2
        )
    return Objective(microbatches * chunks - 1, lambda c: c.seconds / chunks, 2 / chunks)


def divide(
    table: CostTable,
    pools: Mapping[str, int],
    schedule: str,
    stages: int,
    microbatches: int,
    chunks: int = 1,
) -> PipelinePlan | None:
    """Return the fastest division into exactly ``stages`` stages, or None when none fits.

    With several chunks the table has one submesh, which all stages take, and the slowest chunk is
    what is made fast. Whether the chunks of a stage fit together is checked for the fastest
    division; if they do not, for the fastest of those whose chunks would fit if the others of
    their stage were like them.

    Args:
        table: the costs.
        pools: devices of each kind; not all have to be used.
        schedule: name of the schedule.
        stages: stages of the pipeline.
        microbatches: microbatches of a step.
        chunks: virtual stages of each stage.

    Raises:
        InvalidSchedule: when the schedule does not take these sizes.
        ValueError: for several chunks with several submeshes.
    """
    make_schedule(schedule, stages, stages, chunks)  # refuses chunks that the schedule has not
    if chunks > 1 and len(table.submeshes) > 1:
        raise ValueError("stages of several chunks have one submesh to choose")
    if table.length < stages * chunks or (schedule == "interleaved" and microbatches % stages):
        return None
    flights = [in_flight(schedule, stages, microbatches, stage, chunks) for stage in range(stages)]
    solve = functools.partial(
        _solve, table, pools, objective(schedule, stages, microbatches, chunks)
    )
    plan = functools.partial(_plan, table, schedule, microbatches, chunks)
    if chunks == 1:
        found = solve(flights, 1)
        return plan(found, flights) if found else None
    alone = [1] * stages * chunks
    for per_chunk, copies in ((alone, 1), (flights * chunks, chunks)):
        found = solve(per_chunk, copies, chunks)
        whole = _with_chunks_together(plan(found, alone)) if found else None
        if whole is not None:
            return whole
    return None


def _plan(
    table: CostTable,
    schedule: str,
    microbatches: int,
    chunks: int,
    found: tuple[float, tuple[Choice, ...]],
    flights: Sequence[int],
) -> PipelinePlan:
    seconds, choices = found
    stages = []
    for (submesh, first, end), flight in zip(choices, flights, strict=True):
        cost = table.at(submesh, first, end)
        if end == table.length:
            cost = replace(cost, send=0.0)
        stages.append(Stage(first, end, table.submeshes[submesh], cost, cost.memory(flight)))
    return PipelinePlan(schedule, microbatches, chunks, tuple(stages), seconds)


def _with_chunks_together(plan: PipelinePlan) -> PipelinePlan | None:
    """Return the plan with time and memory of whole stages, or None when one does not fit.

    A stage works off all its chunks in turn, so the step follows the stage with most to do rather
    than the slowest chunk: m · max_s Σ_c t, and to fill and drain, a chunk of each other stage.
    """
    count, chunks = plan.num_stages, plan.chunks
    times = [stage.cost.seconds for stage in plan.stages]
    most = max(sum(times[number::count]) for number in range(count))
    sends = 2 * sum(stage.cost.send for stage in plan.stages)
    seconds = plan.microbatches * most + (sum(times) - most + sends) / chunks
    # What is in flight repeats after the first few rounds of all stages.
    shown = make_schedule(plan.schedule, count, min(plan.microbatches, 4 * count), plan.chunks)
    memory = []
    for number in range(count):
        costs = [stage.cost for stage in plan.stages[number::count]]
        kept = shown.peak_activations(number, [cost.activation_bytes for cost in costs])
        static = sum(cost.static_bytes for cost in costs)
        memory.append(static + kept + max(cost.transient_bytes for cost in costs))
    if any(m > s.submesh.memory_bytes for m, s in zip(memory, plan.stages, strict=False)):
        return None
    stages = [replace(s, memory_bytes=memory[i % count]) for i, s in enumerate(plan.stages)]
    return replace(plan, stages=tuple(stages), seconds=seconds)


def _solve(
    table: CostTable,
    pools: Mapping[str, int],
    aim: Objective,
    flights: Sequence[int],
    copies: int,
    chunks: int = 1,
) -> tuple[float, tuple[Choice, ...]] | None:
    """Return the time and the (submesh, first, end) of each virtual stage, or None."""
    program = _Program(table, {k: n * chunks for k, n in pools.items()}, aim, flights, copies)
    bounds = program.bounds()
    low, high = 0, len(bounds) - 1
    if high < 0 or math.isinf(program.fill(bounds[high])):
        return None
    while low < high:  # the lowest bound under which there is a division
        middle = (low + high) // 2
        if math.isinf(program.fill(bounds[middle])):
            low = middle + 1
        else:
            high = middle
    best = _search_bounds(program, bounds, high, aim.repeats)
    return aim.repeats * best + program.fill(best), program.choices(best)


def _search_bounds(program: _Program, bounds: Sequence[float], first: int, repeats: float) -> float:
    """Return the bound with the least ``repeats · bound + fill(bound)``; fill never rises."""

    def value(place: int) -> float:
        return repeats * bounds[place] + program.fill(bounds[place])

    best = min((first, len(bounds) - 1), key=value)
    pending = [(first, len(bounds) - 1)]
    while pending:
        low, high = pending.pop()
        if high - low < 2:
            continue
        if repeats * bounds[low + 1] + program.fill(bounds[high]) >= value(best):
            continue
        middle = (low + high) // 2
        best = min(best, middle, key=value)
        pending += [(middle, high), (low, middle)]
    return bounds[best]


class _Program:
    """The dynamic program over (stages, devices, segments) left, for any bound."""

    def __init__(
        self,
        table: CostTable,
        pools: Mapping[str, int],
        aim: Objective,
        flights: Sequence[int],
        copies: int,
    ) -> None:
        self.length = table.length
        self.flights = flights
        choices = range(len(table.submeshes))
        self.seconds = [table.matrix(c, lambda cost: cost.seconds) for c in choices]
        self.weights = [table.matrix(c, aim.fill) for c in choices]
        for weight, c in zip(self.weights, choices, strict=True):
            send = table.matrix(c, lambda cost: cost.send)
            for size in range(1, self.length):  # the last segment sends nothing
                weight[size, : self.length - size] += aim.sends * send[size, : self.length - size]
        self.fits: dict[int, list[NDArray[np.bool_]]] = {
            flight: [self._fits(table, c, flight, copies) for c in choices]
            for flight in set(flights)
        }
        self._count_devices(table, pools)
        self.known: dict[float, float] = {}
        place = np.arange(self.length + 1)
        self.after = np.minimum(place[:, None] + place, self.length)  # by (segments, first)

    @staticmethod
    def _fits(table: CostTable, submesh: int, flight: int, copies: int) -> NDArray[np.bool_]:
        limit = table.submeshes[submesh].memory_bytes
        extra = copies - 1
        need = table.matrix(submesh, lambda c: c.memory(flight) + extra * c.static_bytes)
        return need <= limit

    def _count_devices(self, table: CostTable, pools: Mapping[str, int]) -> None:
        """Number the states of the pools that may run out, in units of their submeshes."""
        sizes: dict[str, list[int]] = {}
        for submesh in table.submeshes:
            sizes.setdefault(submesh.kind, []).append(submesh.devices)
        scarce = [
            kind
            for kind, devices in sizes.items()
            if pools.get(kind, 0) < max(devices) * len(self.flights)
        ]
        units = [math.gcd(*sizes[kind]) for kind in scarce]
        numbered = list(zip(scarce, units, strict=True))
        self.shape = (1, *(pools.get(kind, 0) // unit + 1 for kind, unit in numbered))
        self.used = [
            (0, *(s.devices // unit if s.kind == kind else 0 for kind, unit in numbered))
            for s in table.submeshes
        ]

    def bounds(self) -> list[float]:
        """Return the times that the slowest stage can have, ascending."""
        loosest = self.fits[min(self.fits)]
        times = [s[fits] for s, fits in zip(self.seconds, loosest, strict=True)]
        return [float(t) for t in np.unique(np.concatenate(times))]

    def allowed(self, stage: int, submesh: int, bound: float) -> Floats:
        """Return what a stage adds, by (segments, first), infinite where it may not be."""
        good = self.fits[self.flights[stage]][submesh] & (self.seconds[submesh] <= bound)
        return np.where(good, self.weights[submesh], math.inf)

    def fill(self, bound: float) -> float:
        """Return the least sum when no stage is slower than ``bound``; infinite without any."""
        if bound not in self.known:
            self.known[bound] = float(self.layers(bound)[-1][..., 0].min())
        return self.known[bound]

    def layers(self, bound: float) -> list[Floats]:
        """Return, for 0, 1… stages from the end, the least sum by (devices used, first segment)."""
        empty = np.full((*self.shape, self.length + 1), math.inf)
        rest = empty.copy()
        rest[(0,) * len(self.shape) + (self.length,)] = 0.0
        out = [rest]
        weights: dict[int, list[Floats]] = {}
        for stage in reversed(range(len(self.flights))):
            flight = self.flights[stage]
            if flight not in weights:
                choices = range(len(self.used))
                weights[flight] = [self.allowed(stage, submesh, bound) for submesh in choices]
            new = empty.copy()
            for used, weight in zip(self.used, weights[flight], strict=True):
                self.extend(new, rest, used, weight)
            rest = new
            out.append(rest)
        return out

    def extend(self, new: Floats, rest: Floats, used: Sequence[int], weight: Floats) -> None:
        """Put one more stage before the divisions in ``rest``."""
        sizes = np.flatnonzero(np.isfinite(weight).any(axis=1))
        states = np.argwhere(np.isfinite(rest).any(axis=-1))
        states = states[(states + used < self.shape).all(axis=1)]
        if len(states) < len(sizes):
            weight, after = weight[sizes], self.after[sizes]
            for state in states:
                target = new[tuple(state + used)]
                sums = weight + rest[tuple(state)][after]
                np.minimum(target, sums.min(axis=0), out=target)
        else:
            kept = tuple(slice(0, size - u) for u, size in zip(used, self.shape, strict=True))
            target, source = new[tuple(slice(u, None) for u in used)], rest[kept]
            for size in sizes:
                firsts = slice(0, self.length + 1 - size)
                sums = source[..., size:] + weight[size, firsts]
                np.minimum(target[..., firsts], sums, out=target[..., firsts])

    def choices(self, bound: float) -> tuple[Choice, ...]:
        """Return a division with the least sum under ``bound``, first stage first."""
        layers = self.layers(bound)
        last = layers[-1][..., 0]
        state = tuple(int(i) for i in np.unravel_index(int(last.argmin()), last.shape))
        first, out = 0, []
        for stage in range(len(self.flights)):
            rest = layers[len(self.flights) - 1 - stage]
            found = min(self._followers(stage, state, first, rest, bound))
            _, submesh, end = found
            state = tuple(s - u for s, u in zip(state, self.used[submesh], strict=True))
            out.append((submesh, first, end))
            first = end
        return tuple(out)

    def _followers(
        self, stage: int, state: tuple[int, ...], first: int, rest: Floats, bound: float
    ) -> list[tuple[float, int, int]]:
        """Return the best (sum, submesh, end) of each submesh for the stage at ``first``."""
        out = []
        for submesh, used in enumerate(self.used):
            left = tuple(s - u for s, u in zip(state, used, strict=True))
            if min(left) >= 0:
                weight = self.allowed(stage, submesh, bound)[: self.length + 1 - first, first]
                sums = weight + rest[left][first:]
                size = int(sums.argmin())
                out.append((float(sums[size]), submesh, first + size))
        return out
