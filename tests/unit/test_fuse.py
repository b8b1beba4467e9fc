"""pai-fuse keeps the function, the form of @main that the next stages want, and its promises."""

import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pai.compiler.reference import run_reference
from pai.dialects.mlir import ir, parse, to_text
from pai.passes.base import run_passes
from pai.passes.fuse import Fuse, fuse
from pai.passes.fuse.ops import CONTROL, STAYS


def lowered(function, *args):
    module = parse(jax.jit(function, keep_unused=True).lower(*args).as_text())
    run_passes(module, "pai-inline,pai-legalize,pai-cse,pai-dce")
    return module


def executable_text(module):
    return re.sub(r"pai\.\w+ = (\"[^\"]*\"|array<[^>]*>),? ?", "", to_text(module))


def blocks_of_main(module):
    main = next(f for f in module.body.operations if f.name.value == "main")
    stack = [block for region in main.operation.regions for block in region.blocks]
    while stack:
        block = stack.pop()
        yield block
        for op in block.operations:
            if op.operation.name in CONTROL:
                stack += [b for region in op.operation.regions for b in region.blocks]


def check_form(module):
    module.operation.verify()
    allowed = {*STAYS, "func.return", "stablehlo.return", "stablehlo.constant"}
    for block in blocks_of_main(module):
        assert {op.operation.name for op in block.operations} <= allowed
    keys = []
    for f in module.body.operations:
        if f.name.value != "main":
            keys.append(f.attributes["pai.key"].value)
            names = [op.operation.name for op in f.regions[0].blocks[0].operations]
            assert "stablehlo.optimization_barrier" not in names
            assert sum(n in {"stablehlo.dot_general", "stablehlo.convolution"} for n in names) <= 1
    assert len(set(keys)) == len(keys)


def check_same(function, *args, atol=1e-5):
    args = [np.asarray(a) for a in args]
    module = lowered(function, *args)
    before = run_reference(to_text(module), args)
    report = fuse(module)
    check_form(module)
    after = run_reference(executable_text(module), args)
    assert len(before) == len(after) > 0
    for a, b in zip(before, after, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol)
    return module, report


def kinds(module):
    return [
        f.attributes["pai.kernel"].value
        for f in module.body.operations
        if "pai.kernel" in f.attributes
    ]


