"""Whole models, and their training steps, under the layouts people use."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from harness import check, mesh_of

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


def test_mlp_gradient():
    arguments = [normal(6, 12), normal(12, 16), normal(16), normal(16, 6)]
    specs = [["x", None], [None, "y"], ["y"], ["y", None]]

    def loss(*args):
        return jnp.mean(mlp(*args) ** 2)

    check(jax.value_and_grad(loss, (1, 2, 3)), arguments, mesh_of(4, 2), specs)
