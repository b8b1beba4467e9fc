"""Feature extraction: n-gram counts, and the pieces of ai.onnx.ml that are plain tensor code."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from jax import numpy as jnp

from pai.frontends.onnx.node import Node
from pai.frontends.onnx.registry import op


def _windows(tokens: Any, length: int, skips: int) -> Iterator[Any]:
    """Yield (rows, places, length) arrays of the n-grams with each number of skipped tokens."""
    for step in range(1, (skips if length > 1 else 0) + 2):
        places = tokens.shape[1] - (length - 1) * step
        if places > 0:
            parts = [tokens[:, i * step : i * step + places] for i in range(length)]
            yield jnp.stack(parts, axis=-1)


def _pools(node: Node) -> Iterator[np.ndarray]:
    """Yield per length 1, 2, … the n-grams of that length, one a row."""
    pool = np.asarray(node.attributes["pool_int64s"])
    bounds = [*node.attributes["ngram_counts"], pool.size]
    for length, (low, high) in enumerate(pairwise(bounds), start=1):
        yield pool[low:high].reshape(-1, length)


@op("TfIdfVectorizer", 9)
def tf_idf_vectorizer(node: Node, x: Any) -> Any:
    """Count the n-grams of a pool, skips allowed; weighted by IDF on request."""
    if "pool_strings" in node.attributes or x.dtype.kind in "OSU":
        raise node.refuse("strings are not supported", "tokenize outside of the model")
    tokens = jnp.atleast_2d(jnp.asarray(x).astype(jnp.int64))
    wanted = range(node.attributes["min_gram_length"], node.attributes["max_gram_length"] + 1)
    counts = []
    for pool in _pools(node):
        count = jnp.zeros((tokens.shape[0], pool.shape[0]), jnp.float32)
        if pool.shape[1] in wanted:
            for grams in _windows(tokens, pool.shape[1], node.attributes["max_skip_count"]):
                found = (grams[:, :, None, :] == pool).all(-1)
                count += found.sum(1, dtype=jnp.float32)
        counts.append(count)
    count = jnp.concatenate(counts, axis=1)
    mode = node.attributes["mode"]
    if mode == "IDF":
        count = (count > 0).astype(jnp.float32)
    if mode != "TF":
        count = count * np.asarray(node.attr("weights", [1.0] * count.shape[1]), np.float32)
    columns = np.asarray(node.attributes["ngram_indexes"])
    result = jnp.zeros((tokens.shape[0], int(columns.max()) + 1), jnp.float32)
    result = result.at[:, columns].add(count)
    return result[0] if x.ndim < 2 else result


@op("Binarizer", 1, "ai.onnx.ml")
def binarizer(node: Node, x: Any) -> Any:
    """One where x exceeds a threshold, else zero."""
    return (jnp.asarray(x) > node.attr("threshold", 0.0)).astype(x.dtype)


@op("ArrayFeatureExtractor", 1, "ai.onnx.ml")
def array_feature_extractor(node: Node, x: Any, indices: Any) -> Any:
    """Take columns of the last dimension."""
    taken = jnp.take(jnp.asarray(x), jnp.asarray(indices).reshape(-1), axis=-1)
    return taken.reshape(1, -1) if x.ndim == 1 else taken


@op("Scaler", 1, "ai.onnx.ml")
def scaler(node: Node, x: Any) -> Any:
    """(x - offset)·scale per column."""
    offset = np.asarray(node.attr("offset", [0.0]), np.float32)
    return (jnp.asarray(x).astype(jnp.float32) - offset) * np.asarray(
        node.attr("scale", [1.0]), np.float32
    )


@op("LinearRegressor", 1, "ai.onnx.ml")
def linear_regressor(node: Node, x: Any) -> Any:
    """x·coefficients + intercepts, one column per target."""
    if node.attr("post_transform", "NONE") != "NONE":
        raise node.refuse(f"post_transform {node.attributes['post_transform']} is not supported")
    targets = node.attr("targets", 1)
    weights = np.asarray(node.attributes["coefficients"], np.float32).reshape(targets, -1)
    bias = np.asarray(node.attr("intercepts", [0.0] * targets), np.float32)
    return jnp.asarray(x).astype(jnp.float32) @ weights.T + bias
