"""Which values of a kernel go through memory, in which loop nests, and what the grid counts.

A kernel is a list of stages. A stage is one loop nest that writes values of one shape, or one
operation with loops of its own (reduce, sort, scatter, ...). When every stage reads the others'
results only at its own leading indices, all stages run inside one loop over these *rows*, which is
also the grid; what passes between them is one row of scratch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate
from math import prod

from pai.compiler.codegen.cpu.emit.access import operand_prefix
from pai.compiler.codegen.cpu.emit.elementwise import RULES
from pai.compiler.codegen.cpu.emit.graph import Graph, Node, Value
from pai.compiler.codegen.cpu.emit.stage import STAGES

# Operations whose result is worth keeping when several stages need it.
_EXPENSIVE = frozenset(
    [
        *("exponential", "exponential_minus_one", "log", "log_plus_one", "logistic", "tanh", "tan"),
        *("sine", "cosine", "cbrt", "power", "atan2", "divide", "remainder", "rsqrt", "sqrt"),
        *("chlo.erf", "gather", "map", "dynamic_update_slice", "concatenate"),
    ]
)
# Operations that read an element of their operand many times.
_REREADING = ("dot_general", "convolution", "reduce_window", "gather", "select_and_scatter")
_PART_WORK = 16384  # elements one part of the grid should at least have


@dataclass(eq=False)
class Stage:
    """One loop nest: elements of ``values`` by their rules, or the operation ``node``."""

    values: list[Value]
    node: Node | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the results."""
        return self.values[0].shape


@dataclass
class Plan:
    """What to emit.

    Args:
        stages: in order.
        stored: values that go through memory.
        rows: number of leading dimensions the row loop covers.
    """

    stages: list[Stage]
    stored: set[Value]
    rows: int = 0
    extra: dict[str, int] = field(default_factory=dict)


def make_plan(graph: Graph) -> Plan:
    """Return the stages of a kernel."""
    results = {v for v in graph.results if v.node is not None}
    stored = set(results)
    for node in graph.nodes:
        if is_staged(node, results, graph):
            stored.update(node.results)
            if node.name in _REREADING:
                stored.update(v for v in node.operands if _cost(v, stored) > 2)
    rows = _rows(_stages(graph, stored, results), stored)
    for value in _shared(graph, stored):
        trial = stored | {value}
        stages = _stages(graph, trial, results)
        if rows == 0 or _rows(stages, trial) >= rows:
            stored = trial
    stages = _stages(graph, stored, results)
    return Plan(stages, stored, _rows(stages, stored))


def is_staged(node: Node, results: set[Value], graph: Graph) -> bool:
    """Return whether the operation has loops of its own."""
    if node.name == "dynamic_update_slice":
        return node.results[0] in results
    return node.name in STAGES


def _cost(value: Value, stored: set[Value], depth: int = 0) -> int:
    """Return roughly how many expensive operations one element takes from memory."""
    if value.node is None or value in stored or value.node.name == "constant":
        return 0
    own = 3 if value.node.name in _EXPENSIVE else 0
    if depth > 12:
        return 3
    return own + sum(_cost(v, stored, depth + 1) for v in value.node.operands)


def _shared(graph: Graph, stored: set[Value]) -> list[Value]:
    """Return expensive values that several stages would compute again."""
    reached: dict[Value, set[int]] = {}
    for number, node in enumerate(graph.nodes):
        for root in node.results:
            if root in stored:
                for value in _inside(root, stored):
                    reached.setdefault(value, set()).add(number)
    order = [v for node in graph.nodes for v in node.results]
    return [
        v
        for v in order
        if len(reached.get(v, ())) > 1
        and v.node is not None
        and v.node.name in _EXPENSIVE
        and v.shape
    ]


def _inside(root: Value, stored: set[Value]) -> set[Value]:
    """Return the values that computing ``root`` computes in registers."""
    seen: set[Value] = set()
    pending = list(root.node.operands if root.node else ())
    while pending:
        value = pending.pop()
        if value in seen or value in stored or value.node is None:
            continue
        seen.add(value)
        pending.extend(value.node.operands)
    return seen


def _stages(graph: Graph, stored: set[Value], results: set[Value]) -> list[Stage]:
    stages: list[Stage] = []
    for node in graph.nodes:
        if is_staged(node, results, graph):
            stages.append(Stage(list(node.results), node))
            continue
        for value in node.results:
            if value not in stored:
                continue
            last = stages[-1] if stages else None
            if (
                last
                and last.node is None
                and last.shape == value.shape
                and _joins([value], last, stored)
            ):
                last.values.append(value)
            else:
                stages.append(Stage([value]))
    return stages


def _joins(values: list[Value], stage: Stage, stored: set[Value]) -> bool:
    """Return whether ``values`` need the stage's results only at their own index."""
    reads = aligned_reads(Stage(values), stored)
    return all(reads.get(v, 99) >= len(v.shape) for v in stage.values)


