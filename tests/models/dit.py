"""A diffusion transformer (Peebles and Xie, 2022): patches, timesteps, classes, adaLN-Zero."""

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
    dense,
    identity,
    mlp,
    mlp_weights,
    self_attention,
    self_attention_weights,
)


@dataclass(frozen=True)
class Config:
    """Sizes; the defaults are those of DiT-B/4 on 32² latents."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    hidden: int = 3072
    image: int = 32
    patch: int = 4
    channels: int = 4
    frequencies: int = 256
    classes: int = 1000
    steps: int = 1000
    dtype: str = "float32"

    @property
    def side(self) -> int:
        """Patches along an edge."""
        return self.image // self.patch

    @staticmethod
    def small(dtype: str = "float32") -> Config:
        """Return sizes for tests."""
        return Config(2, 16, 4, 32, 8, 2, 4, 8, 10, 1000, dtype)


INPUTS = {
    "classes": ("batch",),
    "images": ("batch", "height", "columns", None),
    "noise": ("batch", "height", "columns", None),
    "times": ("batch",),
}


def weights(config: Config) -> Tree:
    """Return the parameters."""
    width = config.width
    pixels = config.patch**2 * config.channels
    modulation = {
        "weight": dense((width, 6, width), ("width", None, "width"), width),
        "bias": bias(6, width, axes=(None, "width")),
    }
    block = {
        "modulation": modulation,
        "attention": self_attention_weights(width, config.heads),
        "mlp": mlp_weights(width, config.hidden),
    }
    last = {
        "modulation": dense((width, 2, width), ("width", None, "width"), width),
        "weight": dense((width, pixels), ("width", None), width),
        "bias": bias(pixels, axes=(None,)),
    }
    return {
        "patches": dense((pixels, width), (None, "width"), pixels),
        "patches_bias": bias(width),
        "time": {
            "up": dense((config.frequencies, width), (None, "hidden"), config.frequencies),
            "down": dense((width, width), ("hidden", "width"), width),
        },
        "classes": Weight((config.classes, width), ("vocabulary", "width"), 0.3),
        "layers": {str(n): block for n in range(config.layers)},
        "last": last,
    }


def batch(config: Config, size: int, seed: int = 1) -> Tree:
    """Return random images, the noise to add, and the step and class of each."""
    rng = np.random.default_rng(seed)
    shape = (size, config.image, config.image, config.channels)
    return {
        "images": rng.standard_normal(shape).astype(np.float32),
        "noise": rng.standard_normal(shape).astype(np.float32),
        "times": rng.integers(0, config.steps, size).astype(np.int32),
        "classes": rng.integers(0, config.classes, size).astype(np.int32),
    }


def sinusoids(values: jax.Array, count: int) -> jax.Array:
    """Return sines and cosines of ``values`` at ``count`` / 2 frequencies each."""
    half = count // 2
    rates = jnp.exp(-np.log(10000.0) / half * jnp.arange(half, dtype=jnp.float32))
    angles = values.astype(jnp.float32)[:, None] * rates
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def fixed_positions(side: int, width: int) -> np.ndarray:
    """Return the sinusoids of row and column of each patch (side², width)."""
    rates = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    rows, columns = np.divmod(np.arange(side * side), side)
    angles = [place[:, None] * rates for place in (rows, columns)]
    parts = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def patchify(x: jax.Array, config: Config) -> jax.Array:
    """Return (batch, patches, pixels of a patch)."""
    side, patch = config.side, config.patch
    x = x.reshape(x.shape[0], side, patch, side, patch, config.channels)
    return jnp.transpose(x, (0, 1, 3, 2, 4, 5)).reshape(x.shape[0], side * side, -1)


def unpatchify(x: jax.Array, config: Config) -> jax.Array:
    """Return the images of patches."""
    side, patch = config.side, config.patch
    x = x.reshape(x.shape[0], side, side, patch, patch, config.channels)
    x = jnp.transpose(x, (0, 1, 3, 2, 4, 5))
    return x.reshape(x.shape[0], config.image, config.image, config.channels)


def plain_norm(x: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
    """Return layer norm without weights, then scaled and shifted for each image."""
    wide = x.astype(jnp.float32)
    mean = wide.mean(-1, keepdims=True)
    variance = jnp.square(wide - mean).mean(-1, keepdims=True)
    out = ((wide - mean) * jax.lax.rsqrt(variance + 1e-6)).astype(x.dtype)
    return out * (1 + scale[:, None]) + shift[:, None]


def predict(
    params: Tree, noisy: jax.Array, batch: Tree, config: Config, constrain: Constrain
) -> jax.Array:
    """Return the predicted noise of images at their steps."""
    dtype = params["patches"].dtype
    x = patchify(noisy.astype(dtype), config) @ params["patches"] + params["patches_bias"]
    x = constrain(x + fixed_positions(config.side, config.width).astype(dtype), "residual")
    time = sinusoids(batch["times"], config.frequencies).astype(dtype)
    time = jax.nn.silu(time @ params["time"]["up"]) @ params["time"]["down"]
    condition = jax.nn.silu(constrain(time + params["classes"][batch["classes"]], "vector"))
    for n in range(config.layers):
        p = params["layers"][str(n)]
        change = jnp.einsum("bd,dke->kbe", condition, p["modulation"]["weight"])
        shift1, scale1, gate1, shift2, scale2, gate2 = change + p["modulation"]["bias"][:, None]
        y = self_attention(plain_norm(x, shift1, scale1), p["attention"], None, constrain)
        x = constrain(x + gate1[:, None] * y, "residual")
        y = mlp(plain_norm(x, shift2, scale2), p["mlp"], constrain)
        x = constrain(x + gate2[:, None] * y, "residual")
    last = params["last"]
    shift, scale = jnp.einsum("bd,dke->kbe", condition, last["modulation"])
    return unpatchify(plain_norm(x, shift, scale) @ last["weight"] + last["bias"], config)


def forward(
    params: Tree, batch: Tree, config: Config, constrain: Constrain = identity
) -> jax.Array:
    """Return the noise predicted for the images of the batch, taken as noisy."""
    return predict(params, constrain(batch["images"], "image"), batch, config, constrain)


def loss(params: Tree, batch: Tree, config: Config, constrain: Constrain = identity) -> jax.Array:
    """Return the mean squared error of the noise on a cosine schedule."""
    angle = batch["times"].astype(jnp.float32) / config.steps * (np.pi / 2)
    keep, add = (wave(angle)[:, None, None, None] for wave in (jnp.cos, jnp.sin))
    noisy = constrain(keep * batch["images"] + add * batch["noise"], "image")
    found = predict(params, noisy, batch, config, constrain).astype(jnp.float32)
    return jnp.square(found - batch["noise"]).mean()
