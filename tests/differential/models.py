"""Small models in plain JAX, each with the layouts people give it.

A model is (loss function, parameters by name, inputs); a layout is a spec per name. Axis x is
for data, axis y for the model; where a mesh has one axis, y is x.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

VOCABULARY, WIDTH, HEADS, HIDDEN = 13, 8, 4, 12


def _normal(seed, *shape, scale=0.4):
    values = np.random.default_rng(seed).standard_normal(shape) * scale
    return values.astype(np.float32)


def _norm(x, g, b):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5) * g + b


def transformer_parameters():
    shapes = {
        "embedding": (VOCABULARY, WIDTH),
        "g1": (WIDTH,),
        "b1": (WIDTH,),
        "qkv": (WIDTH, 3, HEADS, WIDTH // HEADS),
        "out": (HEADS, WIDTH // HEADS, WIDTH),
        "g2": (WIDTH,),
        "b2": (WIDTH,),
        "up": (WIDTH, HIDDEN),
        "up_bias": (HIDDEN,),
        "down": (HIDDEN, WIDTH),
    }
    return {name: _normal(n, *shape) for n, (name, shape) in enumerate(shapes.items())}


def transformer(p, tokens):
    x = p["embedding"][tokens]
    y = _norm(x, 1 + p["g1"], p["b1"])
    q, k, v = jnp.moveaxis(jnp.einsum("bsd,dthe->bsthe", y, p["qkv"]), 2, 0)
    scores = jnp.einsum("bshe,bthe->bhst", q, k) / np.float32(np.sqrt(WIDTH // HEADS))
    length = tokens.shape[1]
    causal = jnp.tril(jnp.ones((length, length), bool))
    weights = jax.nn.softmax(jnp.where(causal, scores, -1e9), -1)
    x = x + jnp.einsum("bhst,bthe,hed->bsd", weights, v, p["out"])
    y = _norm(x, 1 + p["g2"], p["b2"])
    x = x + jax.nn.gelu(y @ p["up"] + p["up_bias"], approximate=False) @ p["down"]
    return x @ p["embedding"].T


def transformer_loss(p, tokens, labels):
    logits = jax.nn.log_softmax(transformer(p, tokens))
    return -jnp.take_along_axis(logits, labels[..., None], 2).mean()


def transformer_inputs(batch):
    pick = np.random.default_rng(9)
    return [pick.integers(0, VOCABULARY, (batch, 5)).astype(np.int32) for _ in range(2)]


MEGATRON = {
    "embedding": ["y", None],
    "qkv": [None, None, "y", None],
    "out": ["y", None, None],
    "up": [None, "y"],
    "up_bias": ["y"],
    "down": ["y", None],
}
FSDP = {
    "embedding": ["x", None],
    "qkv": ["x", None, None, None],
    "out": [None, None, "x"],
    "up": ["x", None],
    "down": [None, "x"],
}
DATA = {}


def convolutional_parameters():
    return {
        "stem": _normal(0, 3, 3, 3, 8),
        "scale": _normal(1, 8),
        "shift": _normal(2, 8),
        "mean": _normal(3, 8),
        "variance": np.abs(_normal(4, 8)) + 0.5,
        "depthwise": _normal(5, 3, 3, 1, 8),
        "head": _normal(6, 8, 5),
    }


def convolutional(p, x):
    def conv(a, w, groups=1):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            a, w, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=groups
        )

    x = conv(x, p["stem"])
    x = (x - p["mean"]) * lax.rsqrt(p["variance"] + 1e-5) * p["scale"] + p["shift"]
    x = conv(jax.nn.relu(x), p["depthwise"], 8)
    window = (1, 2, 2, 1)
    x = lax.reduce_window(x, -np.inf, lax.max, window, window, "VALID")
    return x.mean((1, 2)) @ p["head"]


def convolutional_loss(p, x, labels):
    logits = jax.nn.log_softmax(convolutional(p, x))
    return -jnp.take_along_axis(logits, labels[:, None], 1).mean()


def convolutional_inputs(batch):
    labels = np.random.default_rng(3).integers(0, 5, batch).astype(np.int32)
    return [_normal(8, batch, 6, 6, 3), labels]


CHANNELS = {
    "stem": [None, None, None, "y"],
    "scale": ["y"],
    "depthwise": [None, None, None, "y"],
    "head": ["y", None],
}


def recurrent_parameters():
    return {"w": _normal(0, 6, 32), "u": _normal(1, 8, 32), "b": _normal(2, 32)}


def recurrent(p, xs):
    def step(carry, x):
        h, c = carry
        i, f, g, o = jnp.split(x @ p["w"] + h @ p["u"] + p["b"], 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zero = jnp.zeros((xs.shape[1], 8), jnp.float32)
    return lax.scan(step, (zero, zero), xs)[1]


def recurrent_loss(p, xs, target):
    return jnp.mean((recurrent(p, xs) - target) ** 2)


def recurrent_inputs(batch):
    return [_normal(5, 4, batch, 6), _normal(6, 4, batch, 8)]


GATES = {"w": [None, "y"], "u": [None, "y"], "b": ["y"]}
ROWS = {"w": ["y", None], "u": ["y", None]}


def train_step(loss):
    """Return a step of Adam as (parameters, first, second moments, inputs...)."""

    def step(p, m, v, *inputs):
        value, g = jax.value_and_grad(loss)(p, *inputs)
        m = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, g)
        v = jax.tree.map(lambda a, b: 0.99 * a + 0.01 * b * b, v, g)
        p = jax.tree.map(lambda a, b, c: a - 0.1 * b / (jnp.sqrt(c) + 1e-3), p, m, v)
        return value, p, m, v

    return step
