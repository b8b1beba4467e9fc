"""Operation x mesh x sharding: the local program against one device.

Each case lays the arguments over a mesh at random. ``shardy`` cases go the whole way; ``raw``
cases put a random sharding on every value as well, which propagation would not do, so that the
localizer has to be right about layouts that do not fit each other.
"""

from __future__ import annotations

import functools
import random
import sys
from pathlib import Path

import jax
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from harness import (
    flatten,
    localize_raw,
    lower,
    mesh_of,
    prepare,
    run_and_compare,
    specs_of,
)
from programs import PROGRAMS

from pai.compiler.reference import run_reference
from pai.passes.partition.partition import partition

MESHES = [(2,), (3,), (4,), (2, 2), (4, 2), (3, 2), (2, 3), (2, 4)]
QUICK = {"shardy": 1, "raw": 1}
SLOW = 24


@functools.cache
def reference(name):
    case = PROGRAMS[name]
    text = lower(case.function, case.arguments)
    flat = flatten(case.arguments)
    return text, flat, run_reference(text, flat)


def compare_one(name, mode, seed):
    text, flat, expected = reference(name)
    pick = random.Random(f"{name} {mode} {seed}")
    sizes = pick.choice(MESHES)
    mesh = mesh_of(*sizes)
    axes = "xyz"[: len(sizes)]

    def any_spec(rank):
        return pick.choice(specs_of(rank, axes))

    specs = [any_spec(array.ndim) for array in flat]
    print(name, mode, seed, sizes, specs)
    module = prepare(text, mesh, specs)
    local = partition(module, mesh) if mode == "shardy" else localize_raw(module, mesh, any_spec)
    try:
        run_and_compare(local, flat, expected)
    except jax.errors.JaxRuntimeError as error:
        # XLA's CPU FFT refuses some layouts that XLA itself assigned: the oracle has no answer.
        if "fft_thunk" not in str(error):
            raise


@pytest.mark.parametrize("mode", ["shardy", "raw"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_quick(name, mode):
    for seed in range(QUICK[mode]):
        compare_one(name, mode, seed)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["shardy", "raw"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_many(name, mode):
    for seed in range(SLOW):
        compare_one(name, mode, 100 + seed)
