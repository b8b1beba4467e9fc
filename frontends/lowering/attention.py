"""Attention, rotary embedding and linear attention.

Tensors are (batch, heads, sequence, head size). Query heads share key/value heads in runs: query
head ``h`` uses key head ``h // (query heads // key heads)``; nothing is repeated in memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from pai.frontends.lowering.convolution import accumulator


class Scores(NamedTuple):
    """What attention computes on the way, each (batch, heads, queries, keys), accumulator type."""

    raw: Any
    capped: Any
    biased: Any
    probabilities: Any


def split_heads(x: Any, heads: int) -> Any:
    """Turn (batch, sequence, heads * size) into (batch, heads, sequence, size)."""
    batch, length, _ = x.shape
    return jnp.swapaxes(jnp.reshape(x, (batch, length, heads, -1)), 1, 2)


def merge_heads(x: Any) -> Any:
    """Turn (batch, heads, sequence, size) into (batch, sequence, heads * size)."""
    batch, heads, length, size = x.shape
    return jnp.reshape(jnp.swapaxes(x, 1, 2), (batch, length, heads * size))


def attention_scores(q: Any, k: Any, scale: float) -> Any:
    """Return ``scale * q · kᵀ`` as (batch, query heads, queries, keys), accumulator type."""
    batch, heads, length, size = q.shape
    shared = k.shape[1]
    grouped = jnp.reshape(q, (batch, shared, heads // shared * length, size))
    scores = lax.dot_general(
        grouped,
        k,
        (((3,), (3,)), ((0, 1), (0, 1))),
        preferred_element_type=accumulator(q.dtype),
    )
    scores = jnp.reshape(scores, (batch, heads, length, k.shape[2]))
    return scores * np.array(scale, scores.dtype)


def weighted_values(probabilities: Any, v: Any) -> Any:
    """Return ``probabilities · v`` as (batch, query heads, queries, value size), type of ``v``."""
    batch, heads, length, keys = probabilities.shape
    shared = v.shape[1]
    grouped = jnp.reshape(probabilities, (batch, shared, heads // shared * length, keys))
    y = lax.dot_general(
        grouped.astype(v.dtype),
        v,
        (((3,), (2,)), ((0, 1), (0, 1))),
        preferred_element_type=accumulator(v.dtype),
    )
    return jnp.reshape(y, (batch, heads, length, v.shape[3])).astype(v.dtype)


def softmax_rows(scores: Any, *, guard: bool) -> Any:
    """Softmax over the last dimension.

    Args:
        scores: any floating tensor.
        guard: rows that are all minus infinity give zeros instead of NaN.
    """
    top = jnp.max(scores, axis=-1, keepdims=True)
    if guard:
        top = jnp.where(jnp.isneginf(top), np.zeros((), scores.dtype), top)
    weights = jnp.exp(scores - lax.stop_gradient(top))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    if guard:
        total = jnp.where(total == 0, np.ones((), scores.dtype), total)
    return weights / total


def position_mask(
    queries: int, keys: int, offset: Any, *, left: int | None, right: int | None
) -> Any:
    """Tell which keys each query may look at, by distance.

    Args:
        queries: number of queries.
        keys: number of keys.
        offset: position of query 0 among the keys: an int, or (batch,) integers.
        left: how many keys before its own position a query sees; None for all.
        right: how many keys after it; 0 is causal, None for all.

    Returns:
        (queries, keys), or (batch, 1, queries, keys) for offsets per sample.
    """
    at = np.arange(queries, dtype=np.int32)[:, None]
    key = np.arange(keys, dtype=np.int32)[None, :]
    if np.ndim(offset):
        offset = jnp.reshape(offset, (-1, 1, 1, 1)).astype(np.int32)
    ahead = key - (at + offset)
    allowed = np.ones((), np.bool_)
    if right is not None:
        allowed = allowed & (ahead <= right)
    if left is not None:
        allowed = allowed & (ahead >= -left)
    return allowed


def attend(
    q: Any,
    k: Any,
    v: Any,
    *,
    scale: float,
    allowed: Any = None,
    bias: Any = None,
    softcap: float = 0.0,
    softmax_type: Any = None,
    guard: bool = True,
) -> tuple[Any, Scores]:
    """Scaled dot-product attention.

    Args:
        q: (batch, query heads, queries, size).
        k: (batch, key heads, keys, size).
        v: (batch, key heads, keys, value size).
        scale: factor of the scores.
        allowed: boolean, broadcastable to the scores; false is minus infinity.
        bias: added to the scores, broadcastable.
        softcap: bound ``c`` of ``c * tanh(scores / c)``, before mask and bias; 0 for none.
        softmax_type: type to take the softmax in, default the accumulator's.
        guard: give zeros for rows with nothing to attend to (only where there is a mask).

    Returns:
        (batch, query heads, queries, value size) in the type of ``v``, and the scores.
    """
    raw = attention_scores(q, k, scale)
    capped = raw
    if softcap:
        bound = np.array(softcap, raw.dtype)
        capped = bound * jnp.tanh(raw / bound)
    biased = capped if bias is None else capped + bias.astype(capped.dtype)
    if allowed is not None:
        biased = jnp.where(allowed, biased, np.array(-np.inf, biased.dtype))
    guarded = guard and (allowed is not None or bias is not None)
    wide = biased.astype(softmax_type or biased.dtype)
    probabilities = softmax_rows(wide, guard=guarded)
    y = weighted_values(probabilities, v)
    return y, Scores(raw, capped, biased, probabilities)


def rotate(x: Any, cos: Any, sin: Any, *, interleaved: bool) -> Any:
    """Apply rotary position embedding to the first ``2 * cos.shape[-1]`` features.

    Args:
        x: (..., size).
        cos: broadcastable to (..., half of the rotated features).
        sin: like ``cos``.
        interleaved: pairs are neighbours, instead of the two halves.
    """
    half = cos.shape[-1]
    turned, rest = x[..., : 2 * half], x[..., 2 * half :]
    cos, sin = cos.astype(x.dtype), sin.astype(x.dtype)
    if interleaved:
        pairs = jnp.reshape(turned, (*x.shape[:-1], half, 2))
        a, b = pairs[..., 0], pairs[..., 1]
        y = jnp.stack([a * cos - b * sin, a * sin + b * cos], axis=-1)
        y = jnp.reshape(y, turned.shape)
    else:
        a, b = turned[..., :half], turned[..., half:]
        y = jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
    return y if rest.shape[-1] == 0 else jnp.concatenate([y, rest], axis=-1)


def linear_attention(
    q: Any,
    k: Any,
    v: Any,
    state: Any,
    *,
    scale: float,
    decay: Any = None,
    beta: Any = None,
) -> tuple[Any, Any]:
    """Run the recurrence of linear attention over the sequence, one ``lax.scan`` step a token.

    Per token: ``S *= exp(decay)``; with beta, ``v = beta * (v - Sᵀk)``; ``S += k vᵀ``;
    the output is ``scale * Sᵀq``.

    Args:
        q: (batch, query heads, sequence, key size).
        k: (batch, heads, sequence, key size).
        v: (batch, heads, sequence, value size).
        state: (batch, heads, key size, value size).
        scale: factor of the output.
        decay: (batch, heads, sequence, 1 or key size), or None.
        beta: (batch, heads or 1, sequence, 1), or None for plain writes.

    Returns:
        (batch, query heads, sequence, value size) and the last state.
    """
    batch, heads = q.shape[:2]
    shared = k.shape[1]

    def step(carry: Any, token: Any) -> tuple[Any, Any]:
        q_t, k_t, v_t, g_t, b_t = token
        if g_t is not None:
            carry = carry * jnp.exp(g_t)[..., None]
        if b_t is not None:
            v_t = b_t * (v_t - jnp.einsum("bhdm,bhd->bhm", carry, k_t))
        carry = carry + k_t[..., :, None] * v_t[..., None, :]
        grouped = jnp.reshape(q_t, (batch, shared, heads // shared, -1))
        y = jnp.einsum("bhgd,bhdm->bhgm", grouped, carry) * np.array(scale, carry.dtype)
        return carry, jnp.reshape(y, (batch, heads, -1))

    tokens = tuple(None if t is None else jnp.moveaxis(t, 2, 0) for t in (q, k, v, decay, beta))
    last, outputs = lax.scan(step, state, tokens)
    return jnp.moveaxis(outputs, 0, 2), last
