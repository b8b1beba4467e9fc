"""LSTM, GRU and RNN."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from pai.frontends.lowering import rnn
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.ops.nn_common import text, texts
from pai.frontends.onnx.registry import op

# How many parameters an activation takes from activation_alpha and activation_beta.
_HAS_ALPHA = {"affine", "leakyrelu", "thresholdedrelu", "scaledtanh", "hardsigmoid", "elu"}
_HAS_BETA = {"affine", "scaledtanh", "hardsigmoid"}

# Runs one direction: (direction number, its activations, its initial states).
Direction = Callable[[int, list[rnn.Activation], tuple[Any, ...]], rnn.Step]


def node_activations(node: Node, defaults: list[str]) -> list[list[rnn.Activation]]:
    """Return the activations of each direction, parameters taken in order."""
    directions = 2 if text(node, "direction", "forward") == "bidirectional" else 1
    names = texts(node, "activations", defaults * directions)
    alphas = iter(node.attr("activation_alpha") or ())
    betas = iter(node.attr("activation_beta") or ())

    def parameter(values: Iterator[float], takes: bool) -> float | None:
        return next(values, None) if takes else None

    found = []
    for name in (n.lower() for n in names):
        alpha = parameter(alphas, name in _HAS_ALPHA)
        beta = parameter(betas, name in _HAS_BETA)
        try:
            found.append(rnn.activation(name, alpha, beta))
        except KeyError:
            raise node.refuse(f"activation '{name}' is not one that ONNX defines") from None
    size = len(defaults)
    return [found[i : i + size] for i in range(0, len(found), size)]


def sequence_lengths(lengths: Any, time: int) -> Any:
    """Return the lengths, or None when all sequences are known to be whole."""
    if lengths is None:
        return None
    if isinstance(lengths, np.ndarray) and (lengths >= time).all():
        return None
    return lengths


def run_recurrent(
    node: Node,
    x: Any,
    project_input: Callable[[Any, int], Any],
    make_step: Direction,
    *,
    hidden: int,
    lengths: Any,
    initial: list[Any],
    defaults: list[str],
) -> tuple[Any, ...]:
    """Run every direction and stack the results as ONNX lays them out.

    Args:
        node: the node, for direction, layout and activations.
        x: (time, batch, in), or (batch, time, in) with layout 1.
        project_input: maps ``x`` and a direction to (time, batch, gates * hidden), bias included.
        make_step: the step of one direction.
        hidden: hidden size.
        lengths: (batch,) or None.
        initial: one entry per state, (directions, batch, hidden) or None for zeros.
        defaults: default activations of one direction.

    Returns:
        Y (time, directions, batch, hidden) and the last value of each state.
    """
    batch_first = bool(node.attr("layout", 0))
    if batch_first:
        x = jnp.swapaxes(x, 0, 1)
        initial = [None if v is None else jnp.swapaxes(v, 0, 1) for v in initial]
    direction = text(node, "direction", "forward")
    lengths = sequence_lengths(lengths, x.shape[0])
    outputs, finals = [], []
    for number, functions in enumerate(node_activations(node, defaults)):
        states = tuple(
            jnp.zeros((x.shape[1], hidden), x.dtype) if v is None else v[number] for v in initial
        )
        y, last = rnn.run_direction(
            make_step(number, functions, states),
            project_input(x, number),
            states,
            lengths=lengths,
            reverse=direction == "reverse" or number == 1,
        )
        outputs.append(y)
        finals.append(last)
    y = jnp.stack(outputs, axis=1)
    lasts = [jnp.stack(values) for values in zip(*finals, strict=True)]
    if batch_first:
        y = jnp.transpose(y, (2, 0, 1, 3))
        lasts = [jnp.swapaxes(v, 0, 1) for v in lasts]
    return (y, *lasts)


def _bound(node: Node) -> float | None:
    clip = node.attr("clip")
    return None if clip is None or clip == 0 else float(clip)


def _with_bias(value: Any, *parts: Any) -> Any:
    for part in parts:
        value = value + part
    return value


def _projection(w: Any, bias: Any) -> Callable[[Any, int], Any]:
    """Return the input's product for a direction, with both halves of the bias added."""

    def project_input(value: Any, number: int) -> Any:
        y = rnn.project(value, w[number])
        return y if bias is None else _with_bias(y, *jnp.split(bias[number], 2))

    return project_input


@op("LSTM", 7)
def lstm(
    node: Node,
    x: Any,
    w: Any,
    r: Any,
    bias: Any = None,
    lengths: Any = None,
    initial_h: Any = None,
    initial_c: Any = None,
    peepholes: Any = None,
) -> Any:
    """LSTM: w (directions, 4 * hidden, in), gates input, output, forget, cell."""

    def make_step(number: int, functions: list[Any], states: tuple[Any, ...]) -> rnn.Step:
        return rnn.lstm_step(
            lambda h: rnn.project(h, r[number]),
            functions,
            peepholes=None if peepholes is None else peepholes[number],
            clip=_bound(node),
            couple=bool(node.attr("input_forget", 0)),
        )

    return run_recurrent(
        node,
        x,
        _projection(w, bias),
        make_step,
        hidden=r.shape[2],
        lengths=lengths,
        initial=[initial_h, initial_c],
        defaults=["Sigmoid", "Tanh", "Tanh"],
    )


@op("GRU", 7)
def gru(
    node: Node,
    x: Any,
    w: Any,
    r: Any,
    bias: Any = None,
    lengths: Any = None,
    initial_h: Any = None,
) -> Any:
    """GRU: w (directions, 3 * hidden, in), gates update, reset, hidden."""

    def halves(number: int) -> tuple[Any, Any]:
        if bias is None:
            return None, None
        first, second = jnp.split(bias[number], 2)
        return first, second

    def project_input(value: Any, number: int) -> Any:
        y = rnn.project(value, w[number])
        return y if bias is None else y + halves(number)[0]

    def make_step(number: int, functions: list[Any], states: tuple[Any, ...]) -> rnn.Step:
        return rnn.gru_step(
            r[number],
            halves(number)[1],
            functions,
            clip=_bound(node),
            reset_after=bool(node.attr("linear_before_reset", 0)),
        )

    return run_recurrent(
        node,
        x,
        project_input,
        make_step,
        hidden=r.shape[2],
        lengths=lengths,
        initial=[initial_h],
        defaults=["Sigmoid", "Tanh"],
    )


@op("RNN", 7)
def simple_rnn(
    node: Node,
    x: Any,
    w: Any,
    r: Any,
    bias: Any = None,
    lengths: Any = None,
    initial_h: Any = None,
) -> Any:
    """RNN: w (directions, hidden, in)."""

    def make_step(number: int, functions: list[Any], states: tuple[Any, ...]) -> rnn.Step:
        return rnn.simple_step(r[number], functions[0], clip=_bound(node))

    return run_recurrent(
        node,
        x,
        _projection(w, bias),
        make_step,
        hidden=r.shape[2],
        lengths=lengths,
        initial=[initial_h],
        defaults=["Tanh"],
    )
