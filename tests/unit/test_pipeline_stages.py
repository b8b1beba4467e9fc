import itertools
import math
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pai.passes.strategy.pipeline.choose import PipelineChoices, choose_pipeline, split_batch
from pai.passes.strategy.pipeline.divide import divide, objective
from pai.passes.strategy.pipeline.schedules import in_flight
from pai.passes.strategy.pipeline.stages import (
    CostTable,
    StageCost,
    StageRange,
    Submesh,
    additive,
    chain_of,
)
from pai.passes.strategy.workload import Segment, Workload
from pai.runtime.errors import InfeasiblePlan, InvalidInput, InvalidSchedule

GPT = {
    ("embedding", "a"): StageCost(0.1, 0.1, 0.0, 0.05, 5, 0.01),
    ("layer", "a"): StageCost(1, 1, 1, 0.05, 2, 0.5, 0.2),
    ("head", "a"): StageCost(0.8, 0.8, 0.8, 0.0, 5, 0.1, 1.0),
}


def gpt(layers):
    return (("embedding", 1), ("layer", layers), ("head", 1))


def sizes(plan):
    return [stage.end - stage.first for stage in plan.stages]


def test_a_range_costs_what_its_counts_cost_and_each_is_asked_for_once():
    asked = []

    def cost(part, submesh):
        asked.append((part, submesh))
        return additive(GPT)(part, submesh)

    table = CostTable(gpt(96), (Submesh("a", 8, 80),), cost)
    assert len(asked) == len(set(asked)) < 400
    found = table.at(0, 0, 3)
    assert found == StageCost(
        pytest.approx(2.1), pytest.approx(2.1), 2.0, 0.05, 9, pytest.approx(1.01), 0.2
    )
    assert table.at(0, 95, 98).transient_bytes == 1.0
    assert StageRange((("embedding", 1), ("layer", 2)), "layer") in {part for part, _ in asked}


def test_the_chain_of_a_workload_is_its_folded_segments():
    workload = Workload((Segment("embedding", ()), Segment("layer", (), repeat=4)))
    assert chain_of(workload) == (("embedding", 1), ("layer", 4))


def test_the_stage_with_the_head_gets_fewer_layers():
    table = CostTable(gpt(15), (Submesh("a", 1, math.inf),), additive(GPT))
    plan = divide(table, {"a": 4}, "1f1b", 4, 32)
    # Embedding and 4 layers, 4, 4, 3 and the head: the slowest takes 12.2 seconds.
    assert sizes(plan) == [5, 4, 4, 4]
    assert plan.seconds == pytest.approx(31 * 12.2 + 45 + 0.2 + 2.4 + 3 * 2 * 0.05)
    assert plan.stages[-1].cost.send == 0.0


def test_the_first_stage_gets_fewer_layers_where_it_keeps_more_microbatches():
    table = CostTable(gpt(8), (Submesh("a", 1, 12.0),), additive(GPT))
    free = divide(table.on([Submesh("a", 1, math.inf)]), {"a": 4}, "1f1b", 4, 8)
    tight = divide(table, {"a": 4}, "1f1b", 4, 8)
    assert max(stage.memory_bytes for stage in free.stages) > 12
    assert max(stage.memory_bytes for stage in tight.stages) <= 12
    assert sizes(tight)[0] == 2  # embedding and a layer: 5 + 2 + 4 · 0.51 + 0.2
    assert tight.stages[0].memory_bytes == pytest.approx(9.24)
    assert divide(table, {"a": 4}, "gpipe", 4, 8) is None


def test_faster_devices_get_more_layers():
    costs = GPT | {
        (name, "b"): replace(c, forward=3 * c.forward, backward=3 * c.backward, weight=3 * c.weight)
        for (name, _), c in GPT.items()
    }
    table = CostTable((("layer", 16),), (Submesh("a", 1, 99), Submesh("b", 1, 99)), additive(costs))
    plan = divide(table, {"a": 1, "b": 1}, "1f1b", 2, 64)
    by_kind = {stage.submesh.kind: stage.end - stage.first for stage in plan.stages}
    assert by_kind == {"a": 12, "b": 4}


def brute_force(table, pools, schedule, stages, m):
    """The least time over all divisions and submeshes."""
    aim, best = objective(schedule, stages, m), math.inf
    for cuts in itertools.combinations(range(1, table.length), stages - 1):
        edges = [0, *cuts, table.length]
        for chosen in itertools.product(range(len(table.submeshes)), repeat=stages):
            used = dict.fromkeys(pools, 0)
            for c in chosen:
                used[table.submeshes[c].kind] += table.submeshes[c].devices
            costs = [table.at(c, *edges[i : i + 2]) for i, c in enumerate(chosen)]
            fits = all(
                cost.memory(in_flight(schedule, stages, m, i)) <= table.submeshes[c].memory_bytes
                for i, (c, cost) in enumerate(zip(chosen, costs, strict=True))
            )
            if fits and all(used[kind] <= pools[kind] for kind in pools):
                total = aim.repeats * max(c.seconds for c in costs) + sum(map(aim.fill, costs))
                best = min(best, total + aim.sends * sum(c.send for c in costs[:-1]))
    return best


