import pytest

from pai.passes.strategy.plan import Pipeline, Plan, Prediction, Stage
from pai.passes.strategy.staged import NO_RECOMPUTE, NO_SENDS, stage_shares, staged

WHOLE = Prediction(
    time_s=6.0, compute_s=4.0, memory_bound_s=1.0, communication_s=1.0,
    parameter_bytes=800, state_bytes=1600, temporary_bytes=3200, input_bytes=10,
)  # fmt: skip


def run(pipeline, training=True, recompute=()):
    plan = Plan(pipeline=pipeline, recompute=recompute)
    return staged(WHOLE, plan, training=training)


def test_one_stage_is_as_it_was():
    assert run(Pipeline()) == WHOLE


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
def test_bubble_of_plain_schedules(schedule):
    # (p - 1) / m of the work of a stage (D. Narayanan et al., SC 2021, section 2.2.1)
    predicted = run(Pipeline(4, 1, 8, schedule))
    assert predicted.bubble_s == pytest.approx(6 / 4 * 3 / 8)
    assert predicted.time_s == pytest.approx(6 / 4 * (1 + 3 / 8))
    assert predicted.compute_s == 1.0


def test_interleaving_divides_the_bubble_by_the_chunks():
    predicted = run(Pipeline(4, 2, 8, "interleaved"))
    assert predicted.bubble_s == pytest.approx(6 / 4 * 3 / 8 / 2)


def test_zero_bubble_saves_two_thirds_of_it():
    predicted = run(Pipeline(4, 1, 8, "zero-bubble"))
    assert predicted.bubble_s == pytest.approx(6 / 4 * 3 / 8 / 3)


def test_microbatches_without_stages_only_keep_less():
    predicted = run(Pipeline(microbatches=4))
    assert predicted.time_s == pytest.approx(6.0)
    assert predicted.activation_bytes == 3200 // 4
    assert predicted.gradient_bytes == 800
    assert predicted.parameter_bytes == 800


def test_memory_of_the_first_stage():
    predicted = run(Pipeline(4, 1, 8, "1f1b"))
    assert predicted.parameter_bytes == 200
    assert predicted.state_bytes == 400
    assert predicted.activation_bytes == 3200 // 8 // 4 * 4  # four microbatches in flight
    assert run(Pipeline(4, 1, 8, "gpipe")).activation_bytes == 3200 // 4  # all eight
    assert predicted.memory_bytes == 200 + 400 + 200 + 400 + 10


def test_serving_has_no_backward_pass():
    predicted = run(Pipeline(4, 1, 8, "gpipe"), training=False)
    assert predicted.time_s == pytest.approx(6 / 4 * (1 + 3 / 8))
    assert (predicted.activation_bytes, predicted.gradient_bytes) == (0, 0)
    assert predicted.temporary_bytes == 3200 // 8 // 4


def test_launches_come_again_with_every_microbatch():
    whole = Prediction(time_s=1.0, compute_s=0.9, overhead_s=0.1)
    predicted = staged(whole, Plan(pipeline=Pipeline(microbatches=4)), training=True)
    assert predicted.overhead_s == pytest.approx(0.4)
    assert predicted.time_s == pytest.approx(1.3)


def test_the_fullest_stage_of_an_uneven_pipeline_counts():
    parts = (Stage(("embedding, layer[0:3]",)), Stage(("layer[3:4], head",)))
    pipeline = Pipeline(2, 1, 4, "1f1b", parts)
    assert stage_shares(pipeline) == [0.75, 0.25]
    predicted = run(pipeline)
    assert predicted.compute_s == 3.0
    assert predicted.parameter_bytes == 600
    assert predicted.time_s == pytest.approx(0.75 * 6)  # it never waits for the shorter one


def test_what_is_left_out_is_noted():
    assert run(Pipeline(2, 1, 2, "1f1b")).notes == (NO_SENDS,)
    assert run(Pipeline(), recompute=(("*", "full"),)).notes == (NO_RECOMPUTE,)
    assert run(Pipeline(), recompute=(("*", "none"),)).notes == ()
