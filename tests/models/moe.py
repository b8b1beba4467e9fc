"""A mixture-of-experts transformer as GShard's (Lepikhin et al., 2020).

Tokens go to their top-k experts in groups, one per sequence; an expert takes ``capacity`` tokens
of a group and drops the others. Dispatch and combine are einsums with one-hot tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from . import gpt2
from .common import (
    Constrain,
    Tree,
    Weight,
    causal_bias,
    cross_entropy,
    dense,
    identity,
    layer_norm,
    norm_weights,
    self_attention,
    self_attention_weights,
)


@dataclass(frozen=True)
class Config:
    """Sizes; the defaults are those of a base model with 8 experts in every layer."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    hidden: int = 3072
    experts: int = 8
    chosen: int = 2
    capacity_factor: float = 1.25
    vocabulary: int = 32128
    sequence: int = 512
    balance: float = 0.01
    dtype: str = "float32"

    @property
    def capacity(self) -> int:
        """Tokens of a group that an expert takes."""
        return int(np.ceil(self.sequence * self.chosen * self.capacity_factor / self.experts))

    @staticmethod
    def small(dtype: str = "float32") -> Config:
        """Return sizes for tests; some tokens are dropped."""
        return Config(2, 16, 4, 32, 4, 2, 1.0, 40, 8, 0.01, dtype)


INPUTS = gpt2.INPUTS
batch = gpt2.batch


def weights(config: Config) -> Tree:
    """Return the parameters."""
    width, hidden, experts = config.width, config.hidden, config.experts
    up, down = (experts, width, hidden), (experts, hidden, width)
    block = {
        "norm1": norm_weights(width),
        "attention": self_attention_weights(width, config.heads),
        "norm2": norm_weights(width),
        "router": dense((width, experts), ("width", None), width),
        "experts": {
            "up": dense(up, ("experts", "width", "hidden"), width),
            "down": dense(down, ("experts", "hidden", "width"), hidden),
        },
    }
    return {
        "embedding": Weight((config.vocabulary, width), ("vocabulary", "width"), 0.3),
        "positions": Weight((config.sequence, width), ("sequence", "width"), 0.1),
        "layers": {str(n): block for n in range(config.layers)},
        "norm": norm_weights(width),
    }


def route(x: jax.Array, router: jax.Array, config: Config) -> tuple[jax.Array, jax.Array]:
    """Return the combine tensor (batch, sequence, experts, capacity) and the balance loss.

    A token's first choices are placed before all second choices of its group.
    """
    logits = jnp.einsum("bsd,de->bse", x, router, preferred_element_type=jnp.float32)
    probabilities = jax.nn.softmax(logits, axis=-1)
    gates, choice = jax.lax.top_k(probabilities, config.chosen)
    gates = gates / gates.sum(-1, keepdims=True)
    picked = jax.nn.one_hot(choice, config.experts)  # batch, sequence, chosen, experts
    by_rank = jnp.swapaxes(picked, 1, 2).reshape(x.shape[0], -1, config.experts)
    place = jnp.cumsum(by_rank, axis=1) * by_rank - 1
    place = place.reshape(x.shape[0], config.chosen, -1, config.experts)
    slot = jax.nn.one_hot(place.astype(jnp.int32), config.capacity)
    combine = jnp.einsum("bsk,bksec->bsec", gates, slot)
    share = picked[:, :, 0].mean((0, 1))
    balance = config.experts * jnp.sum(share * probabilities.mean((0, 1)))
    return combine.astype(x.dtype), balance


def expert_layer(
    x: jax.Array, p: Tree, config: Config, constrain: Constrain
) -> tuple[jax.Array, jax.Array]:
    """Return the experts' outputs, weighed by the gates, and the balance loss."""
    combine, balance = route(x, p["router"], config)
    dispatch = (combine > 0).astype(x.dtype)
    inside = constrain(jnp.einsum("bsec,bsd->ebcd", dispatch, x), "dispatched")
    inside = constrain(inside, "experts")
    hidden = jax.nn.gelu(jnp.einsum("ebcd,edf->ebcf", inside, p["experts"]["up"]))
    hidden = constrain(hidden, "expert_hidden")
    outside = jnp.einsum("ebcf,efd->ebcd", hidden, p["experts"]["down"])
    outside = constrain(constrain(outside, "experts"), "dispatched")
    return jnp.einsum("bsec,ebcd->bsd", combine, outside), balance


def _run(
    params: Tree, batch: Tree, config: Config, constrain: Constrain
) -> tuple[jax.Array, jax.Array]:
    x = constrain(params["embedding"][batch["tokens"]] + params["positions"], "residual")
    mask = causal_bias(config.sequence)
    total = jnp.float32(0)
    for n in range(config.layers):
        p = params["layers"][str(n)]
        x = x + self_attention(layer_norm(x, p["norm1"]), p["attention"], mask, constrain)
        x = constrain(x, "residual")
        out, balance = expert_layer(layer_norm(x, p["norm2"]), p, config, constrain)
        x = constrain(x + out, "residual")
        total = total + balance
    logits = jnp.einsum("bsd,vd->bsv", layer_norm(x, params["norm"]), params["embedding"])
    return constrain(logits, "logits"), total / config.layers


def forward(
    params: Tree, batch: Tree, config: Config, constrain: Constrain = identity
) -> jax.Array:
    """Return logits (batch, sequence, vocabulary)."""
    return _run(params, batch, config, constrain)[0]


def loss(params: Tree, batch: Tree, config: Config, constrain: Constrain = identity) -> jax.Array:
    """Return the mean cross-entropy of the next token and the weighed balance loss."""
    logits, balance = _run(params, batch, config, constrain)
    return cross_entropy(logits, batch["labels"]).mean() + config.balance * balance
