"""Vision transformer (Dosovitskiy et al., 2020): patches, a class token, an encoder."""

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
    """Sizes; the defaults are those of ViT-B/16."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    hidden: int = 3072
    image: int = 224
    patch: int = 16
    classes: int = 1000
    dtype: str = "float32"

    @property
    def patches(self) -> int:
        """Patches in an image."""
        return (self.image // self.patch) ** 2

    @staticmethod
    def small(dtype: str = "float32") -> Config:
        """Return sizes for tests: 16 patches and the class token make an odd sequence."""
        return Config(2, 16, 4, 32, 16, 4, 10, dtype)


INPUTS = {"images": ("batch", "height", "columns", None), "labels": ("batch",)}


def weights(config: Config) -> Tree:
    """Return the parameters."""
    width, patch = config.width, config.patch
    block = {
        "norm1": norm_weights(width),
        "attention": self_attention_weights(width, config.heads),
        "norm2": norm_weights(width),
        "mlp": mlp_weights(width, config.hidden),
    }
    return {
        "patches": dense((patch, patch, 3, width), (None, None, None, "width"), 3 * patch**2),
        "patches_bias": bias(width),
        "class": bias(1, width, axes=(None, "width")),
        "positions": Weight((config.patches + 1, width), ("sequence", "width"), 0.1),
        "layers": {str(n): block for n in range(config.layers)},
        "norm": norm_weights(width),
        "head": dense((width, config.classes), ("width", "vocabulary"), width),
        "head_bias": bias(config.classes, axes=("vocabulary",)),
    }


def batch(config: Config, size: int, seed: int = 1) -> Tree:
    """Return random images (batch, height, width, 3) and their classes."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((size, config.image, config.image, 3))
    return {
        "images": images.astype(np.float32),
        "labels": rng.integers(0, config.classes, size).astype(np.int32),
    }


def forward(
    params: Tree, batch: Tree, config: Config, constrain: Constrain = identity
) -> jax.Array:
    """Return logits (batch, classes)."""
    images = batch["images"].astype(params["patches"].dtype)
    stride = (config.patch, config.patch)
    numbers = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(
        images, params["patches"], stride, "VALID", dimension_numbers=numbers
    )
    x = x.reshape(x.shape[0], config.patches, config.width) + params["patches_bias"]
    first = jnp.broadcast_to(params["class"], (x.shape[0], 1, config.width))
    x = constrain(jnp.concatenate([first, x], axis=1) + params["positions"], "residual")
    for n in range(config.layers):
        p = params["layers"][str(n)]
        x = x + self_attention(layer_norm(x, p["norm1"]), p["attention"], None, constrain)
        x = constrain(x, "residual")
        x = x + mlp(layer_norm(x, p["norm2"]), p["mlp"], constrain)
        x = constrain(x, "residual")
    out = layer_norm(x[:, 0], params["norm"]) @ params["head"] + params["head_bias"]
    return constrain(out, "classes")


def loss(params: Tree, batch: Tree, config: Config, constrain: Constrain = identity) -> jax.Array:
    """Return the mean cross-entropy of the class."""
    return cross_entropy(forward(params, batch, config, constrain), batch["labels"]).mean()
