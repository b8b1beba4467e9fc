"""The context axis beside the tensor axis: sequences, samples and experts inside a replica."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import load_package
from benchmarks.plan_quality import hand_point
from benchmarks.published.case import Setup
from pai.dialects.mlir import context, parse
from pai.passes.simplify import simplify
from pai.passes.strategy.calibration import Calibration
from pai.passes.strategy.hybrid import HybridOptions, cost_hybrid, search_hybrids
from pai.passes.strategy.hybrid_plan import (
    HybridProblem,
    hybrid_insights,
    hybrid_of_plan,
    plan_of_hybrid,
    prediction_of_hybrid,
)
from pai.passes.strategy.hybrid_point import FAMILIES, Hybrid, course, network
from pai.passes.strategy.intra.inner import inner_search
from pai.passes.strategy.kernels import Kernels
from pai.passes.strategy.load import load_plan
from pai.passes.strategy.memory import State, memory_cost
from pai.passes.strategy.plan import plan_from_toml
from pai.passes.strategy.step import Execution, step_cost
from pai.passes.strategy.step_plan import choose_step_plan, layouts_of_point, options_of
from pai.passes.strategy.transformer import Split, Stack, Transformer, transformer_workload
from pai.passes.strategy.workload import Collective, Dot, Recompute, Segment, Stream, Workload
from pai.runtime.errors import InvalidSharding
from pai.runtime.mesh import AxisRef
from pai.runtime.topology import DeviceSpec, load_cluster

load_package("tests/models", "jax_models")

from jax_models import dlrm, moe, program  # noqa: E402

BOTH, DATA = ("data", "context"), ("data",)
DEVICE = DeviceSpec("toy", 10**9, 1.0, (("f32", 1.0),))
"""A byte a second."""
CONSTANTS = Calibration(1, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.5)
LAYER = Segment(
    "layer", (Stream(1.0),), (Stream(1.0),), (Stream(1.0),), repeat=4, parameters=10.0,
    experts=6.0, recompute=(Recompute("none", 8.0),),
)  # fmt: skip
WORK = Workload((LAYER,))


def exchanged(**run):
    """Return what a step of WORK exchanges, with its cost; a byte takes a tenth of a second."""
    asked = []

    def network(kind, num_bytes, axes):
        asked.append((kind, num_bytes, axes))
        return num_bytes / 10

    found = step_cost(WORK, Execution(**run), Kernels.of(DEVICE, CONSTANTS), network)
    return set(asked), found


def test_gradients_are_added_up_over_data_and_context_once_a_step():
    asked, found = exchanged(replicas=2, context=4, microbatches=3, reduce_bytes=2)
    dense, experts = 4 * 4 * 2, 4 * 6 * 2
    assert asked == {("all_reduce", dense, BOTH), ("all_reduce", experts, DATA)}
    assert found.exposed_communication == pytest.approx((dense + experts) / 10)


def test_experts_of_one_replica_are_added_up_over_nothing():
    asked, found = exchanged(replicas=1, context=4, microbatches=3, reduce_bytes=2)
    assert asked == {("all_reduce", 4 * 4 * 2, BOTH)}
    assert found.exposed_communication == pytest.approx(3.2)


def test_without_a_context_axis_experts_are_parameters_like_others():
    asked, _ = exchanged(replicas=2, reduce_bytes=2)
    assert {(axes) for _, _, axes in asked} == {DATA}
    assert sum(size for _, size, _ in asked) == 4 * 10 * 2


def test_zero_shards_dense_parameters_over_both_axes_and_experts_over_data():
    _, whole = exchanged(replicas=2, context=4, update_bytes=20)
    _, split = exchanged(replicas=2, context=4, update_bytes=20, zero=1)
    assert whole.optimizer == 4 * 10 * 20
    assert split.optimizer == pytest.approx(20 * 4 * (4 / 8 + 6 / 2))


def test_zero_3_gathers_each_kind_over_its_own_axes():
    asked, _ = exchanged(replicas=2, context=4, zero=3, gather_bytes=2, reduce_bytes=4)
    assert asked == {
        ("all_gather", 4 * 2, BOTH),
        ("all_gather", 6 * 2, DATA),
        ("reduce_scatter", 4 * 4, BOTH),
        ("reduce_scatter", 6 * 4, DATA),
    }


def test_memory_by_zero_stage():
    shared = 4 * (4 / 8 + 6 / 2)
    for zero, parts in enumerate(
        ((40, 40, 40), (40, 40, shared), (40, shared, shared), (shared, shared, shared))
    ):
        run = Execution(replicas=2, context=4, zero=zero)
        found = memory_cost(WORK, run, State(2, 4, 12))
        held = (found.parameters, found.gradients, found.optimizer)
        each = tuple(size * part for size, part in zip((2, 4, 12), parts, strict=True))
        assert held == pytest.approx(each)


def test_a_simulated_pipeline_reduces_the_same():
    """Half of the parameters are added up over two devices instead of eight, on one host."""
    cluster = load_cluster("a100-80g-sxm", 16)
    work = transformer_workload(SMALL, 1, Split(1, 4))
    halves = replace(
        work, segments=tuple(replace(s, experts=s.parameters / 2) for s in work.segments)
    )
    point = Hybrid(2, 1, 1, 2, 1, 8, context=4)
    links, run = network(point, cluster), point.run(Execution())
    plain, apart = (course(point, w, cluster, Execution()) for w in (work, halves))
    size = max(stage.cost.parameters for stage in plain.plan.stages) * run.reduce_bytes
    saved = links("all_reduce", size, BOTH) - (
        links("all_reduce", size / 2, BOTH) + links("all_reduce", size / 2, DATA)
    )
    assert plain.seconds - apart.seconds == pytest.approx(saved, rel=0.02)
    assert saved > 0


SMALL = Transformer(layers=8, hidden=1024, heads=16, vocab=8192, seq=2048)
LONG = Transformer(
    32, 4096, 32, 128256, 131072, 8, 14336, gated=True, biases=False, positions=False, tied=False
)


def long_work(tensor, samples, size=1):
    if LONG.kv_heads % tensor:
        return None
    return transformer_workload(LONG, samples, Split(tensor, size, tensor > 1), Stack())


def test_long_sequences_are_split_beside_tensor_parallelism():
    """Megatron's plan for 128k tokens is scored, and what is found is no slower."""
    cluster = load_cluster("h100-sxm", 64)
    hand = Hybrid(1, 1, 8, 1, 1, 32, 1, context=8)
    options = HybridOptions(context=64)
    found = search_hybrids(long_work, 32, cluster, options, baselines=[hand])
    (theirs,) = found.baselines
    assert theirs.seconds == cost_hybrid(hand, long_work(8, 1, 8), cluster, options).seconds
    assert found.best[0].seconds <= theirs.seconds
    plain = search_hybrids(long_work, 32, cluster, HybridOptions())
    assert found.best[0].hybrid.context > 1
    assert found.best[0].seconds < plain.best[0].seconds
    assert all(c is None or c.hybrid.context == 1 for _, c in found.families)


