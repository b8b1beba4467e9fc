"""The integer program of the intra-operator search, solved with HiGHS.

Given nodes n with states s, edges e whose ends project a state to a spec of e's tensor, and points
in time t:

    x[n,s] in {0,1}      node n is in state s                     sum over s of x[n,s] = 1
    z[e,p,q] >= 0        e's tensor goes from spec p to spec q
        sum over q of z[e,p,q] = sum of x[source,s], s projected to p     for each p
        sum over p of z[e,p,q] = sum of x[target,s], s projected to q     for each q
    w[g,p,q] >= z[e,p,q] edges e of group g read the same tensor and share what they move
    h[k] >= 0            hidden collectives of part k of the step that outlast what hides them
        h[k] >= sum of hidden c·w in k - overlap · sum of compute in k
    m[t] >= 0            bytes over the limit
        sum of bytes[n,s,t]·x[n,s] - m[t] <= limit

    minimize  sum of compute[n,s]·x + sum of exposed c·w + sum of h + contention · hidden c·w
              + penalty · sum of m

Edges are given by marginals over the specs that their ends can reach, not by pairs of states, so
that the relaxation is nearly always integral. Edges whose ends leave one spec are linear in x.
States may be restricted (``domains``): axis by axis all other axes are fixed (``descent.py``).
HiGHS runs on one thread with a fixed seed; a limit of nodes, not of seconds, is what stops it
unless the time limit strikes, and then the result says so.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import highspy
import numpy as np
from highspy._core import _Highs

from pai.passes.strategy.intra.coster import (
    OVERLAP,
    PENALTY_S_PER_BYTE,
    Coster,
    phase_of,
)
from pai.passes.strategy.intra.problem import Edge, Problem, Spec, State
from pai.runtime.errors import PassFailure

SCALE, MIXED = 1e3, 1e-6
"""The solver's tolerances are absolute: it sees milliseconds. Shares below MIXED are none."""
HEURISTICS = (
    ("mip_heuristic_effort", 0.0), ("mip_detect_symmetry", False),
    ("mip_heuristic_run_feasibility_jump", False), ("mip_heuristic_run_rens", False),
    ("mip_heuristic_run_rins", False), ("mip_heuristic_run_root_reduced_cost", False),
)  # fmt: skip
"""Left out: they take longer than the few nodes of the tree that these programs need."""


@dataclass(frozen=True)
class Limits:
    """How long the solver may work.

    Args:
        seconds: wall time; results that met it depend on the machine.
        nodes: nodes of branch and bound.
        gap: relative gap at which it stops.
    """

    seconds: float = 10.0
    nodes: int = 200
    gap: float = 1e-4


@dataclass
class Solved:
    """The states found.

    Args:
        states: per node.
        objective: of the program.
        bound: no states cost less.
        timed_out: whether the time limit struck.
    """

    states: list[State]
    objective: float
    bound: float
    timed_out: bool


@dataclass
class _Columns:
    cost: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    integer: list[int] = field(default_factory=list)

    def add(self, cost: float, upper: float = math.inf, *, integer: bool = False) -> int:
        self.cost.append(cost)
        self.upper.append(upper)
        self.integer.append(int(integer))
        return len(self.cost) - 1


@dataclass
class _Rows:
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)

    def add(self, lower: float, upper: float, terms: Sequence[tuple[int, float]]) -> None:
        self.lower.append(lower)
        self.upper.append(upper)
        self.starts.append(len(self.index))
        self.index += [column for column, _ in terms]
        self.value += [factor for _, factor in terms]


