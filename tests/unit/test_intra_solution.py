"""The search on small training steps: what emerges, folding, determinism, and the truth of it."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from typing import Any

import pytest

from jax_models import gpt2, llama, program
from pai.dialects.mlir import context, parse
from pai.dialects.program import Signature
from pai.passes.partition.fold_graph import RESULT_BITS, RESULT_MASK
from pai.passes.partition.partition import partition
from pai.passes.partition.traffic import moved
from pai.passes.simplify import simplify
from pai.passes.strategy.cost import cost_local_module
from pai.passes.strategy.intra.coster import Coster, evaluate, memory_bytes
from pai.passes.strategy.intra.layouts import Layouts
from pai.passes.strategy.intra.lower import Lowered
from pai.passes.strategy.intra.problem import NONE, State
from pai.passes.strategy.intra.solution import (
    IntraOptions,
    IntraSolution,
    apply_solution,
    read_problem,
    solve_intra,
)
from pai.passes.strategy.workload import Attention, Collective, Dot
from pai.runtime.errors import InfeasiblePlan
from pai.runtime.mesh import Mesh
from pai.runtime.topology import load_cluster

CONFIGS: dict[str, tuple[str, Any, int]] = {
    "gpt": ("gpt2", gpt2.Config(6, 512, 8, 2048, 1024, 256, "bfloat16"), 64),
    "wide": ("gpt2", gpt2.Config(6, 4096, 32, 16384, 51200, 2048, "bfloat16"), 32),
    "llama": ("llama", llama.Config(6, 1024, 16, 4, 2816, 4096, 512, 1e4, "bfloat16"), 32),
}


@functools.cache
def text(name: str) -> str:
    """Return the training step's StableHLO."""
    return program.step_text(*CONFIGS[name])


def module_of(name: str) -> tuple[Any, Signature]:
    """Return a fresh simplified module and its signature."""
    module = parse(text(name), name, context())
    signature = program.sign(module, *CONFIGS[name][:2])
    simplify(module)
    return module, signature


def solve(
    name: str, sizes: tuple[int, ...], limit: float = math.inf, **options: Any
) -> tuple[Any, IntraSolution]:
    """Return the module and its solution on A100 hosts of eight."""
    module, signature = module_of(name)
    mesh = Mesh(tuple(zip(("data", "model"), sizes, strict=False)))
    cluster = load_cluster("a100-80g-sxm", mesh.num_devices)
    return module, solve_intra(module, signature, mesh, cluster, limit, IntraOptions(**options))


def axes(solution: IntraSolution, name: str) -> list[str]:
    """Return the axes of each dimension of an argument, joined."""
    dims = dict(solution.arguments)[name].sharding.dims
    return [",".join(axis.name for axis in dim) for dim in dims]


def test_megatron_pairs_and_zero_emerge() -> None:
    """With more devices than sequences layers split by columns, then rows; moments over both."""
    _, solution = solve("wide", (8, 8), 8e10)
    layer = "params/layers/3"
    up, down = axes(solution, f"{layer}/mlp/up"), axes(solution, f"{layer}/mlp/down")
    assert "model" in up[1].split(",")
    assert "model" in down[0].split(",")
    assert "model" in axes(solution, f"{layer}/attention/qkv")[2].split(",")
    assert "model" in axes(solution, f"{layer}/attention/out")[0].split(",")
    for kind in ("m", "v"):
        moments = ",".join(axes(solution, f"{kind}/layers/3/mlp/up")).split(",")
        assert {"data", "model"} <= set(moments)
    assert "data" in axes(solution, "batch/labels")[0].split(",")


def test_little_memory_leads_to_zero_3_and_less_to_recomputation_and_then_to_an_error() -> None:
    _, free = solve("gpt", (8,))
    _, tight = solve("gpt", (8,), free.memory_bytes - 3e7, recompute="none")
    assert tight.memory_bytes <= free.memory_bytes - 3e7
    assert tight.time_s > free.time_s
    assert any(axes(tight, "params/layers/3/mlp/up"))
    _, tighter = solve("gpt", (8,), free.memory_bytes * 0.5)
    assert tighter.recompute == "full"
    assert free.time_s < tighter.time_s < tight.time_s
    assert tighter.memory_bytes <= free.memory_bytes * 0.5
    with pytest.raises(InfeasiblePlan, match="GB a device"):
        solve("gpt", (8,), 1e7)


@pytest.mark.parametrize(("name", "sizes"), [("gpt", (8,)), ("gpt", (2, 4)), ("llama", (8,))])
def test_a_folded_solution_costs_unfolded_what_it_costs_folded(
    name: str, sizes: tuple[int, ...]
) -> None:
    _, folded = solve(name, sizes, refine_s=0)
    module, signature = module_of(name)
    whole = read_problem(module, signature, math.inf, IntraOptions(fold=False))
    assert len(whole.problem.nodes) > 3 * len(folded.states)
    coster = Coster(whole.problem, folded.prices)
    states = unfolded(folded, whole)
    assert evaluate(coster, states, math.inf) == pytest.approx(folded.time_s, rel=0.01)
    used = max(memory_bytes(coster, states).values())
    assert used == pytest.approx(folded.memory_bytes, rel=0.05)  # the first layer saves less


