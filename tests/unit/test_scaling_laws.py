"""How the modelled step must follow the model's and the cluster's sizes."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pai.passes.strategy.hybrid import cost_hybrid, search_hybrids
from pai.passes.strategy.hybrid_plan import prediction_of_hybrid
from pai.passes.strategy.hybrid_point import Hybrid
from pai.passes.strategy.scaling import scaled
from pai.passes.strategy.transformer import Split, Transformer, transformer_workload
from pai.runtime.topology import load_cluster

MODEL = Transformer(layers=8, hidden=2048, heads=16, vocab=32000, seq=1024)
FACTORS = st.sampled_from(["memory", "flops", "bandwidth", "inner", "outer"])
POINTS = [
    Hybrid(replicas=16, microbatch=2, microbatches=2),
    Hybrid(replicas=16, microbatch=1, microbatches=4, zero=3),
    Hybrid(tensor=4, replicas=4, microbatch=4, microbatches=4, zero=1, recompute="selective"),
    Hybrid(stages=4, tensor=2, replicas=2, microbatch=1, microbatches=32, recompute="full"),
    Hybrid(stages=2, virtual=2, tensor=8, microbatch=2, microbatches=16),
]


def work(model=MODEL):
    def of(tensor, microbatch):
        return transformer_workload(model, microbatch, Split(tensor, 1, tensor > 1))

    return of


def cost(point, cluster=None, model=MODEL):
    workload = work(model)(point.tensor, point.microbatch)
    cluster = cluster or load_cluster("a100-80g-sxm", point.mesh.num_devices)
    return prediction_of_hybrid(cost_hybrid(point, workload, cluster))


@settings(max_examples=10, deadline=None)
@given(FACTORS, st.floats(1, 8), st.sampled_from(["a100-40g-sxm", "v100-32g", "h100-sxm"]))
def test_more_of_anything_never_makes_the_best_slower(what, factor, profile):
    def heads(tensor, microbatch):
        return work()(tensor, microbatch) if MODEL.heads % tensor == 0 else None

    cluster = load_cluster(profile, 16)
    before = search_hybrids(heads, 64, cluster).best[0]
    after = search_hybrids(heads, 64, scaled(cluster, **{what: factor})).best[0]
    assert after.seconds <= before.seconds * (1 + 1e-9)


@pytest.mark.parametrize("point", POINTS)
@settings(max_examples=15, deadline=None)
@given(FACTORS, st.floats(1, 8))
def test_more_of_anything_never_makes_one_plan_worse(point, what, factor):
    cluster = load_cluster("a100-80g-sxm", point.mesh.num_devices)
    before, after = cost(point, cluster), cost(point, scaled(cluster, **{what: factor}))
    assert after.time_s <= before.time_s * (1 + 1e-9)
    assert after.memory_bytes == before.memory_bytes
    if what == "memory":
        assert after == before


@pytest.mark.parametrize("point", POINTS)
def test_a_cluster_that_is_faster_in_all_is_at_most_so_much_faster(point):
    cluster = load_cluster("a100-80g-sxm", point.mesh.num_devices)
    before = cost(point, cluster)
    after = cost(point, scaled(cluster, flops=4, bandwidth=4, inner=4, outer=4))
    assert before.time_s / 4 <= after.time_s < before.time_s


@pytest.mark.parametrize("point", POINTS)
def test_time_and_memory_are_linear_in_the_layers(point):
    times, sizes = [], []
    for layers in (8, 16, 24):
        predicted = cost(point, model=replace(MODEL, layers=layers))
        times.append(predicted.compute_s)
        sizes.append(predicted.parameter_bytes + predicted.activation_bytes)
    assert times[2] - times[1] == pytest.approx(times[1] - times[0], rel=1e-6)
    assert sizes[2] - sizes[1] == pytest.approx(sizes[1] - sizes[0], rel=1e-3)
    assert times[1] > times[0]


@pytest.mark.parametrize("point", POINTS)
def test_twice_the_microbatches_are_twice_the_work(point):
    before = cost(point)
    after = cost(replace(point, microbatches=2 * point.microbatches))
    assert after.compute_s == pytest.approx(2 * before.compute_s)
    # The simulated pipeline fills and drains about alike, whatever passes through it.
    assert after.bubble_s == pytest.approx(before.bubble_s, abs=0.05 * before.time_s)
    assert after.memory_bytes == pytest.approx(before.memory_bytes, rel=0.3)


def test_weak_scaling_keeps_the_compute_and_can_only_add_communication():
    times = [
        cost(Hybrid(replicas=n, microbatch=2, microbatches=2, zero=1)) for n in (8, 16, 64, 512)
    ]
    assert {t.compute_s for t in times} == {times[0].compute_s}
    communication = [t.communication_s for t in times]
    assert communication == sorted(communication)
    states = [t.state_bytes for t in times]
    assert states[0] == pytest.approx(2 * states[1], rel=1e-6)


def test_tensor_shards_divide_compute_and_parameters():
    one, four = cost(Hybrid(microbatch=4)), cost(Hybrid(tensor=4, microbatch=4))
    assert four.compute_s == pytest.approx(one.compute_s / 4, rel=0.25)
    assert four.parameter_bytes == pytest.approx(one.parameter_bytes / 4, rel=0.05)


def test_zero_stages_store_less_and_less():
    points = [Hybrid(replicas=8, microbatch=1, microbatches=2, zero=z) for z in range(4)]
    stored = [(c.parameter_bytes, c.gradient_bytes, c.state_bytes) for c in map(cost, points)]
    whole = stored[0]
    for stage, parts in enumerate(stored):
        expected = tuple(
            size / 8 if stage >= level else size
            for size, level in zip(whole, (3, 2, 1), strict=True)
        )
        assert parts == pytest.approx(expected, rel=1e-6)


def test_recomputation_trades_memory_for_time():
    choices = [
        cost(Hybrid(tensor=2, replicas=4, microbatch=4, microbatches=2, recompute=how))
        for how in ("none", "selective", "full")
    ]
    kept = [c.activation_bytes for c in choices]
    times = [c.time_s for c in choices]
    assert kept == sorted(kept, reverse=True) and len(set(kept)) == 3
    assert times == sorted(times) and len(set(times)) == 3