class Program:
    """The integer program over some of the states of each node."""

    def __init__(
        self, problem: Problem, coster: Coster, domains: Sequence[Sequence[State]], limit: float
    ) -> None:
        self.problem = problem
        self.coster = coster
        self.domains = domains
        self.columns = _Columns()
        self.rows = _Rows()
        self.hidden: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.x: list[int] = []
        self._nodes()
        self._edges()
        self._overlap()
        self._memory(limit)

    def _nodes(self) -> None:
        for number, states in enumerate(self.domains):
            first = len(self.columns.cost)
            self.x.append(first)
            phases = phase_of(self.problem, number)
            for state in states:
                seconds = self.coster.node(number, state)
                column = self.columns.add(seconds, 1.0, integer=len(states) > 1)
                for phase, share in phases.items():
                    if seconds:
                        self.hidden[phase].append((column, -OVERLAP * seconds * share))
            self.rows.add(1, 1, [(first + i, 1.0) for i in range(len(states))])

    def _edges(self) -> None:
        groups: dict[int, list[Edge]] = defaultdict(list)
        for number, edge in enumerate(self.problem.edges):
            groups[edge.group if edge.group >= 0 else -1 - number].append(edge)
        for edges in groups.values():
            self._group(edges)

    def _group(self, edges: list[Edge]) -> None:
        """Enter edges that share what they move: the dearest use of each move counts."""
        uses: dict[tuple[Spec, Spec, float, bool], list[list[tuple[int, float]]]] = {}
        for edge in edges:
            for (p, q), terms in self._moves(edge).items():
                seconds = edge.count * self.coster.edge(edge, p, q)
                if seconds > 0:
                    uses.setdefault((p, q, seconds, edge.hidden), []).append(terms)
        phase = edges[0].phase
        for (_, _, seconds, hidden), found in uses.items():
            if len(found) == 1:
                terms = found[0]
            else:
                column = self.columns.add(0.0)
                for use in found:
                    self.rows.add(0, math.inf, [(column, 1.0), *((c, -f) for c, f in use)])
                terms = [(column, 1.0)]
            for column, factor in terms:
                self.columns.cost[column] += (
                    factor * seconds * (self.coster.prices.contention if hidden else 1.0)
                )
                if hidden:
                    self.hidden[phase].append((column, factor * seconds))

    def _moves(self, edge: Edge) -> dict[tuple[Spec, Spec], list[tuple[int, float]]]:
        """Return per pair of specs the columns that say whether an edge goes so."""
        sources: dict[Spec, list[int]] = defaultdict(list)
        targets: dict[Spec, list[int]] = defaultdict(list)
        for i, state in enumerate(self.domains[edge.source]):
            sources[edge.source_spec(state)].append(self.x[edge.source] + i)
        for i, state in enumerate(self.domains[edge.target]):
            targets[edge.target_spec(state)].append(self.x[edge.target] + i)
        if edge.source == edge.target:
            both: dict[tuple[Spec, Spec], list[tuple[int, float]]] = defaultdict(list)
            for i, state in enumerate(self.domains[edge.source]):
                key = (edge.source_spec(state), edge.target_spec(state))
                both[key].append((self.x[edge.source] + i, 1.0))
            return both
        if len(sources) == 1:
            (p,) = sources
            return {(p, q): [(c, 1.0) for c in columns] for q, columns in targets.items()}
        if len(targets) == 1:
            (q,) = targets
            return {(p, q): [(c, 1.0) for c in columns] for p, columns in sources.items()}
        if all(self.coster.edge(edge, p, q) == 0 for p in sources for q in targets):
            return {}
        z = {(p, q): self.columns.add(0.0, 1.0) for p in sources for q in targets}
        for p, columns in sources.items():
            terms = [(z[p, q], 1.0) for q in targets]
            self.rows.add(0, 0, [*terms, *((c, -1.0) for c in columns)])
        for q, columns in targets.items():
            terms = [(z[p, q], 1.0) for p in sources]
            self.rows.add(0, 0, [*terms, *((c, -1.0) for c in columns)])
        return {pair: [(column, 1.0)] for pair, column in z.items()}

    def _overlap(self) -> None:
        for terms in self.hidden.values():
            if any(factor > 0 for _, factor in terms):
                outlasts = self.columns.add(1.0)
                self.rows.add(0, math.inf, [(outlasts, 1.0), *_summed(terms, -1.0)])

    def _memory(self, limit: float) -> None:
        if math.isinf(limit):
            return
        axes = self.coster.prices.sizes
        for held in self.problem.memory.values():
            total: dict[int, float] = defaultdict(float)
            for item in held:
                node = self.problem.nodes[item.node]
                for i, state in enumerate(self.domains[item.node]):
                    total[self.x[item.node] + i] += item.bytes(node, state, axes) / 1e6
            over = self.columns.add(PENALTY_S_PER_BYTE * 1e6)
            terms = [(over, -1.0), *total.items()]
            self.rows.add(-math.inf, (limit - self.problem.fixed_bytes) / 1e6, terms)

    def solve(self, limits: Limits, start: Sequence[State] | None = None) -> Solved:
        """Return the best states found.

        Raises:
            PassFailure: when the solver finds none.
        """
        model = self._model(limits, relaxed=False)
        if start is not None:
            model.setSolution(self._start(start))
        model.run()
        solution = np.array(model.getSolution().col_value)
        info = model.getInfo()
        status = model.getModelStatus()
        found = info.objective_function_value
        if len(solution) != len(self.columns.cost) or not np.isfinite(found):
            raise PassFailure(f"the solver found no assignment ({status})")
        states = [
            domain[int(np.argmax(solution[first : first + len(domain)]))]
            for first, domain in zip(self.x, self.domains, strict=True)
        ]
        bound = info.mip_dual_bound if any(self.columns.integer) else found
        timed_out = status == highspy.HighsModelStatus.kTimeLimit
        return Solved(states, found / SCALE, bound / SCALE, timed_out)

    def relax(self, limits: Limits) -> tuple[float, list[list[State]]] | None:
        """Return the bound of the linear relaxation and the states that it mixes in each node.

        None when the time limit strikes.
        """
        model = self._model(limits, relaxed=True)
        model.run()
        if model.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        solution = np.array(model.getSolution().col_value)
        mixed = [
            [
                domain[i]
                for i in np.flatnonzero(solution[first : first + len(domain)] > MIXED).tolist()
            ]
            for first, domain in zip(self.x, self.domains, strict=True)
        ]
        return model.getInfo().objective_function_value / SCALE, mixed

    def _model(self, limits: Limits, *, relaxed: bool) -> _Highs:
        model = _Highs()  # the public class announces itself on stdout
        for name, value in (
            ("output_flag", False), ("log_to_console", False),
            ("threads", 1), ("random_seed", 0), ("time_limit", limits.seconds),
            ("mip_max_nodes", limits.nodes), ("mip_rel_gap", limits.gap),
            ("solve_relaxation", relaxed), *HEURISTICS,
        ):  # fmt: skip
            model.setOptionValue(name, value)
        model.passModel(_lp(self.columns, self.rows))
        return model

    def _start(self, states: Sequence[State]) -> highspy.HighsSolution:
        """Return a partial start: the states."""
        solution = highspy.HighsSolution()
        values = np.zeros(len(self.columns.cost))
        for first, domain, state in zip(self.x, self.domains, states, strict=True):
            if state in domain:
                values[first + list(domain).index(state)] = 1.0
        solution.col_value = values.tolist()
        return solution


def _summed(terms: list[tuple[int, float]], sign: float) -> list[tuple[int, float]]:
    total: dict[int, float] = defaultdict(float)
    for column, factor in terms:
        total[column] += sign * factor
    return list(total.items())


def _lp(columns: _Columns, rows: _Rows) -> highspy.HighsLp:
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(columns.cost), len(rows.lower)
    lp.col_cost_ = np.array(columns.cost) * SCALE
    lp.col_lower_ = np.zeros(len(columns.cost))
    lp.col_upper_ = np.array(columns.upper)
    lp.row_lower_, lp.row_upper_ = np.array(rows.lower), np.array(rows.upper)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = np.array([*rows.starts, len(rows.index)], np.int32)
    lp.a_matrix_.index_ = np.array(rows.index, np.int32)
    lp.a_matrix_.value_ = np.array(rows.value)
    kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
    lp.integrality_ = [kinds[i] for i in columns.integer]
    return lp
