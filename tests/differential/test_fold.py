"""Folding layers gives the program that partitioning the whole module gives."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import jax
import jax.numpy as jnp
from harness import lower, prepare, run_and_compare, sharding_of

from jax_models import layouts
from pai.compiler.reference import run_reference
from pai.dialects.mlir import context, parse, to_text
from pai.dialects.sdy import set_result_shardings, sharding_attr
from pai.passes.partition import partition
from pai.passes.simplify import simplify
from pai.runtime.mesh import Mesh

LAYERS = 8
COPIES = re.compile(r"(\d+) of (\d+) repeated layers are copies")
CASES = [
    ("gpt2", "megatron", (4, 2), True),
    ("llama", "zero3", (8,), True),
    ("llama", "sequence", (2, 2, 2), True),
    ("gpt2", "vocabulary", (3, 2), True),
    ("gpt2", "data", (8,), False),
    ("llama", "megatron", (2, 4), False),
]


def simplified(text):
    module = parse(text, "test", context())
    simplify(module)
    return module


def lines(local):
    """Return the operations of a module by their text, but for the numbers of values."""
    text = re.sub(r"handle = \d+", "handle", to_text(local.module))
    return Counter(re.sub(r"%[\w#:]+", "%", line) for line in text.splitlines())


def notes(local):
    return [note for note in local.report.notes if "layers" in note]


def without_fold_notes(local):
    return dataclasses.replace(
        local.report, notes=tuple(n for n in local.report.notes if n not in notes(local))
    )


@pytest.mark.parametrize(("model", "layout", "mesh", "train"), CASES)
def test_a_folded_model_is_the_whole_one(model, layout, mesh, train):
    config = dataclasses.replace(layouts.load(model).Config.small(), layers=LAYERS)
    case = layouts.case(model, layout, mesh, train=train, config=config)
    folded = partition(simplified(case.text), case.mesh)
    whole = partition(simplified(case.text), case.mesh, fold=False)
    (note,) = notes(folded)
    found = COPIES.fullmatch(note)
    assert found and int(found[1]) >= 2, note
    assert not notes(whole)
    assert lines(folded) == lines(whole)
    assert without_fold_notes(folded) == without_fold_notes(whole)
    assert folded.argument_shardings == whole.argument_shardings
    assert folded.result_shardings == whole.result_shardings


@pytest.mark.parametrize(("model", "layout", "mesh", "train"), CASES[:2])
def test_a_folded_model_computes_what_one_device_computes(model, layout, mesh, train):
    config = dataclasses.replace(layouts.load(model).Config.small(), layers=LAYERS)
    case = layouts.case(model, layout, mesh, train=train, config=config)
    folded = partition(simplified(case.text), case.mesh)
    assert COPIES.fullmatch(notes(folded)[0])
    plain = lower(case.function, case.arguments)
    run_and_compare(folded, case.flat, run_reference(plain, case.flat), 2e-4)


def chain(x, *weights):
    for w in weights:
        x = jnp.tanh(x @ w) + x
    return x


def arrays(widths):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((8, 8)).astype(np.float32)] + [
        rng.standard_normal((8, 8)).astype(np.float32) for _ in widths
    ]


def test_a_chain_of_products_folds_and_computes_the_same():
    values = arrays(range(9))
    mesh = Mesh((("x", 2), ("y", 2)))
    text = lower(chain, values)
    local = partition(prepare(text, mesh, [["x", None]] + [[None, "y"]] * 9), mesh)
    assert COPIES.fullmatch(notes(local)[0])
    run_and_compare(local, values, run_reference(text, values))


def test_the_gradient_of_a_chain_in_reverse_argument_order_folds():
    """The layers' weights come last first: what repeats is found in the dataflow, not by name."""

    def step(x, *weights):
        def loss(weights):
            return jnp.sum(chain(x, *weights[::-1]) ** 2)

        value, gradients = jax.value_and_grad(loss)(list(weights))
        total = jnp.sqrt(sum(jnp.sum(g * g) for g in gradients))
        return value, *(w - 0.1 * g / total for w, g in zip(weights, gradients, strict=True))

    values = [0.1 * v for v in arrays(range(9))]
    mesh = Mesh((("x", 2), ("y", 2)))
    text = lower(step, values)
    specs = [["x", None]] + [[None, "y"]] * 9
    local = partition(prepare(text, mesh, specs), mesh)
    assert COPIES.fullmatch(notes(local)[0])
    assert lines(local) == lines(partition(prepare(text, mesh, specs), mesh, fold=False))
    run_and_compare(local, values, run_reference(text, values))


def test_a_layer_with_another_sharding_is_not_folded_away():
    """The chain breaks at the layer that is laid out differently; the result is the same."""
    values = arrays(range(9))
    mesh = Mesh((("x", 2), ("y", 2)))
    text = lower(chain, values)
    specs = [["x", None]] + [[None, "y"]] * 9
    specs[5] = ["y", None]
    local = partition(prepare(text, mesh, specs), mesh)
    assert not any(COPIES.fullmatch(note) for note in notes(local))
    whole = partition(prepare(text, mesh, specs), mesh, fold=False)
    assert lines(local) == lines(whole)
    run_and_compare(local, values, run_reference(text, values))