def aligned_reads(stage: Stage, stored: set[Value]) -> dict[Value, int]:
    """Return, for each stored value the stage reads, how many leading indices are its own."""
    found: dict[Value, int] = {}
    seen: dict[Value, int] = {}
    pending: list[tuple[Value, int]] = []
    for node in {v.node: None for v in stage.values}:
        assert node is not None
        rank = len(stage.shape)
        pending += [(v, operand_prefix(node, i, rank)) for i, v in enumerate(node.operands)]
        pending += [(v, 0) for region in node.regions for v in _captured(region)]
    while pending:
        value, aligned = pending.pop()
        if seen.get(value, 99) <= aligned:
            continue
        seen[value] = aligned
        if value in stored:
            found[value] = min(found.get(value, 99), aligned)
        elif value.node is not None:
            pending += [
                (v, operand_prefix(value.node, i, aligned))
                for i, v in enumerate(value.node.operands)
            ]
            pending += [(v, 0) for region in value.node.regions for v in _captured(region)]
    return found


def _captured(region: object) -> list[Value]:
    own: set[Value] = set(region.arguments)  # type: ignore[attr-defined]
    used: list[Value] = list(region.results)  # type: ignore[attr-defined]
    for node in region.nodes:  # type: ignore[attr-defined]
        own.update(node.results)
        used.extend(node.operands)
        for inner in node.regions:
            used.extend(_captured(inner))
    return [v for v in used if v not in own]


def _rows(stages: list[Stage], stored: set[Value]) -> int:
    """Return how many leading dimensions one loop can cover for all stages."""
    if not stages:
        return 0
    rows = min(len(s.shape) for s in stages)
    first = stages[0].shape
    for stage in stages:
        same = [a == b for a, b in zip(stage.shape, first, strict=False)]
        rows = min(rows, same.index(False) if False in same else len(same))
        if stage.node is not None:
            rows = min(rows, STAGES[stage.node.name].rows(stage.node))
        rows = min([rows, *aligned_reads(stage, stored).values()])
    return rows


@dataclass(frozen=True)
class Grid:
    """How the work is cut.

    Args:
        parts: the grid's extent.
        rows: leading dimensions in the row loop.
        per_part: rows, or positions of the last dimension, in one part.
        last: parts are ranges of the last dimension of a single stage.
    """

    parts: int
    rows: int
    per_part: int
    last: bool = False


def make_grid(plan: Plan) -> Grid:
    """Return the cut of a plan."""
    if not plan.stages:
        return Grid(1, 0, 1)
    shape = plan.stages[0].shape
    single = len(plan.stages) == 1
    work = max(prod(s.shape) for s in plan.stages)
    work = max([work, *(v.size for s in plan.stages if s.node for v in s.node.operands)])
    rows = plan.rows
    if single and plan.stages[0].node is None:
        turned = turned_dimension(plan.stages[0].values, plan.stored)
        rows = rows if turned is None else min(rows, turned)
    if single and shape and _cuts_last(plan.stages[0]):
        outer = prod(shape[:-1])
        if rows == 0 or outer < 16:
            per = max(64, -(-_PART_WORK * shape[-1] // max(work, 1)) // 64 * 64)
            return Grid(max(1, -(-shape[-1] // per)), 0, per, True)
    if single:
        rows = min(rows, len(shape) - 1 if _cuts_last(plan.stages[0]) else len(shape))
        enough = [k for k in range(rows + 1) if prod(shape[:k]) >= 64]
        rows = min(rows, enough[0]) if enough else rows
    count = prod(shape[:rows])
    if count <= 1:
        return Grid(1, rows, 1)
    per = max(1, min(count, _PART_WORK * count // max(work, 1)))
    return Grid(-(-count // per), rows, per)


def _cuts_last(stage: Stage) -> bool:
    """Return whether the stage can be cut along its last dimension."""
    return stage.node is None or STAGES[stage.node.name].last(stage.node)


def turned_dimension(values: list[Value], stored: set[Value]) -> int | None:
    """Return the dimension along which a transposed input is contiguous, unless it is the last."""
    pending, seen = list(values), set()
    while pending:
        value = pending.pop()
        if value in seen or value.node is None or (value in stored and value not in values):
            continue
        seen.add(value)
        if value.node.name in RULES:
            pending += [v for v in value.node.operands if v.shape == value.shape]
        elif value.node.name == "transpose":
            found = value.node.ints("permutation").index(len(value.shape) - 1)
            if found != len(value.shape) - 1 and min(value.shape[found], value.shape[-1]) >= 8:
                return found
    return None


_MOST_CUTS = 7


def last_cuts(values: list[Value], stored: set[Value]) -> list[int]:
    """Return where the last dimension changes its formula: ends of concatenated or padded parts.

    Between two cuts the loop needs no branch and vectorizes.
    """
    cuts: set[int] = set()
    seen: set[Value] = set()
    pending = list(values)
    while pending:
        value = pending.pop()
        if value in seen or value.node is None or (value in stored and value not in values):
            continue
        seen.add(value)
        node, last = value.node, len(value.shape) - 1
        if node.name in RULES:
            pending += [v for v in node.operands if v.shape == value.shape]
        elif node.name == "concatenate" and node.int("dimension") == last:
            ends = list(accumulate(v.shape[last] for v in node.operands))
            cuts.update(ends[:-1])
        elif node.name == "pad" and last >= 0 and not node.ints("interior_padding")[last]:
            low = node.ints("edge_padding_low")[last]
            cuts.update((low, low + node.operands[0].shape[last]))
    extent = values[0].shape[-1] if values[0].shape else 0
    found = sorted(c for c in cuts if 0 < c < extent)
    return found if len(found) <= _MOST_CUTS else []
