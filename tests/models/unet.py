"""U-Net (Ronneberger et al., 2015) with group norm: a class for every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from .common import (
    Constrain,
    Tree,
    bias,
    cross_entropy,
    group_norm,
    identity,
    norm_weights,
)
from .resnet import conv, conv_weight


@dataclass(frozen=True)
class Config:
    """Sizes; the defaults are those of the paper's network on 512² images."""

    layers: int = 4
    width: int = 64
    groups: int = 8
    image: int = 512
    channels: int = 1
    classes: int = 2
    dtype: str = "float32"

    @staticmethod
    def small(dtype: str = "float32") -> Config:
        """Return sizes for tests: two levels, the lower one of 4² pixels."""
        return Config(2, 8, 2, 16, 3, 5, dtype)


INPUTS = {
    "images": ("batch", "height", "columns", None),
    "labels": ("batch", "height", "columns"),
}


def block_weights(inputs: int, outputs: int) -> Tree:
    """Return the weights of two convolutions; the channels between them are ``hidden``."""
    return {
        "first": conv_weight(3, inputs, outputs, ("width", "hidden")),
        "norm1": norm_weights(outputs),
        "second": conv_weight(3, outputs, outputs, ("hidden", "width")),
        "norm2": norm_weights(outputs),
    }


def weights(config: Config) -> Tree:
    """Return the parameters."""
    sizes = [config.width << n for n in range(config.layers + 1)]
    inputs = [config.channels, *sizes]
    up = {}
    for n in range(config.layers):
        up[str(n)] = {
            "up": conv_weight(2, sizes[n + 1], sizes[n], ("width", "width")),
            "block": block_weights(2 * sizes[n], sizes[n]),
        }
    return {
        "down": {str(n): block_weights(inputs[n], sizes[n]) for n in range(config.layers)},
        "middle": block_weights(sizes[-2], sizes[-1]),
        "up": up,
        "head": conv_weight(1, config.width, config.classes, ("width", "vocabulary")),
        "head_bias": bias(config.classes, axes=("vocabulary",)),
    }


def batch(config: Config, size: int, seed: int = 1) -> Tree:
    """Return random images and the class of each pixel."""
    rng = np.random.default_rng(seed)
    shape = (size, config.image, config.image)
    return {
        "images": rng.standard_normal((*shape, config.channels)).astype(np.float32),
        "labels": rng.integers(0, config.classes, shape).astype(np.int32),
    }


def block(x: jax.Array, p: Tree, config: Config, constrain: Constrain) -> jax.Array:
    """Return two convolutions, each with group norm and SiLU."""
    x = constrain(conv(x, p["first"]), "channels")
    x = jax.nn.silu(group_norm(x, p["norm1"], config.groups))
    x = constrain(conv(x, p["second"]), "image")
    return jax.nn.silu(group_norm(x, p["norm2"], config.groups))


def halve(x: jax.Array) -> jax.Array:
    """Return the maximum of each 2×2 window."""
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(x, -np.inf, jax.lax.max, window, window, "VALID")


def double(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Return the transposed convolution that doubles height and width."""
    return jax.lax.conv_transpose(
        x, weight, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def forward(
    params: Tree, batch: Tree, config: Config, constrain: Constrain = identity
) -> jax.Array:
    """Return logits (batch, height, width, classes)."""
    x = constrain(batch["images"].astype(params["head"].dtype), "image")
    skips = []
    for n in range(config.layers):
        x = block(x, params["down"][str(n)], config, constrain)
        skips.append(x)
        x = halve(x)
    x = block(x, params["middle"], config, constrain)
    for n in reversed(range(config.layers)):
        p = params["up"][str(n)]
        x = constrain(double(x, p["up"]), "image")
        x = jnp.concatenate([skips[n], x], axis=-1)
        x = block(x, p["block"], config, constrain)
    return constrain(conv(x, params["head"]) + params["head_bias"], "pixels")


def loss(params: Tree, batch: Tree, config: Config, constrain: Constrain = identity) -> jax.Array:
    """Return the mean cross-entropy over pixels."""
    return cross_entropy(forward(params, batch, config, constrain), batch["labels"]).mean()
