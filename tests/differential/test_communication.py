"""Collectives of the layouts people know, counted against what a person would write by hand."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks.communication import bytes_of, compare, config_of

sys.path.insert(0, str(Path(__file__).parent))
from harness import check, mesh_of

from jax_models import layouts
from pai.dialects.mlir import context, parse
from pai.passes.partition.collectives.common import collectives
from pai.passes.partition.partition import partition
from pai.passes.simplify.inline import Inline
from pai.passes.simplify.legalize import Legalize

LAYERS = 3


def local_of(model, layout, mesh, *, train=True, sequence=16):
    config = dataclasses.replace(config_of(model), layers=LAYERS, sequence=sequence)
    case = layouts.case(model, layout, mesh, train=train, config=config, only_shapes=True)
    module = parse(case.text, "jax", context())
    Inline().run(module)
    Legalize().run(module)
    return case, partition(module, case.mesh)


def counts(local, group=None):
    out = {}
    for use in local.report.collectives:
        if group is None or use.group_size == group:
            out[use.kind] = out.get(use.kind, 0) + use.count
    return out


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_megatron_has_two_all_reduces_per_layer_and_pass(model):
    _, forward = local_of(model, "megatron", (8,), train=False)
    assert counts(forward) == {"all_reduce": 2 * LAYERS}
    _, step = local_of(model, "megatron", (8,))
    assert counts(step) == {"all_reduce": 4 * LAYERS}


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_megatron_with_data_adds_one_combined_all_reduce_of_the_gradients(model):
    _, step = local_of(model, "megatron", (4, 2))
    assert counts(step, 2) == {"all_reduce": 4 * LAYERS}
    assert counts(step, 4) == {"all_reduce": 1}


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_zero3_gathers_each_parameter_and_scatters_each_gradient_once(model):
    # More tokens than words, as in any real batch: else an embedding's gradient gathers tokens.
    case, step = local_of(model, "zero3", (8,), sequence=64)
    sharded = [
        spec
        for name, spec in zip(case.names, case.specs, strict=True)
        if name.startswith("params/") and any(spec)
    ]
    gathers = sum(
        len(op.operands) for op in collectives(step.module) if op.name == "stablehlo.all_gather"
    )
    found = counts(step)
    assert gathers == len(sharded)
    assert found["reduce_scatter"] == len(sharded)
    assert found["all_reduce"] == 1  # the loss
    assert set(found) == {"all_gather", "reduce_scatter", "all_reduce"}


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_sequence_parallel_gathers_and_scatters_twice_per_layer_and_pass(model):
    _, step = local_of(model, "sequence", (8,))
    found = counts(step)
    assert found["reduce_scatter"] == 4 * LAYERS
    # One more gathers the new positions or the loss's labels; none is of logits.
    assert found["all_gather"] <= 4 * LAYERS + 2
    assert found["all_reduce"] <= 2


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_a_vocabulary_parallel_loss_never_gathers_logits(model):
    _, step = local_of(model, "vocabulary", (8,))
    logits = 8 * 16 * config_of(model).vocabulary
    assert set(counts(step)) == {"all_reduce"}
    for op in collectives(step.module):
        assert all(math.prod(value.type.shape) < logits for value in op.results)


def test_data_parallel_reduces_every_gradient_in_one_all_reduce():
    case, step = local_of("llama", "data", (8,))
    (use,) = step.report.collectives
    parameters = sum(
        math.prod(array.shape)
        for name, array in zip(case.names, jax.tree.leaves(case.arguments), strict=True)
        if name.startswith("params/")
    )
    assert (use.kind, use.count) == ("all_reduce", 1)
    assert use.bytes_per_device == 4 * (parameters + 1)


def test_a_scan_reduces_its_gradients_once_behind_the_loop():
    _, step = local_of("lstm", "data", (8,))
    assert counts(step) == {"all_reduce": 1}


def test_a_projection_to_few_channels_gathers_them_instead_of_adding_wide_parts():
    def narrow(x, w):
        return jnp.einsum("tc,wc->tw", x, w)

    arguments = [jnp.ones((64, 8)), jnp.ones((128, 8))]
    outcome = check(narrow, arguments, mesh_of(8), [[None, "x"], [None, "x"]])
    assert set(counts(outcome.local)) == {"all_gather"}
    assert not outcome.local.report.replicated  # it was a choice
    wide = [jnp.ones((64, 128)), jnp.ones((128, 128))]
    outcome = check(narrow, wide, mesh_of(8), [[None, "x"], [None, "x"]])
    assert set(counts(outcome.local)) == {"all_reduce"}


QUICK = [("gpt2", "random", (4, 2)), ("llama", "sequence", (4, 2))]


@pytest.mark.parametrize("model,layout,mesh", QUICK, ids=str)
def test_no_more_bytes_than_xla(model, layout, mesh):
    cell = compare(model, layout, mesh)
    assert not cell.error
    assert 0 < bytes_of(cell.ours) <= bytes_of(cell.theirs)
