"""Control flow: If, Loop and Scan as lax.cond, scan and while_loop, or unrolled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from onnx import GraphProto

from pai.frontends.onnx.arrays import axis_of, is_concrete
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.registry import op
from pai.runtime.errors import UnsupportedOp

# Loops of at most this many steps may be written out when they cannot be a scan.
UNROLL_LIMIT = 256
# ... and of at most this many always are.
SHORT_LOOP = 2


@op("If", folds=False)
def if_(node: Node, condition: Any) -> Any:
    """Evaluate one branch: now when the condition is concrete, else by lax.cond."""
    branches = [node.attributes[name] for name in _BRANCHES]
    if is_concrete(condition):
        return node.run_graph(branches[0 if condition.reshape(-1)[0] else 1])
    runs = [lambda g=graph: _arrays(node, node.run_graph(g)) for graph in branches]
    shapes = [_branch_types(node, run, name) for run, name in zip(runs, _BRANCHES, strict=True)]
    for index, (yes, no) in enumerate(zip(*shapes, strict=True)):
        if (yes.shape, yes.dtype) != (no.shape, no.dtype):
            raise node.refuse(
                f"its branches give output {index} different types: "
                f"{yes.dtype}{list(yes.shape)} and {no.dtype}{list(no.shape)}",
                _FIX,
            )
    return tuple(lax.cond(jnp.asarray(condition).reshape(()), *runs))


_BRANCHES = ("then_branch", "else_branch")
_FIX = "fix the value of the input it depends on with --shape 'INPUT:=VALUE'"


def _branch_types(node: Node, run: Callable[[], Any], name: str) -> Any:
    """Return the types of a branch's outputs.

    Raises:
        UnsupportedOp: when the branch cannot be evaluated at these shapes, whichever is taken.
    """
    try:
        return jax.eval_shape(run)
    except UnsupportedOp as error:
        what = f"its {name} is chosen at run time but cannot be compiled for these shapes"
        raise node.refuse(f"{what} ({error})", _FIX) from error


def _arrays(node: Node, values: Sequence[Any]) -> tuple[Any, ...]:
    """Return the values as arrays JAX can carry; sequences and optionals cannot be."""
    for value in values:
        if not isinstance(value, (np.ndarray, np.generic, jax.Array)):
            raise node.refuse("a value that is not a tensor depends on control flow", _FIX)
    return tuple(jnp.asarray(value) for value in values)


def _types(values: Sequence[Any]) -> list[tuple[tuple[int, ...], Any]]:
    return [(value.shape, value.dtype) for value in values]


@op("Loop", folds=False)
def loop(node: Node, trips: Any = None, condition: Any = None, *carried: Any) -> Any:
    """Repeat the body; see the helpers for the three ways it is done."""
    body: GraphProto = node.attributes["body"]
    count = None
    if trips is not None and is_concrete(trips):
        count = max(int(trips.reshape(-1)[0]), 0)
    if condition is not None and is_concrete(condition) and not condition.reshape(-1)[0]:
        count, condition = 0, None
    always = (condition is None or is_concrete(condition)) and _cond_is_constant(
        node, body, carried
    )
    if always and count is not None:
        return _counted(node, body, count, carried)
    if condition is None or is_concrete(condition):
        done = _unrolled(node, body, count, carried)
        if done is not None:
            return done
    return _while(node, body, trips, condition, carried)


def _cond_is_constant(node: Node, body: GraphProto, carried: Sequence[Any]) -> bool:
    """Return whether the body keeps a true condition true, whatever the data."""
    seen: list[bool] = []

    def trial(*values: Any) -> None:
        out = node.run_graph(body, (jnp.zeros((), jnp.int64), np.asarray(True), *values))
        seen.append(is_concrete(out[0]) and bool(np.reshape(out[0], -1)[0]))

    try:
        jax.eval_shape(trial, *_arrays(node, carried))
    except UnsupportedOp:
        # The body needs concrete values: look at its first step as it will be unrolled.
        out = node.run_graph(body, (np.asarray(0), np.asarray(True), *carried))
        return is_concrete(out[0]) and bool(np.reshape(out[0], -1)[0])
    return seen[0]


def _counted(node: Node, body: GraphProto, count: int, carried: Sequence[Any]) -> tuple[Any, ...]:
    """A known number of steps: a scan when the carried types stay, else written out."""
    if count > SHORT_LOOP:
        try:
            return _scanned(node, body, count, carried)
        except UnsupportedOp:
            if count > UNROLL_LIMIT:
                raise
    done = _unrolled(node, body, count, carried)
    if done is None:
        raise node.refuse("its condition depends on the data")
    return done


def _scanned(node: Node, body: GraphProto, count: int, carried: Sequence[Any]) -> tuple[Any, ...]:
    start = _arrays(node, carried)

    def step(values: tuple[Any, ...], i: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        out = _arrays(node, node.run_graph(body, (i, np.asarray(True), *values))[1:])
        new = out[: len(values)]
        if _types(new) != _types(values):
            raise node.refuse("the types of its carried values change from step to step")
        return new, out[len(values) :]

    end, outputs = lax.scan(step, start, jnp.arange(count, dtype=jnp.int64))
    return (*end, *outputs)


def _unrolled(
    node: Node, body: GraphProto, count: int | None, carried: Sequence[Any]
) -> tuple[Any, ...] | None:
    """Write the steps out; None when the condition is not concrete or there is no end."""
    values = list(carried)
    number = len(body.output) - 1 - len(values)
    rows: list[list[Any]] = [[] for _ in range(number)]
    step, going = 0, True
    while going and (count is None or step < count):
        if step >= UNROLL_LIMIT:
            return None
        out = node.run_graph(body, (np.asarray(step, np.int64), np.asarray(True), *values))
        if not is_concrete(out[0]):
            return None
        going = bool(np.reshape(out[0], -1)[0])
        values = list(out[1 : 1 + len(values)])
        for row, value in zip(rows, out[1 + len(values) :], strict=True):
            row.append(value)
        step += 1
    stacked = []
    for index, row in enumerate(rows):
        stacked.append(_stack(node, row, body, index + 1 + len(values)))
    return (*values, *stacked)


def _stack(node: Node, row: list[Any], body: GraphProto, index: int) -> Any:
    if row:
        return (np if is_concrete(*row) else jnp).stack(row)
    raise node.refuse(f"scan output '{body.output[index].name}' has no steps, so no known shape")


def _while(
    node: Node, body: GraphProto, trips: Any, condition: Any, carried: Sequence[Any]
) -> tuple[Any, ...]:
    """A number of steps that depends on the data: a while loop without scan outputs."""
    if len(body.output) - 1 != len(carried):
        raise node.refuse(
            "the number of its steps depends on the data, so the shape of its scan outputs would",
            "make the trip count a constant",
        )
    limit = np.iinfo(np.int64).max if trips is None else jnp.asarray(trips).reshape(())
    first = True if condition is None else jnp.asarray(condition).reshape(())
    start = (jnp.zeros((), jnp.int64), jnp.asarray(first), *_arrays(node, carried))

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        index, going, *values = state
        out = _arrays(node, node.run_graph(body, (index, going, *values)))
        if _types(out[1:]) != _types(values):
            raise node.refuse("the types of its carried values change from step to step")
        return (index + 1, out[0].reshape(()), *out[1:])

    return lax.while_loop(lambda s: s[1] & (s[0] < limit), step, start)[2:]


@op("Scan", 8, folds=False)
def scan_batched(node: Node, lengths: Any, *values: Any) -> Any:
    """Opset 8: a batch dimension first, then the sequence."""
    if lengths is not None:
        raise node.refuse(
            "sequence_lens of Scan-8 is not supported", "export with opset 9 or newer"
        )
    number = node.attributes["num_scan_inputs"]
    directions = node.attr("directions", [0] * number)
    rows = []
    for index in range(values[0].shape[0]):
        single = [value[index] for value in values]
        rows.append(_scan(node, number, single, directions, [0] * number, [], []))
    return tuple(jnp.stack(column) for column in zip(*rows, strict=True))


@op("Scan", 9, folds=False)
def scan(node: Node, *values: Any) -> Any:
    """Step through inputs along their axes, carrying state and stacking outputs."""
    number = node.attributes["num_scan_inputs"]
    zeros = [0] * number
    return _scan(
        node,
        number,
        list(values),
        node.attr("scan_input_directions", zeros),
        node.attr("scan_input_axes", zeros),
        node.attr("scan_output_directions", []),
        node.attr("scan_output_axes", []),
    )


def _scan(
    node: Node,
    number: int,
    values: list[Any],
    in_directions: list[int],
    in_axes: list[int],
    out_directions: list[int],
    out_axes: list[int],
) -> tuple[Any, ...]:
    body: GraphProto = node.attributes["body"]
    count = len(values) - number
    state = _arrays(node, values[:count])
    sources = []
    for value, backward, axis in zip(values[count:], in_directions, in_axes, strict=True):
        moved = jnp.moveaxis(jnp.asarray(value), axis_of(axis, value.ndim), 0)
        sources.append(jnp.flip(moved, 0) if backward else moved)

    def step(carry: tuple[Any, ...], row: tuple[Any, ...]) -> tuple[Any, Any]:
        out = _arrays(node, node.run_graph(body, (*carry, *row)))
        if _types(out[:count]) != _types(carry):
            raise node.refuse("the types of its state change from step to step")
        return out[:count], out[count:]

    end, outputs = lax.scan(step, state, tuple(sources))
    results = []
    for index, value in enumerate(outputs):
        turned = (
            jnp.flip(value, 0) if index < len(out_directions) and out_directions[index] else (value)
        )
        axis = out_axes[index] if index < len(out_axes) else 0
        results.append(jnp.moveaxis(turned, 0, axis_of(axis, value.ndim)))
    return (*end, *results)