numbers = st.integers(0, 20).map(float)


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_the_division_is_the_best_of_all(data):
    names = data.draw(st.lists(st.sampled_from("xyz"), min_size=2, max_size=4))
    chain = [(name, data.draw(st.integers(1, 2))) for name in names]
    submeshes = [
        Submesh(kind, devices, float(data.draw(st.integers(5, 80))))
        for kind, devices in data.draw(
            st.sampled_from([[("a", 1)], [("a", 1), ("b", 1)], [("a", 1), ("a", 2), ("b", 2)]])
        )
    ]
    costs = {
        (name, str(number)): StageCost(*(data.draw(numbers) for _ in range(7)))
        for name in "xyz"
        for number in range(len(submeshes))
    }
    cost = additive(costs, lambda submesh: str(submeshes.index(submesh)))
    table = CostTable(chain, submeshes, cost)
    stages = data.draw(st.integers(1, min(4, table.length)))
    pools = {kind: data.draw(st.integers(0, 5)) for kind in {s.kind for s in submeshes}}
    schedule = data.draw(st.sampled_from(["gpipe", "1f1b", "zero-bubble"]))
    m = data.draw(st.integers(1, 6))
    plan = divide(table, pools, schedule, stages, m)
    best = brute_force(table, pools, schedule, stages, m)
    if plan is None:
        assert math.isinf(best)
        return
    assert plan.seconds == pytest.approx(best)
    used = {
        kind: sum(s.submesh.devices for s in plan.stages if s.submesh.kind == kind)
        for kind in pools
    }
    assert all(used[kind] <= pools[kind] for kind in pools)
    assert [s.first for s in plan.stages[1:]] == [s.end for s in plan.stages[:-1]]
    assert all(s.memory_bytes <= s.submesh.memory_bytes for s in plan.stages)
    aim = objective(schedule, stages, m)
    modelled = aim.repeats * max(s.cost.seconds for s in plan.stages) + sum(
        aim.fill(s.cost) + aim.sends * s.cost.send for s in plan.stages
    )
    assert modelled <= best + 1e-9


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=4, max_size=8), st.integers(1, 2), st.integers(2, 3))
def test_chunks_are_divided_as_well_as_any(layer_seconds, stages, chunks):
    chain = [(f"l{i}", 1) for i in range(len(layer_seconds))]
    if len(chain) < stages * chunks:
        return
    costs = {(f"l{i}", "a"): StageCost(float(s)) for i, s in enumerate(layer_seconds)}
    table = CostTable(chain, [Submesh("a", 1, 1.0)], additive(costs))
    plan = divide(table, {"a": stages}, "interleaved", stages, 2 * stages, chunks)
    slowest = min(
        max(sum(layer_seconds[a:b]) for a, b in itertools.pairwise((0, *cuts, len(chain))))
        for cuts in itertools.combinations(range(1, len(chain)), stages * chunks - 1)
    )
    assert max(s.cost.forward for s in plan.stages) == slowest
    totals = [sum(s.cost.forward for s in plan.stages[i::stages]) for i in range(stages)]
    rest = (sum(layer_seconds) - max(totals)) / chunks
    assert plan.seconds == pytest.approx(2 * stages * max(totals) + rest)


def test_the_chunks_of_a_stage_have_to_fit_together():
    costs = {("layer", "a"): StageCost(1.0, 1.0, 1.0, 0.0, 2.0, 0.5)}
    # Stage 0 keeps 2 (p - 1) + (v - 1) p + 1 = 5 of 2 layers: 2 · 4 + 5 · 1.0.
    for memory, fits in ((13.0, True), (12.9, False)):
        table = CostTable((("layer", 8),), [Submesh("a", 1, memory)], additive(costs))
        plan = divide(table, {"a": 2}, "interleaved", 2, 8, 2)
        assert (plan is not None) is fits
    table = CostTable((("layer", 8),), [Submesh("a", 1, 13.0)], additive(costs))
    plan = divide(table, {"a": 2}, "interleaved", 2, 8, 2)
    assert [stage.memory_bytes for stage in plan.stages] == [13.0, 11.0] * 2


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved", "zero-bubble"])
def test_even_stages_take_as_long_as_their_simulation(schedule):
    costs = {("layer", "a"): StageCost(1.0, 1.0, 1.0)}
    table = CostTable((("layer", 16),), [Submesh("a", 1, 1.0)], additive(costs))
    plan = divide(table, {"a": 4}, schedule, 4, 16, 2 if schedule == "interleaved" else 1)
    assert plan.simulate().total == pytest.approx(plan.seconds)


