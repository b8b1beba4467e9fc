"""DLRM (Naumov et al., 2019): embedding tables, a bottom and a top MLP, dot interaction."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from .common import Constrain, Tree, Weight, bias, dense, identity


@dataclass(frozen=True)
class Config:
    """Sizes; the defaults are those of the MLPerf benchmark, with tables of equal size."""

    tables: int = 26
    rows: int = 2_000_000
    width: int = 128
    numbers: int = 13
    bottom: tuple[int, ...] = (512, 256, 128)
    top: tuple[int, ...] = (1024, 1024, 512, 256, 1)
    dtype: str = "float32"

    @staticmethod
    def small(dtype: str = "float32") -> Config:
        """Return sizes for tests."""
        return Config(3, 40, 8, 5, (16, 8), (16, 1), dtype)


INPUTS = {"ids": ("batch", None), "labels": ("batch",), "numbers": ("batch", None)}


def _mlp(inputs: int, sizes: tuple[int, ...]) -> Tree:
    out = {}
    for number, size in enumerate(sizes):
        out[str(number)] = {
            "weight": dense((inputs, size), ("width", "hidden"), inputs),
            "bias": bias(size, axes=("hidden",)),
        }
        inputs = size
    return out


def weights(config: Config) -> Tree:
    """Return the parameters; the tables are one tensor (tables, rows, width)."""
    vectors = config.tables + 1
    pairs = vectors * (vectors - 1) // 2
    shape = (config.tables, config.rows, config.width)
    return {
        "tables": Weight(shape, ("tables", "vocabulary", None), 0.1),
        "bottom": _mlp(config.numbers, config.bottom),
        "top": _mlp(config.width + pairs, config.top),
    }


def batch(config: Config, size: int, seed: int = 1) -> Tree:
    """Return a row of each table, dense features, and clicks."""
    rng = np.random.default_rng(seed)
    return {
        "ids": rng.integers(0, config.rows, (size, config.tables)).astype(np.int32),
        "labels": rng.integers(0, 2, size).astype(np.int32),
        "numbers": rng.standard_normal((size, config.numbers)).astype(np.float32),
    }


def _run_mlp(x: jax.Array, p: Tree, *, last: bool) -> jax.Array:
    for number in range(len(p)):
        x = x @ p[str(number)]["weight"] + p[str(number)]["bias"]
        if last or number < len(p) - 1:
            x = jax.nn.relu(x)
    return x


def forward(
    params: Tree, batch: Tree, config: Config, constrain: Constrain = identity
) -> jax.Array:
    """Return logits (batch,)."""
    numbers = batch["numbers"].astype(params["tables"].dtype)
    dense_part = _run_mlp(numbers, params["bottom"], last=True)
    rows = jax.vmap(lambda table, ids: table[ids], in_axes=(0, 1), out_axes=1)(
        params["tables"], batch["ids"]
    )
    vectors = constrain(jnp.concatenate([dense_part[:, None], rows], axis=1), "vectors")
    products = jnp.einsum("bie,bje->bij", vectors, vectors)
    first, second = np.tril_indices(config.tables + 1, -1)
    joined = jnp.concatenate([dense_part, products[:, first, second]], axis=1)
    return _run_mlp(joined, params["top"], last=False)[:, 0]


def loss(params: Tree, batch: Tree, config: Config, constrain: Constrain = identity) -> jax.Array:
    """Return the mean cross-entropy of the clicks."""
    logits = forward(params, batch, config, constrain).astype(jnp.float32)
    labels = batch["labels"].astype(jnp.float32)
    return (jax.nn.softplus(logits) - labels * logits).mean()
