"""The models of ``tests/models`` in sizes that run in a second, with weights and inputs."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from benchmarks import load_package
from pai.dialects.mlir import context, parse
from pai.dialects.program import Program, Role, Weights

BATCH = 8
SIZES: dict[str, tuple[Any, ...]] = {
    "gpt2": (2, 64, 4, 256, 256, 32),
    "llama": (2, 64, 4, 2, 192, 256, 32, 1e4),
    "moe": (2, 64, 4, 128, 4, 2, 1.25, 256, 32, 0.01),
    "bert": (2, 64, 4, 256, 256, 32, 8),
    "vit": (2, 64, 4, 256, 32, 8, 16),
    "t5": (1, 64, 4, 256, 256, 32, 24, 16, 32),
    "resnet": ((1, 1), 16, 4, 32, 16),
    "unet": (2, 16, 4, 32, 3, 5),
    "dit": (2, 64, 4, 256, 16, 2, 4, 32, 16, 1000),
    "lstm": (2, 48, 48, 256, 12),
}
"""Arguments of each model's ``Config``: wide enough that plans split something."""


def program_of(model: str, *, train: bool) -> tuple[Program, dict[str, np.ndarray]]:
    """Return a model's step or forward pass with weights, and its inputs."""
    load_package("tests/models", "jax_models")
    from jax_models import layouts, program, step  # type: ignore[import-not-found]  # noqa: PLC0415

    module = layouts.load(model)
    config = module.Config(*SIZES[model])
    text = program.step_text(model, config, BATCH, train=train)
    imported = parse(text, model, context())
    signature = program.sign(imported, model, config, train=train)
    given = step.arguments(module, config, BATCH, train=train, only_shapes=False)
    values = [np.asarray(leaf) for leaf in jax.tree.leaves(given)]
    pairs = list(zip(signature.arguments, values, strict=True))
    inputs = {v.name: array for v, array in pairs if v.role is Role.INPUT}
    kept = {v.name: _loader(array) for v, array in pairs if v.role is not Role.INPUT}
    return Program(model, imported, signature, Weights(kept)), inputs


def _loader(array: np.ndarray) -> Any:
    return lambda: array
