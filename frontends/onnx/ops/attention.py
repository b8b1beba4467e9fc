"""Attention, RotaryEmbedding, LinearAttention and FlexAttention of the standard domains."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from pai.frontends.lowering import attention as lowering
from pai.frontends.lowering.convolution import accumulator
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.ops.nn_common import text, wants
from pai.frontends.onnx.registry import op
from pai.frontends.onnx.tensors import numpy_dtype


def _offset(q: Any, past_key: Any, valid: Any) -> Any:
    """Return the position of the first query among the keys."""
    if past_key is not None:
        return past_key.shape[2]
    return 0 if valid is None else valid.astype(np.int32) - q.shape[2]


def _masks(node: Node, q: Any, keys: int, mask: Any, past_key: Any, valid: Any) -> tuple[Any, Any]:
    """Return (allowed, bias) from the mask, causality, window and padding."""
    allowed, bias = None, None
    if mask is not None:
        missing = keys - mask.shape[-1]
        boolean = mask.dtype == np.bool_
        if missing > 0:
            width = [(0, 0)] * (np.ndim(mask) - 1) + [(0, missing)]
            mask = jnp.pad(mask, width, constant_values=False if boolean else -np.inf)
        allowed, bias = (mask, None) if boolean else (None, mask)
    left, right = node.attr("left_window_size", -1), node.attr("right_window_size", -1)
    causal = bool(node.attr("is_causal", 0))
    if causal or left >= 0 or right >= 0:
        ahead = 0 if causal else (right if right >= 0 else None)
        near = lowering.position_mask(
            q.shape[2],
            keys,
            _offset(q, past_key, valid),
            left=left if left >= 0 else None,
            right=ahead,
        )
        allowed = near if allowed is None else allowed & near
    if valid is not None:
        real = np.arange(keys) < jnp.reshape(valid, (-1, 1, 1, 1))
        allowed = real if allowed is None else allowed & real
    return allowed, bias


@op("Attention", 23)
def attention(
    node: Node,
    q: Any,
    k: Any,
    v: Any,
    mask: Any = None,
    past_key: Any = None,
    past_value: Any = None,
    valid: Any = None,
) -> Any:
    """Attention with every mask, shared heads, softcap and cache of opsets 23 to 25."""
    packed = np.ndim(q) == 3
    if packed:
        q = lowering.split_heads(q, node.attr("q_num_heads"))
        k = lowering.split_heads(k, node.attr("kv_num_heads"))
        v = lowering.split_heads(v, node.attr("kv_num_heads"))
    if past_key is not None:
        k = jnp.concatenate([past_key, k], axis=2)
        v = jnp.concatenate([past_value, v], axis=2)
    scale = node.attr("scale")
    allowed, bias = _masks(node, q, k.shape[2], mask, past_key, valid)
    precision = node.attr("softmax_precision")
    y, scores = lowering.attend(
        q,
        k,
        v,
        scale=1 / math.sqrt(q.shape[3]) if scale is None else float(scale),
        allowed=allowed,
        bias=bias,
        softcap=float(node.attr("softcap", 0.0)),
        softmax_type=numpy_dtype(precision) if precision else None,
    )
    if packed:
        y = lowering.merge_heads(y)
    if not wants(node, 3):
        return y, k, v
    return y, k, v, scores[node.attr("qk_matmul_output_mode", 0)].astype(q.dtype)


@op("RotaryEmbedding", 23)
def rotary_embedding(node: Node, x: Any, cos: Any, sin: Any, positions: Any = None) -> Any:
    """RotaryEmbedding: caches are per position, or per token where there are no positions."""
    packed = np.ndim(x) == 3
    heads = lowering.split_heads(x, node.attr("num_heads")) if packed else x
    if positions is not None:
        cos, sin = (jnp.take(c, positions, axis=0, mode="clip") for c in (cos, sin))
    y = lowering.rotate(
        heads,
        jnp.expand_dims(cos, 1),
        jnp.expand_dims(sin, 1),
        interleaved=bool(node.attr("interleaved", 0)),
    )
    return lowering.merge_heads(y) if packed else y


@op("LinearAttention", 27)
def linear_attention(
    node: Node,
    q: Any,
    k: Any,
    v: Any,
    past: Any = None,
    decay: Any = None,
    beta: Any = None,
) -> Any:
    """LinearAttention: the recurrence runs in float32."""
    heads, shared = node.attr("q_num_heads"), node.attr("kv_num_heads")
    rule = text(node, "update_rule", "gated_delta")
    if ("gated" in rule) != (decay is not None) or ("delta" in rule) != (beta is not None):
        raise node.refuse(f"update rule '{rule}' does not go with its decay and beta inputs")
    key_size, value_size = q.shape[2] // heads, v.shape[2] // shared
    wide = np.float32
    state = past
    if past is None:
        state = jnp.zeros((q.shape[0], shared, key_size, value_size), q.dtype)
    if beta is not None:
        beta = jnp.swapaxes(beta, 1, 2)[..., None].astype(wide)
    y, last = lowering.linear_attention(
        lowering.split_heads(q, heads).astype(wide),
        lowering.split_heads(k, shared).astype(wide),
        lowering.split_heads(v, shared).astype(wide),
        state.astype(wide),
        scale=float(node.attr("scale", 0.0)) or 1 / math.sqrt(key_size),
        decay=None if decay is None else lowering.split_heads(decay, shared).astype(wide),
        beta=beta,
    )
    return lowering.merge_heads(y).astype(q.dtype), last.astype(state.dtype)


@op("FlexAttention", 1, "ai.onnx.preview")
def flex_attention(node: Node, q: Any, k: Any, v: Any) -> Any:
    """FlexAttention: subgraphs change the scores and the probabilities."""
    precision = node.attr("softmax_precision")
    kind = numpy_dtype(precision) if precision else accumulator(q.dtype)
    scale = node.attr("scale")
    factor = 1 / math.sqrt(q.shape[3]) if scale is None else float(scale)
    scores = lowering.attention_scores(q, k, factor).astype(kind)
    if node.attr("score_mod") is not None:
        (scores,) = node.run_graph(node.attr("score_mod"), [scores])
    probabilities = lowering.softmax_rows(scores, guard=False)
    if node.attr("prob_mod") is not None:
        (probabilities,) = node.run_graph(node.attr("prob_mod"), [probabilities])
    return lowering.weighted_values(probabilities, v.astype(kind)).astype(v.dtype)
