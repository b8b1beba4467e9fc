"""NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from pai.frontends.lowering.convolution import accumulator
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.ops.nn_common import text, wants
from pai.frontends.onnx.registry import op


def _pick_loss(node: Node, log_prob: Any, target: Any, weight: Any) -> Any:
    """Reduce minus the log-probability of each target; dimension 1 of ``log_prob`` is the class.

    Args:
        node: for ``reduction`` and ``ignore_index``.
        log_prob: (batch, classes, *rest), accumulator type.
        target: (batch, *rest) integers.
        weight: (classes,) or None.
    """
    ignored = node.attr("ignore_index")
    safe = jnp.clip(target, 0, log_prob.shape[1] - 1)
    index = jnp.expand_dims(safe, 1)
    picked = jnp.take_along_axis(log_prob, index, axis=1, mode="promise_in_bounds")
    loss = -jnp.squeeze(picked, 1)
    weights: Any = None
    if weight is not None:
        table = jnp.asarray(weight).astype(log_prob.dtype)
        weights = table.at[safe].get(mode="promise_in_bounds")
    if ignored is not None:
        kept = (target != ignored).astype(log_prob.dtype)
        weights = kept if weights is None else weights * kept
    if weights is not None:
        loss = loss * weights
    reduction = text(node, "reduction", "mean")
    if reduction == "none":
        return loss
    if reduction == "sum":
        return jnp.sum(loss)
    return jnp.mean(loss) if weights is None else jnp.sum(loss) / jnp.sum(weights)


@op("NegativeLogLikelihoodLoss", 12)
def negative_log_likelihood(node: Node, x: Any, target: Any, weight: Any = None) -> Any:
    """NegativeLogLikelihoodLoss of log-probabilities."""
    wide = jnp.asarray(x).astype(accumulator(x.dtype))
    return _pick_loss(node, wide, target, weight).astype(x.dtype)


@op("SoftmaxCrossEntropyLoss", 12)
def softmax_cross_entropy(node: Node, x: Any, target: Any, weight: Any = None) -> Any:
    """SoftmaxCrossEntropyLoss of scores, and the log-probabilities where asked for."""
    wide = jnp.asarray(x).astype(accumulator(x.dtype))
    log_prob = jax.nn.log_softmax(wide, axis=1)
    loss = _pick_loss(node, log_prob, target, weight).astype(x.dtype)
    return (loss, log_prob.astype(x.dtype)) if wants(node, 1) else loss
