"""ResNet (He et al., 2015) with batch norm in training: running statistics are its state."""

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
    leaves,
)

MOMENTUM = 0.9


@dataclass(frozen=True)
class Config:
    """Sizes; the defaults are those of ResNet-50: bottleneck blocks in four stages."""

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    expansion: int = 4
    image: int = 224
    classes: int = 1000
    dtype: str = "float32"

    @staticmethod
    def small(dtype: str = "float32") -> Config:
        """Return sizes for tests: two stages of one block."""
        return Config((1, 1), 8, 2, 16, 10, dtype)


INPUTS = {"images": ("batch", "height", "columns", None), "labels": ("batch",)}


def conv_weight(kernel: int, inputs: int, outputs: int, axes: tuple[str, str]) -> Weight:
    """Return the weight of a convolution; ``axes`` names its input and output channels."""
    return dense((kernel, kernel, inputs, outputs), (None, None, *axes), kernel**2 * inputs)


def norm_weight(size: int, axis: str) -> Tree:
    """Return gain and bias of a batch norm over channels named ``axis``."""
    return {"gain": Weight((size,), (axis,), 0.1, 1.0), "bias": bias(size, axes=(axis,))}


def _plan(config: Config) -> list[tuple[str, int, int, int, int]]:
    """Return (name, input, inner and output channels, stride) of each block."""
    out, inputs = [], config.width
    for stage, count in enumerate(config.blocks):
        inner = config.width << stage
        for n in range(count):
            stride = 2 if stage and not n else 1
            out.append((f"{stage}-{n}", inputs, inner, inner * config.expansion, stride))
            inputs = inner * config.expansion
    return out


def weights(config: Config) -> Tree:
    """Return the parameters; the inner channels of a block are ``hidden``."""
    blocks = {}
    for name, inputs, inner, outputs, stride in _plan(config):
        blocks[name] = {
            "reduce": conv_weight(1, inputs, inner, ("width", "hidden")),
            "norm1": norm_weight(inner, "hidden"),
            "middle": conv_weight(3, inner, inner, ("hidden", "width")),
            "norm2": norm_weight(inner, "width"),
            "expand": conv_weight(1, inner, outputs, ("width", "width")),
            "norm3": norm_weight(outputs, "width"),
        }
        if inputs != outputs or stride > 1:
            blocks[name]["project"] = conv_weight(1, inputs, outputs, ("width", "width"))
            blocks[name]["project_norm"] = norm_weight(outputs, "width")
    return {
        "stem": conv_weight(7, 3, config.width, ("width", "width")),
        "stem_norm": norm_weight(config.width, "width"),
        "blocks": blocks,
        "head": dense((outputs, config.classes), ("width", "vocabulary"), outputs),
        "head_bias": bias(config.classes, axes=("vocabulary",)),
    }


def statistics(config: Config) -> Tree:
    """Return running mean and variance of each batch norm, as weights."""
    out: Tree = {}
    for path, weight in leaves(weights(config)):
        if path.endswith("gain"):
            shape, axes = weight.shape, weight.axes
            moments = {"mean": Weight(shape, axes, 0.1), "variance": Weight(shape, axes, 0.05, 1.0)}
            out[path.removesuffix("/gain").replace("/", "-")] = moments
    return out


def batch(config: Config, size: int, seed: int = 1) -> Tree:
    """Return random images (batch, height, width, 3) and their classes."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((size, config.image, config.image, 3))
    return {
        "images": images.astype(np.float32),
        "labels": rng.integers(0, config.classes, size).astype(np.int32),
    }


def conv(x: jax.Array, weight: jax.Array, stride: int = 1) -> jax.Array:
    """Return the convolution of NHWC images, padded so that stride 1 keeps their size."""
    edge = weight.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x,
        weight,
        (stride, stride),
        [(edge, edge)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


class BatchNorm:
    """Normalizes over batch and space, and gathers new running statistics.

    Args:
        running: the statistics so far.
        train: normalize by the batch's own statistics, else by the running ones.
    """

    def __init__(self, running: Tree, *, train: bool) -> None:
        self.running = running
        self.train = train
        self.new: Tree = {}

    def __call__(self, x: jax.Array, p: Tree, name: str) -> jax.Array:
        """Return ``x`` normalized by the statistics called ``name``."""
        old = self.running[name]
        wide = x.astype(jnp.float32)
        mean, variance = old["mean"], old["variance"]
        if self.train:
            mean = wide.mean((0, 1, 2))
            variance = jnp.square(wide - mean).mean((0, 1, 2))
            self.new[name] = {
                "mean": MOMENTUM * old["mean"] + (1 - MOMENTUM) * mean,
                "variance": MOMENTUM * old["variance"] + (1 - MOMENTUM) * variance,
            }
        out = (wide - mean) * jax.lax.rsqrt(variance + 1e-5)
        return out.astype(x.dtype) * p["gain"] + p["bias"]


def bottleneck(
    x: jax.Array, p: Tree, norm: BatchNorm, name: str, stride: int, constrain: Constrain
) -> jax.Array:
    """Return the output of a block."""

    def normed(value: jax.Array, which: str) -> jax.Array:
        return norm(value, p[which], f"blocks-{name}-{which}")

    y = jax.nn.relu(normed(constrain(conv(x, p["reduce"]), "channels"), "norm1"))
    y = jax.nn.relu(normed(constrain(conv(y, p["middle"], stride), "image"), "norm2"))
    y = normed(conv(y, p["expand"]), "norm3")
    if "project" in p:
        x = normed(conv(x, p["project"], stride), "project_norm")
    return constrain(jax.nn.relu(x + y), "image")


def _run(
    params: Tree, batch: Tree, config: Config, constrain: Constrain, norm: BatchNorm
) -> jax.Array:
    x = batch["images"].astype(params["stem"].dtype)
    x = constrain(conv(x, params["stem"], 2), "image")
    x = jax.nn.relu(norm(x, params["stem_norm"], "stem_norm"))
    window = (1, 3, 3, 1)
    edges = ((0, 0), (1, 1), (1, 1), (0, 0))
    x = jax.lax.reduce_window(x, -np.inf, jax.lax.max, window, (1, 2, 2, 1), edges)
    for name, _, _, _, stride in _plan(config):
        x = bottleneck(x, params["blocks"][name], norm, name, stride, constrain)
    out = x.mean((1, 2)) @ params["head"] + params["head_bias"]
    return constrain(out, "classes")


def forward(
    params: Tree,
    batch: Tree,
    config: Config,
    constrain: Constrain,
    statistics: Tree,
) -> jax.Array:
    """Return logits (batch, classes), normalized by the running statistics."""
    return _run(params, batch, config, constrain, BatchNorm(statistics, train=False))


def loss(
    params: Tree, batch: Tree, config: Config, constrain: Constrain, statistics: Tree
) -> tuple[jax.Array, Tree]:
    """Return the mean cross-entropy of the class and the new running statistics."""
    norm = BatchNorm(statistics, train=True)
    logits = _run(params, batch, config, constrain, norm)
    return cross_entropy(logits, batch["labels"]).mean(), norm.new