def test_short_sequences_are_not():
    asked = set()

    def work(tensor, samples, size=1):
        asked.add(size)
        return transformer_workload(SMALL, samples, Split(tensor, size))

    search_hybrids(work, 64, load_cluster("a100-80g-sxm", 8), HybridOptions(context=64))
    assert asked == {1}
    search_hybrids(work, 2, load_cluster("a100-80g-sxm", 64), HybridOptions(context=64))
    assert asked > {1, 2, 4}  # two samples for 64 devices


def test_experts_are_tried_with_sizes_that_divide_them():
    asked = set()

    def work(tensor, samples, size=1):
        asked.add((samples, size))
        return transformer_workload(SMALL, 1, Split(tensor))

    options = HybridOptions(context=64, experts=12, microbatch=2)
    search_hybrids(work, 64, load_cluster("a100-80g-sxm", 16), options)
    assert {size for _, size in asked} == {1, 2, 4}
    assert all(samples % size == 0 for samples, size in asked)


CONFIG = moe.Config(6, 512, 8, 2048, 8, 1, 1.0, 4096, 512, 0.01, "bfloat16")
EXPERTS = 2 * 8 * 512 * 2048


def read(model, config, batch, profile, devices):
    name = model.__name__.rsplit(".", 1)[-1]
    module = parse(program.step_text(name, config, batch), name, context())
    signature = program.sign(module, name, config)
    simplify(module)
    found = inner_search(module, signature, load_cluster(profile, devices))
    found.module = module  # operations live as long as their module
    return found


@pytest.fixture(scope="module")
def inner():
    return read(moe, CONFIG, 64, "a100-80g-sxm", 8)


def moved(segment, kind):
    tasks = (*segment.forward, *segment.backward, *segment.weight_backward)
    return [t for t in tasks if isinstance(t, Collective) and t.kind == kind]


def test_the_solver_splits_experts_and_tokens_over_the_context_axis(inner):
    assert inner.experts == 8
    work, alone = inner(1, 8, 8), inner(1, 1)
    layer = work.layers
    assert layer.experts == EXPERTS / 8
    assert layer.parameters - layer.experts == pytest.approx(
        alone.layers.parameters - EXPERTS, rel=1e-6
    )
    # Eight samples on eight devices are the work of one on one: every token meets one expert.
    for part in ("forward", "backward", "weight_backward"):
        ours, theirs = (
            sum(2 * t.batch * t.m * t.n * t.k * t.count for t in getattr(w.layers, part)
                if isinstance(t, Dot))
            for w in (work, alone)
        )  # fmt: skip
        assert ours == pytest.approx(theirs, rel=0.01)
    assert layer.output_bytes == alone.layers.output_bytes


