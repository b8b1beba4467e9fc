"""Llama (Touvron et al., 2023): rotary positions, grouped queries, RMSNorm, SwiGLU."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from .common import (
    Constrain,
    Tree,
    Weight,
    attention,
    causal_bias,
    cross_entropy,
    dense,
    gain,
    identity,
    rms_norm,
)


@dataclass(frozen=True)
class Config:
    """Sizes; the defaults are those of Llama-3 8B, with a sequence of 2048."""

    layers: int = 32
    width: int = 4096
    heads: int = 32
    kv_heads: int = 8
    hidden: int = 14336
    vocabulary: int = 128256
    sequence: int = 2048
    theta: float = 500000.0
    dtype: str = "float32"

    @property
    def head(self) -> int:
        """The width of a head."""
        return self.width // self.heads

    @staticmethod
    def small(dtype: str = "float32") -> Config:
        """Return sizes for tests: two query heads share a key head."""
        return Config(2, 16, 4, 2, 24, 40, 8, 10000.0, dtype)


INPUTS = {"tokens": ("batch", "sequence"), "labels": ("batch", "sequence")}


def block_weights(config: Config) -> Tree:
    """Return the parameters of the attention of a block and its norms."""
    width, head = config.width, config.head
    columns, rows = ("width", "heads", None), ("heads", None, "width")
    return {
        "norm1": {"gain": gain(width)},
        "attention": {
            "q": dense((width, config.heads, head), columns, width),
            "k": dense((width, config.kv_heads, head), columns, width),
            "v": dense((width, config.kv_heads, head), columns, width),
            "out": dense((config.heads, head, width), rows, width),
        },
        "norm2": {"gain": gain(width)},
    }


def weights(config: Config) -> Tree:
    """Return the parameters."""
    width, hidden = config.width, config.hidden
    mlp = {
        "gate": dense((width, hidden), ("width", "hidden"), width),
        "up": dense((width, hidden), ("width", "hidden"), width),
        "down": dense((hidden, width), ("hidden", "width"), hidden),
    }
    table = (config.vocabulary, width)
    return {
        "embedding": Weight(table, ("vocabulary", "width"), 0.5),
        "layers": {str(n): {**block_weights(config), "mlp": mlp} for n in range(config.layers)},
        "norm": {"gain": gain(width)},
        "head": dense(table[::-1], ("width", "vocabulary"), width),
    }


def batch(config: Config, size: int, seed: int = 1) -> Tree:
    """Return random tokens and the token that follows each."""
    rng = np.random.default_rng(seed)
    text = rng.integers(0, config.vocabulary, (size, config.sequence + 1)).astype(np.int32)
    return {"tokens": text[:, :-1], "labels": text[:, 1:]}


def rotate(x: jax.Array, theta: float) -> jax.Array:
    """Turn pairs of (batch, sequence, heads, head) by angles that grow with the position."""
    half = x.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = jnp.arange(x.shape[1], dtype=jnp.float32)[:, None, None] * frequencies
    sine, cosine = jnp.sin(angles), jnp.cos(angles)
    left, right = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    out = jnp.concatenate([left * cosine - right * sine, right * cosine + left * sine], axis=-1)
    return out.astype(x.dtype)


def grouped_attention(x: jax.Array, p: Tree, config: Config, constrain: Constrain) -> jax.Array:
    """Return causal attention in which groups of query heads share a key and value head."""
    q = constrain(jnp.einsum("bsd,dhe->bshe", x, p["q"]), "heads")
    k = constrain(jnp.einsum("bsd,dhe->bshe", x, p["k"]), "heads")
    v = constrain(jnp.einsum("bsd,dhe->bshe", x, p["v"]), "heads")
    q, k = rotate(q, config.theta), rotate(k, config.theta)
    group = config.heads // config.kv_heads
    k, v = (jnp.repeat(value, group, axis=2) for value in (k, v))
    out = constrain(attention(q, k, v, causal_bias(config.sequence)), "heads")
    return jnp.einsum("bshe,hed->bsd", out, p["out"])


def swiglu(x: jax.Array, p: Tree, constrain: Constrain) -> jax.Array:
    """Return the gated perceptron."""
    hidden = constrain(jax.nn.silu(x @ p["gate"]) * (x @ p["up"]), "hidden")
    return hidden @ p["down"]


def forward(
    params: Tree, batch: Tree, config: Config, constrain: Constrain = identity
) -> jax.Array:
    """Return logits (batch, sequence, vocabulary)."""
    x = constrain(params["embedding"][batch["tokens"]], "residual")
    for n in range(config.layers):
        p = params["layers"][str(n)]
        x = x + grouped_attention(rms_norm(x, p["norm1"]), p["attention"], config, constrain)
        x = constrain(x, "residual")
        x = x + swiglu(rms_norm(x, p["norm2"]), p["mlp"], constrain)
        x = constrain(x, "residual")
    return constrain(rms_norm(x, params["norm"]) @ params["head"], "logits")


def loss(params: Tree, batch: Tree, config: Config, constrain: Constrain = identity) -> jax.Array:
    """Return the mean cross-entropy of the next token."""
    return cross_entropy(forward(params, batch, config, constrain), batch["labels"]).mean()
