"""A training step of any of the models, and its arguments."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import numpy as np

from .common import AdamW, Constrain, Tree, abstract, initialize, leaves

Step = Callable[..., tuple[Any, ...]]

COUNT = 10
"""Steps already taken: with the second moments of `optimizer_state` no update divides by the size
of its own gradient, so an error in a gradient stays as small in the parameters as it is."""


def training_step(
    model: ModuleType, config: Any, constrain: Constrain, optimizer: AdamW | None = None
) -> Step:
    """Return ``step(params, m, v, count, batch[, statistics])``.

    It returns (loss, params, m, v, count[, statistics]).
    """
    adam = optimizer or AdamW()

    def step(params: Tree, m: Tree, v: Tree, count: jax.Array, batch: Tree) -> tuple[Any, ...]:
        loss, grads = jax.value_and_grad(model.loss)(params, batch, config, constrain)
        return (loss, *adam.update(params, grads, m, v, count))

    def step_with_statistics(
        params: Tree, m: Tree, v: Tree, count: jax.Array, batch: Tree, statistics: Tree
    ) -> tuple[Any, ...]:
        run = jax.value_and_grad(model.loss, has_aux=True)
        (loss, new), grads = run(params, batch, config, constrain, statistics)
        return (loss, *adam.update(params, grads, m, v, count), new)

    return step_with_statistics if hasattr(model, "statistics") else step


def forward_pass(model: ModuleType, config: Any, constrain: Constrain) -> Step:
    """Return ``run(params, batch[, statistics])``, the model's outputs."""

    def run(params: Tree, batch: Tree, *statistics: Tree) -> Any:
        return model.forward(params, batch, config, constrain, *statistics)

    return run


def optimizer_state(weights: Tree, seed: int = 7) -> tuple[Tree, Tree]:
    """Return first moments, all zero (so the next are the gradients times 1 - beta1), and second.

    The second moments are drawn from [0.5, 1.5].
    """
    rng = np.random.default_rng(seed)
    zeros = jax.tree.map(lambda w: np.zeros(w.shape, np.float32), weights)
    ones = jax.tree.map(lambda w: rng.uniform(0.5, 1.5, w.shape).astype(np.float32), weights)
    return zeros, ones


def arguments(
    model: ModuleType, config: Any, size: int, *, train: bool, only_shapes: bool
) -> tuple[Any, ...]:
    """Return the arguments of `training_step` or `forward_pass`.

    Args:
        model: the model's module.
        config: its sizes.
        size: images or sequences in the batch.
        train: for the training step.
        only_shapes: shapes in place of values.
    """
    tree = model.weights(config)
    batch = model.batch(config, 1 if only_shapes else size)
    more = [model.statistics(config)] if hasattr(model, "statistics") else []
    count = np.int32(COUNT)
    if only_shapes:
        params, *more = [abstract(part, config.dtype) for part in (tree, *more)]
        moments = [abstract(tree)] * 2
        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), batch)
        count = jax.ShapeDtypeStruct((), count.dtype)
    else:
        params, *more = [initialize(part, config.dtype) for part in (tree, *more)]
        moments = list(optimizer_state(tree)) if train else []
    if train:
        return (params, *moments, count, batch, *more)
    return (params, batch, *more)


def names(model: ModuleType, config: Any, *, train: bool) -> list[str]:
    """Return the name of each flattened argument: ``params/…``, ``m/…``, ``batch/…`` and so on."""
    weights = [path for path, _ in leaves(model.weights(config))]
    roles = ("params", "m", "v") if train else ("params",)
    out = [f"{role}/{path}" for role in roles for path in weights]
    out += ["count"] * train
    out += [f"batch/{name}" for name in sorted(model.INPUTS)]
    if hasattr(model, "statistics"):
        out += [f"statistics/{path}" for path, _ in leaves(model.statistics(config))]
    return out
