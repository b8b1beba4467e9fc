"""Axis by axis: one mesh axis is solved with the others fixed, in several orders and sweeps.

A program over one axis has a handful of states a node and is solved at its root in a fraction of a
second; the joint program of all axes has their product. The slowest axis first is nearly always
best; other orders are tried because none is always. While axes are missing the memory is taken to
be as many times larger as they have devices.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pai.passes.strategy.intra.coster import Coster, evaluate
from pai.passes.strategy.intra.ilp import Limits, Program, Solved
from pai.passes.strategy.intra.problem import NONE, Problem, State

SWEEPS = 3
ORDERS = 2
TINY = 1e-6
PROVE, PROVE_NODES = 0.001, 1000
"""The relative gap from which on the whole program's tree is looked into, and how far."""


@dataclass(frozen=True)
class Descended:
    """The best states.

    Args:
        states: per node.
        objective: what they cost, in seconds.
        timed_out: whether a time limit struck on the way.
        bound: no states cost less; None where that is not known.
        pair_bound: no change along two axes costs less; None where that is not known.
    """

    states: list[State]
    objective: float
    timed_out: bool
    bound: float | None = None
    pair_bound: float | None = None


def descend(problem: Problem, coster: Coster, limits: Limits, orders: int = ORDERS) -> Descended:
    """Return the best states over several orders of the axes."""
    empty: list[State] = [node.start(coster.prices.sizes) for node in problem.nodes]
    best = Descended(empty, evaluate(coster, empty, problem.limit), False)
    if not coster.prices.sizes:
        return replace(best, bound=best.objective)
    for order in _orders(coster, orders):
        found = _one_order(problem, coster, limits, order)
        if found.objective < best.objective * (1 - TINY) or best.states is empty:
            best = found
    return best


def _one_order(
    problem: Problem, coster: Coster, limits: Limits, order: tuple[int, ...]
) -> Descended:
    """Sweep over the axes in one order until nothing changes."""
    sizes = coster.prices.sizes
    states: list[State] = [node.start(sizes) for node in problem.nodes]
    value, timed_out, bound, settled = math.inf, False, None, 0
    for turn, axis in enumerate(order * SWEEPS):
        missing = math.prod(sizes[a] for a in order[turn + 1 :])  # none after the first sweep
        solved = _one_axis(problem, coster, states, axis, problem.limit * missing, limits)
        timed_out |= solved.timed_out
        bound = solved.bound if len(order) == 1 else None
        now = evaluate(coster, solved.states, problem.limit)
        settled = 0 if now < value * (1 - max(TINY, limits.gap)) else settled + 1
        if turn < len(order) or now < value:
            states, value = solved.states, now
        if turn + 1 >= len(order) and settled >= len(order) - 1:
            break
    return Descended(states, value, timed_out, bound)


def _orders(coster: Coster, most: int) -> list[tuple[int, ...]]:
    """Return orders of the axes, the one of falling time of an all_reduce first."""
    axes = range(len(coster.prices.sizes))
    slow = sorted(axes, key=lambda a: -coster.prices.collective("all_reduce", 1 << 26, (a,)))
    return list(itertools.islice(itertools.permutations(slow), most))


def _one_axis(
    problem: Problem,
    coster: Coster,
    states: Sequence[State],
    axis: int,
    limit: float,
    limits: Limits,
) -> Solved:
    sizes = coster.prices.sizes
    domains = []
    for node, state in zip(problem.nodes, states, strict=True):
        choices = [NONE, *(f for f in range(len(node.sizes)) if f not in node.fixed)]
        options = [(*state[:axis], f, *state[axis + 1 :]) for f in choices]
        domains.append([option for option in options if node.allows(option, sizes)])
    return Program(problem, coster, domains, limit).solve(limits, states)


def joint(
    problem: Problem,
    coster: Coster,
    domains: Sequence[Sequence[State]],
    start: Sequence[State],
    limits: Limits,
    *,
    prove: bool = False,
) -> Solved | None:
    """Refine given states over all axes at once.

    The linear relaxation over all states gives the bound. It mixes few states, mostly one, in a
    node: the program over those and the given one is solved (as E. Danna et al., "Exploring
    relaxation induced neighborhoods to improve MIP solutions", 2005). With ``prove``, where
    the two are far apart, some nodes of the whole program's tree say more; only their bound counts
    when the time limit strikes them.

    Returns:
        The states, with the bound; None when the time limit struck before it.
    """
    program = Program(problem, coster, domains, problem.limit)
    relaxed = program.relax(limits)
    if relaxed is None:
        return None
    bound, mixed = relaxed
    near = [sorted({*some, state}) for some, state in zip(mixed, start, strict=True)]
    solved = Program(problem, coster, near, problem.limit).solve(limits, start)
    if prove and solved.objective > bound * (1 + PROVE):
        shorter = replace(limits, nodes=PROVE_NODES, seconds=limits.seconds)
        proved = program.solve(shorter, solved.states)
        bound = max(bound, proved.bound)
        if not proved.timed_out and proved.objective < solved.objective:
            solved = proved
    return replace(solved, bound=bound)


def refine(
    problem: Problem,
    coster: Coster,
    found: Descended,
    limits: Limits,
    most: int,
    *,
    prove: bool = False,
) -> Descended:
    """Solve several axes at once: all of them, or every two when there are too many states.

    Args:
        problem: nodes and edges.
        coster: its costs.
        found: where to start.
        limits: of each program.
        most: states of all nodes together for which all axes are solved at once.
        prove: see ``joint``.
    """
    sizes = coster.prices.sizes
    axes = tuple(range(len(sizes)))
    full = [list(node.states(sizes)) for node in problem.nodes]
    whole = sum(map(len, full)) <= most
    bounds: list[float | None] = []
    for chosen in [axes] if whole else itertools.combinations(axes, 2):
        domains = [
            [s for s in states if all(s[a] == now[a] for a in axes if a not in chosen)]
            for states, now in zip(full, found.states, strict=True)
        ]
        better = joint(problem, coster, domains, found.states, limits, prove=prove)
        bounds.append(better.bound if better is not None else None)
        stopped = found.timed_out or better is None or better.timed_out
        found = replace(found, timed_out=stopped)
        if better is not None:
            value = evaluate(coster, better.states, problem.limit)
            if value < found.objective:
                found = replace(found, states=better.states, objective=value)
    known = [bound for bound in bounds if bound is not None]
    bound = min(known) if len(known) == len(bounds) else None
    return replace(found, bound=bound) if whole else replace(found, pair_bound=bound)
