"""Whole models, and their training steps, under the layouts people use."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import models
from harness import check, mesh_of, prepare

from pai.dialects.mlir import to_text
from pai.passes.partition.partition import partition

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def mlp(x, w1, b1, w2):
    return jax.nn.gelu(x @ w1 + b1) @ w2


@pytest.mark.parametrize("batch,hidden", [(8, 16), (7, 33)])
def test_mlp_data_and_tensor(batch, hidden):
    arguments = [normal(batch, 12), normal(12, hidden), normal(hidden), normal(hidden, 6)]
    specs = [["x", None], [None, "y"], ["y"], ["y", None]]
    outcome = check(mlp, arguments, mesh_of(4, 2), specs)
    (use,) = outcome.local.report.collectives
    assert (use.kind, use.count, use.group_size) == ("all_reduce", 1, 2)
    assert not outcome.local.report.replicated


def test_mlp_gradient_needs_one_combined_all_reduce_over_the_data():
    arguments = [normal(8, 12), normal(12, 16), normal(16), normal(16, 6)]

    def loss(*args):
        return jnp.mean(mlp(*args) ** 2)

    outcome = check(
        jax.value_and_grad(loss, (1, 2, 3)), arguments, mesh_of(4), [["x", None], None, None, None]
    )
    assert [(u.kind, u.count) for u in outcome.local.report.collectives] == [("all_reduce", 1)]


def specs_for(layout, parameters, inputs, batch_dim, mesh, copies=1):
    """Return specs in the order of the flattened arguments."""
    names = sorted(parameters)
    one_axis = len(mesh.axes) == 1
    rename = {"y": "x"} if one_axis else {}

    def spec(dims):
        return dims and [rename.get(axis, axis) for axis in dims]

    data = [[None] * batch_dim + ["x"] for _ in inputs]
    if one_axis and layout not in (models.DATA, models.FSDP):
        data = [None for _ in inputs]
    padded = [
        dims and dims + [None] * (array.ndim - len(dims))
        for dims, array in zip(data, inputs, strict=True)
    ]
    return [spec(layout.get(name)) for name in names] * copies + padded


CASES = {
    "transformer-megatron": ("transformer", models.MEGATRON, 0),
    "transformer-fsdp": ("transformer", models.FSDP, 0),
    "transformer-data": ("transformer", models.DATA, 0),
    "convolutional-channels": ("convolutional", models.CHANNELS, 0),
    "convolutional-data": ("convolutional", models.DATA, 0),
    "recurrent-gates": ("recurrent", models.GATES, 1),
    "recurrent-rows": ("recurrent", models.ROWS, 1),
}
QUICK = {
    ("transformer-megatron", (4, 2), True),
    ("transformer-megatron", (3, 2), False),
    ("transformer-fsdp", (4,), True),
    ("convolutional-channels", (3, 2), True),
    ("recurrent-gates", (3, 2), True),
}


def run(case, sizes, train):
    name, layout, batch_dim = CASES[case]
    mesh = mesh_of(*sizes)
    parameters = getattr(models, f"{name}_parameters")()
    inputs = getattr(models, f"{name}_inputs")(8 if len(sizes) == 1 else 4)
    if not train:
        specs = specs_for(layout, parameters, inputs, batch_dim, mesh)
        loss = getattr(models, f"{name}_loss")
        return check(loss, [parameters, *inputs], mesh, specs)
    zeros = {key: np.zeros_like(value) for key, value in parameters.items()}
    step = models.train_step(getattr(models, f"{name}_loss"))
    specs = specs_for(layout, parameters, inputs, batch_dim, mesh, copies=3)
    # The first Adam step divides small gradients by their own size: allow for it.
    return check(step, [parameters, zeros, zeros, *inputs], mesh, specs, tolerance=3e-4)


@pytest.mark.parametrize("case,sizes,train", sorted(QUICK), ids=str)
def test_models(case, sizes, train):
    outcome = run(case, sizes, train)
    if "transformer" in case:
        assert not outcome.local.report.replicated


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True], ids=["forward", "train"])
@pytest.mark.parametrize("sizes", [(8,), (4, 2), (3, 2)], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_all_models(case, sizes, train):
    run(case, sizes, train)


@pytest.mark.parametrize("sizes", [(64,), (8, 8)], ids=str)
@pytest.mark.parametrize("case", ["transformer-megatron", "recurrent-gates"])
def test_64_devices_partition_models_smaller_than_the_mesh(case, sizes):
    name, layout, batch_dim = CASES[case]
    mesh = mesh_of(*sizes)
    parameters = getattr(models, f"{name}_parameters")()
    inputs = getattr(models, f"{name}_inputs")(1)
    specs = specs_for(layout, parameters, inputs, batch_dim, mesh)
    from harness import lower

    text = lower(getattr(models, f"{name}_loss"), [parameters, *inputs])
    local = partition(prepare(text, mesh, specs), mesh)
    assert local.report.collectives
    assert "sdy." not in to_text(local.module)
