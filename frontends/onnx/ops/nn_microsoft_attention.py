"""Attention operators of com.microsoft."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from pai.frontends.lowering import attention as lowering
from pai.frontends.lowering.convolution import accumulator
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.ops.microsoft import MICROSOFT
from pai.frontends.onnx.ops.nn_common import wants
from pai.frontends.onnx.registry import op


def _scale(node: Node, size: int) -> float:
    return float(node.attr("scale", 0.0)) or 1 / math.sqrt(size)


def _refuse_attributes(node: Node, *names: str) -> None:
    for name in names:
        if node.attr(name, 0):
            raise node.refuse(f"attribute '{name}' is not supported")


def _padding_mask(node: Node, mask: Any, batch: int, queries: int, keys: int) -> Any:
    """Return which keys may be looked at, broadcastable to (batch, heads, queries, keys).

    Args:
        node: for refusals.
        mask: lengths (batch,); ends then starts (2 * batch,); or 0/1 of 2, 3 or 4 dimensions.
        batch: batch size.
        queries: number of queries.
        keys: number of keys.
    """
    rank = np.ndim(mask)
    at = np.arange(keys, dtype=np.int32)
    if rank == 1 and mask.shape[0] in (batch, 2 * batch):
        allowed = at < jnp.reshape(mask[:batch], (-1, 1, 1, 1))
        if mask.shape[0] == 2 * batch and batch > 0:
            allowed = allowed & (at >= jnp.reshape(mask[batch:], (-1, 1, 1, 1)))
        return allowed
    if rank == 2:
        return mask[:, None, None, :] > 0
    if rank == 3:
        return mask[:, None] > 0
    if rank == 4:
        return mask[:, :, keys - queries : keys, :keys] > 0
    raise node.refuse(f"a mask of shape {tuple(mask.shape)} is not supported")


def _attend(
    node: Node, q: Any, k: Any, v: Any, *, mask: Any, bias: Any
) -> tuple[Any, lowering.Scores]:
    """Attend with a padding mask, a bias and causality as the attributes say.

    Masked scores get ``mask_filter_value`` added, so a row that is all masked still averages.
    """
    queries, keys = q.shape[2], k.shape[2]
    if mask is not None:
        kind = accumulator(q.dtype)
        allowed = _padding_mask(node, mask, q.shape[0], queries, keys)
        filtered = np.array(node.attr("mask_filter_value", -10000.0), kind)
        masked = jnp.where(allowed, np.zeros((), kind), filtered)
        bias = masked if bias is None else bias.astype(kind) + masked
    causal = None
    if node.attr("unidirectional", 0):
        causal = lowering.position_mask(queries, keys, keys - queries, left=None, right=0)
    return lowering.attend(
        q,
        k,
        v,
        scale=_scale(node, q.shape[3]),
        allowed=causal,
        bias=bias,
        guard=False,
    )


@op("Attention", 1, MICROSOFT)
def attention(
    node: Node,
    x: Any,
    w: Any,
    b: Any = None,
    mask: Any = None,
    past: Any = None,
    bias: Any = None,
    past_length: Any = None,
) -> Any:
    """Attention: projects the input with merged weights, then attends; present is (2, ...)."""
    _refuse_attributes(node, "do_rotary", "past_present_share_buffer")
    heads = node.attr("num_heads")
    sizes = list(node.attr("qkv_hidden_sizes") or [w.shape[1] // 3] * 3)
    projected = jnp.matmul(x, w, preferred_element_type=accumulator(x.dtype)).astype(x.dtype)
    if b is not None:
        projected = projected + b
    parts = jnp.split(projected, np.cumsum(sizes)[:2], axis=-1)
    q, k, v = (lowering.split_heads(part, heads) for part in parts)
    if past is not None:
        k = jnp.concatenate([past[0], k], axis=2)
        v = jnp.concatenate([past[1], v], axis=2)
    y, _ = _attend(node, q, k, v, mask=mask, bias=bias)
    y = lowering.merge_heads(y)
    return (y, jnp.stack([k, v])) if wants(node, 1) else y


def _unpack(node: Node, q: Any, k: Any, v: Any, b: Any) -> tuple[Any, Any, Any]:
    """Return q, k, v as (batch, heads, sequence, size) from any of the packed layouts."""
    heads = node.attr("num_heads")
    if np.ndim(q) == 5:
        return tuple(jnp.swapaxes(q[:, :, :, i], 1, 2) for i in range(3))
    if b is not None:
        width = q.shape[2]
        q = q + b[:width]
    if np.ndim(k) == 5:
        k, v = (jnp.swapaxes(k[:, :, :, i], 1, 2) for i in range(2))
        return lowering.split_heads(q, heads), k, v
    if np.ndim(k) == 4:
        return lowering.split_heads(q, heads), k, v
    if b is not None:
        k, v = k + b[width : 2 * width], v + b[2 * width :]
    return tuple(lowering.split_heads(value, heads) for value in (q, k, v))


@op("MultiHeadAttention", 1, MICROSOFT)
def multi_head_attention(
    node: Node,
    q: Any,
    k: Any = None,
    v: Any = None,
    b: Any = None,
    mask: Any = None,
    bias: Any = None,
    past_key: Any = None,
    past_value: Any = None,
    past_length: Any = None,
    indirection: Any = None,
) -> Any:
    """MultiHeadAttention of projected or packed inputs, with a cache."""
    if past_length is not None or indirection is not None:
        raise node.refuse("a shared cache buffer and beam search are not supported")
    q, k, v = _unpack(node, q, k, v, b)
    if past_key is not None:
        k = jnp.concatenate([past_key, k], axis=2)
        v = jnp.concatenate([past_value, v], axis=2)
    y, scores = _attend(node, q, k, v, mask=mask, bias=bias)
    y = lowering.merge_heads(y)
    return y, k, v, scores.probabilities.astype(y.dtype) if wants(node, 3) else None


@op("RotaryEmbedding", 1, MICROSOFT)
def rotary_embedding(node: Node, x: Any, positions: Any, cos: Any, sin: Any) -> Any:
    """RotaryEmbedding: positions per token, or of the first token only."""
    _refuse_attributes(node, "is_packed_batching")
    packed = np.ndim(x) == 3
    heads = node.attr("num_heads", 0)
    if packed and not heads:
        heads = x.shape[2] // (2 * cos.shape[1])
    value = lowering.split_heads(x, heads) if packed else x
    if np.size(positions) == 1:
        start = jnp.reshape(positions, ())
        positions = (start + np.arange(value.shape[2], dtype=positions.dtype))[None]
    y = _rotate_at(value, positions, cos, sin, interleaved=bool(node.attr("interleaved", 0)))
    scale = float(node.attr("scale", 1.0))
    y = y if scale == 1.0 else y * np.array(scale, y.dtype)
    return lowering.merge_heads(y) if packed else y


def _rotate_at(x: Any, positions: Any, cos: Any, sin: Any, *, interleaved: bool) -> Any:
    """Rotate (batch, heads, sequence, size) by the angles of positions (batch or 1, sequence)."""
    cos, sin = (jnp.take(c, positions, axis=0, mode="clip")[:, None] for c in (cos, sin))
    return lowering.rotate(x, cos, sin, interleaved=interleaved)


def _cache(past: Any, new: Any, start: Any, size: int) -> Any:
    """Return the cache (batch, heads, size, width) with ``new`` written at ``start`` (batch,)."""
    if past is None and size == new.shape[2]:
        return new
    if past is None:
        past = jnp.zeros((*new.shape[:2], size, new.shape[3]), new.dtype)
    elif past.shape[2] < size:
        past = jnp.pad(past, ((0, 0), (0, 0), (0, size - past.shape[2]), (0, 0)))
    at = np.arange(size, dtype=np.int32) - start[:, None]
    index = jnp.clip(at, 0, new.shape[2] - 1)[:, None, :, None]
    moved = jnp.take_along_axis(new, index, axis=2, mode="promise_in_bounds")
    fresh = (at >= 0) & (at < new.shape[2])
    return jnp.where(fresh[:, None, :, None], moved, past)


@op("GroupQueryAttention", 1, MICROSOFT)
def group_query_attention(
    node: Node,
    q: Any,
    k: Any = None,
    v: Any = None,
    past_key: Any = None,
    past_value: Any = None,
    lengths: Any = None,
    total: Any = None,
    cos: Any = None,
    sin: Any = None,
    positions: Any = None,
    bias: Any = None,
    sink: Any = None,
    *quantized: Any,
) -> Any:
    """GroupQueryAttention: causal, shared key heads, a cache per sample, optional rotation.

    Args:
        node: the node.
        q: (batch, sequence, heads * size), or with keys and values packed behind.
        k: (batch, sequence, key heads * size), or None when packed.
        v: like ``k``.
        past_key: (batch, key heads, cache, size).
        past_value: like ``past_key``.
        lengths: (batch,) number of valid keys minus one.
        total: number of keys of the longest sample; decides the size of the cache.
        cos: (positions, half of the rotated features).
        sin: like ``cos``.
        positions: (batch, sequence), or None to count on from the cache.
        bias: added to the scores.
        sink: (heads,) extra score per head that takes probability and gives no value.
        quantized: scales of a quantized cache and norms of q and k: refused.
    """
    if any(value is not None for value in quantized):
        raise node.refuse("a quantized cache and norms of query and key are not supported")
    _refuse_attributes(node, "sliding_window_cache", "qk_output")
    heads, shared = node.attr("num_heads"), node.attr("kv_num_heads")
    if k is None:
        size = q.shape[2] // (heads + 2 * shared)
        q, k, v = jnp.split(q, [heads * size, (heads + shared) * size], axis=-1)
    q, k, v = (
        lowering.split_heads(value, n) for value, n in ((q, heads), (k, shared), (v, shared))
    )
    count = int(node.concrete(total, "total sequence length").reshape(()))
    queries = q.shape[2]
    start = jnp.reshape(lengths, (-1,)).astype(np.int32) + (1 - queries)
    if count == queries:
        start = jnp.zeros_like(start)
    if node.attr("do_rotary", 0):
        if positions is None:
            positions = start[:, None] + np.arange(queries, dtype=np.int32)
        turn = bool(node.attr("rotary_interleaved", 0))
        q, k = (_rotate_at(value, positions, cos, sin, interleaved=turn) for value in (q, k))
    keys = max(count, 0 if past_key is None else past_key.shape[2])
    k, v = _cache(past_key, k, start, keys), _cache(past_value, v, start, keys)
    y = _shared_attention(node, q, k[:, :, :count], v[:, :, :count], start, bias, sink)
    return lowering.merge_heads(y), k, v


def _shared_attention(node: Node, q: Any, k: Any, v: Any, start: Any, bias: Any, sink: Any) -> Any:
    """Attend causally from position ``start`` (batch,) on, within the local window if any."""
    window = int(node.attr("local_window_size", -1))
    allowed = lowering.position_mask(
        q.shape[2],
        k.shape[2],
        start,
        left=window - 1 if window > 0 else None,
        right=0 if node.attr("causal", 1) else None,
    )
    if node.attr("smooth_softmax", 0) and sink is None:
        sink = jnp.zeros((q.shape[1],), q.dtype)
    y, scores = lowering.attend(
        q,
        k,
        v,
        scale=_scale(node, q.shape[3]),
        allowed=allowed,
        bias=None if bias is None else bias[..., : k.shape[2]],
        softcap=float(node.attr("softcap", 0.0)),
    )
    if sink is None:
        return y
    extra = jnp.reshape(sink, (1, -1, 1, 1)).astype(scores.biased.dtype)
    top = jnp.maximum(jnp.max(scores.biased, axis=-1, keepdims=True), extra)
    weights = jnp.exp(scores.biased - top)
    whole = jnp.sum(weights, axis=-1, keepdims=True) + jnp.exp(extra - top)
    return lowering.weighted_values(weights / whole, v)
