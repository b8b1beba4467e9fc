"""Recurrent networks as ``lax.scan``: the product with the input is outside the loop.

Sequences are time-major: (time, batch, features). A direction's loop carries a tuple of states,
all (batch, hidden), the first of which is the output of the step. Where a sequence is over, its
states stop changing and its outputs are zero; run backwards, a sequence starts at its own end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pai.frontends.lowering.convolution import accumulator

# A step takes the projected input of one time (batch, gates * hidden) and the states; it
# returns the new states.
Step = Callable[[Any, tuple[Any, ...]], tuple[Any, ...]]
Activation = Callable[[Any], Any]


def activation(name: str, alpha: float | None = None, beta: float | None = None) -> Activation:
    """Return the recurrent activation called ``name`` (any case); raises KeyError.

    Args:
        name: sigmoid, tanh, relu, affine, leakyrelu, thresholdedrelu, scaledtanh, hardsigmoid,
            elu, softsign or softplus.
        alpha: first parameter, None for its default.
        beta: second parameter, None for its default.
    """

    def or_else(value: float | None, default: float) -> float:
        return default if value is None else float(value)

    table: dict[str, Activation] = {
        "sigmoid": jax.nn.sigmoid,
        "tanh": jnp.tanh,
        "relu": lambda x: jnp.maximum(x, 0),
        "softsign": lambda x: x / (1 + jnp.abs(x)),
        "softplus": jax.nn.softplus,
        "affine": lambda x: or_else(alpha, 1.0) * x + or_else(beta, 0.0),
        "leakyrelu": lambda x: jnp.where(x >= 0, x, or_else(alpha, 0.01) * x),
        "thresholdedrelu": lambda x: jnp.where(x > or_else(alpha, 1.0), x, jnp.zeros((), x.dtype)),
        "scaledtanh": lambda x: or_else(alpha, 1.0) * jnp.tanh(or_else(beta, 1.0) * x),
        "hardsigmoid": lambda x: jnp.clip(or_else(alpha, 0.2) * x + or_else(beta, 0.5), 0, 1),
        "elu": lambda x: jnp.where(x >= 0, x, or_else(alpha, 1.0) * jnp.expm1(x)),
    }
    return table[name.lower()]


def clipped(value: Any, bound: float | None) -> Any:
    """Clip to [-bound, bound], or leave alone."""
    return value if bound is None else jnp.clip(value, -bound, bound)


def project(x: Any, w: Any) -> Any:
    """Multiply (..., in) by (out, in) transposed, accumulating 16-bit floats in float32."""
    y = lax.dot_general(
        x,
        w,
        (((np.ndim(x) - 1,), (1,)), ((), ())),
        preferred_element_type=accumulator(x.dtype),
    )
    return y.astype(x.dtype)


def run_direction(
    step: Step,
    projected: Any,
    states: tuple[Any, ...],
    *,
    lengths: Any = None,
    reverse: bool = False,
) -> tuple[Any, tuple[Any, ...]]:
    """Run one direction over all times.

    Args:
        step: one time step.
        projected: (time, batch, gates * hidden).
        states: initial states, (batch, hidden) each.
        lengths: (batch,) integers, how long each sequence is; None for all of them whole.
        reverse: run from the last time to the first.

    Returns:
        Outputs (time, batch, hidden) and the last states.
    """
    if lengths is None:

        def plain(carry: tuple[Any, ...], x: Any) -> tuple[tuple[Any, ...], Any]:
            new = step(x, carry)
            return new, new[0]

        last, outputs = lax.scan(plain, states, projected, reverse=reverse)
        return outputs, last

    def masked(carry: tuple[Any, ...], xs: Any) -> tuple[tuple[Any, ...], Any]:
        x, time = xs
        alive = (time < lengths)[:, None]
        new = step(x, carry)
        kept = tuple(jnp.where(alive, n, old) for n, old in zip(new, carry, strict=True))
        return kept, jnp.where(alive, new[0], jnp.zeros((), new[0].dtype))

    times = np.arange(projected.shape[0], dtype=np.int32)
    last, outputs = lax.scan(masked, states, (projected, times), reverse=reverse)
    return outputs, last


def lstm_step(
    recur: Callable[[Any], Any],
    functions: Sequence[Activation],
    *,
    peepholes: Any = None,
    clip: float | None = None,
    couple: bool = False,
) -> Step:
    """Return the step of an LSTM with gates in the order input, output, forget, cell.

    Args:
        recur: maps the hidden state (batch, hidden) to (batch, 4 * hidden).
        functions: of the gates, of the cell's input, of the cell's output.
        peepholes: (3 * hidden,) for input, output, forget; or None.
        clip: bound of what goes into the gates and the cell's input, not of the cell itself.
        couple: the forget gate is one minus the input gate.
    """
    gate, squash, emit = functions
    peep = (None, None, None) if peepholes is None else jnp.split(peepholes, 3)

    def peek(value: Any, weight: Any, cell: Any) -> Any:
        return value if weight is None else value + weight * cell

    def step(x: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, cell = states
        i, o, f, c = jnp.split(x + recur(hidden), 4, axis=-1)
        i = gate(clipped(peek(i, peep[0], cell), clip))
        f = 1 - i if couple else gate(clipped(peek(f, peep[2], cell), clip))
        cell = f * cell + i * squash(clipped(c, clip))
        o = gate(clipped(peek(o, peep[1], cell), clip))
        return o * emit(cell), cell

    return step


def gru_step(
    w: Any,
    bias: Any,
    functions: Sequence[Activation],
    *,
    clip: float | None = None,
    reset_after: bool = False,
) -> Step:
    """Return the step of a GRU with gates in the order update, reset, hidden.

    Args:
        w: recurrent weights (3 * hidden, hidden).
        bias: recurrent bias (3 * hidden,), or None.
        functions: of the gates, of the new state.
        clip: bound of what goes into the functions.
        reset_after: multiply by the reset gate after the recurrent product, not before.
    """
    gate, squash = functions
    hidden_size = w.shape[1]
    zero = np.zeros(3 * hidden_size, w.dtype)
    rb = zero if bias is None else bias

    def step(x: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
        (hidden,) = states
        xz, xr, xh = jnp.split(x, 3, axis=-1)
        both = project(hidden, w[: 2 * hidden_size]) + rb[: 2 * hidden_size]
        rz, rr = jnp.split(both, 2, axis=-1)
        z = gate(clipped(xz + rz, clip))
        r = gate(clipped(xr + rr, clip))
        inner = hidden if reset_after else r * hidden
        candidate = project(inner, w[2 * hidden_size :]) + rb[2 * hidden_size :]
        candidate = r * candidate if reset_after else candidate
        new = squash(clipped(xh + candidate, clip))
        return ((1 - z) * new + z * hidden,)

    return step


def simple_step(w: Any, function: Activation, *, clip: float | None = None) -> Step:
    """Return the step of a plain recurrent network with recurrent weights (hidden, hidden)."""

    def step(x: Any, states: tuple[Any, ...]) -> tuple[Any, ...]:
        return (function(clipped(x + project(states[0], w), clip)),)

    return step
