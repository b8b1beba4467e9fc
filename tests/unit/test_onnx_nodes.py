"""ONNX's own operator tests: a sample of them here, all of them when slow tests are asked for."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
STRIDE = 47
# The share that must be right. The rest of the 1404 tests of onnx 1.23 are strings, images and
# results whose shape depends on data (refused), and half-precision attention, whose reference
# rounds after every step (wrong by one unit in the last place).
LEAST_RIGHT = 0.95
LEAST_RIGHT_IN_SAMPLE = 0.85


def module(name):
    spec = importlib.util.spec_from_file_location(f"benchmarks.{name}", FOLDER / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


nodes = module("onnx_nodes")


def judged(stride):
    return [nodes.judge(case) for case in nodes.cases("node")[::stride]]


def check(outcomes, least):
    counts = Counter(outcome.kind for outcome in outcomes)
    assert not counts["crashed"], nodes.report(outcomes)
    assert all(outcome.why for outcome in outcomes if outcome.kind == "refused")
    good = sum(count for kind, count in counts.items() if kind.startswith(("right", "random")))
    assert good / len(outcomes) >= least, nodes.report(outcomes)


def test_sample():
    outcomes = judged(STRIDE)
    assert len(outcomes) >= 25
    check(outcomes, LEAST_RIGHT_IN_SAMPLE)
    wrong = [outcome.name for outcome in outcomes if outcome.kind == "wrong"]
    assert all("attention" in name and name.endswith("16") for name in wrong)


@pytest.mark.slow
def test_all():
    outcomes = judged(1)
    assert len(outcomes) > 1300
    check(outcomes, LEAST_RIGHT)


def test_a_wrong_result_is_seen():
    case = next(case for case in nodes.cases("node", "test_add") if case.name == "test_add")
    inputs, outputs = case.data_sets[0]
    wrong = nodes.Case(case.name, case.model, [(inputs, [outputs[0] + 1])], case.rtol, case.atol)
    assert nodes.judge(case).kind == "right"
    assert nodes.judge(wrong).kind == "wrong"


def test_the_coverage_page_is_up_to_date():
    coverage = module("onnx_coverage")
    assert coverage.PAGE.read_text() == coverage.page(), "run python -m benchmarks.onnx_coverage"
