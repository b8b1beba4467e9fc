"""BERT (Devlin et al., 2018): a bidirectional encoder that predicts masked tokens."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from .common import (
    Constrain,
    Tree,
    Weight,
    bias,
    cross_entropy,
    dense,
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
    """Sizes; the defaults are those of BERT base."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    hidden: int = 3072
    vocabulary: int = 30522
    sequence: int = 512
    predictions: int = 76
    dtype: str = "float32"

    @staticmethod
    def small(dtype: str = "float32") -> Config:
        """Return sizes for tests."""
        return Config(2, 16, 4, 32, 38, 8, 3, dtype)


INPUTS = {
    "labels": ("batch", None),
    "length": ("batch",),
    "masked": ("batch", None),
    "segments": ("batch", "sequence"),
    "tokens": ("batch", "sequence"),
    "weights": ("batch", None),
}


def weights(config: Config) -> Tree:
    """Return the parameters."""
    width = config.width
    block = {
        "attention": self_attention_weights(width, config.heads),
        "norm1": norm_weights(width),
        "mlp": mlp_weights(width, config.hidden),
        "norm2": norm_weights(width),
    }
    return {
        "embedding": Weight((config.vocabulary, width), ("vocabulary", "width"), 0.3),
        "positions": Weight((config.sequence, width), ("sequence", "width"), 0.1),
        "segments": Weight((2, width), (None, "width"), 0.1),
        "norm": norm_weights(width),
        "layers": {str(n): block for n in range(config.layers)},
        "head": {
            "dense": dense((width, width), ("width", None), width),
            "bias": bias(width),
            "norm": norm_weights(width),
            "vocabulary_bias": bias(config.vocabulary, axes=("vocabulary",)),
        },
    }


def batch(config: Config, size: int, seed: int = 1) -> Tree:
    """Return text of random lengths, the masked positions, their tokens, and which count."""
    rng = np.random.default_rng(seed)
    shape = (size, config.sequence)
    masked = [rng.permutation(config.sequence)[: config.predictions] for _ in range(size)]
    return {
        "tokens": rng.integers(0, config.vocabulary, shape).astype(np.int32),
        "segments": rng.integers(0, 2, shape).astype(np.int32),
        "length": rng.integers(config.sequence // 2, config.sequence + 1, size).astype(np.int32),
        "masked": np.sort(np.array(masked), axis=1).astype(np.int32),
        "labels": rng.integers(0, config.vocabulary, (size, config.predictions)).astype(np.int32),
        "weights": rng.integers(0, 2, (size, config.predictions)).astype(np.float32),
    }


def encode(params: Tree, batch: Tree, config: Config, constrain: Constrain) -> jax.Array:
    """Return the last hidden states (batch, sequence, width)."""
    x = params["embedding"][batch["tokens"]] + params["positions"]
    x = layer_norm(x + params["segments"][batch["segments"]], params["norm"])
    x = constrain(x, "residual")
    inside = jnp.arange(config.sequence) < batch["length"][:, None]
    mask = jnp.where(inside, 0.0, -1e9)[:, None, None, :]
    for n in range(config.layers):
        p = params["layers"][str(n)]
        x = layer_norm(x + self_attention(x, p["attention"], mask, constrain), p["norm1"])
        x = constrain(x, "residual")
        x = layer_norm(x + mlp(x, p["mlp"], constrain), p["norm2"])
        x = constrain(x, "residual")
    return x


def forward(
    params: Tree, batch: Tree, config: Config, constrain: Constrain = identity
) -> jax.Array:
    """Return logits of the masked positions (batch, predictions, vocabulary)."""
    states = encode(params, batch, config, constrain)
    x = jnp.take_along_axis(states, batch["masked"][..., None], axis=1)
    head = params["head"]
    x = layer_norm(jax.nn.gelu(x @ head["dense"] + head["bias"]), head["norm"])
    logits = jnp.einsum("bpd,vd->bpv", x, params["embedding"]) + head["vocabulary_bias"]
    return constrain(logits, "logits")


def loss(params: Tree, batch: Tree, config: Config, constrain: Constrain = identity) -> jax.Array:
    """Return the mean cross-entropy of the masked tokens that count."""
    each = cross_entropy(forward(params, batch, config, constrain), batch["labels"])
    return (each * batch["weights"]).sum() / jnp.maximum(batch["weights"].sum(), 1.0)
