"""Our plans against plain and published ones; what the outer search and its costs do about them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.models_at_size import ModelCase, megatron, read_model
from benchmarks.plan_quality import (
    TABLES,
    compare_case,
    compare_model,
    difference,
    hand_point,
    options_of,
    workloads_of,
)
from benchmarks.published.network import cluster_of
from benchmarks.published.tables import read_cases
from pai.passes.partition.fold_layers import find_stacks
from pai.passes.strategy.calibration import calibration
from pai.passes.strategy.hybrid import HybridOptions, cost_hybrid, search_hybrids
from pai.passes.strategy.hybrid_point import Hybrid
from pai.passes.strategy.transformer import Split, Transformer, transformer_workload
from pai.passes.strategy.workload import Attention
from pai.runtime.topology import load_cluster

CASES = [case for case in read_cases() if case.table in TABLES and case.group != "ablations"]
ONE_STAGE = [case for case in CASES if " pp1 " in f"{case.name} " or "x1 " in case.name]
QUICK = [
    case for case in CASES if "B x4 " in case.name or " x16 " in case.name or "22B" in case.name
]
SMALL = Transformer(layers=24, hidden=2048, heads=16, vocab=51200, seq=2048)


def small_work(tensor, samples):
    return transformer_workload(SMALL, samples, Split(tensor, 1, tensor > 1))


@pytest.mark.parametrize("case", ONE_STAGE, ids=lambda case: case.name)
def test_a_hand_plan_costs_here_what_the_published_benchmark_says(case):
    option, expected = case.best(calibration(case.kind))
    setup, point = option.setup, hand_point(option.setup)
    work = workloads_of(setup, sequence=setup.split.sequence_parallel)
    cluster = cluster_of(setup.profile, point.mesh.num_devices, setup.fabric)
    found = cost_hybrid(point, work(point.tensor, point.microbatch), cluster, options_of(option))
    assert found.seconds == pytest.approx(expected.total, rel=1e-9)
    assert found.memory.total == pytest.approx(setup.memory().total, rel=1e-9)


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_ours_is_never_worse_than_a_published_plan(case):
    found = compare_case(case)
    assert found.ratio >= 1
    assert found.alike >= found.ours.seconds
    assert found.found == (found.why != "the same")
    option, _ = case.best(calibration(case.kind))
    limit = options_of(option).memory_share * option.device.memory_bytes
    assert found.ours.memory <= limit


def test_a_baseline_outside_the_grid_is_scored_and_can_win():
    cluster = load_cluster("a100-80g-sxm", 16)
    options = HybridOptions(tensor=1, stages=1, zero=(3,))
    theirs = Hybrid(tensor=2, replicas=8, microbatch=4, microbatches=2, zero=1)
    found = search_hybrids(small_work, 64, cluster, options, baselines=[theirs])
    (cost,) = found.baselines
    assert cost.seconds == cost_hybrid(theirs, small_work(2, 4), cluster, options).seconds
    assert found.best[0].seconds <= cost.seconds
    without = search_hybrids(small_work, 64, cluster, options)
    assert without.scored == found.scored - 1


def test_zero_2_exchanges_gradients_in_every_microbatch():
    cluster = load_cluster("a100-80g-sxm", 16)
    points = [
        Hybrid(replicas=16, microbatch=1, microbatches=count, zero=zero)
        for count in (1, 4)
        for zero in (1, 2)
    ]
    one, same, four, more = (
        cost_hybrid(point, small_work(1, 1), cluster).step.exposed_communication for point in points
    )
    assert same == one
    assert four == pytest.approx(one)
    assert more > 2 * four


def test_large_microbatches_are_tried_while_they_fit():
    small = replace(SMALL, layers=2, hidden=256, heads=4, vocab=1024, seq=64)

    def work(tensor, samples):
        return transformer_workload(small, samples, Split(tensor)) if tensor == 1 else None

    found = search_hybrids(work, 4096, load_cluster("a100-80g-sxm", 8))
    assert found.best[0].hybrid.microbatch == 512
    asked = []

    def counting(tensor, samples):
        asked.append(samples)
        return small_work(tensor, samples)

    search_hybrids(counting, 4096, load_cluster("a100-80g-sxm", 8))
    assert max(asked) < 4096  # the whole batch at once fits nowhere, nor does half of it


def _gpt(module):
    return module.Config(6, 512, 8, 2048, 4096, 256, "bfloat16")


def _moe(module):
    return module.Config(6, 256, 8, 1024, 8, 2, 1.25, 4096, 256, 0.01, "bfloat16")


def _dlrm(module):
    return module.Config(rows=20_000)


PLAIN = Hybrid(replicas=4, microbatch=4, microbatches=4, zero=1)
MODELS = (
    ModelCase("gpt", "gpt2", _gpt, 64, "v100-16g-p3", 4, hand={"given": PLAIN}),
    ModelCase("moe", "moe", _moe, 64, "v100-16g-p3", 4, hand={"given": PLAIN}),
    ModelCase("dlrm", "dlrm", _dlrm, 64, "h100-sxm", 4, hand={"given": PLAIN}),
)


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_ours_is_never_worse_than_a_baseline(case):
    first = compare_model(case)
    assert {name for name, _ in first.plain} >= {
        "data parallel",
        "ZeRO-3",
        "Megatron grid",
        "given",
    }
    for name, cost in first.plain:
        assert cost is None or first.ours.seconds <= cost.seconds * (1 + 1e-9), name


def test_a_comparison_is_the_same_each_time():
    first, again = compare_model(MODELS[0]), compare_model(MODELS[0])
    assert replace(first, read_s=0, search_s=0) == replace(again, read_s=0, search_s=0)


def test_megatrons_split_is_by_columns_and_rows():
    read = read_model(MODELS[0])
    split, options = megatron(read)
    names = {read.inner.signature.arguments[i].name: dim for i, dim in split.dims.items()}
    assert names["params/layers/0/mlp/up"] == 1
    assert names["params/layers/0/mlp/down"] == 0
    assert split(4, 4) is not None
    assert options.zero == (0, 1)


def test_a_layer_may_keep_what_attention_gives_and_nothing_else():
    layer = max(read_model(MODELS[0]).inner(2, 4).segments, key=lambda s: s.repeat)
    none, selective, full = layer.recompute
    assert (none.name, selective.name, full.name) == ("none", "selective", "full")
    (attention,) = [task for task in layer.forward if isinstance(task, Attention)]
    result = 4 * 256 * 512 * 2 / 2  # samples, tokens, width, bytes; over two devices
    assert selective.saved_bytes - full.saved_bytes == result
    assert set(full.tasks) - set(selective.tasks) == {attention}


def test_encoder_and_decoder_are_two_stacks():
    def config(module):
        return module.Config(6, 64, 4, 128, 256, 32, 16, dtype="bfloat16")

    read = read_model(ModelCase("t5", "t5", config, 16, "h100-sxm", 8))
    folded = read.inner.lowered.merged.folded
    assert folded.layers == 6
    assert len(read.inner.lowered.problem.nodes) < 300
    stacks = find_stacks(folded.graph.flow)
    assert len(stacks) == 2
    assert not set(stacks[0].chains[stacks[0].chains >= 0]) & set(stacks[1].chains.flat)


def test_what_changes_is_said_by_the_largest_parts():
    found = compare_case(next(case for case in CASES if case.name.startswith("350M x1 alpa")))
    assert "compute -" in difference(found.hand, found.ours)
    assert difference(found.hand, found.hand) == "the same"
