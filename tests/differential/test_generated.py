"""A quick sample of the generated cases, every family.

``python -m benchmarks.partition_cases`` runs many thousands of them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from generate import FAMILIES
from generate.cases import (
    NO_PROGRAM,
    finish,
    lower_program,
    run_numbers,
    speaks,
    start,
    with_reference,
)


@pytest.mark.parametrize("family", FAMILIES)
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(pick=st.randoms(use_true_random=False))
def test_drawn_by_hypothesis(family: str, pick: Random) -> None:
    """Hypothesis draws and, on a failure, shrinks."""
    try:
        lowered = lower_program(FAMILIES[family](pick))
    except NO_PROGRAM:
        assume(False)
    (lowered,) = with_reference([lowered])
    assume(lowered.fault or speaks(lowered.expected))
    task = start(family, -1, lowered, pick)
    finish([task])
    verdict = task.verdict
    assert verdict.status in ("right", "oracle"), (
        f"{verdict}\n{lowered.program.note}\n{task.setting}\n{lowered.text}"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_cases_of_the_sweep(family: str) -> None:
    """The same cases as ``--family FAMILY --case 0`` to 7, run together."""
    verdicts = run_numbers(family, FAMILIES[family], range(8))
    assert not [verdict for verdict in verdicts if verdict.status != "right"]
