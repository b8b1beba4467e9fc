"""A language model of stacked LSTMs (Hochreiter and Schmidhuber, 1997), scanned over time."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from . import gpt2
from .common import Constrain, Tree, Weight, bias, cross_entropy, dense, identity


@dataclass(frozen=True)
class Config:
    """Sizes; the defaults are those of the large model of Zaremba et al. (2014)."""

    layers: int = 2
    width: int = 1500
    hidden: int = 1500
    vocabulary: int = 10000
    sequence: int = 35
    dtype: str = "float32"

    @staticmethod
    def small(dtype: str = "float32") -> Config:
        """Return sizes for tests."""
        return Config(2, 16, 16, 37, 6, dtype)


INPUTS = gpt2.INPUTS


def weights(config: Config) -> Tree:
    """Return the parameters; the four gates are i, f, g, o."""
    width, hidden = config.width, config.hidden
    layers = {}
    for n in range(config.layers):
        inputs = hidden if n else width
        layers[str(n)] = {
            "input": dense((inputs, 4, hidden), ("width", None, "hidden"), inputs),
            "recurrent": dense((hidden, 4, hidden), ("width", None, "hidden"), hidden),
            "bias": bias(4, hidden, axes=(None, "hidden")),
        }
    return {
        "embedding": Weight((config.vocabulary, width), ("vocabulary", "width"), 0.5),
        "layers": layers,
        "head": dense((hidden, config.vocabulary), ("width", "vocabulary"), hidden),
        "head_bias": bias(config.vocabulary, axes=("vocabulary",)),
    }


batch = gpt2.batch


def lstm(x: jax.Array, p: Tree, constrain: Constrain) -> jax.Array:
    """Return the outputs (batch, sequence, hidden) of one layer."""
    gates = jnp.einsum("bsd,dgh->sbgh", x, p["input"]) + p["bias"]

    def step(
        carry: tuple[jax.Array, jax.Array], inputs: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        state, cell = carry
        i, f, g, o = jnp.moveaxis(inputs + jnp.einsum("bh,hgk->bgk", state, p["recurrent"]), 1, 0)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        state = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (state, cell), state

    zero = jnp.zeros((x.shape[0], p["bias"].shape[-1]), x.dtype)
    _, out = jax.lax.scan(step, (zero, zero), gates)
    return constrain(jnp.swapaxes(out, 0, 1), "gates")


def forward(
    params: Tree, batch: Tree, config: Config, constrain: Constrain = identity
) -> jax.Array:
    """Return logits (batch, sequence, vocabulary)."""
    x = constrain(params["embedding"][batch["tokens"]], "residual")
    for n in range(config.layers):
        x = lstm(x, params["layers"][str(n)], constrain)
    return constrain(x @ params["head"] + params["head_bias"], "logits")


def loss(params: Tree, batch: Tree, config: Config, constrain: Constrain = identity) -> jax.Array:
    """Return the mean cross-entropy of the next token."""
    return cross_entropy(forward(params, batch, config, constrain), batch["labels"]).mean()