def rand(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


UNARY = [jnp.exp, jnp.tanh, jnp.abs, lambda x: x * 0.5, lambda x: jnp.maximum(x, 0), jnp.sin]
BINARY = [jnp.add, jnp.subtract, jnp.multiply, jnp.minimum, lambda x, y: jnp.where(x > y, x, y)]
INDEXED = [
    lambda x: x.T,
    lambda x: x[::-1],
    lambda x: x.reshape(-1, 2).reshape(x.shape),
    lambda x: jnp.concatenate([x[1:], x[:1]]),
    lambda x: jnp.pad(x[1:-1], ((1, 1), (0, 0))),
    lambda x: x[jnp.array([3, 1, 0, 1])],
    lambda x: jnp.broadcast_to(x.sum(0), x.shape),
    lambda x: jnp.broadcast_to(x.max(1, keepdims=True), x.shape),
    lambda x: jax.lax.dynamic_update_slice(x, x[:2, :2] * 2, (1, 1)),
    lambda x: jnp.sort(x, axis=1),
    lambda x: x + jax.lax.iota(jnp.float32, 4)[:, None],
    lambda x: jnp.cumsum(x, 0) * 0.1,
]


@settings(max_examples=25, deadline=None, derandomize=True, phases=[Phase.generate])
@given(st.data())
def test_random_programs_keep_their_function(data):
    number = st.integers(0, 99)
    step = st.tuples(st.integers(0, 3), number, number, number)
    steps = data.draw(st.lists(step, min_size=3, max_size=14))
    results = data.draw(st.lists(number, min_size=1, max_size=3))

    def program(x, y):
        values = [x, y]
        for family, which, i, j in steps:
            a, b = values[i % len(values)], values[j % len(values)]
            if family == 0:
                values.append(UNARY[which % len(UNARY)](a))
            elif family == 1:
                values.append(BINARY[which % len(BINARY)](a, b))
            elif family == 2:
                values.append(INDEXED[which % len(INDEXED)](a))
            else:
                values.append(jnp.dot(a, b) * 0.1)
            values[-1] = jnp.clip(values[-1], -3, 3)
        return [values[-1]] + [values[i % len(values)] for i in results]

    check_same(program, rand(4, 4), rand(4, 4, seed=1), atol=1e-4)


def test_dot_takes_bias_activation_and_residual():
    def f(x, w, b, r):
        return jax.nn.relu(x @ w + b) + r

    module, report = check_same(f, rand(8, 6), rand(6, 4), rand(4), rand(8, 4))
    assert kinds(module) == ["dot"]
    assert report.kernels == 1
    assert report.fused_ops == report.ops - 1
    assert report.bytes_after == 4 * (8 * 6 + 6 * 4 + 4 + 8 * 4 + 8 * 4) < report.bytes_before


def test_dot_keeps_bias_even_when_two_kernels_read_the_sum():
    def f(x, w, b):
        y = x @ w + b
        return jnp.exp(y) / jnp.exp(y).sum(-1, keepdims=True), y.max(-1)

    module, _ = check_same(f, rand(64, 48), rand(48, 56), rand(56))
    text = to_text(module)
    (dot,) = [part for part in text.split("func.func") if "dot_general" in part]
    assert "stablehlo.add" in dot


def test_identical_layers_are_one_function():
    def f(x, w):
        for i in range(6):
            x = jnp.tanh(x @ w[i])
        return x

    _, report = check_same(f, rand(4, 8), rand(6, 8, 8))
    assert report.unique < report.kernels
    assert report.unique <= 7  # six slices of the stacked weight, one dot


def test_update_is_in_place_unless_it_reads_what_it_writes():
    def good(buffer, x, i):
        return jax.lax.dynamic_update_slice(buffer, jnp.exp(x) + 1, (i, 0))

    module, _ = check_same(good, rand(8, 4), rand(2, 4), np.int32(3))
    (kernel,) = [f for f in module.body.operations if "pai.kernel" in f.attributes]
    assert next(iter(ir.DenseI64ArrayAttr(kernel.attributes["pai.alias"]))) == 0
    assert "exponential" in str(kernel)

    def shifted(buffer, i):
        return jax.lax.dynamic_update_slice(buffer, buffer[1:3] * 2, (i, 0))

    module, _ = check_same(shifted, rand(8, 4), np.int32(3))
    for kernel in module.body.operations:
        if "pai.alias" in kernel.attributes:
            block = kernel.regions[0].blocks[0]
            result, operand = list(ir.DenseI64ArrayAttr(kernel.attributes["pai.alias"]))
            assert result == 0
            uses = list(block.arguments[operand].uses)
            assert [use.owner.name for use in uses] == ["stablehlo.dynamic_update_slice"]


def test_scatter_is_in_place():
    module, _ = check_same(lambda x, u: x.at[jnp.array([1, 3])].add(u), rand(6, 4), rand(2, 4))
    (kernel,) = [f for f in module.body.operations if "pai.alias" in f.attributes]
    assert kernel.attributes["pai.kernel"].value == "scatter"


def test_expensive_values_are_not_recomputed_under_a_broadcast():
    module, _ = check_same(lambda x, y: jnp.exp(x)[None, :] * y, rand(512), rand(64, 512))
    text = to_text(module)
    (multiply,) = [part for part in text.split("func.func") if "stablehlo.multiply" in part]
    assert "exponential" not in multiply


def test_doubling_index_maps_does_not_blow_up():
    def f(x):
        for _ in range(16):
            x = x[:-1] * 2 + x[1:]
        return x

    _, report = check_same(f, rand(40), atol=1.0)
    assert report.kernels < 16


def test_control_flow_stays_and_its_regions_are_fused():
    def f(x, n):
        def body(state):
            i, y = state
            return i + 1, jnp.where(i % 2 == 0, jnp.tanh(y) + x, y * 2)

        _, y = jax.lax.while_loop(lambda s: s[0] < n, body, (jnp.int32(0), x))
        return jax.lax.cond(y.sum() > 0, lambda v: v * 2 + x, lambda v: v - 1, y)

    module, _ = check_same(f, rand(3, 5), np.int32(4))
    assert len(list(blocks_of_main(module))) == 5


def test_arguments_and_constants_may_be_results():
    def f(x):
        return x, jnp.full((3,), 7.0), jnp.arange(1000.0), x

    check_same(f, rand(3, 5))


def test_siblings_become_one_kernel():
    def f(x):
        return jnp.exp(x) + 1, jnp.sin(x)

    _, report = check_same(f, rand(64, 64))
    assert report.kernels == 1
    assert report.bytes_after == 4 * 64 * 64 * 3


def test_reshapes_move_nothing():
    module, _ = check_same(lambda x: x.reshape(6, 4), rand(4, 6))
    assert kinds(module) == ["bitcast"]


def test_large_constants_stay_small_ones_sink():
    table = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    module, _ = check_same(lambda x: x * table + table[:1] + 2, rand(1000))
    names = [op.operation.name for block in blocks_of_main(module) for op in block.operations]
    assert names.count("stablehlo.constant") == 1


def test_is_deterministic():
    def f(x, w):
        y = jax.nn.softmax(x @ w)
        return y @ w.T, y

    texts = set()
    for _ in range(2):
        module = lowered(f, rand(8, 8), rand(8, 8))
        fuse(module)
        texts.add(to_text(module))
    assert len(texts) == 1


@pytest.mark.parametrize("layers", [400])
def test_time_is_near_linear(layers):
    def f(x):
        for i in range(layers):
            x = jnp.tanh(x * 1.5 + i) - x.sum(-1, keepdims=True)
        return x

    def seconds(text):
        module = parse(text)
        start = time.perf_counter()
        Fuse().fuse(module)
        return time.perf_counter() - start

    text = to_text(lowered(f, rand(8, 8)))
    assert seconds(text) < 5


def test_transposed_operands_are_read_in_place():
    def f(x, w, q, k):
        heads = jnp.einsum("bshd,bthd->bhst", q, k)
        kept = jnp.tensordot(x, jnp.transpose(k, (3, 2, 1, 0)), 1)  # free dimensions reordered
        return x @ w.T, heads, x.T.T @ w.T, kept

    arrays = rand(7, 4), rand(5, 4), rand(2, 3, 4, 4), rand(2, 3, 4, 4, seed=1)
    module, report = check_same(f, *arrays)
    text = to_text(module)
    assert text.count("stablehlo.transpose") == 1
    assert report.kernels == kinds(module).count("dot") + 2


def test_collectives_stay_between_kernels_and_barriers_go():
    module = parse("""
    func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<ui32>) {
      %c = stablehlo.constant dense<2.0> : tensor<4xf32>
      %0 = stablehlo.multiply %x, %c : tensor<4xf32>
      %1 = stablehlo.sine %0 : tensor<4xf32>
      %2 = stablehlo.optimization_barrier %1 : tensor<4xf32>
      %3 = "stablehlo.all_reduce"(%2) <{
        channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>,
        replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>, use_global_device_ids}> ({
      ^bb0(%a: tensor<f32>, %b: tensor<f32>):
        %sum = stablehlo.add %a, %b : tensor<f32>
        stablehlo.return %sum : tensor<f32>
      }) : (tensor<4xf32>) -> tensor<4xf32>
      %id = stablehlo.partition_id : tensor<ui32>
      %one = stablehlo.constant dense<1> : tensor<ui32>
      %next = stablehlo.add %id, %one : tensor<ui32>
      %4 = stablehlo.add %3, %c : tensor<4xf32>
      %5 = stablehlo.multiply %4, %2 : tensor<4xf32>
      return %5, %next : tensor<4xf32>, tensor<ui32>
    }""")
    report = fuse(module)
    check_form(module)
    (block,) = blocks_of_main(module)
    names = [op.operation.name for op in block.operations]
    assert names == [
        "func.call",
        "stablehlo.all_reduce",
        "stablehlo.partition_id",
        "func.call",
        "func.call",
        "func.return",
    ]
    assert report.kernels == 3


def test_reductions_take_what_follows_on_their_shape():
    def f(x):
        mean = x.mean(-1, keepdims=True)
        deviation = jnp.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-5)
        return (x - mean) / deviation

    module, report = check_same(f, rand(64, 96))
    assert kinds(module) == ["reduce", "reduce", "loop"]
    assert report.kernels == 3
