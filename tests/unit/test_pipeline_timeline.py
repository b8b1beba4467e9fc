import json

import pytest

from pai.passes.strategy.hybrid import cost_hybrid
from pai.passes.strategy.hybrid_point import Hybrid, network, slowest_kernels
from pai.passes.strategy.kernels import Kernels
from pai.passes.strategy.pipeline.timeline import StageDevices, timeline
from pai.passes.strategy.pipeline.trace import write_trace
from pai.passes.strategy.step import Execution
from pai.passes.strategy.transformer import Split, Transformer, transformer_workload
from pai.runtime.topology import load_cluster

GPT3 = Transformer(layers=96, hidden=12288, heads=96, vocab=51200, seq=2048)
CLUSTER = load_cluster("a100-80g-sxm", 1024)
A100 = slowest_kernels(CLUSTER)
V100 = Kernels.of(load_cluster("v100-32g", 8).devices[0])

POINTS = [
    Hybrid(8, 1, 8, 16, 1, 96, 0, "full"),
    Hybrid(8, 1, 8, 16, 1, 96, 1, "selective"),
    Hybrid(8, 3, 8, 16, 1, 96, 1, "selective"),
    Hybrid(16, 3, 8, 8, 2, 96, 1, "full"),
    Hybrid(32, 1, 8, 4, 1, 384, 1),
    Hybrid(1, 1, 8, 128, 1, 12, 3, "full"),
]


def workload(point):
    return transformer_workload(GPT3, point.microbatch, Split(point.tensor, sequence_parallel=True))


def course(point, memory=80 * 2**30, **more):
    devices = [StageDevices(A100, memory, point.stages)]
    return timeline(workload(point), point.execution, devices, network(point, CLUSTER), **more)


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_the_simulated_step_is_that_of_the_closed_form(point):
    cost = cost_hybrid(point, workload(point), CLUSTER)
    found = course(point)
    assert found.seconds == pytest.approx(cost.seconds, rel=0.04)
    assert found.memory_bytes == pytest.approx(cost.memory.total, rel=0.05)


def test_stages_that_do_not_fit_are_none():
    assert course(POINTS[0], memory=20 * 2**30) is None


def test_zero_bubble_fills_the_bubble_of_1f1b():
    def run(schedule):
        how = Execution(stages=8, microbatches=16, schedule=schedule)
        devices = [StageDevices(A100, 1e12, 8)]
        work = transformer_workload(GPT3, 1, Split(8))
        return timeline(work, how, devices, network(Hybrid(8, 1, 8), CLUSTER)).simulation

    plain, zero = run("1f1b"), run("zero-bubble")
    assert zero.total < 0.9 * plain.total
    assert zero.bubble_fraction < 0.6 * plain.bubble_fraction
    assert zero.stages[-1].in_flight == plain.stages[0].in_flight == 8


def test_reductions_that_overlap_are_less_exposed():
    def exposed(overlap):
        how = Execution(stages=8, microbatches=8, replicas=16, overlap_reduce=overlap)
        devices = [StageDevices(A100, 1e12, 8)]
        work = transformer_workload(GPT3, 1, Split(8))
        links = network(Hybrid(8, 1, 8, 16), CLUSTER)
        return timeline(work, how, devices, links).simulation.exposed

    assert exposed(overlap=True) < 0.8 * exposed(overlap=False)


def test_stages_of_unlike_devices_share_the_layers_by_speed():
    work = transformer_workload(GPT3, 1, Split(8))
    how = Execution(stages=8, microbatches=64, recompute="full")
    links = network(Hybrid(8, 1, 8), CLUSTER)
    both = timeline(work, how, [StageDevices(A100, 1e12, 4), StageDevices(V100, 1e12, 4)], links)
    slow = timeline(work, how, [StageDevices(V100, 1e12, 8)], links)
    fast = timeline(work, how, [StageDevices(A100, 1e12, 8)], links)
    assert fast.seconds < both.seconds < slow.seconds / 1.2
    kinds = [stage.submesh.kind for stage in both.plan.stages]
    assert kinds.count("a100-80g") == kinds.count("v100-32g") == 4
    sizes = {stage.submesh.kind: stage.end - stage.first for stage in both.plan.stages}
    assert sizes["a100-80g"] > 1.5 * sizes["v100-32g"]


def test_its_trace_has_all_streams(tmp_path):
    point = POINTS[1]
    found = course(point, bars=True)
    write_trace(tmp_path / "step.json", found.simulation, "gpt3")
    events = json.loads((tmp_path / "step.json").read_text())["traceEvents"]
    bars = [event for event in events if event["ph"] == "X"]
    assert {event["tid"] for event in bars} == {0, 1, 2, 3}
    names = {event["name"] for event in bars}
    assert {"F0", "B95", "gather 0", "reduce 7", "update", "F3 to 1"} <= names
    assert max(e["ts"] + e["dur"] for e in bars) == pytest.approx(1e6 * found.seconds)
