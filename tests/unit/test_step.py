"""One training step in closed form, against values worked out by hand."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pai.passes.strategy.calibration import Calibration
from pai.passes.strategy.kernels import Kernels
from pai.passes.strategy.step import Execution, spread, step_cost
from pai.passes.strategy.workload import Collective, Recompute, Segment, Stream, Workload
from pai.runtime.topology import DeviceSpec

CONSTANTS = Calibration(
    units=1,
    gemm=1.0,
    epilogue=0.0,
    memory=1.0,
    attention_forward=1.0,
    attention_backward=1.0,
    launch_s=0.0,
    host_s=0.0,
    contention=0.5,
)
DEVICE = DeviceSpec("toy", 10**9, 1.0, (("f32", 1.0),))
"""A byte a second: streams of n bytes take n seconds."""


def layers(count=4, forward=1.0, backward=2.0, weights=1.0, parameters=0.0):
    return Segment(
        "layer",
        (Stream(forward),),
        (Stream(backward - weights),),
        (Stream(weights),),
        repeat=count,
        parameters=parameters,
        recompute=(Recompute("none", 8.0), Recompute("full", 2.0, (Stream(forward),))),
        output_bytes=3.0,
    )


def network(kind, num_bytes, axes):
    return num_bytes / 10


def cost(workload, network=network, constants=CONSTANTS, **run):
    return step_cost(workload, Execution(**run), Kernels.of(DEVICE, constants), network)


def test_one_stage_is_microbatches_times_layers():
    found = cost(Workload((layers(),)), microbatches=5)
    assert found.total == found.memory_bound == 5 * 4 * 3


def test_full_recompute_runs_the_forward_pass_again():
    assert cost(Workload((layers(),)), recompute="full").total == 4 * 4


@pytest.mark.parametrize("microbatches", [1, 4, 32])
def test_1f1b_waits_for_the_other_stages_once(microbatches):
    found = cost(Workload((layers(8),)), stages=4, microbatches=microbatches)
    sends = 2 * 0.3
    assert found.bubble == pytest.approx(3 * 6 + 3 * sends * 3 / 4)
    assert found.memory_bound == microbatches * 6
    assert found.exposed_communication == pytest.approx(microbatches * sends * 3 / 4)


def test_interleaving_divides_the_bubble_and_multiplies_the_sends():
    found = cost(Workload((layers(8),)), stages=4, virtual=2, microbatches=8)
    assert found.exposed_communication == pytest.approx(8 * 2 * 2 * 0.3)
    beside = cost(Workload((layers(8),)), stages=4, virtual=2, microbatches=8, overlap_send=True)
    assert beside.exposed_communication == 0
    assert beside.bubble == pytest.approx(3 * 6 / 2)


def test_weight_gradients_fill_the_bubble_of_zero_bubble():
    plain = cost(Workload((layers(8),)), stages=4, microbatches=8)
    filled = cost(Workload((layers(8),)), stages=4, microbatches=8, schedule="zero-bubble")
    assert plain.bubble - filled.bubble == pytest.approx(2 * 3 * 2 * 1.0)


def test_the_slowest_stage_sets_the_pace():
    head = replace(layers(1), name="head", forward=(Stream(5.0),), backward=(), weight_backward=())
    found = cost(Workload((layers(4), head)), lambda *_: 0.0, stages=2, microbatches=10)
    assert found.memory_bound == 10 * (6 + 5)
    assert found.bubble == 6


def test_tensor_collectives_are_exposed_unless_hidden():
    shown = Collective("all_reduce", 10.0, ("tensor",), count=2)
    segment = replace(layers(1), forward=(Stream(4.0), shown))
    assert cost(Workload((segment,))).exposed_communication == 2.0
    hidden = replace(segment, forward=(Stream(4.0), replace(shown, hidden=True)))
    assert cost(Workload((hidden,))).exposed_communication == 0.5 * 2.0  # contention
    offloaded = replace(shown, hidden=True, offloaded=True)
    free = replace(segment, forward=(Stream(4.0), offloaded))
    assert cost(Workload((free,))).exposed_communication == 0
    longer = replace(segment, forward=(Stream(1.0), offloaded))
    assert cost(Workload((longer,))).exposed_communication == 1.0


def test_gradients_are_reduced_once_in_a_step():
    work = Workload((layers(4, parameters=10.0),))
    found = cost(work, replicas=2, microbatches=3, reduce_bytes=2)
    assert found.exposed_communication == pytest.approx(4 * 10 * 2 / 10)
    behind = cost(work, replicas=2, microbatches=3, reduce_bytes=2, overlap_reduce=True)
    assert behind.exposed_communication == pytest.approx(0.5 * 8)  # 8 s beside 8 s of backward


def test_zero_splits_the_update():
    work = Workload((layers(4, parameters=10.0),))
    assert cost(work, replicas=4, update_bytes=20).optimizer == 800
    assert cost(work, replicas=4, update_bytes=20, zero=1).optimizer == 200


def test_zero_3_gathers_beside_both_passes_and_scatters_beside_the_second():
    work = Workload((layers(1, forward=4.0, backward=8.0, parameters=10.0),))
    found = cost(work, replicas=2, zero=3, gather_bytes=2, reduce_bytes=4)
    gather, scatter = 2.0, 4.0
    assert found.exposed_communication == pytest.approx(0.5 * (gather + gather + scatter))
    twice = cost(work, replicas=2, zero=2, segmented=True, gather_bytes=2, reduce_bytes=4)
    assert twice.exposed_communication == pytest.approx(0.5 * (gather + scatter))


def test_collectives_longer_than_the_work_beside_them_show():
    work = Workload((layers(1, forward=1.0, backward=100.0, parameters=100.0),))
    found = cost(work, replicas=2, zero=2, segmented=True, gather_bytes=2, reduce_bytes=0)
    assert found.exposed_communication == pytest.approx(20 - 1)


def test_short_kernels_wait_for_the_host():
    slow_host = replace(CONSTANTS, host_s=2.0)
    found = cost(Workload((layers(4),)), constants=slow_host, microbatches=3)
    # forward one kernel, 2 s for 1 s of work; backward three, one of them empty: 6 s for 2
    assert found.overhead == 3 * 4 * (1 + 4)
    assert cost(Workload((layers(4),))).overhead == 0


@pytest.mark.parametrize(
    ("count", "stages", "found"),
    [
        (8, 4, [2, 2, 2, 2]),
        (126, 16, [7, *[8] * 14, 7]),
        (5, 2, [3, 2]),
        (2, 4, [0.5, 0.5, 0.5, 0.5]),
        (3, 4, [0.5, 1, 1, 0.5]),
    ],
)
def test_layers_are_spread_over_stages_away_from_the_ends(count, stages, found):
    assert spread(count, stages) == found


@given(
    st.integers(1, 8),
    st.integers(1, 16),
    st.sampled_from([0, 1, 2, 3]),
    st.floats(1.1, 10.0),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_faster_links_are_never_slower(stages, microbatches, zero, times, overlap):
    exchange = Collective("all_reduce", 5.0, ("tensor",), hidden=overlap)
    segment = replace(layers(8, parameters=7.0), forward=(Stream(2.0), exchange))
    run = {
        "stages": stages, "microbatches": microbatches, "zero": zero,
        "replicas": 4, "overlap_reduce": overlap,
    }  # fmt: skip
    slow = cost(Workload((segment,)), **run).total
    fast = cost(Workload((segment,)), lambda *a: network(*a) / times, **run).total
    assert fast <= slow * (1 + 1e-9)
    assert cost(Workload((segment,)), lambda *_: 0.0, **run).total <= fast * (1 + 1e-9)


@given(st.integers(1, 8), st.integers(1, 32))
@settings(max_examples=50, deadline=None)
def test_more_microbatches_share_the_bubble(stages, microbatches):
    work = Workload((layers(8),))
    one = cost(work, stages=stages, microbatches=microbatches)
    two = cost(work, stages=stages, microbatches=2 * microbatches)
    assert two.total <= 2 * one.total * (1 + 1e-9)
    assert two.bubble == pytest.approx(one.bubble)
