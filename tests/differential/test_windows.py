"""Window operations along split dimensions against one device; what moves is a halo."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import jax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from harness import localize_raw, mesh_of, prepare, run_and_compare, specs_of
from window_programs import FAMILIES

from pai.compiler.reference import run_reference
from pai.passes.partition.partition import partition

MESHES = [(2,), (3,), (4,), (8,), (2, 2), (4, 2), (3, 2)]
RELAXED = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def compare_drawn(data, family, mode):
    """Lay one drawn program over a drawn mesh and compare it with one device."""
    program = data.draw(FAMILIES[family])
    sizes = data.draw(st.sampled_from(MESHES))
    mesh, axes = mesh_of(*sizes), "xyz"[: len(sizes)]
    pick = random.Random(data.draw(st.integers(0, 999)))

    def spec_of(rank):
        return pick.choice(specs_of(rank, axes))

    specs = [spec_of(len(shape)) for shape in program.shapes]
    arguments = program.arguments()
    module = prepare(program.text, mesh, specs)
    local = partition(module, mesh) if mode == "shardy" else localize_raw(module, mesh, spec_of)
    expected = run_reference(program.text, arguments)
    try:
        run_and_compare(local, arguments, expected, tolerance=1e-6)
    except jax.errors.JaxRuntimeError as error:
        # XLA without its simplifier, as the harness runs it, knows no negative padding.
        if "negative padding" not in str(error):
            raise


def drawn(examples):
    def test(family, mode):
        @settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=RELAXED,
            print_blob=False,
        )
        @given(st.data())
        def run(data):
            compare_drawn(data, family, mode)

        run()

    return test


@pytest.mark.parametrize("mode", ["shardy", "raw"])
@pytest.mark.parametrize("family", FAMILIES)
def test_drawn_attributes(family, mode):
    drawn(8)(family, mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["shardy", "raw"])
@pytest.mark.parametrize("family", FAMILIES)
def test_many_drawn_attributes(family, mode):
    drawn(150)(family, mode)
