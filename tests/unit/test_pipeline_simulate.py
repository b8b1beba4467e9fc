import functools
import itertools
import json
import time

import pytest
from hand_made_schedules import hand_made, schedules
from hypothesis import given, settings
from hypothesis import strategies as st

from pai.passes.strategy.pipeline.schedules import Kind, make_schedule
from pai.passes.strategy.pipeline.simulate import ChunkTimes, simulate
from pai.passes.strategy.pipeline.trace import chrome_trace, write_trace
from pai.runtime.errors import InvalidSchedule, PackageError


def uniform(schedule, forward=1.0, backward=1.0, weight=1.0, **more):
    v = schedule.chunks
    return [ChunkTimes(forward / v, backward / v, weight / v, **more)] * schedule.virtual_stages


@pytest.mark.parametrize("stages", [1, 2, 4, 8])
@pytest.mark.parametrize("rounds", [1, 2, 5])
@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_bubbles_are_those_of_the_closed_forms(stages, rounds, chunks):
    m = stages * rounds
    for name in ("gpipe", "1f1b"):
        schedule = make_schedule(name, stages, m)
        assert simulate(schedule, uniform(schedule)).bubble_fraction == pytest.approx(
            (stages - 1) / m
        )
    schedule = make_schedule("interleaved", stages, m, chunks)
    run = simulate(schedule, uniform(schedule))
    assert run.bubble_fraction == pytest.approx((stages - 1) / (chunks * m))
    assert run.total == pytest.approx(3 * m + 3 * (stages - 1) / chunks)


@pytest.mark.parametrize("stages", [2, 4, 8])
def test_zero_bubble_has_a_third_of_the_bubble_of_1f1b(stages):
    m = 3 * stages
    schedule = make_schedule("zero-bubble", stages, m)
    run = simulate(schedule, uniform(schedule))
    assert run.total == pytest.approx(3 * m + stages - 1)  # (p - 1)(F + B - W)
    assert all(stage.bubble == pytest.approx(stages - 1) for stage in run.stages)


def test_uneven_stages_take_the_slowest_once_a_microbatch():
    schedule = make_schedule("gpipe", 3, 10)
    times = [ChunkTimes(1, 0, 0), ChunkTimes(4, 0, 0), ChunkTimes(2, 0, 0)]
    assert simulate(schedule, times).total == 1 + 4 + 2 + 9 * 4


def test_a_send_delays_the_neighbour_and_is_exposed():
    schedule = make_schedule("gpipe", 2, 1)
    times = [ChunkTimes(1, 2, 0, send_forward=0.25), ChunkTimes(1, 2, 0, send_backward=0.5)]
    run = simulate(schedule, times)
    assert run.total == pytest.approx(1 + 0.25 + 1 + 2 + 0.5 + 2)
    assert run.stages[0].exposed == pytest.approx(0.5)
    assert run.stages[1].exposed == pytest.approx(0.25)
    assert run.stages[0].send == run.stages[1].receive == pytest.approx(0.25)
    assert run.stages[1].bubble == pytest.approx(1 + 2 + 0.5)


def test_sends_of_a_stage_queue_behind_each_other():
    schedule = make_schedule("gpipe", 2, 2)
    times = [ChunkTimes(1, 0, 0, send_forward=3), ChunkTimes(1, 0, 0)]
    assert simulate(schedule, times).total == 1 + 3 + 3 + 1


def test_sends_that_block_stop_their_stage():
    schedule = make_schedule("gpipe", 2, 2)
    times = [ChunkTimes(1, 0, 0, send_forward=0.5), ChunkTimes(1, 0, 0)]
    assert simulate(schedule, times).total == 1 + 1 + 0.5 + 1
    blocking = simulate(schedule, times, overlap_sends=False)
    assert blocking.total == 2 * 1.5 + 1
    assert blocking.stages[0].exposed == pytest.approx(1.0)


def test_gathers_and_reductions_hide_behind_the_first_and_last_actions():
    schedule = make_schedule("1f1b", 1, 3)

    def run(**how):
        times = [ChunkTimes(1, 2, 0, gather=0.8, reduce=1.2, buckets=4)]
        return simulate(schedule, times, **how)

    hidden = run()
    # The first bucket of 0.2 and the last of 0.3 stick out.
    assert hidden.total == pytest.approx(0.2 + 9 + 0.3)
    assert hidden.exposed == pytest.approx(0.5)
    plain = run(overlap_collectives=False)
    assert plain.total == pytest.approx(0.8 + 9 + 1.2)
    assert plain.exposed == pytest.approx(2.0)
    assert plain.stages[0].collective == hidden.stages[0].collective == pytest.approx(2.0)