def test_a_layer_of_another_width_is_not_folded_away():
    def model(x, *weights):
        for up, down in zip(weights[::2], weights[1::2], strict=True):
            x = jnp.tanh(x @ up) @ down + x
        return x

    rng = np.random.default_rng(1)
    widths = [8, 8, 8, 8, 12, 8, 8, 8, 8]
    values = [rng.standard_normal((8, 8)).astype(np.float32)]
    for width in widths:
        values += [
            0.3 * rng.standard_normal(s).astype(np.float32) for s in ((8, width), (width, 8))
        ]
    mesh = Mesh((("x", 2), ("y", 2)))
    text = lower(model, values)
    specs = [["x", None]] + [[None, "y"], ["y", None]] * len(widths)
    local = partition(prepare(text, mesh, specs), mesh)
    assert not any(COPIES.fullmatch(note) for note in notes(local))
    run_and_compare(local, values, run_reference(text, values))


def test_layers_that_one_operation_joins_are_partitioned_whole():
    def model(x, *weights):
        states = []
        for w in weights:
            x = jnp.tanh(x @ w) + x
            states.append(x)
        return jnp.concatenate(states, axis=1)

    values = arrays(range(9))
    mesh = Mesh((("x", 2), ("y", 2)))
    text = lower(model, values)
    specs = [["x", None]] + [[None, "y"]] * 9
    local = partition(prepare(text, mesh, specs), mesh)
    assert not any(COPIES.fullmatch(note) for note in notes(local))
    run_and_compare(local, values, run_reference(text, values))


def test_a_sum_over_all_layers_in_another_order_is_partitioned_whole_with_a_note():
    def model(x, *weights):
        states = []
        for w in weights:
            x = jnp.tanh(x @ w) + x
            states.append(jnp.sum(x * x))
        order = [0, 1, 8, 2, 7, 3, 6, 4, 5]
        return x, sum(states[n] for n in order)

    values = arrays(range(9))
    mesh = Mesh((("x", 2), ("y", 2)))
    text = lower(model, values)
    specs = [["x", None]] + [[None, "y"]] * 9
    local = partition(prepare(text, mesh, specs), mesh)
    assert not any(COPIES.fullmatch(note) for note in notes(local))
    run_and_compare(local, values, run_reference(text, values))


def test_results_of_every_layer_come_back_in_order():
    def model(x, *weights):
        states = []
        for w in weights:
            x = jnp.tanh(x @ w) + x
            states.append(x * 2)
        return tuple(states[::-1])

    values = arrays(range(9))
    mesh = Mesh((("x", 2), ("y", 2)))
    text = lower(model, values)
    local = partition(prepare(text, mesh, [["x", None]] + [[None, "y"]] * 9), mesh)
    assert COPIES.fullmatch(notes(local)[0])
    run_and_compare(local, values, run_reference(text, values))


def test_a_layer_whose_result_is_wanted_in_another_layout_is_not_folded_away():
    def model(x, *weights):
        states = []
        for w in weights:
            x = jnp.tanh(x @ w) + x
            states.append(x * 2)
        return tuple(states)

    values = arrays(range(9))
    mesh = Mesh((("x", 2), ("y", 2)))
    text = lower(model, values)

    def module():
        out = prepare(text, mesh, [["x", None]] + [[None, "y"]] * 9)
        (main,) = [op for op in out.body.operations if op.operation.name == "func.func"]
        attr = sharding_attr(sharding_of([None, "x"]), ctx=out.context)
        set_result_shardings(main, {4: attr})
        return out

    local = partition(module(), mesh)
    assert notes(local) == [
        "repeated layers are not folded: the results of the layers are sharded differently"
    ]
    assert local.result_shardings == partition(module(), mesh, fold=False).result_shardings
    run_and_compare(local, values, run_reference(text, values))


def test_alternating_layers_fold_in_pairs():
    def model(x, *weights):
        for n, w in enumerate(weights):
            x = (jnp.tanh(x @ w) if n % 2 else jnp.exp(-(x**2)) @ w) + x
        return x

    values = arrays(range(18))
    mesh = Mesh((("x", 2), ("y", 2)))
    text = lower(model, values)
    specs = [["x", None]] + [[None, "y"]] * 18
    local = partition(prepare(text, mesh, specs), mesh)
    assert COPIES.fullmatch(notes(local)[0])
    assert lines(local) == lines(partition(prepare(text, mesh, specs), mesh, fold=False))


def test_a_module_without_layers_says_nothing_about_them():
    values = arrays(range(2))
    mesh = Mesh((("x", 2),))
    local = partition(prepare(lower(chain, values), mesh, [["x", None], None, None]), mesh)
    assert not notes(local)
