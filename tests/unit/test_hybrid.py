"""The outer level of the search: stages, tensor shards, replicas, ZeRO, recompute."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pai.passes.strategy.hybrid import HybridOptions, cost_hybrid, interleaves, search_hybrids
from pai.passes.strategy.hybrid_point import FAMILIES, Hybrid
from pai.passes.strategy.transformer import Split, Transformer, transformer_workload
from pai.runtime.errors import InfeasiblePlan
from pai.runtime.topology import HostSpec, load_cluster

SMALL = Transformer(layers=24, hidden=2048, heads=16, vocab=51200, seq=2048)
LLAMA3 = Transformer(126, 16384, 128, 128256, 8192, 8, 53248, True, False, False, False)


def workloads(model):
    def of(tensor, microbatch):
        if model.heads % tensor or (model.kv_heads or model.heads) % tensor:
            return None
        return transformer_workload(model, microbatch, Split(tensor, 1, tensor > 1))

    return of


def with_memory(cluster, share):
    hosts = tuple(
        HostSpec(replace(h.device, memory_bytes=int(h.device.memory_bytes * share)), h.devices)
        for h in cluster.hosts
    )
    return replace(cluster, hosts=hosts)


@pytest.mark.parametrize("devices", [1, 8, 24, 64])
def test_the_best_is_no_worse_than_any_plain_family(devices):
    cluster = load_cluster("a100-80g-sxm", devices)
    found = search_hybrids(workloads(SMALL), 192, cluster)
    times = [cost.seconds for cost in found.best]
    assert times == sorted(times)
    for name, cost in found.families:
        assert cost is None or found.best[0].seconds <= cost.seconds, name
    assert found.best[0].hybrid.mesh.num_devices == devices
    assert all(cost.memory.total <= cluster.memory_bytes for cost in found.best)


def test_every_point_covers_the_devices_and_the_batch():
    found = search_hybrids(workloads(SMALL), 96, load_cluster("v100-16g-p3", 32), keep=10_000)
    for cost in found.best:
        point = cost.hybrid
        assert point.stages * point.replicas * point.tensor == 32
        assert point.replicas * point.microbatch * point.microbatches == 96


def test_llama3_405b_gets_about_the_split_that_its_authors_chose():
    """16,384 devices: TP 8, PP 16, DP 128 ("The Llama 3 Herd of Models", Table 4)."""
    found = search_hybrids(workloads(LLAMA3), 2048, load_cluster("h100-llama3", 16384))
    best = found.best[0]
    assert best.hybrid.tensor == 8
    assert best.hybrid.virtual > 1
    (theirs,) = [
        cost
        for cost in found.best[:5]
        if (cost.hybrid.stages, cost.hybrid.replicas, cost.hybrid.virtual) == (16, 128, 8)
    ]
    assert theirs.seconds < 1.04 * best.seconds


def test_what_fits_nowhere_is_an_error_with_what_takes_the_memory():
    with pytest.raises(InfeasiblePlan, match=r"needs .* GiB of .* most of it") as error:
        search_hybrids(workloads(LLAMA3), 64, load_cluster("v100-16g-p3", 64))
    assert "more devices" in error.value.hint


@settings(max_examples=15, deadline=None)
@given(st.floats(0.5, 4), st.sampled_from([4, 16, 64]))
def test_more_memory_is_never_worse(share, devices):
    cluster = load_cluster("v100-16g-p3", devices)

    def seconds(of):
        try:
            return search_hybrids(workloads(SMALL), 64, of).best[0].seconds
        except InfeasiblePlan:
            return float("inf")

    assert seconds(with_memory(cluster, share * 1.3)) <= seconds(with_memory(cluster, share))


@pytest.mark.parametrize("name", FAMILIES)
def test_families_are_found_by_their_predicates(name):
    points = [
        Hybrid(replicas=8),
        *(Hybrid(replicas=8, zero=zero) for zero in (1, 2, 3)),
        Hybrid(tensor=2, replicas=4, zero=1),
    ]
    assert any(FAMILIES[name](point) for point in points)
    assert not FAMILIES[name](Hybrid(stages=2, tensor=2, zero=3))


def test_chunks_that_need_more_layers_are_left_out():
    assert interleaves(126, Hybrid(stages=16), 8)
    assert interleaves(96, Hybrid(stages=8), 4)
    assert not interleaves(30, Hybrid(stages=4), 3)


def test_costs_are_those_of_the_point_alone():
    cluster = load_cluster("a100-80g-sxm", 16)
    found = search_hybrids(workloads(SMALL), 64, cluster)
    for cost in found.best[:5]:
        work = workloads(SMALL)(cost.hybrid.tensor, cost.hybrid.microbatch)
        alone = cost_hybrid(cost.hybrid, work, cluster, HybridOptions())
        assert alone.seconds == pytest.approx(cost.seconds, rel=1e-12)
        assert alone.memory == cost.memory
