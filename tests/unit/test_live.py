"""Predicted memory is that of the schedule, to the byte, on programs of every form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pai.dialects.mlir import ir, parse, to_text
from pai.passes.base import run_passes
from pai.passes.fuse import fuse
from pai.passes.rewrite import main_function
from pai.passes.schedule import schedule
from pai.passes.schedule.schedule import donated_arguments
from pai.passes.strategy.live import Live, live_bytes


def check(module: ir.Module) -> Live:
    """Compare with what the package would hold; the module is scheduled in place."""
    main = main_function(module)
    before = to_text(module)
    live = live_bytes(main.regions[0].blocks[0], donated_arguments(main))
    assert to_text(module) == before
    fuse(module)
    code = schedule(module)
    constants = sum(buffer.size for buffer in code.buffers if buffer.space == "constant")
    assert live.temporary_bytes + live.fragmentation_bytes == code.arena_bytes
    assert live.constant_bytes == constants
    assert live.in_place == tuple(code.buffers[n].space == "argument" for n in code.results)
    return live


def lowered(function: Callable[..., Any], *shapes: tuple[int, ...]) -> ir.Module:
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    module = parse(jax.jit(function, keep_unused=True).lower(*arguments).as_text())
    run_passes(module, "pai-inline,pai-legalize,pai-cse,pai-dce")
    return module


STEPS: list[Callable[[Any, Any], Any]] = [
    lambda a, b: jnp.tanh(a) + b,
    lambda a, b: jnp.exp(a - b.max(1, keepdims=True)),
    jnp.dot,
    lambda a, b: jnp.dot(a.T, b) + a,
    lambda a, b: jnp.broadcast_to(a.sum(0), a.shape) * b,
    lambda a, b: jnp.concatenate([a[2:], b[:2]]),
    lambda a, b: jax.lax.dynamic_update_slice(a, b[:2, :2] * 2, (1, 1)),
    lambda a, b: jnp.sort(a, axis=1),
    lambda a, b: a[jnp.array([3, 1, 0, 1, 2, 2, 5, 7])] + b,
    lambda a, b: a.at[jnp.array([1, 4])].add(b[:2]),
    lambda a, b: jax.lax.optimization_barrier((a, b))[1] * a,
    lambda a, b: jax.lax.fori_loop(0, 3, lambda i, x: jnp.dot(x, b) + i, a),
    lambda a, b: jax.lax.scan(lambda c, x: (jnp.tanh(c * x), c + x), a[0], b)[1],
    lambda a, b: jax.lax.fori_loop(0, 4, lambda i, p: (p[1], p[0] + b), (a, b))[0],
    lambda a, b: jax.lax.cond(a[0, 0] > 0, lambda: jnp.dot(a, b), lambda: a * 2),
    lambda a, b: a + np.arange(64, dtype=np.float32).reshape(8, 8) ** 3,
]


@settings(max_examples=60, deadline=None, derandomize=True, phases=[Phase.generate])
@given(st.data())
def test_random_programs(data: st.DataObject) -> None:
    number = st.integers(0, 99)
    drawn = data.draw(st.lists(st.tuples(number, number, number), min_size=2, max_size=14))
    results = data.draw(st.lists(number, min_size=1, max_size=3))

    def program(x: Any, y: Any) -> list[Any]:
        values = [x, y]
        for which, i, j in drawn:
            step = STEPS[which % len(STEPS)]
            values.append(step(values[i % len(values)], values[j % len(values)]))
        return [values[-1]] + [values[i % len(values)] for i in results]

    check(lowered(program, (8, 8), (8, 8)))


@pytest.mark.parametrize("which", range(len(STEPS)))
def test_each_form(which: int) -> None:
    """Forward and backward, where there is one."""
    step = STEPS[which]
    check(lowered(lambda x, y: step(jnp.tanh(x), y * 2), (8, 8), (8, 8)))

    def gradient(x: Any, y: Any) -> Any:
        return jax.grad(lambda a, b: step(jnp.tanh(a), b * 2).sum(), argnums=(0, 1))(x, y)

    check(lowered(gradient, (8, 8), (8, 8)))


CACHE = """
func.func @main(%cache: tensor<64x8xf32> {pai.name = "cache", pai.role = "state"},
                %x: tensor<1x8xf32> {pai.name = "x", pai.role = "input"},
                %i: tensor<i32> {pai.name = "i", pai.role = "input"})
    -> (tensor<64x8xf32> {pai.name = "new", pai.updates = "UPDATES"}) {
  %z = stablehlo.constant dense<0> : tensor<i32>
  %0 = stablehlo.tanh %x : tensor<1x8xf32>
  %1 = stablehlo.dynamic_update_slice %cache, %0, %i, %z
      : (tensor<64x8xf32>, tensor<1x8xf32>, tensor<i32>, tensor<i32>) -> tensor<64x8xf32>
  return %1 : tensor<64x8xf32>
}"""


def test_a_cache_grows_in_its_place() -> None:
    """Only where the result updates the state; else it is copied first."""
    assert check(parse(CACHE.replace("UPDATES", "cache"))).in_place == (True,)
    assert check(parse(CACHE.replace("UPDATES", "x"))).in_place == (False,)


def test_sums_over_devices_are_in_place_once_the_operand_is_dead() -> None:
    reduce = """"stablehlo.all_reduce"(%0) <{replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>,
        channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>,
        use_global_device_ids}> ({ ^bb0(%p: tensor<f32>, %q: tensor<f32>):
        %s = stablehlo.add %p, %q : tensor<f32>
        stablehlo.return %s : tensor<f32> }) : (tensor<99xf32>) -> tensor<99xf32>"""
    text = f"""func.func @main(%x: tensor<99xf32>) -> tensor<99xf32> {{
        %0 = stablehlo.tanh %x : tensor<99xf32>
        %1 = {reduce}
        %2 = stablehlo.sort_of %1 : tensor<99xf32>
        return %2 : tensor<99xf32> }}"""
    dead = check(parse(text.replace("sort_of %1", "exponential %1")))
    used = check(parse(text.replace("sort_of %1", "add %1, %0")))
    assert (dead.temporary_bytes, used.temporary_bytes) == (448, 896)
