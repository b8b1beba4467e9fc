from dataclasses import replace

import pytest

from pai.passes.strategy.hybrid import HybridOptions, cost_hybrid
from pai.passes.strategy.hybrid_plan import (
    HybridProblem,
    hybrid_of_plan,
    plan_of_hybrid,
    plan_of_result,
    prediction_of_hybrid,
    search_or_suggest,
    smallest_changes,
)
from pai.passes.strategy.hybrid_point import Hybrid
from pai.passes.strategy.plan import plan_from_toml
from pai.passes.strategy.plan_segments import check_segments, parse_chunk
from pai.passes.strategy.scaling import scaled
from pai.passes.strategy.transformer import Split, Transformer, transformer_workload
from pai.runtime.errors import InfeasiblePlan, InvalidSharding
from pai.runtime.mesh import Mesh
from pai.runtime.topology import load_cluster

MODEL = Transformer(layers=24, hidden=4096, heads=32, vocab=51200, seq=2048)


def workloads(tensor, microbatch):
    if MODEL.heads % tensor:
        return None
    return transformer_workload(MODEL, microbatch, Split(tensor, 1, tensor > 1))


def problem(devices=32, batch=64, profile="a100-40g-sxm"):
    return HybridProblem(workloads, batch, load_cluster(profile, devices))


def of(point, devices=32):
    workload = workloads(point.tensor, point.microbatch)
    return plan_of_hybrid(cost_hybrid(point, workload, problem(devices).cluster), workload)


def test_a_point_reads_as_a_plan():
    plan = of(Hybrid(4, 3, 2, 4, 1, 16, 1, "selective"))
    assert dict(plan.mesh.axes) == {"data": 4, "tensor": 2}
    assert plan.num_devices == 32
    assert (plan.zero, plan.recompute) == ((("data", 1),), (("layer", "selective"),))
    assert plan.pipeline.parts[0].chunks[0] == "embedding, layer[0:2]"
    assert plan.pipeline.parts[3].chunks[2] == "layer[22:24], head"
    order = [parse_chunk(chunk) for chunk in plan.pipeline.order()]
    check_segments(order, [(s.name, s.repeat) for s in workloads(2, 1).segments])
    assert plan_from_toml(plan.to_toml()) == plan


def test_stages_inside_of_replicas_name_their_devices():
    plan = of(Hybrid(2, 1, 2, 8, 1, 8, order=("data", "stage", "tensor")))
    assert plan.pipeline.parts[0].devices[:4] == (0, 1, 4, 5)
    assert plan.pipeline.parts[1].devices[:4] == (2, 3, 6, 7)
    assert plan_from_toml(plan.to_toml()) == plan


@pytest.mark.parametrize(
    "point",
    [
        Hybrid(4, 3, 2, 4, 1, 16, 1, "selective"),
        Hybrid(2, 1, 2, 8, 1, 8, order=("data", "stage", "tensor")),
        Hybrid(2, 1, 2, 8, 2, 8, order=("data", "tensor", "stage")),
        Hybrid(1, 1, 1, 32, 2, 1, 3, order=("stage", "tensor", "data")),
        Hybrid(8, 8, 2, 2, 1, 8, order=("data", "stage", "tensor")),  # half layers
    ],
)
def test_a_plan_is_costed_again_as_the_point_it_was(point):
    plan = plan_from_toml(of(point).to_toml())
    batch = point.replicas * point.microbatch * point.microbatches
    back = hybrid_of_plan(plan, batch)
    assert back == point
    cost = cost_hybrid(back, workloads(back.tensor, back.microbatch), problem().cluster)
    assert prediction_of_hybrid(cost) == plan.predicted


def test_other_plans_are_no_points():
    plan = of(Hybrid(2, 1, 2, 8, 1, 8))
    with pytest.raises(InvalidSharding, match="do not divide a batch of 100"):
        hybrid_of_plan(plan, 100)
    with pytest.raises(InvalidSharding, match="no point of the outer search"):
        hybrid_of_plan(replace(plan, mesh=Mesh((("expert", 16),))), 64)


def test_the_parts_of_time_and_memory_add_up():
    plan = of(Hybrid(4, 1, 2, 4, 1, 16, 1))
    p = plan.predicted
    parts = (p.compute_s, p.memory_bound_s, p.communication_s, p.overhead_s, p.bubble_s, p.update_s)
    assert sum(parts) == pytest.approx(p.time_s)
    cost = cost_hybrid(Hybrid(4, 1, 2, 4, 1, 16, 1), workloads(2, 1), problem().cluster)
    assert p.memory_bytes == pytest.approx(cost.memory.total, abs=8)