def test_a_slow_reduction_sticks_out_behind_its_first_bucket():
    times = [ChunkTimes(1, 2, 0, reduce=10, buckets=4)]
    assert simulate(make_schedule("1f1b", 1, 1), times).total == pytest.approx(1 + 0.5 + 10)


def test_a_slow_gather_delays_the_first_forward():
    times = [ChunkTimes(1, 2, 0, gather=10, buckets=4)]
    assert simulate(make_schedule("1f1b", 1, 1), times).total == pytest.approx(10 + 0.25 + 2)


def test_updates_wait_for_the_gradients_of_all_stages():
    schedule = make_schedule("1f1b", 2, 2)
    times = [ChunkTimes(1, 2, 0), ChunkTimes(1, 2, 0, reduce=5)]
    run = simulate(schedule, times, update=(1.0, 0.5))
    # The last stage ends at 7, its reduction at 12.
    assert run.total == pytest.approx(7 + 5 + 1)
    assert run.stages[1].bubble == pytest.approx(1.0 + 0.5)


def reference(schedule, times, overlap_sends):
    """The longest path, by recursion over (stage, slot); sends included, collectives not."""
    place = {
        (action.kind, action.microbatch, schedule.virtual_stage(stage, action.chunk)): (stage, slot)
        for stage, slot, action in schedule.table()
    }

    def identify(stage, slot):
        kind, microbatch, chunk = schedule.rows[stage][slot]
        return kind, microbatch, schedule.virtual_stage(stage, chunk)

    def seconds(kind, virtual):
        t = times[virtual]
        if kind is Kind.FORWARD:
            return t.forward
        if kind is Kind.WEIGHT:
            return t.weight
        return t.backward + (0 if schedule.splits_backward else t.weight)

    def send(kind, virtual):
        target = virtual + {Kind.FORWARD: 1, Kind.BACKWARD: -1}.get(kind, 10**6)
        if not 0 <= target < schedule.virtual_stages or schedule.stages == 1:
            return 0.0
        t = times[virtual]
        return t.send_forward if kind is Kind.FORWARD else t.send_backward

    @functools.cache
    def end(stage, slot):
        kind, microbatch, virtual = identify(stage, slot)
        start = go_on(stage, slot - 1) if slot else 0.0
        source = virtual + {Kind.FORWARD: -1, Kind.BACKWARD: 1}.get(kind, 10**6)
        if 0 <= source < schedule.virtual_stages:
            start = max(start, arrival(*place[kind, microbatch, source]))
        return start + seconds(kind, virtual)

    @functools.cache
    def arrival(stage, slot):
        """When the result of this action has been sent, after all that was sent before it."""
        kind, _, virtual = identify(stage, slot)
        took = send(kind, virtual)
        if not took:
            return end(stage, slot)
        before = [s for s in range(slot) if send(identify(stage, s)[0], identify(stage, s)[2])]
        queue = arrival(stage, before[-1]) if before else 0.0
        return max(end(stage, slot), queue) + took

    def go_on(stage, slot):
        return end(stage, slot) if overlap_sends else arrival(stage, slot)

    return max(go_on(stage, len(row) - 1) for stage, row in enumerate(schedule.rows))


durations = st.floats(0.0, 4.0).map(lambda x: round(x, 2))


@settings(max_examples=150, deadline=None)
@given(schedules(), st.data(), st.booleans())
def test_any_schedule_takes_its_longest_path(schedule, data, overlap):
    times = [
        ChunkTimes(*(data.draw(durations) for _ in range(5)))
        for _ in range(schedule.virtual_stages)
    ]
    run = simulate(schedule, times, overlap_sends=overlap)
    assert run.total == pytest.approx(reference(schedule, times, overlap))


