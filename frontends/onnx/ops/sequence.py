"""Sequences and optional values: Python lists and None while the graph is evaluated."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from pai.frontends.onnx.node import Node
from pai.frontends.onnx.registry import op


def _join(values: list[Any], axis: int) -> Any:
    if all(isinstance(v, np.ndarray) for v in values):
        return np.concatenate(values, axis=axis)
    return jnp.concatenate(values, axis=axis)


def _position(node: Node, position: Any, default: int) -> int:
    if position is None:
        return default
    return int(node.concrete(position, "position").reshape(()))


@op("SequenceConstruct", 11)
def sequence_construct(node: Node, *values: Any) -> tuple[Any]:
    """SequenceConstruct."""
    return (list(values),)


@op("SequenceEmpty", 11)
def sequence_empty(node: Node) -> tuple[Any]:
    """SequenceEmpty."""
    return ([],)


@op("SequenceInsert", 11)
def sequence_insert(node: Node, values: list[Any], value: Any, at: Any = None) -> tuple[Any]:
    """SequenceInsert: at the end unless a position is given."""
    result = list(values)
    index = _position(node, at, len(values))
    if index < 0:
        index += len(values)
    result.insert(index, value)
    return (result,)


@op("SequenceErase", 11)
def sequence_erase(node: Node, values: list[Any], at: Any = None) -> tuple[Any]:
    """SequenceErase: the last one unless a position is given."""
    result = list(values)
    del result[_position(node, at, -1)]
    return (result,)


@op("SequenceAt", 11)
def sequence_at(node: Node, values: list[Any], at: Any) -> Any:
    """SequenceAt."""
    return values[_position(node, at, 0)]


@op("SequenceLength", 11)
def sequence_length(node: Node, values: list[Any]) -> Any:
    """SequenceLength."""
    return np.array(len(values), np.int64)


@op("ConcatFromSequence", 11)
def concat_from_sequence(node: Node, values: list[Any]) -> Any:
    """ConcatFromSequence, along an old axis or a new one."""
    axis = node.attr("axis")
    if not node.attr("new_axis", 0):
        return _join(values, axis)
    expand = np.expand_dims if all(isinstance(v, np.ndarray) for v in values) else jnp.expand_dims
    return _join([expand(v, axis) for v in values], axis)


@op("SplitToSequence", 11)
def split_to_sequence(node: Node, x: Any, split: Any = None) -> tuple[Any]:
    """SplitToSequence: pieces of one, of a length, or of given lengths."""
    axis = node.attr("axis", 0) % np.ndim(x)
    size = x.shape[axis]
    if split is None:
        lengths = [1] * size
    else:
        stated = node.concrete(split, "split lengths")
        if stated.ndim == 0:
            step = int(stated)
            lengths = [min(step, size - start) for start in range(0, size, step)]
        else:
            lengths = [int(v) for v in stated]
    pieces, start = [], 0
    for length in lengths:
        where = (slice(None),) * axis + (slice(start, start + length),)
        piece = x[where]
        if split is None and not node.attr("keepdims", 1):
            piece = piece.reshape(x.shape[:axis] + x.shape[axis + 1 :])
        pieces.append(piece)
        start += length
    return (pieces,)


@op("SequenceMap", 17)
def sequence_map(node: Node, values: list[Any], *others: Any) -> tuple[Any, ...]:
    """SequenceMap: the body runs once per element; tensors go to every run as they are."""
    rows = []
    for number, value in enumerate(values):
        extra = [o[number] if isinstance(o, list) else o for o in others]
        rows.append(node.run_graph(node.attr("body"), [value, *extra]))
    return tuple([row[i] for row in rows] for i in range(len(node.outputs)))


@op("Optional", 15)
def optional(node: Node, value: Any = None) -> tuple[Any]:
    """Optional: the value itself, or nothing."""
    return (value,)


@op("OptionalHasElement", 15)
def optional_has_element(node: Node, value: Any = None) -> Any:
    """OptionalHasElement."""
    return np.array(value is not None)


@op("OptionalGetElement", 15)
def optional_get_element(node: Node, value: Any) -> tuple[Any]:
    """OptionalGetElement."""
    if value is None:
        raise node.refuse("it takes the element of an optional that holds nothing")
    return (value,)
