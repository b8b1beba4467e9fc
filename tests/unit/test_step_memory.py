"""Peak memory of a training step, against closed forms."""

from dataclasses import replace

import pytest

from benchmarks.published.case import DATA, read_rows
from benchmarks.published.megatron import korthikanti_setup
from pai.passes.strategy.memory import FRAGMENTATION, State, memory_cost
from pai.passes.strategy.step import Execution
from pai.passes.strategy.transformer import Split, Stack, Transformer, transformer_workload
from pai.passes.strategy.workload import Recompute, Segment, Stream, Workload

KEPT = 8.0


def work(layers=8, tied=0.0):
    choices = (Recompute("none", KEPT), Recompute("full", 2.0, (Stream(1.0),)))
    return Workload(
        (
            Segment("embedding", (Stream(1.0),), parameters=50.0),
            Segment("layer", (Stream(1.0),), repeat=layers, parameters=10.0, recompute=choices),
            Segment("head", (Stream(1.0),), parameters=7.0, transient_bytes=100.0),
        ),
        tied=tied,
    )


STATE = State(2, 4, 12)


def memory(workload=None, state=STATE, **run):
    return memory_cost(workload or work(), Execution(**run), state)


def test_state_by_zero_stage():
    for zero, parts in ((0, (1, 1, 1)), (1, (1, 1, 4)), (2, (1, 4, 4)), (3, (4, 4, 4))):
        found = memory(replicas=4, zero=zero)
        held = (found.parameters, found.gradients, found.optimizer)
        each = (2 * 137, 4 * 137, 12 * 137)
        assert held == pytest.approx(tuple(a / b for a, b in zip(each, parts, strict=True)))


def test_the_parts_add_up():
    found = memory()
    assert found.activations == 8 * KEPT
    assert found.temporaries == 100
    alive = 137 * 18 + 8 * KEPT + 100
    assert found.fragmentation == pytest.approx(FRAGMENTATION * alive)
    assert found.total == pytest.approx((1 + FRAGMENTATION) * alive)


def test_full_recompute_keeps_inputs_and_one_layer():
    found = memory(recompute="full")
    assert found.activations == 8 * 2.0
    inside = memory(replace(work(), segments=work().segments[:2]), recompute="full")
    assert inside.temporaries == KEPT - 2.0


@pytest.mark.parametrize(
    ("schedule", "kept"), [("gpipe", 16), ("1f1b", 4), ("zero-bubble", 4), ("interleaved", 5.5)]
)
def test_microbatches_in_flight_by_schedule(schedule, kept):
    virtual = 2 if schedule == "interleaved" else 1
    found = memory(stages=4, microbatches=16, schedule=schedule, virtual=virtual)
    assert found.activations == pytest.approx(kept * 2 * KEPT)  # two layers a stage


def test_the_last_stage_has_the_shared_table_too():
    plain, tied = (memory(work(tied=t), stages=2).total for t in (0.0, 1000.0))
    assert tied > plain + 1000 * 18
    assert memory(work(tied=1000.0)).total == memory(work()).total


def test_gathered_parameters_are_buffers():
    found = memory(replicas=4, zero=3, gather_bytes=2, reduce_bytes=4)
    assert found.buffers == (2 * 10 + 50 + 7) * 2 + 50 * (2 + 4)
    whole = memory(replicas=4, zero=2, segmented=True, gather_bytes=2, reduce_bytes=4)
    assert whole.buffers == 137 * 2 + 50 * (2 + 4)
    assert memory(replicas=4, zero=2).buffers == 0


@pytest.mark.parametrize(("row", "recompute", "column"), [
    (row, recompute, column)
    for row, _ in read_rows(DATA, "korthikanti")
    for recompute, column in (("none", "act_none_GiB"), ("selective", "act_seqsel_GiB"))
])  # fmt: skip
def test_activations_are_the_closed_forms_of_korthikanti(row, recompute, column):
    setup = korthikanti_setup(row, recompute)
    if recompute == "none":
        setup = replace(setup, split=Split(setup.split.tensor))
    assert setup.memory().activations / 2**30 == pytest.approx(float(row[column]), rel=0.01)


@pytest.mark.parametrize("row", [row for row, _ in read_rows(DATA, "korthikanti")])
def test_state_is_the_closed_form_of_korthikanti(row):
    setup = korthikanti_setup(row, "full")
    layers = setup.workload.segments[1]
    held = 18 * layers.parameters * layers.repeat / setup.run.stages
    assert held / 2**30 == pytest.approx(float(row["paropt_GiB"]), rel=0.01)


def test_more_shards_never_need_more():
    model = Transformer(8, 1024, 16, 32000, 1024)
    sizes = []
    for tensor in (1, 2, 4, 8):
        workload = transformer_workload(model, 4, Split(tensor, 1, tensor > 1), Stack())
        sizes.append([memory(workload, replicas=n, zero=3).total for n in (2, 4, 8)])
    for row in sizes:
        assert row == sorted(row, reverse=True)
    for column in zip(*sizes, strict=True):
        assert list(column) == sorted(column, reverse=True)
