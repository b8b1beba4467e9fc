"""Window operations along split dimensions against one device; what moves is a halo."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax

sys.path.insert(0, str(Path(__file__).parent))
import moving_programs
import window_programs
from harness import check, localize_raw, mesh_of, prepare, run_and_compare, specs_of
from traffic import CASES, our_bytes, xla_bytes

from pai.compiler.reference import QUICK_COMPILE, run_reference
from pai.passes.partition.fold_padding import FoldPadding
from pai.passes.partition.partition import partition

FAMILIES = window_programs.FAMILIES | moving_programs.FAMILIES
MESHES = [(2,), (3,), (4,), (8,), (2, 2), (4, 2), (3, 2), (2, 2, 2)]
RELAXED = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def compare_drawn(data, family, mode):
    """Lay one drawn program over a drawn mesh and compare it with one device."""
    program = data.draw(FAMILIES[family])
    if data.draw(st.integers(0, 3)) == 0:
        program = program.of_integers()
    sizes = data.draw(st.sampled_from(MESHES))
    mesh, axes = mesh_of(*sizes), "xyz"[: len(sizes)]
    pick = random.Random(data.draw(st.integers(0, 999)))

    def spec_of(rank):
        return pick.choice(specs_of(rank, axes))

    specs = [spec_of(len(shape)) for shape in program.shapes]
    arguments = program.arguments()
    module = prepare(program.text, mesh, specs)
    if mode == "shardy":
        local = partition(module, mesh)
    else:
        FoldPadding().run(module)
        local = localize_raw(module, mesh, spec_of)
    try:
        # The quick options on both sides: the others let XLA choose another of equal elements.
        expected = run_reference(program.text, arguments, QUICK_COMPILE)
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


def conv(x, w, stride=1, **options):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, w, (stride, stride), "SAME", dimension_numbers=numbers, **options
    )


def max_pool(x, size, stride, padding="SAME"):
    window, steps = (1, size, size, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, -np.inf, lax.max, window, steps, padding)


def mean_pool(x, size, stride):
    """Average over the part of each window that is no padding."""
    window, steps = (1, size, size, 1), (1, stride, stride, 1)
    total, count = (
        lax.reduce_window(value, 0.0, lax.add, window, steps, "SAME")
        for value in (x, jnp.ones_like(x))
    )
    return total / count


def batch_norm(x):
    mean = x.mean((0, 1, 2))
    return (x - mean) / jnp.sqrt(x.var((0, 1, 2)) + 1e-3)


def u_net(x, first, down, middle, up, last):
    """Two levels: convolutions, pooling, a transposed convolution, a skip connection."""
    skip = jax.nn.relu(batch_norm(conv(x, first)))
    inner = jax.nn.relu(conv(max_pool(skip, 2, 2, "VALID"), down))
    inner = jax.nn.relu(conv(inner, middle, rhs_dilation=(2, 2)))
    numbers = ("NHWC", "HWIO", "NHWC")
    wide = lax.conv_transpose(inner, up, (2, 2), "SAME", dimension_numbers=numbers)
    return conv(jnp.concatenate([skip, wide], 3), last)


def res_net(x, stem, down, middle, up, last):
    """A stem with overlapping pooling, strided and depthwise blocks, mean pooling."""
    x = max_pool(jax.nn.relu(conv(x, stem, 2)), 3, 2)
    x = x + conv(jax.nn.relu(batch_norm(x)), jnp.tile(down[:, :, :1], (1, 1, 4, 1)))
    x = mean_pool(x, 3, 1) + mean_pool(x, 2, 1)
    x = conv(x, middle[:, :, :1], feature_group_count=4)
    return conv(jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0))), up, 2) + last.sum()


def loss(network):
    def run(x, *weights):
        return jnp.mean((network(x, *weights) - 1) ** 2)

    return jax.value_and_grad(run, argnums=range(6))


WEIGHTS = [(3, 3, 3, 4), (3, 3, 4, 4), (3, 3, 4, 4), (3, 3, 4, 4), (3, 3, 8, 2)]
NETWORKS = {"u_net": u_net, "res_net": res_net}


@pytest.mark.parametrize(
    ("sizes", "spec"),
    [
        ((8,), [None, "x", None, None]),
        ((4, 2), [None, "x", "y", None]),
        ((4, 2), ["y", "x", None, None]),
        ((3, 2), [None, "x", "y", None]),
        ((3, 2), [None, "y", ("x",), None]),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", NETWORKS)
def test_training_step_on_split_images(name, sizes, spec):
    rng = np.random.default_rng(1)
    shapes = [(2, 32, 24, 3), *WEIGHTS]
    arguments = [rng.standard_normal(shape).astype(np.float32) / 2 for shape in shapes]
    specs = [spec] + [None] * len(WEIGHTS)
    check(loss(NETWORKS[name]), arguments, mesh_of(*sizes), specs, tolerance=1e-4)


def test_a_training_step_gathers_no_image():
    rng = np.random.default_rng(2)
    shapes = [(1, 64, 8, 3), *WEIGHTS]
    arguments = [rng.standard_normal(shape).astype(np.float32) / 2 for shape in shapes]
    specs = [[None, "x", None, None]] + [None] * len(WEIGHTS)
    outcome = check(loss(u_net), arguments, mesh_of(4), specs, strict=True, tolerance=1e-4)
    kinds = {use.kind for use in outcome.local.report.collectives}
    assert kinds == {"all_reduce", "collective_permute"}


@pytest.mark.parametrize("name", CASES)
def test_no_more_bytes_than_xla(name):
    ours = sum(CASES[name].count(our_bytes).values())
    theirs = sum(CASES[name].count(xla_bytes).values())
    assert ours <= theirs
    assert ours or name in STAYS_PUT


STAYS_PUT = {"conv 2x2 stride 2", "max pool 2", "gradient max pool 2", "every other row"}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("function", [lax.cumsum, lax.cumprod, lax.cummax, lax.cummin])
@pytest.mark.parametrize("size", [16, 10, 3])
def test_a_scan_gathers_totals_only(function, reverse, size):
    x = np.random.default_rng(3).integers(-3, 4, (size, 5)).astype(np.float32)
    outcome = check(
        lambda a: function(a, axis=0, reverse=reverse), [x], mesh_of(4), [["x", None]], strict=True
    )
    (use,) = outcome.local.report.collectives
    assert (use.kind, use.bytes_per_device) == ("all_gather", 4 * 5 * 4)


def test_a_window_over_everything_is_all_reduced():
    outcome = check(
        lambda x: max_pool(x, 8, 1, "VALID"),
        [-1 - np.random.default_rng(4).random((2, 8, 8, 3), np.float32)],
        mesh_of(3),
        [[None, "x", None, None]],
        strict=True,
    )
    assert {use.kind for use in outcome.local.report.collectives} == {"all_reduce"}
