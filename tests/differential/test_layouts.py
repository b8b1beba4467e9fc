"""Ten models in the layouts people use: every device's program together equals one device's."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cells import LIMIT, Cell, case_of, error_of, measure, simplified
from harness import check as check_program
from harness import mesh_of

from jax_models import MODELS, layouts
from jax_models.common import leaves
from pai.dialects.mlir import to_text
from pai.passes.partition.partition import partition

QUICK = [
    Cell("gpt2", "megatron", (4, 2), True),
    Cell("gpt2", "random", (4, 2), True),
    Cell("llama", "zero3", (8,), True),
    Cell("llama", "sequence", (2, 2, 2), False),
    Cell("moe", "expert", (4, 2), True),
    Cell("bert", "vocabulary", (3, 2), True),
    Cell("vit", "spatial", (2, 2, 2), False),
    Cell("t5", "random", (3, 2), False),
    Cell("resnet", "data", (8,), True),
    Cell("unet", "spatial", (4, 2), True),
    Cell("dit", "sequence", (3, 2), False),
    Cell("lstm", "megatron", (3, 2), True),
    Cell("llama", "megatron", (4, 2), False, "bfloat16"),
]
BFLOAT16 = [
    Cell(model, layout, mesh, train, "bfloat16")
    for model in ("llama", "unet")
    for layout in ("data", "zero3", "megatron")
    for mesh in ((4, 2), (3, 2))
    for train in (False, True)
]


def check(cell):
    measured = measure(cell)
    assert measured.error <= LIMIT[cell.dtype], f"{measured.worst} is off by {measured.error:.1e}"
    return measured


@pytest.mark.parametrize("cell", QUICK, ids=str)
def test_a_sample(cell):
    measured = check(cell)
    assert measured.report.collectives or not cell.train


@pytest.mark.slow
@pytest.mark.parametrize("cell", [Cell(*cell) for cell in layouts.cells()], ids=str)
def test_every_model_layout_and_mesh(cell):
    check(cell)


@pytest.mark.slow
@pytest.mark.parametrize("cell", BFLOAT16, ids=str)
def test_bfloat16(cell):
    check(cell)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(64,), (8, 8)], ids=str)
@pytest.mark.parametrize("model", ["gpt2", "lstm"])
def test_meshes_larger_than_the_model(model, sizes):
    case = case_of(Cell(model, "megatron", sizes, False))
    local = partition(simplified(case.text), case.mesh)
    assert local.report.collectives
    assert "sdy." not in to_text(local.module)


def test_every_model_has_cells_and_every_omission_a_reason():
    cells = layouts.cells()
    assert {cell[0] for cell in cells} == set(MODELS)
    skipped = [layouts.skipped(m, a) for m in MODELS for a in layouts.LAYOUTS]
    per_pair = 2 * len(layouts.MESHES)
    assert len(cells) == per_pair * skipped.count(None)
    assert sum(reason is not None for reason in skipped) == 18


@pytest.mark.parametrize(
    "model,count",
    [
        ("gpt2", 124_439_808),
        ("llama", 8_030_261_248),
        ("bert", 109_514_298),
        ("vit", 86_567_656),
        ("t5", 222_903_552),
        ("resnet", 25_557_032),
    ],
)
def test_the_default_sizes_are_those_of_the_published_model(model, count):
    module = layouts.load(model)
    found = sum(math.prod(weight.shape) for _, weight in leaves(module.weights(module.Config())))
    assert found == count


def test_random_shardings_are_uneven_somewhere_and_differ_by_seed():
    first, second = (case_of(Cell("gpt2", "random", (3, 2), False, seed=s)) for s in (0, 1))
    assert first.specs != second.specs
    sizes = dict(first.mesh.axes)
    shards = [
        (size, int(np.prod([sizes[axis] for axis in axes])))
        for spec, array in zip(first.specs, first.flat, strict=True)
        for size, axes in zip(array.shape, spec, strict=True)
    ]
    assert any(size % count for size, count in shards)


def test_an_error_is_relative_to_the_largest_magnitude():
    want = np.array([1e-3, 2e-3], np.float32)
    assert error_of(want + np.float32(2e-6), want) == pytest.approx(1e-3, rel=1e-2)
    assert error_of(np.array([np.nan, 0], np.float32), want) == np.inf


rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def mlp(x, w1, b1, w2):
    return jax.nn.gelu(x @ w1 + b1) @ w2


@pytest.mark.parametrize("batch,hidden", [(8, 16), (7, 33)])
def test_a_column_and_a_row_parallel_product_need_one_all_reduce(batch, hidden):
    arguments = [normal(batch, 12), normal(12, hidden), normal(hidden), normal(hidden, 6)]
    specs = [["x", None], [None, "y"], ["y"], ["y", None]]
    outcome = check_program(mlp, arguments, mesh_of(4, 2), specs)
    (use,) = outcome.local.report.collectives
    assert (use.kind, use.count, use.group_size) == ("all_reduce", 1, 2)
    assert not outcome.local.report.replicated


def test_gradients_over_the_data_need_one_combined_all_reduce():
    arguments = [normal(64, 12), normal(12, 16), normal(16), normal(16, 6)]

    def loss(*args):
        return jnp.mean(mlp(*args) ** 2)

    gradients = jax.value_and_grad(loss, (1, 2, 3))
    outcome = check_program(gradients, arguments, mesh_of(4), [["x", None], None, None, None])
    assert [(u.kind, u.count) for u in outcome.local.report.collectives] == [("all_reduce", 1)]


def test_a_scan_adds_up_the_gradients_of_its_weights_and_reduces_them_once():
    """JAX transposes an einsum's gradient before the addition: the all_reduce stayed inside."""
    case = case_of(Cell("lstm", "data", (8,), True))
    local = partition(simplified(case.text), case.mesh)
    (use,) = local.report.collectives
    assert (use.kind, use.count) == ("all_reduce", 1)
