"""GPT-2 (Radford et al., 2019): a causal transformer with learned positions and tied logits."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from .common import (
    Constrain,
    Tree,
    Weight,
    causal_bias,
    cross_entropy,
    identity,
    layer_norm,
    mlp,
    mlp_weights,
    norm_weights,
    self_attention,
    self_attention_weights,
)


@dataclass(frozen=True)
class Config:
    """Sizes; the defaults are those of the 124M model."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    hidden: int = 3072
    vocabulary: int = 50257
    sequence: int = 1024
    dtype: str = "float32"

    @staticmethod
    def small(dtype: str = "float32") -> Config:
        """Return sizes for tests; the vocabulary is odd, as GPT-2's is."""
        return Config(2, 16, 4, 32, 37, 8, dtype)


INPUTS = {"tokens": ("batch", "sequence"), "labels": ("batch", "sequence")}


def weights(config: Config) -> Tree:
    """Return the parameters."""
    width = config.width
    block = {
        "norm1": norm_weights(width),
        "attention": self_attention_weights(width, config.heads),
        "norm2": norm_weights(width),
        "mlp": mlp_weights(width, config.hidden),
    }
    return {
        "embedding": Weight((config.vocabulary, width), ("vocabulary", "width"), 0.3),
        "positions": Weight((config.sequence, width), ("sequence", "width"), 0.1),
        "layers": {str(n): block for n in range(config.layers)},
        "norm": norm_weights(width),
    }


def batch(config: Config, size: int, seed: int = 1) -> Tree:
    """Return random tokens and the token that follows each."""
    rng = np.random.default_rng(seed)
    text = rng.integers(0, config.vocabulary, (size, config.sequence + 1)).astype(np.int32)
    return {"tokens": text[:, :-1], "labels": text[:, 1:]}


def forward(
    params: Tree, batch: Tree, config: Config, constrain: Constrain = identity
) -> jax.Array:
    """Return logits (batch, sequence, vocabulary)."""
    x = constrain(params["embedding"][batch["tokens"]] + params["positions"], "residual")
    mask = causal_bias(config.sequence)
    for n in range(config.layers):
        p = params["layers"][str(n)]
        x = x + self_attention(layer_norm(x, p["norm1"]), p["attention"], mask, constrain)
        x = constrain(x, "residual")
        x = x + mlp(layer_norm(x, p["norm2"]), p["mlp"], constrain)
        x = constrain(x, "residual")
    logits = jnp.einsum("bsd,vd->bsv", layer_norm(x, params["norm"]), params["embedding"])
    return constrain(logits, "logits")


def loss(params: Tree, batch: Tree, config: Config, constrain: Constrain = identity) -> jax.Array:
    """Return the mean cross-entropy of the next token."""
    return cross_entropy(forward(params, batch, config, constrain), batch["labels"]).mean()