def unfolded(solution: IntraSolution, whole: Lowered) -> list[State]:
    """Return a folded solution as states of the unfolded problem of the same module."""
    folded = solution.lowered
    classes = folded.merged.folded.classes
    members = whole.merged.folded.members
    states = [list((NONE,) * len(solution.mesh.axes)) for _ in whole.problem.nodes]
    for number, node in whole.heavies.items():
        states[node] = list(solution.states[folded.heavies[classes[members[number][0]]]])
    layouts = Layouts(folded, solution.states, solution.mesh)
    for value in whole.merged.index:
        (member,) = members[value >> RESULT_BITS]
        same = (classes[member] << RESULT_BITS) | (value & RESULT_MASK)
        known = whole.merged.group(value) in whole.clusters
        if known and folded.merged.group(same) in folded.clusters:
            factors = whole.value_factors(value)
            for axis, dim in enumerate(layouts.value_spec(same)):
                if dim >= 0:
                    states[whole.node_of(value)][axis] = factors[dim]
    return [tuple(state) for state in states]


def test_the_same_program_has_the_same_solution() -> None:
    first, second = (solve("llama", (2, 4))[1] for _ in range(2))
    assert first == second
    assert not first.timed_out


def test_the_gap_is_small_and_known() -> None:
    gap, proved = (solve("llama", (2, 4), refine_s=60.0, prove=p)[1].gap for p in (False, True))
    assert gap is not None
    assert proved is not None
    assert proved <= gap < 0.02
    assert solve("llama", (8,), refine_s=0)[1].gap == pytest.approx(0, abs=1e-3)
    assert solve("llama", (2, 4), refine_s=0)[1].gap is None


@pytest.mark.parametrize(
    ("name", "sizes", "limit"),
    [("gpt", (8,), math.inf), ("gpt", (8,), 6e8), ("gpt", (2, 4), math.inf), ("llama", (8,), 4e9)],
)
def test_partitioning_moves_the_bytes_that_were_predicted(
    name: str, sizes: tuple[int, ...], limit: float
) -> None:
    module, solution = solve(name, sizes, limit, recompute="none")
    predicted: dict[str, float] = defaultdict(float)
    for use in solution.collectives:
        group = math.prod(solution.mesh.size(axis) for axis in use.axes)
        local = use.num_bytes / group if use.kind == "reduce_scatter" else use.num_bytes
        predicted[use.kind] += moved(use.kind, int(local), group)
    apply_solution(module, solution)
    local_module = partition(module, solution.mesh)
    real: dict[str, float] = defaultdict(float)
    for use in local_module.report.collectives:
        real[use.kind] += use.moved_bytes
    assert sum(real.values()) > 1e6
    assert sum(predicted.values()) == pytest.approx(sum(real.values()), rel=0.05)


def test_a_module_as_written_holds_the_bytes_that_were_predicted() -> None:
    module, solution = solve("gpt", (8,), fused=False)
    _, fused = solve("gpt", (8,))
    assert fused.memory_bytes < 0.6 * solution.memory_bytes
    apply_solution(module, solution)
    local = partition(module, solution.mesh)
    cost = cost_local_module(local.module, solution.mesh, load_cluster("a100-80g-sxm", 8))
    held = sum(cost.argument_bytes) + cost.peak_temporary_bytes
    assert solution.memory_bytes == pytest.approx(held, rel=0.25)


def test_the_workload_has_the_products_of_the_model() -> None:
    _, solution = solve("gpt", (8,))
    work = solution.workload()
    assert [segment.name for segment in work.segments] == ["embedding", "layer", "head"]
    layer = work.segments[1]
    config = CONFIGS["gpt"][1]
    assert layer.repeat == config.layers
    tokens = CONFIGS["gpt"][2] * config.sequence // 8

    def flops(tasks: tuple[object, ...]) -> float:
        return sum(2.0 * t.m * t.n * t.k * t.batch * t.count for t in tasks if isinstance(t, Dot))

    wanted = 2 * tokens * (4 * config.width**2 + 2 * config.width * config.hidden)
    for part in (layer.forward, layer.backward, layer.weight_backward):
        assert flops(part) == pytest.approx(wanted, rel=0.01)
    (forward,) = [task for task in layer.forward if isinstance(task, Attention)]
    (backward,) = [task for task in layer.backward if isinstance(task, Attention)]
    size = (config.heads * CONFIGS["gpt"][2] // 8, 256, 256, config.width // config.heads, True)
    for task in (forward, backward):
        assert (task.batch, task.query, task.keys, task.head, task.causal) == size
    weights = 12 * config.width**2 + 13 * config.width
    assert layer.parameters == pytest.approx(weights, rel=0.01)
    assert not any(isinstance(task, Collective) for task in layer.forward)
    halves = solution.workload(2).segments[1]
    assert flops(halves.forward) == pytest.approx(wanted / 2, rel=0.01)
    assert flops(halves.weight_backward) == pytest.approx(wanted / 2, rel=0.01)
