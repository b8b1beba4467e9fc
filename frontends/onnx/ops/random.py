"""Random operators: JAX's counter-based generator with a seed that is part of the program.

The numbers are those of the seed attribute, or of the node's name where there is none, and the
same in every run: a compiled program has no hidden state. They are not another runtime's numbers.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pai.frontends.onnx.node import Node
from pai.frontends.onnx.registry import op
from pai.frontends.onnx.tensors import numpy_dtype


def _key(node: Node) -> Any:
    seed = node.attr("seed")
    if seed is None:
        return jax.random.key(zlib.crc32(node.name.encode()))
    if isinstance(seed, int):
        return jax.random.key(seed % 2**32)
    return jax.random.key(struct.unpack("<I", struct.pack("<f", seed))[0])


def _dtype(node: Node, default: Any = np.float32) -> Any:
    code = node.attr("dtype")
    return np.dtype(default) if not code else numpy_dtype(code)


def _normal(node: Node, shape: tuple[int, ...], dtype: Any) -> Any:
    values = jax.random.normal(_key(node), shape, dtype)
    scale, mean = float(node.attr("scale", 1.0)), float(node.attr("mean", 0.0))
    return values * np.array(scale, dtype) + np.array(mean, dtype)


def _uniform(node: Node, shape: tuple[int, ...], dtype: Any) -> Any:
    low, high = float(node.attr("low", 0.0)), float(node.attr("high", 1.0))
    return jax.random.uniform(_key(node), shape, dtype, low, high)


@op("RandomNormal", folds=False)
def random_normal(node: Node) -> Any:
    """RandomNormal."""
    return _normal(node, tuple(node.attr("shape")), _dtype(node))


@op("RandomUniform", folds=False)
def random_uniform(node: Node) -> Any:
    """RandomUniform."""
    return _uniform(node, tuple(node.attr("shape")), _dtype(node))


@op("RandomNormalLike", folds=False)
def random_normal_like(node: Node, x: Any) -> Any:
    """RandomNormalLike."""
    return _normal(node, tuple(x.shape), _dtype(node, x.dtype))


@op("RandomUniformLike", folds=False)
def random_uniform_like(node: Node, x: Any) -> Any:
    """RandomUniformLike."""
    return _uniform(node, tuple(x.shape), _dtype(node, x.dtype))


@op("Bernoulli", 15, folds=False)
def bernoulli(node: Node, x: Any) -> Any:
    """Bernoulli."""
    return jax.random.bernoulli(_key(node), x, x.shape).astype(_dtype(node, x.dtype))


@op("Multinomial", 7, folds=False)
def multinomial(node: Node, x: Any) -> Any:
    """Multinomial: samples of unnormalized log-probabilities (batch, classes)."""
    count = int(node.attr("sample_size", 1))
    drawn = jax.random.categorical(
        _key(node), jnp.asarray(x)[:, None, :], axis=-1, shape=(x.shape[0], count)
    )
    return drawn.astype(_dtype(node, np.int32))


@op("Dropout", 7)
def dropout_inference(node: Node, x: Any) -> Any:
    """Dropout before opset 12: only inference."""
    return x, np.ones(x.shape, np.bool_ if node.version >= 10 else x.dtype)


@op("Dropout", 12, folds=False)
def dropout(node: Node, x: Any, ratio: Any = None, training: Any = None) -> Any:
    """Dropout; in training mode the kept elements follow from the seed."""
    active = training is not None and bool(node.concrete(training, "training mode"))
    rate = 0.5 if ratio is None else float(node.concrete(ratio, "ratio")) if active else 0.0
    if not active or rate == 0.0:
        return x, jnp.ones(x.shape, np.bool_)
    kept = jax.random.bernoulli(_key(node), 1.0 - rate, x.shape)
    scaled = x * np.array(1.0 / (1.0 - rate), x.dtype)
    return jnp.where(kept, scaled, np.zeros((), x.dtype)), kept