def test_a_deep_model_on_many_devices_takes_less_than_a_second():
    def cost(part, submesh):
        found = additive(GPT)(part, submesh)
        speed = submesh.devices**0.9
        return replace(
            found, forward=found.forward / speed, backward=found.backward / speed, weight=0.0
        )

    submeshes = [Submesh("a", 128 << i, 400.0) for i in range(5)]
    begin = time.process_time()
    table = CostTable(gpt(126), submeshes, cost)
    plan = divide(table, {"a": 16384}, "1f1b", 16, 256)
    assert time.process_time() - begin < 3.0
    assert sum(stage.submesh.devices for stage in plan.stages) == 16384
    begin = time.process_time()
    one = table.__class__(gpt(126), submeshes[3:4], cost)
    assert sizes(divide(one, {"a": 16384}, "1f1b", 16, 256)) == [8] * 16
    assert time.process_time() - begin < 0.5


def choices(**more):
    def costs(microbatches):
        part = 64 / microbatches
        scaled = {
            key: replace(
                c, forward=c.forward * part + 0.05, backward=c.backward * part,
                weight=c.weight * part, activation_bytes=c.activation_bytes * part,
            )
            for key, c in GPT.items()
        }  # fmt: skip
        return additive(scaled)

    given = {
        "chain": gpt(24), "submeshes": (Submesh("a", 1, 60.0),), "pools": {"a": 8}, "costs": costs,
        "microbatches": (8, 16, 32, 64), "stages": (2, 4, 8),
        "schedules": ("gpipe", "1f1b", "interleaved", "zero-bubble"), "chunks": (2, 3),
    }  # fmt: skip
    return PipelineChoices(**(given | more))


def test_the_fastest_of_all_choices_comes_first():
    roomy = Submesh("a", 1, 1000.0)
    plans = choose_pipeline(choices(submeshes=(roomy,)))
    assert plans[0].seconds == min(plan.seconds for plan in plans[:4])
    assert plans[0].seconds == pytest.approx(plans[0].simulate().total)
    assert plans[0].num_stages == 8
    assert plans[0].schedule in {"zero-bubble", "interleaved"}
    for one in ("gpipe", "1f1b"):
        alone = choose_pipeline(choices(schedules=(one,), submeshes=(roomy,)))
        assert alone[0].seconds >= plans[0].seconds
    assert choose_pipeline(choices(submeshes=(roomy,))) == plans


def test_more_memory_is_never_slower():
    times = [
        choose_pipeline(choices(submeshes=(Submesh("a", 1, memory),)))[0].seconds
        for memory in (34.0, 60.0, 1000.0)
    ]
    assert times == sorted(times, reverse=True)


def test_what_does_not_fit_is_named():
    with pytest.raises(InfeasiblePlan, match=r"closest: stage \d of \d needs .* GiB of .* GiB"):
        choose_pipeline(choices(submeshes=(Submesh("a", 1, 1.0),)))
    with pytest.raises(InfeasiblePlan, match="fewer segments or devices than stages"):
        choose_pipeline(choices(stages=(64,)))


def test_chunks_need_one_submesh_and_a_schedule_that_has_them():
    table = CostTable(gpt(8), [Submesh("a", 1, 99), Submesh("a", 2, 99)], additive(GPT))
    with pytest.raises(ValueError, match="one submesh"):
        divide(table, {"a": 4}, "interleaved", 2, 4, 2)
    with pytest.raises(InvalidSchedule, match="one chunk a stage"):
        divide(table, {"a": 4}, "1f1b", 2, 4, 2)
    assert divide(table, {"a": 4}, "interleaved", 2, 5, 1) is None


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(0, 9), st.integers(0, 8)), min_size=1, max_size=3
    ),
    st.integers(0, 10),
)
def test_shares_of_a_batch_are_the_best_of_all(replicas, batch):
    seconds = [lambda n, a=a, b=b: a * n + b * (n > 0) for a, b, _ in replicas]
    limits = [limit for _, _, limit in replicas]
    shares = itertools.product(*(range(limit + 1) for limit in limits))
    possible = [share for share in shares if sum(share) == batch]
    if not possible:
        with pytest.raises(InfeasiblePlan, match="does not fit"):
            split_batch(batch, seconds, limits)
        return

    def slowest(share):
        return max(time(n) for time, n in zip(seconds, share, strict=True))

    found = split_batch(batch, seconds, limits)
    assert found in possible
    assert slowest(found) == min(map(slowest, possible))


def test_shares_follow_the_speed():
    assert split_batch(48, [lambda n: n * 1.0, lambda n: n * 3.0]) == (36, 12)
    with pytest.raises(InvalidInput, match="0 replicas"):
        split_batch(3, [])
