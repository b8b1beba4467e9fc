"""Every layout that the search may choose computes what one device computes."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from harness import lower, prepare, run_and_compare

from pai.compiler.reference import run_reference
from pai.dialects.mlir import parse, to_text
from pai.dialects.program import Role, Signature, Value
from pai.passes.partition.partition import partition
from pai.passes.strategy import annotate, choose_plan
from pai.passes.strategy.candidates import enumerate_candidates
from pai.passes.strategy.plan import Plan
from pai.runtime.mesh import Mesh
from pai.runtime.topology import load_cluster

rng = np.random.default_rng(3)


def block(tokens, table, q, k, out, up, down):
    """Embedding, a one-head attention, a gated product, a head tied to the embedding."""
    x = table[tokens]
    scores = jax.nn.softmax((x @ q) @ jnp.swapaxes(x @ k, -1, -2))
    x = x + (scores @ x) @ out
    x = x + jax.nn.silu(x @ up) @ down
    return x @ table.T


def loss_step(tokens, *weights):
    def loss(weights):
        return jnp.mean(block(tokens, *weights) ** 2)

    gradients = jax.grad(loss)(weights)
    return tuple(w - 0.1 * g for w, g in zip(weights, gradients, strict=True))


def arguments():
    def normal(*shape):
        return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)

    tokens = rng.integers(0, 20, (6, 5)).astype(np.int32)  # 6 does not divide by 4
    shapes = [(20, 8), (8, 8), (8, 8), (8, 8), (8, 16), (16, 8)]
    return [tokens, *(normal(*shape) for shape in shapes)]


def check_all(function, devices):
    values = arguments()
    text = to_text(prepare(lower(function, values), Mesh(), [None] * len(values)))
    expected = run_reference(text, values)
    roles = [Role.INPUT] + [Role.PARAMETER] * (len(values) - 1)
    kinds = {np.dtype(np.int32): "i32", np.dtype(np.float32): "f32"}
    signature = Signature(
        tuple(
            Value(f"arg{i}", role, kinds[value.dtype], value.shape)
            for i, (role, value) in enumerate(zip(roles, values, strict=True))
        ),
        tuple(Value(f"out{i}", Role.OUTPUT, "f32", v.shape) for i, v in enumerate(expected)),
    )
    candidates = enumerate_candidates(parse(text), signature, devices, frozenset())
    names = [candidate.name for candidate in candidates]
    assert {"replicated", f"data={devices}", f"data={devices} zero", f"model={devices}"} <= set(
        names
    )
    for candidate in candidates:
        module = parse(text)
        annotate(module, Plan(candidate.mesh, candidate.arguments))
        run_and_compare(partition(module, candidate.mesh), values, expected)
    plan = choose_plan(parse(text), signature, load_cluster("cpu", devices))
    assert plan.strategy in names
    assert not [a for a in plan.alternatives if "cannot be partitioned" in a.reason]


def test_inference_on_four_devices():
    check_all(block, 4)


def test_a_training_step_on_two_devices():
    check_all(loss_step, 2)


@pytest.mark.slow
def test_a_training_step_on_four_devices():
    check_all(loss_step, 4)
