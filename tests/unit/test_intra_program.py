"""The integer program against enumeration of all states, on small problems drawn at random."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from pai.passes.strategy.intra.coster import Coster, evaluate
from pai.passes.strategy.intra.descent import descend, joint
from pai.passes.strategy.intra.ilp import Limits, Program
from pai.passes.strategy.intra.prices import Prices
from pai.passes.strategy.intra.problem import (
    NONE,
    PARTIAL,
    Edge,
    Held,
    Node,
    Problem,
    Product,
    Traffic,
    steps,
)
from pai.runtime.mesh import Mesh
from pai.runtime.topology import load_cluster

EXACT = Limits(seconds=60, nodes=100_000, gap=0.0)
PHASES = ("forward", "backward")


def drawn(seed: int) -> Problem:
    """Return a problem of two to four nodes with shared groups, hidden edges and sums."""
    rng = random.Random(seed)
    nodes = []
    for number in range(rng.randint(2, 4)):
        sizes = [rng.choice((48, 64, 96, 256)) * 8 for _ in range(rng.randint(1, 3))]
        product = Product((0,), (), tuple(range(1, len(sizes))), (), "bf16", 3, rng.choice(PHASES))
        traffic = Traffic(rng.uniform(1e6, 1e9), (0,), 2, rng.choice(PHASES))
        fixed = {len(sizes) - 1} if len(sizes) > 2 and rng.random() < 0.3 else set()
        nodes.append(Node(f"n{number}", sizes, fixed, set(), [product], [traffic]))
    edges = []
    for _ in range(rng.randint(2, 5)):
        source, target = rng.sample(range(len(nodes)), 2)
        a, b = len(nodes[source].sizes), len(nodes[target].sizes)
        dims = tuple(rng.sample(range(a), min(a, 2)))
        wanted = tuple((*rng.sample(range(b), min(b, 2)), NONE)[: len(dims)])
        wanted += (NONE,) * (len(dims) - len(wanted))
        summed = frozenset(f for f in range(a) if f not in dims and rng.random() < 0.7)
        shape = tuple(nodes[source].sizes[f] * rng.choice((1, 16)) for f in dims)
        edges.append(
            Edge(
                source, target, shape, 2, dims, wanted, summed, rng.randint(1, 4),
                rng.choice(PHASES), rng.random() < 0.4, rng.randint(0, 1),
            )
        )  # fmt: skip
    edges = [
        Edge(**{**e.__dict__, "group": e.group + 2 * e.source, "phase": edges[0].phase})
        for e in edges
    ]
    memory = {"now": [Held(n, 4e9, (0,)) for n in range(len(nodes))]}
    return Problem(nodes, edges, memory, 0.0, rng.choice((math.inf, 4e9 * len(nodes) / 3)))


def enumerated(problem: Problem, coster: Coster) -> float:
    """Return the least objective of all combinations of states."""
    states = [list(node.states(coster.prices.sizes)) for node in problem.nodes]
    return min(evaluate(coster, choice, problem.limit) for choice in itertools.product(*states))


@pytest.mark.parametrize("axes", [(8,), (2, 4)])
@pytest.mark.parametrize("seed", range(12))
def test_the_program_finds_what_enumeration_finds(seed: int, axes: tuple[int, ...]) -> None:
    problem = drawn(seed)
    mesh = Mesh(tuple(zip("xy", axes, strict=False)))
    coster = Coster(problem, Prices(mesh, load_cluster("a100-80g-sxm", mesh.num_devices)))
    best = enumerated(problem, coster)
    start = descend(problem, coster, EXACT)
    domains = [list(node.states(axes)) for node in problem.nodes]
    solved = Program(problem, coster, domains, problem.limit).solve(EXACT, start.states)
    assert evaluate(coster, solved.states, problem.limit) == pytest.approx(best, rel=1e-5)
    assert solved.objective == pytest.approx(best, rel=1e-4)  # rows may be exceeded by 1e-6
    assert not solved.timed_out
    assert best <= start.objective * (1 + 1e-9)
    refined = joint(problem, coster, domains, start.states, EXACT)
    assert refined is not None
    assert refined.bound <= best * (1 + 1e-4)
    value = evaluate(coster, refined.states, problem.limit)
    assert best * (1 - 1e-9) <= value <= start.objective * (1 + 1e-4)


def test_some_drawn_problem_needs_its_memory_limit() -> None:
    binding = 0
    for seed in range(12):
        problem = drawn(seed)
        prices = Prices(Mesh((("x", 8),)), load_cluster("a100-80g-sxm", 8))
        free = enumerated(Problem(problem.nodes, problem.edges), Coster(problem, prices))
        binding += enumerated(problem, Coster(problem, prices)) > free * (1 + 1e-6)
    assert binding


def edge(shape: tuple[int, ...]) -> Edge:
    """Return an edge of a tensor of two-byte elements whose dimensions are factors 0, 1, …."""
    dims = tuple(range(len(shape)))
    return Edge(0, 1, shape, 2, dims, dims, frozenset({len(shape)}))


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((0,), (0,), []),
        ((NONE,), (1,), []),
        ((PARTIAL,), (NONE,), [("all_reduce", 64 * 32 * 2)]),
        ((PARTIAL,), (1,), [("reduce_scatter", 64 * 32 * 2)]),
        ((0,), (NONE,), [("all_gather", 64 * 32 * 2)]),
        ((0,), (1,), [("all_to_all", 64 * 32 * 2 / 4)]),
    ],
)
def test_one_axis_needs_these_collectives(
    source: tuple[int, ...], target: tuple[int, ...], expected: list[tuple[str, float]]
) -> None:
    moves = steps(edge((64, 32)), source, target, (4,))
    assert [(move.kind, move.num_bytes) for move in moves] == expected


def test_slices_come_before_sums_and_gathers_of_a_dimension_are_one() -> None:
    moves = steps(edge((64, 32)), (PARTIAL, NONE), (NONE, 0), (4, 2))
    assert [(m.kind, m.num_bytes, m.axes) for m in moves] == [("all_reduce", 64 * 32.0, (0,))]
    moves = steps(edge((64, 32)), (0, 0), (NONE, NONE), (4, 2))
    assert [(m.kind, m.num_bytes, m.axes) for m in moves] == [("all_gather", 64 * 32 * 2.0, (0, 1))]


def test_a_factor_is_split_evenly_or_into_large_parts() -> None:
    node = Node("n", [12, 1000, 16], fixed={2}, even={0})
    allowed = set(node.states((8,)))
    assert allowed == {(NONE,), (1,)}
    assert (0,) in set(node.states((4,)))
