"""What the models share: parameters, norms, attention, losses, AdamW."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

Tree = dict[str, Any]
Axes = tuple[str | None, ...]
Constrain = Callable[[jax.Array, str], jax.Array]


@dataclass(frozen=True)
class Weight:
    """A parameter.

    Args:
        shape: its shape.
        axes: the logical name of each dimension, by which layouts split it; None is never split
            by a layout that goes by names.
        scale: standard deviation of its initial values.
        mean: mean of its initial values.
    """

    shape: tuple[int, ...]
    axes: Axes
    scale: float = 0.02
    mean: float = 0.0


def dense(shape: tuple[int, ...], axes: Axes, inputs: int) -> Weight:
    """Return a matrix, or several, that sums over ``inputs`` values."""
    return Weight(shape, axes, inputs**-0.5)


def gain(size: int) -> Weight:
    """Return the gain of a norm, near one."""
    return Weight((size,), ("width",), 0.1, 1.0)


def bias(*shape: int, axes: Axes = ("width",)) -> Weight:
    """Return a bias, near zero."""
    return Weight(shape, axes, 0.1)


def identity(value: jax.Array, name: str) -> jax.Array:
    """Put no sharding on an activation."""
    del name
    return value


def leaves(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, leaf) such as ``layers/0/attention/qkv``, in the order of JAX's flattening."""
    for key in sorted(tree):
        value = tree[key]
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def initialize(weights: Tree, dtype: str = "float32", seed: int = 0) -> Tree:
    """Return NumPy parameters, drawn from normal distributions."""
    rng = np.random.default_rng(seed)
    kind = numpy_dtype(dtype)

    def draw(weight: Weight) -> np.ndarray:
        values = weight.mean + weight.scale * rng.standard_normal(weight.shape)
        return values.astype(kind)

    return jax.tree.map(draw, weights)


def abstract(weights: Tree, dtype: str = "float32") -> Tree:
    """Return shapes and types instead of values, for lowering real sizes."""
    kind = numpy_dtype(dtype)
    return jax.tree.map(lambda weight: jax.ShapeDtypeStruct(weight.shape, kind), weights)


def numpy_dtype(name: str) -> np.dtype:
    """Return the dtype of this name, bfloat16 included."""
    return np.dtype(getattr(ml_dtypes, name, name))


def layer_norm(x: jax.Array, p: Tree, epsilon: float = 1e-5) -> jax.Array:
    """Return ``x`` with mean 0 and variance 1 along the last dimension, scaled and shifted."""
    wide = x.astype(jnp.float32)
    mean = wide.mean(-1, keepdims=True)
    variance = jnp.square(wide - mean).mean(-1, keepdims=True)
    out = (wide - mean) * jax.lax.rsqrt(variance + epsilon)
    return out.astype(x.dtype) * p["gain"] + p["bias"]


def rms_norm(x: jax.Array, p: Tree, epsilon: float = 1e-5) -> jax.Array:
    """Return ``x`` divided by its root mean square along the last dimension, scaled."""
    wide = x.astype(jnp.float32)
    square = jnp.square(wide).mean(-1, keepdims=True)
    return (wide * jax.lax.rsqrt(square + epsilon)).astype(x.dtype) * p["gain"]


def group_norm(x: jax.Array, p: Tree, groups: int, epsilon: float = 1e-5) -> jax.Array:
    """Return NHWC images normalized over space and the channels of each group."""
    n, h, w, c = x.shape
    split = x.reshape(n, h, w, groups, c // groups).astype(jnp.float32)
    mean = split.mean((1, 2, 4), keepdims=True)
    variance = jnp.square(split - mean).mean((1, 2, 4), keepdims=True)
    out = (split - mean) * jax.lax.rsqrt(variance + epsilon)
    return out.reshape(x.shape).astype(x.dtype) * p["gain"] + p["bias"]


def norm_weights(width: int) -> Tree:
    """Return the weights of `layer_norm` and `group_norm`."""
    return {"gain": gain(width), "bias": bias(width)}


def attention(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array | None) -> jax.Array:
    """Return softmax(q kᵀ / √d + bias) v.

    Args:
        q: (batch, queries, heads, d).
        k: (batch, keys, heads, d).
        v: (batch, keys, heads, d).
        bias: added to the scores, broadcast to (batch, heads, queries, keys).
    """
    scores = jnp.einsum("bshd,bthd->bhst", q, k, preferred_element_type=jnp.float32)
    scores = scores * q.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bhst,bthd->bshd", weights, v)


def causal_bias(length: int) -> jax.Array:
    """Return 0 where a query may look and a large negative number where it may not."""
    return jnp.where(jnp.tril(jnp.ones((length, length), bool)), 0.0, -1e9)


def self_attention_weights(width: int, heads: int) -> Tree:
    """Return the weights of `self_attention`."""
    head = width // heads
    return {
        "qkv": dense((width, 3, heads, head), ("width", None, "heads", None), width),
        "qkv_bias": bias(3, heads, head, axes=(None, "heads", None)),
        "out": dense((heads, head, width), ("heads", None, "width"), width),
        "out_bias": bias(width),
    }


def self_attention(
    x: jax.Array, p: Tree, bias: jax.Array | None, constrain: Constrain
) -> jax.Array:
    """Return multi-head attention of (batch, sequence, width) to itself."""
    qkv = jnp.einsum("bsd,dthe->tbshe", x, p["qkv"]) + p["qkv_bias"][:, None, None]
    q, k, v = (constrain(part, "heads") for part in qkv)
    out = constrain(attention(q, k, v, bias), "heads")
    return jnp.einsum("bshe,hed->bsd", out, p["out"]) + p["out_bias"]


def mlp_weights(width: int, hidden: int) -> Tree:
    """Return the weights of `mlp`."""
    return {
        "up": dense((width, hidden), ("width", "hidden"), width),
        "up_bias": bias(hidden, axes=("hidden",)),
        "down": dense((hidden, width), ("hidden", "width"), hidden),
        "down_bias": bias(width),
    }


def mlp(x: jax.Array, p: Tree, constrain: Constrain) -> jax.Array:
    """Return the two-layer perceptron with GELU of a transformer block."""
    hidden = constrain(jax.nn.gelu(x @ p["up"] + p["up_bias"]), "hidden")
    return hidden @ p["down"] + p["down_bias"]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return -log p(label) of each row of ``logits``, in f32."""
    wide = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(wide, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(wide, axis=-1) - chosen


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    decay: float = 0.1

    def update(
        self, params: Tree, grads: Tree, m: Tree, v: Tree, count: jax.Array
    ) -> tuple[Tree, Tree, Tree, jax.Array]:
        """Return the next parameters, moments (f32) and step count."""
        count = count + 1
        step = count.astype(jnp.float32)
        m = jax.tree.map(lambda a, g: self.beta1 * a + (1 - self.beta1) * g, m, _wide(grads))
        v = jax.tree.map(lambda a, g: self.beta2 * a + (1 - self.beta2) * g * g, v, _wide(grads))
        correct1 = 1 - self.beta1**step
        correct2 = 1 - self.beta2**step

        def move(p: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
            wide = p.astype(jnp.float32)
            change = (a / correct1) / (jnp.sqrt(b / correct2) + self.epsilon)
            return (wide - self.rate * (change + self.decay * wide)).astype(p.dtype)

        return jax.tree.map(move, params, m, v), m, v, count


def _wide(tree: Tree) -> Tree:
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)
