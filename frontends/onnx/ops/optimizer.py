"""Training operators of ai.onnx.preview.training: Adagrad, Adam, Momentum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from pai.frontends.onnx.node import Node
from pai.frontends.onnx.ops.nn_common import text
from pai.frontends.onnx.registry import op

_DOMAIN = "ai.onnx.preview.training"
Update = Callable[..., tuple[Any, ...]]


def _each(groups: int, values: tuple[Any, ...], update: Update) -> tuple[Any, ...]:
    """Apply ``update`` to every optimized tensor and list the results kind by kind.

    Args:
        groups: kinds of tensors in ``values``: parameters, gradients, then the states.
        values: all parameters, then all gradients, then all of each state.
        update: (parameter, gradient, *states) to (parameter, *states).
    """
    count = len(values) // groups
    kinds = [values[i * count : (i + 1) * count] for i in range(groups)]
    done = [
        tuple(
            new.astype(old.dtype) for new, old in zip(update(*row), (row[0], *row[2:]), strict=True)
        )
        for row in zip(*kinds, strict=True)
    ]
    return tuple(value for kind in zip(*done, strict=True) for value in kind)


@op("Adagrad", 1, _DOMAIN)
def adagrad(node: Node, rate: Any, step: Any, *values: Any) -> tuple[Any, ...]:
    """Adagrad: the rate decays with the step, divided by the root of summed squares."""
    norm = float(node.attr("norm_coefficient", 0.0))
    epsilon = float(node.attr("epsilon", 1e-6))
    rate = rate / (1 + step.astype(rate.dtype) * float(node.attr("decay_factor", 0.0)))

    def update(x: Any, g: Any, h: Any) -> tuple[Any, ...]:
        g = norm * x + g
        h = h + g * g
        return x - rate * g / (jnp.sqrt(h) + epsilon), h

    return _each(3, values, update)


@op("Adam", 1, _DOMAIN)
def adam(node: Node, rate: Any, step: Any, *values: Any) -> tuple[Any, ...]:
    """Adam with bias correction from step 1 on."""
    alpha, beta = float(node.attr("alpha", 0.9)), float(node.attr("beta", 0.999))
    epsilon = float(node.attr("epsilon", 0.0))
    before = float(node.attr("norm_coefficient", 0.0))
    after = float(node.attr("norm_coefficient_post", 0.0))
    count = step.astype(rate.dtype)
    later = jnp.where(step > 0, count, 1)
    correction = jnp.sqrt(1 - beta**later) / (1 - alpha**later)
    rate = jnp.where(step > 0, rate * correction, rate)

    def update(x: Any, g: Any, v: Any, h: Any) -> tuple[Any, ...]:
        g = before * x + g
        v = alpha * v + (1 - alpha) * g
        h = beta * h + (1 - beta) * (g * g)
        return (1 - after) * (x - rate * (v / (jnp.sqrt(h) + epsilon))), v, h

    return _each(4, values, update)


@op("Momentum", 1, _DOMAIN)
def momentum(node: Node, rate: Any, step: Any, *values: Any) -> tuple[Any, ...]:
    """Momentum, standard or Nesterov."""
    alpha, beta = float(node.attr("alpha")), float(node.attr("beta"))
    norm = float(node.attr("norm_coefficient", 0.0))
    nesterov = text(node, "mode", "standard") == "nesterov"
    factor = jnp.where(step > 0, beta, 1.0).astype(rate.dtype)

    def update(x: Any, g: Any, v: Any) -> tuple[Any, ...]:
        g = norm * x + g
        v = alpha * v + factor * g
        return x - rate * (g + alpha * v if nesterov else v), v

    return _each(3, values, update)


@op("Gradient", 1, _DOMAIN)
def gradient(node: Node, *values: Any) -> Any:
    """Gradient is refused: training steps are derived from the forward graph instead."""
    raise node.refuse(
        "the gradient of a stretch of the graph is not computed",
        "compile the forward model and ask for a training step instead",
    )