@settings(max_examples=150, deadline=None)
@given(schedules(), st.data(), st.booleans(), st.booleans())
def test_the_parts_of_a_stage_add_up_and_streams_do_one_thing_at_a_time(
    schedule, data, overlap_sends, overlap_collectives
):
    times = [
        ChunkTimes(*(data.draw(durations) for _ in range(7)), buckets=data.draw(st.integers(1, 4)))
        for _ in range(schedule.virtual_stages)
    ]
    update = [data.draw(durations) for _ in range(schedule.stages)]
    run = simulate(
        schedule, times, update=update, timeline=True,
        overlap_sends=overlap_sends, overlap_collectives=overlap_collectives,
    )  # fmt: skip
    for use in run.stages:
        parts = use.compute + use.exposed + use.bubble + use.update
        assert parts == pytest.approx(run.total)
        assert min(use.exposed, use.bubble) >= -1e-9
    for stage in range(schedule.stages):
        for stream in ("compute", "send", "collective"):
            bars = [e for e in run.timeline if e.stage == stage and e.stream == stream]
            for before, after in itertools.pairwise(bars):
                assert before.end <= after.start + 1e-9
    assert max((e.end for e in run.timeline), default=0.0) == pytest.approx(run.total)


@settings(max_examples=80, deadline=None)
@given(schedules(), st.data())
def test_nothing_that_takes_longer_makes_the_step_shorter(schedule, data):
    times = [
        ChunkTimes(*(data.draw(durations) for _ in range(5)))
        for _ in range(schedule.virtual_stages)
    ]
    slower = [
        ChunkTimes(t.forward + 1, t.backward, t.weight, t.send_forward + 0.5, t.send_backward)
        for t in times
    ]
    assert simulate(schedule, slower).total >= simulate(schedule, times).total - 1e-9


def test_a_deadlock_is_an_error():
    schedule = hand_made("F0 B0 F1 B1", "F0 F1 B0 B1")
    with pytest.raises(InvalidSchedule, match="waits for ever"):
        simulate(schedule, uniform(schedule))


def test_times_of_the_wrong_number_are_refused():
    with pytest.raises(InvalidSchedule, match="1 chunk times"):
        simulate(make_schedule("1f1b", 2, 2), [ChunkTimes(1, 1)])


def test_a_large_pipeline_is_simulated_in_well_under_a_second():
    schedule = make_schedule("interleaved", 35, 280, 3)
    times = uniform(schedule, send_forward=0.01, send_backward=0.01, gather=0.1, reduce=0.1)
    begin = time.process_time()
    run = simulate(schedule, times)
    assert time.process_time() - begin < 0.6
    assert run.total > 3 * 280


def test_the_trace_is_valid_and_the_same_every_time(tmp_path):
    schedule = make_schedule("zero-bubble", 2, 3)
    times = uniform(schedule, send_forward=0.1, send_backward=0.1, reduce=0.5)
    runs = [simulate(schedule, times, update=(0.1, 0.1), timeline=True) for _ in range(2)]
    paths = [tmp_path / f"{n}.json" for n in range(2)]
    for path, run in zip(paths, runs, strict=True):
        write_trace(path, run, "gpt")
    assert paths[0].read_bytes() == paths[1].read_bytes()
    events = json.loads(paths[0].read_text())["traceEvents"]
    bars = [e for e in events if e["ph"] == "X"]
    assert {e["ph"] for e in events} == {"M", "X"}
    assert all(e["dur"] > 0 and e["ts"] >= 0 for e in bars)
    assert max(e["ts"] + e["dur"] for e in bars) == pytest.approx(1e6 * runs[0].total)
    # 9 actions and an update a stage, 3 sends and receives each way, a reduction a stage.
    assert len(bars) == 2 * 10 + 4 * 3 + 2
    names = {e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names == {"gpt: stage 0", "gpt: stage 1"}
    streams = {
        (e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"
    }
    assert streams[0, 0] == "compute"
    assert {streams[e["pid"], e["tid"]] for e in bars} == set(streams.values())


def test_a_trace_that_cannot_be_written_is_an_error(tmp_path):
    schedule = make_schedule("1f1b", 1, 1)
    run = simulate(schedule, uniform(schedule), timeline=True)
    with pytest.raises(PackageError, match="cannot be written"):
        write_trace(tmp_path / "absent" / "trace.json", run)


def test_without_a_timeline_the_trace_has_only_names():
    schedule = make_schedule("1f1b", 1, 1)
    events = chrome_trace(simulate(schedule, uniform(schedule)))["traceEvents"]
    assert {e["ph"] for e in events} == {"M"}