def test_the_explanation_of_a_chosen_point():
    given = problem()
    plan = plan_of_result(given, given.search())
    insights = plan.insights()
    now = plan.predicted
    fitting = [c for c in insights.choices if c.memory_bytes <= plan.device_memory_bytes]
    assert fitting
    assert all(c.time_s >= now.time_s * (1 - 1e-9) for c in fitting)  # or it would be the best
    assert all(item.time_s <= now.time_s for item in insights.sensitivities)
    assert sum(s for _, s in insights.communication) == pytest.approx(now.communication_s)
    text = plan.explain()
    for expected in (
        "why not otherwise",
        "what would help most",
        "ZeRO",
        "alternatives (the first",
    ):
        assert expected in text
    families = [other.reason for other in plan.alternatives if "grid" in other.reason]
    assert families or "Megatron" not in plan.strategy


def test_memory_that_keeps_a_faster_choice_out_is_what_binds():
    given = problem()
    roomy = plan_of_result(given, given.search())
    share = roomy.predicted.memory_bytes * 0.99 / given.cluster.memory_bytes
    tight = replace(given, cluster=scaled(given.cluster, memory=share))
    plan = plan_of_result(tight, tight.search())
    assert plan.predicted.time_s >= roomy.predicted.time_s
    faster = [c for c in plan.insights().choices if c.time_s < plan.predicted.time_s * 0.999]
    assert all(c.memory_bytes > tight.cluster.memory_bytes for c in faster)
    assert ("bound by memory: " in plan.explain()) == bool(faster)


def test_the_smallest_change_makes_it_feasible():
    small = replace(problem(2, 64, "v100-16g-p3"), options=HybridOptions())
    with pytest.raises(InfeasiblePlan):
        small.search()
    text = smallest_changes(small)
    assert text.startswith("it would fit with devices of ")
    count = next(int(word) for word in text.split() if word.isdigit())
    wider = load_cluster("v100-16g-p3", count)
    assert replace(small, cluster=wider).search().best
    with pytest.raises(InfeasiblePlan):
        replace(small, cluster=load_cluster("v100-16g-p3", count // 2)).search()
    with pytest.raises(InfeasiblePlan, match="most of it") as caught:
        search_or_suggest(small, "f32")
    assert caught.value.hint.startswith("it would fit with devices of ")


def test_a_narrower_type_is_named_only_where_it_is_enough():
    given = problem(2, 64, "v100-16g-p3")
    roomy = replace(given, options=HybridOptions(memory_share=1e9)).search().smallest.memory
    halved = roomy.total - (roomy.parameters + roomy.gradients) / 2
    for share, named in ((halved * 1.01, True), (halved * 0.99, False)):
        cluster = scaled(given.cluster, memory=share / given.cluster.memory_bytes)
        text = smallest_changes(replace(given, cluster=cluster), "f32")
        assert ("parameters of bf16 instead of f32" in text) == named


def test_stages_of_unlike_devices_hold_unlike_numbers_of_layers():
    """8 A100 and 8 V100: the faster ones have more layers, and the plan says where stages are."""
    fast, slow = load_cluster("a100-40g-sxm", 8), load_cluster("v100-32g-p3dn", 8)
    cluster = replace(fast, hosts=fast.hosts + slow.hosts)
    model = Transformer(layers=24, hidden=2048, heads=16, vocab=51200, seq=1024)

    def workloads(tensor, microbatch):
        return transformer_workload(model, microbatch, Split(tensor, 1, tensor > 1))

    point = Hybrid(stages=2, tensor=1, replicas=8, microbatch=4, microbatches=8)
    cost = cost_hybrid(point, workloads(1, 4), cluster)
    even = cost_hybrid(point, workloads(1, 4), replace(cluster, hosts=slow.hosts * 2))
    assert cost.seconds * 1.2 < even.seconds
    parts = plan_of_hybrid(cost, workloads(1, 4), cluster).pipeline.parts
    counts = [sum(end - first for first, end, k in cost.cuts if k == kind) for kind in kinds(cost)]
    assert max(counts) > 1.3 * min(counts)
    assert sorted(number for part in parts for number in part.devices) == list(range(16))


def kinds(cost):
    return sorted({kind for _, _, kind in cost.cuts})
