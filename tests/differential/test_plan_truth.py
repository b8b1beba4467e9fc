"""What plans predict is what comes of them: collectives to the byte, memory within 10 %.

``python -m benchmarks.plan_truth`` runs ten models; these are three, one of them as a package.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.intra_truth import measure_intra
from benchmarks.plan_truth import LIMIT, Truth, measure


def check(truth: Truth) -> None:
    assert truth.collectives_agree, (truth.planned, truth.partitioned, truth.run)
    assert truth.memory_ratio == pytest.approx(1, abs=LIMIT)
    for key in ("parameters", "states", "inputs", "outputs"):
        assert truth.predicted[key] == truth.held[key]
    assert truth.predicted["temporaries"] == pytest.approx(truth.held["temporaries"], rel=0.02)


@pytest.mark.parametrize(("model", "plan"), [("gpt2", "cpu"), ("gpt2", "zero"), ("resnet", "cpu")])
def test_a_plan_predicts_the_program(model: str, plan: str, tmp_path: Path) -> None:
    truth = measure(model, plan, tmp_path, run=False)
    check(truth)
    assert truth.planned
    assert truth.copies <= truth.held["outputs"]


def test_a_plan_predicts_what_a_package_does(tmp_path: Path) -> None:
    """Parameters and moments in shards: gathered and reduced in every step of the recurrence."""
    truth = measure("lstm", "zero", tmp_path)
    check(truth)
    kinds = {kind for kind, _ in truth.run}
    assert {"all_gather", "reduce_scatter"} <= kinds
    # Parameters and moments are in shards, an eighth each.
    assert truth.held["states"] < 2.1 * truth.held["parameters"]


def test_the_intra_operator_program_predicts_what_is_sent() -> None:
    """The loss, a scalar, is summed behind its back."""
    truth = measure_intra("gpt2", (8,))
    kinds = truth.partitioned.keys() | truth.predicted.keys()
    for kind in kinds:
        assert truth.partitioned[kind] == pytest.approx(truth.predicted[kind], abs=8)