def test_tokens_go_to_their_experts_and_back_in_both_passes(inner):
    """A sample's 512 tokens of 512 elements of two bytes, each to one expert."""
    layer = inner(1, 8, 8).layers
    sizes = [t.num_bytes for t in moved(layer, "all_to_all") for _ in range(t.count)]
    assert sizes == [512 * 512 * 2] * 4


def test_gradients_of_dense_layers_are_no_tasks_of_a_microbatch(inner):
    for segment in inner(1, 8, 8).segments:
        largest = max((t.num_bytes for t in moved(segment, "all_reduce")), default=0)
        assert largest < 512 * 512 * 2  # the smallest matrix
        assert not moved(segment, "reduce_scatter")


def test_the_search_spreads_experts(inner):
    cluster = load_cluster("a100-80g-sxm", 8)
    options = replace(options_of(inner), microbatches=False)
    found = search_hybrids(inner, 64, cluster, options)
    plain = search_hybrids(inner, 64, cluster, replace(options, context=1))
    assert found.best[0].seconds <= plain.best[0].seconds
    assert found.scored > plain.scored
    assert all(c is None or c.hybrid.context == 1 for _, c in found.families)


def test_tables_are_split_where_samples_are():
    """DLRM: rows of the tables change from the device of the table to that of the sample."""
    inner = read(dlrm, dlrm.Config(rows=200_000), 4096, "h100-sxm", 8)
    assert inner.experts == 4096
    found = search_hybrids(inner, 4096, load_cluster("h100-sxm", 8), options_of(inner))
    assert found.best[0].hybrid.context > 1
    work = inner(1, 4096, 8)
    total = sum(s.parameters for s in work.segments)
    assert sum(s.experts for s in work.segments) > 0.5 * total


def point_of(size=4):
    return Hybrid(1, 1, 1, 8 // size, 8, 64 // 8 // (8 // size), 1, context=size)


def test_a_point_is_a_plan_and_a_plan_the_point(inner):
    wide = replace(point_of(2), replicas=2, microbatches=4)
    for point in (
        point_of(),
        replace(wide, stages=2, order=("data", "stage", "tensor")),
        replace(wide, tensor=2),
    ):
        work = inner(point.tensor, point.microbatch, point.context)
        cost = cost_hybrid(point, work, inner.cluster)
        plan = plan_from_toml(plan_of_hybrid(cost, work, inner.cluster).to_toml())
        assert dict(plan.mesh.axes)["context"] == point.context
        assert f"context={point.context}" in plan.strategy
        assert plan.zero == (("data", 1), ("context", 1))
        assert hybrid_of_plan(plan, 64) == point
        assert plan.predicted == prediction_of_hybrid(cost)
    with pytest.raises(InvalidSharding, match="no point of the outer search"):
        hybrid_of_plan(replace(plan, zero=(("data", 1),)), 64)


def test_layouts_say_both_axes(inner):
    found = dict(layouts_of_point(inner, point_of()))
    experts = next(layout for name, layout in found.items() if "experts" in name)
    assert experts.sharding.dims[0] == (AxisRef("context"),)
    assert found["batch/labels"].sharding.dims[0] == (AxisRef("data"), AxisRef("context"))
    assert all("experts" in name or "batch" in name for name in found)  # all else is whole


def test_plain_families_have_no_context_axis():
    for name, belongs in FAMILIES.items():
        assert not belongs(Hybrid(context=2)), name
        assert not belongs(Hybrid(tensor=2, context=2)), name


def test_the_explanation_offers_other_sizes(inner):
    problem = HybridProblem(inner, 64, inner.cluster, options_of(inner))
    cost = problem.cost(point_of())
    names = {choice.name for choice in hybrid_insights(problem, cost).choices}
    assert {f"{n} devices a sequence or group of experts" for n in (2, 8)} <= names


def test_a_plan_file_is_costed_as_the_search_did(inner, tmp_path):
    path = tmp_path / "plan.toml"
    options = HybridOptions(context=8, tensor=1, stages=1, microbatches=False, zero=(0,))
    crowded = load_cluster("a100-80g-sxm", 8)
    plan = choose_step_plan(inner.module, inner.signature, crowded, options)
    work = inner(1, 64, 8)
    point = Hybrid(1, 1, 1, 1, 64, 1, 0, context=8)
    cost = cost_hybrid(point, work, crowded, replace(options, state=options_of(inner).state))
    ours = replace(plan_of_hybrid(cost, work, crowded), patterns=layouts_of_point(inner, point))
    path.write_text(ours.to_toml())
    back = load_plan(path, inner.module, inner.signature, crowded)
    assert back.predicted == ours.predicted
    assert plan.predicted.time_s <= ours.predicted.time_s


def test_a_published_plan_keeps_its_context():
    split = Split(8, 16, sequence_parallel=True)
    run = Execution(stages=16, replicas=8, context=16, microbatches=16)
    point = hand_point(Setup(LONG, 1, "h100-llama3", split, Stack(), run))
    assert (point.context, point.mesh.num_devices) == (16, 16384)
