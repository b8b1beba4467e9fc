import pytest

from pai.passes.strategy.kernels import Kernels
from pai.passes.strategy.memory import State, memory_cost
from pai.passes.strategy.pipeline.divide import divide
from pai.passes.strategy.pipeline.segment_costs import StageWork, workload_costs
from pai.passes.strategy.pipeline.stages import CostTable, StageRange, Submesh, chain_of
from pai.passes.strategy.step import Execution, segment_seconds, step_cost
from pai.passes.strategy.transformer import Split, Transformer, transformer_workload
from pai.runtime.topology import load_cluster

KERNELS = Kernels.of(load_cluster("a100-80g-sxm", 8).devices[0])
MODEL = Transformer(layers=32, hidden=4096, heads=32, vocab=51200, seq=2048)
WORK = transformer_workload(MODEL, 1, Split(tensor=4))


def network(kind, num_bytes, axes):
    del axes
    return num_bytes / (2e10 if kind == "send" else 2e11)


def free(kind, num_bytes, axes):
    del kind, num_bytes, axes
    return 0.0


@pytest.mark.parametrize("zero", [0, 3])
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_the_passes_of_all_segments_are_those_of_the_step(zero, recompute):
    run = Execution(replicas=8, zero=zero, recompute=recompute)
    total = 0.0
    for segment in WORK.segments:
        found = segment_seconds(segment, run, KERNELS, network)
        assert min(found.forward, found.backward, found.weight) >= 0
        total += segment.repeat * (found.forward + found.backward + found.weight)
    step = step_cost(WORK, run, KERNELS, network)
    reduced = step_cost(WORK, Execution(zero=zero, recompute=recompute), KERNELS, network)
    parts = step.compute + step.memory_bound + step.exposed_communication
    if zero == 0:  # the reduction behind the step is no part of its segments
        parts = reduced.compute + reduced.memory_bound + reduced.exposed_communication
    assert total == pytest.approx(parts)


@pytest.mark.parametrize("stages", [2, 4, 8])
def test_divided_stages_take_what_the_step_takes(stages):
    run = Execution(stages=stages, microbatches=64, recompute="full")
    work = StageWork(WORK, run, KERNELS, free)
    submesh = Submesh("a100", 4, 80 * 2**30)
    table = CostTable(chain_of(WORK), [submesh], workload_costs(lambda _: work))
    plan = divide(table, {"a100": 4 * stages}, "1f1b", stages, 64)
    step = step_cost(WORK, run, KERNELS, free)
    assert plan.seconds <= 1.001 * (step.total - step.optimizer)
    assert plan.seconds == pytest.approx(step.total - step.optimizer, rel=0.05)
    fullest = max(stage.memory_bytes for stage in plan.stages)
    assert fullest == pytest.approx(memory_cost(WORK, run, State()).total, rel=0.1)


@pytest.mark.parametrize(("zero", "segmented"), [(0, False), (1, False), (2, True), (3, False)])
def test_one_stage_needs_the_memory_of_the_step(zero, segmented):
    run = Execution(replicas=64, zero=zero, segmented=segmented, recompute="selective")
    work = StageWork(WORK, run, KERNELS, free)
    table = CostTable(chain_of(WORK), [Submesh("a100", 4, 1e15)], workload_costs(lambda _: work))
    plan = divide(table, {"a100": 4}, "1f1b", 1, 1)
    found = plan.stages[0].memory_bytes
    assert found == pytest.approx(memory_cost(WORK, run, State()).total, rel=0.05)


def test_the_last_stage_has_its_copy_of_a_shared_table():
    work = StageWork(WORK, Execution(), KERNELS, free)
    cost = workload_costs(lambda _: work)
    submesh = Submesh("a100", 4, 0)
    head = cost(StageRange((("head", 1),), "head"), submesh)
    alone = work.costs()["head"]
    assert WORK.tied > 0
    assert head.static_bytes - alone.static_bytes == pytest.approx(1.075 * 16 * WORK.tied)
    both = cost(StageRange((("embedding", 1), ("head", 1)), "head"), submesh)
    assert both.static_bytes == pytest.approx(
        alone.static_bytes + work.costs()["embedding"].static_bytes
    )


def test_zero_splits_the_state_over_the_replicas():
    def static(zero):
        work = StageWork(WORK, Execution(replicas=8, zero=zero), KERNELS, free)
        return work.costs()["layer"].static_bytes

    parameters = 1.075 * WORK.segments[1].parameters
    assert static(0) == pytest.approx(16 * parameters)
    assert static(1) == pytest.approx((4 + 12 / 8) * parameters)
    assert static(2) == pytest.approx((2 + 14 / 8) * parameters)
    assert static(3) == pytest.approx(16 / 8 * parameters)
