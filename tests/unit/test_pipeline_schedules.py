import pytest
from hand_made_schedules import hand_made, schedules
from hypothesis import given, settings
from hypothesis import strategies as st

from pai.passes.strategy.pipeline.schedules import (
    Action,
    Entry,
    Kind,
    Schedule,
    in_flight,
    make_schedule,
    schedule_from_text,
)
from pai.runtime.errors import InvalidSchedule


@settings(max_examples=300, deadline=None)
@given(schedules())
def test_every_schedule_can_be_executed_and_keeps_what_the_formula_says(schedule):
    schedule.check()
    for stage in range(schedule.stages):
        formula = in_flight(
            schedule.name, schedule.stages, schedule.microbatches, stage, schedule.chunks
        )
        assert schedule.peak_activations(stage) == formula


def test_1f1b_of_two_stages_is_the_one_in_the_paper():
    assert make_schedule("1f1b", 2, 3).to_text() == "F0 F1 B0 F2 B1 B2\nF0 B0 F1 B1 F2 B2"


def test_gpipe_runs_all_forward_passes_first():
    assert make_schedule("gpipe", 2, 2).to_text() == "F0 F1 B0 B1\nF0 F1 B0 B1"


def test_interleaved_goes_through_its_chunks_a_round_of_the_stages_at_a_time():
    rows = make_schedule("interleaved", 2, 2, 2).to_text().splitlines()
    assert rows[0] == "F0 F1 F0.1 F1.1 B0.1 B1.1 B0 B1"
    assert rows[1] == "F0 F1 F0.1 B0.1 F1.1 B1.1 B0 B1"


def test_zero_bubble_puts_weights_off_by_the_number_of_the_stage():
    rows = make_schedule("zero-bubble", 3, 4).to_text().splitlines()
    assert rows[0] == "F0 F1 F2 B0 W0 F3 B1 W1 B2 W2 B3 W3"
    assert rows[2] == "F0 B0 F1 B1 F2 B2 W0 F3 B3 W1 W2 W3"


def test_zero_bubble_keeps_no_more_than_the_first_stage_of_1f1b():
    for microbatches in (1, 3, 4, 20):
        zero, plain = (make_schedule(n, 4, microbatches) for n in ("zero-bubble", "1f1b"))
        most = max(zero.peak_activations(stage) for stage in range(4))
        assert most == plain.peak_activations(0)


def test_the_table_lists_stage_slot_and_action():
    table = list(make_schedule("1f1b", 2, 2).table())
    assert table[1] == Entry(0, 1, Action(Kind.FORWARD, 1))
    assert table[2] == Entry(0, 2, Action(Kind.BACKWARD, 0))
    assert len(table) == 8


def test_activations_of_chunks_may_differ():
    schedule = make_schedule("interleaved", 2, 2, 2)
    # Stage 1 keeps both microbatches of chunk 0 and one of chunk 1 at its peak.
    assert schedule.peak_activations(1, (10.0, 1.0)) == 21.0
    assert schedule.peak_activations(0, (10.0, 1.0)) == 22.0


def test_a_hand_made_schedule_is_accepted():
    hand_made("F0 F1 B1 B0", "F0 F1 B1 B0").check()
    hand_made("F0 B0 W0", "F0 B0 W0", splits=True).check()


@pytest.mark.parametrize(
    ("rows", "splits", "message"),
    [
        (("F0 F1 B0", "F0 F1 B0 B1"), False, "stage 0: B1 is missing"),
        (("F0 B0 B0", "F0 B0"), False, "stage 0: B0 is there twice"),
        (("B0 F0", "F0 B0"), False, "stage 0: B0 comes before F0"),
        (("F0 B0 W0", "F0 W0 B0"), True, "stage 1: W0 comes before B0"),
        (("F0 B0 W0", "F0 B0 W0"), False, "stage 0: W0 does not belong to the schedule"),
        (("F0 B0 F1 B1", "F0 F1 B0 B1"), False, "stage 0: B0 waits for ever"),
    ],
)
def test_a_schedule_that_cannot_be_executed_is_refused(rows, splits, message):
    with pytest.raises(InvalidSchedule, match=f"schedule 'mine', {message}"):
        hand_made(*rows, splits=splits).check()


def test_rows_that_do_not_fit_the_stages_are_refused():
    rows = make_schedule("1f1b", 2, 2).rows
    with pytest.raises(InvalidSchedule, match="2 rows for 3 stages"):
        Schedule("mine", 3, 2, rows).check()


@settings(max_examples=60, deadline=None)
@given(schedules(), st.data())
def test_a_missing_action_is_always_noticed(schedule, data):
    stage = data.draw(st.integers(0, schedule.stages - 1))
    slot = data.draw(st.integers(0, len(schedule.rows[stage]) - 1))
    rows = list(schedule.rows)
    rows[stage] = rows[stage][:slot] + rows[stage][slot + 1 :]
    broken = Schedule(
        "broken", schedule.stages, schedule.microbatches, tuple(rows), schedule.chunks,
        schedule.splits_backward,
    )  # fmt: skip
    with pytest.raises(InvalidSchedule, match="is missing"):
        broken.check()


@settings(max_examples=60, deadline=None)
@given(schedules())
def test_text_and_back(schedule):
    assert schedule_from_text(schedule.name, schedule.to_text()) == schedule


def test_a_wrong_word_is_named():
    with pytest.raises(InvalidSchedule, match="'mine', line 2: 'G0' is no action"):
        schedule_from_text("mine", "F0 B0\nG0 B0")
    with pytest.raises(InvalidSchedule, match="stage 1: B0 is missing"):
        schedule_from_text("mine", "F0 B0\nF0")


def test_wrong_sizes_and_names_are_refused():
    with pytest.raises(InvalidSchedule, match="multiple of the stages"):
        make_schedule("interleaved", 4, 6, 2)
    with pytest.raises(InvalidSchedule, match="one chunk a stage"):
        make_schedule("1f1b", 4, 8, 2)
    with pytest.raises(InvalidSchedule, match="known: gpipe, 1f1b"):
        make_schedule("2f2b", 4, 8)
    with pytest.raises(InvalidSchedule, match="none may be 0"):
        make_schedule("gpipe", 0, 8)
