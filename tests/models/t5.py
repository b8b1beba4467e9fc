"""T5 (Raffel et al., 2019): an encoder and a decoder with relative position biases."""

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
    """Sizes; the defaults are those of T5 base; ``layers`` counts encoder and decoder each."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    hidden: int = 3072
    vocabulary: int = 32128
    sequence: int = 512
    targets: int = 114
    buckets: int = 32
    furthest: int = 128
    dtype: str = "float32"

    @staticmethod
    def small(dtype: str = "float32") -> Config:
        """Return sizes for tests; source and target differ in length."""
        return Config(1, 16, 4, 32, 36, 8, 6, 8, 12, dtype)


INPUTS = {
    "decoder": ("batch", "sequence"),
    "encoder": ("batch", "sequence"),
    "labels": ("batch", "sequence"),
}


def weights(config: Config) -> Tree:
    """Return the parameters; the logits use the embedding, one bias serves a whole stack."""
    width, head = config.width, config.width // config.heads
    columns, rows = ("width", "heads", None), ("heads", None, "width")
    attend = {
        "q": dense((width, config.heads, head), columns, width),
        "k": dense((width, config.heads, head), columns, width),
        "v": dense((width, config.heads, head), columns, width),
        "out": dense((config.heads, head, width), rows, width),
        "norm": {"gain": gain(width)},
    }
    mlp = {
        "up": dense((width, config.hidden), ("width", "hidden"), width),
        "down": dense((config.hidden, width), ("hidden", "width"), config.hidden),
        "norm": {"gain": gain(width)},
    }
    encoder = {"self": attend, "mlp": mlp}
    decoder = {"self": attend, "cross": attend, "mlp": mlp}

    def stack(block: Tree) -> Tree:
        return {
            "layers": {str(n): block for n in range(config.layers)},
            "relative": Weight((config.buckets, config.heads), (None, "heads"), 0.3),
            "norm": {"gain": gain(width)},
        }

    table = (config.vocabulary, width)
    return {
        "embedding": Weight(table, ("vocabulary", "width"), 0.5),
        "encoder": stack(encoder),
        "decoder": stack(decoder),
    }


def batch(config: Config, size: int, seed: int = 1) -> Tree:
    """Return source text, target text shifted right by one, and the target."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, config.vocabulary, (size, config.targets)).astype(np.int32)
    source = rng.integers(0, config.vocabulary, (size, config.sequence)).astype(np.int32)
    start = np.zeros((size, 1), np.int32)
    return {
        "encoder": source,
        "decoder": np.concatenate([start, labels[:, :-1]], axis=1),
        "labels": labels,
    }


def position_bias(table: jax.Array, length: int, config: Config, *, both: bool) -> jax.Array:
    """Return the bias (heads, length, length) by the bucket of each distance.

    Half the buckets hold one distance each, the others distances on a log scale; with ``both``,
    half of all are for keys after the query.
    """
    distance = jnp.arange(length) - jnp.arange(length)[:, None]  # key minus query
    buckets = config.buckets // 2 if both else config.buckets
    offset = jnp.where(distance > 0, buckets, 0) if both else 0
    away = jnp.abs(distance) if both else jnp.maximum(-distance, 0)
    near = buckets // 2
    ratio = jnp.maximum(away, near).astype(jnp.float32) / near
    steps = jnp.log(ratio) / np.log(config.furthest / near) * (buckets - near)
    far = jnp.minimum(near + steps.astype(jnp.int32), buckets - 1)
    bucket = offset + jnp.where(away < near, away, far)
    return jnp.transpose(table[bucket], (2, 0, 1)).astype(jnp.float32)


def attend(
    x: jax.Array, source: jax.Array, p: Tree, bias: jax.Array | None, constrain: Constrain
) -> jax.Array:
    """Return attention of ``x`` to ``source``."""
    q = constrain(jnp.einsum("bsd,dhe->bshe", x, p["q"]), "heads")
    k = constrain(jnp.einsum("bsd,dhe->bshe", source, p["k"]), "heads")
    v = constrain(jnp.einsum("bsd,dhe->bshe", source, p["v"]), "heads")
    out = constrain(attention(q, k, v, bias), "heads")
    return jnp.einsum("bshe,hed->bsd", out, p["out"])


def block(
    x: jax.Array, memory: jax.Array | None, p: Tree, bias: jax.Array, constrain: Constrain
) -> jax.Array:
    """Return the output of an encoder block, or with ``memory`` of a decoder block."""
    y = rms_norm(x, p["self"]["norm"])
    x = constrain(x + attend(y, y, p["self"], bias, constrain), "residual")
    if memory is not None:
        y = rms_norm(x, p["cross"]["norm"])
        x = constrain(x + attend(y, memory, p["cross"], None, constrain), "residual")
    hidden = jax.nn.relu(rms_norm(x, p["mlp"]["norm"]) @ p["mlp"]["up"])
    return constrain(x + constrain(hidden, "hidden") @ p["mlp"]["down"], "residual")


def forward(
    params: Tree, batch: Tree, config: Config, constrain: Constrain = identity
) -> jax.Array:
    """Return logits (batch, targets, vocabulary)."""
    encoder, decoder = params["encoder"], params["decoder"]
    bias = position_bias(encoder["relative"], config.sequence, config, both=True)
    x = constrain(params["embedding"][batch["encoder"]], "residual")
    for n in range(config.layers):
        x = block(x, None, encoder["layers"][str(n)], bias, constrain)
    memory = rms_norm(x, encoder["norm"])
    bias = position_bias(decoder["relative"], config.targets, config, both=False)
    bias = bias + causal_bias(config.targets)
    x = constrain(params["embedding"][batch["decoder"]], "residual")
    for n in range(config.layers):
        x = block(x, memory, decoder["layers"][str(n)], bias, constrain)
    x = rms_norm(x, decoder["norm"]) * config.width**-0.5
    return constrain(jnp.einsum("bsd,vd->bsv", x, params["embedding"]), "logits")


def loss(params: Tree, batch: Tree, config: Config, constrain: Constrain = identity) -> jax.Array:
    """Return the mean cross-entropy of the target."""
    return cross_entropy(forward(params, batch, config, constrain), batch["labels"]).mean()
