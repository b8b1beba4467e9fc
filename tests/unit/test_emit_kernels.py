"""Whole kernels: what fusion hands over, cut into grid parts, in place, and refused."""

import numpy as np
import pytest

from benchmarks.run_kernel import Kernel
from pai.compiler.codegen.cpu.target import parse_target
from pai.runtime.errors import UnsupportedOp

RNG = np.random.default_rng(0)
SOFTMAX = """module { func.func @k(%a: tensor<8x4x33xf32>) -> tensor<8x4x33xf32> {
 %z = stablehlo.constant dense<0.0> : tensor<f32>
 %m = stablehlo.constant dense<0xFF800000> : tensor<f32>
 %x = stablehlo.reduce(%a init: %m) applies stablehlo.maximum across dimensions=[2] : (tensor<8x4x33xf32>, tensor<f32>) -> tensor<8x4xf32>
 %xb = stablehlo.broadcast_in_dim %x, dims=[0,1] : (tensor<8x4xf32>) -> tensor<8x4x33xf32>
 %d = stablehlo.subtract %a, %xb : tensor<8x4x33xf32>
 %e = stablehlo.exponential %d : tensor<8x4x33xf32>
 %s = stablehlo.reduce(%e init: %z) applies stablehlo.add across dimensions=[2] : (tensor<8x4x33xf32>, tensor<f32>) -> tensor<8x4xf32>
 %sb = stablehlo.broadcast_in_dim %s, dims=[0,1] : (tensor<8x4xf32>) -> tensor<8x4x33xf32>
 %r = stablehlo.divide %e, %sb : tensor<8x4x33xf32>
 return %r : tensor<8x4x33xf32> } }"""  # noqa: E501
SUMS = """module { func.func @k(%a: tensor<N0xN1xf32>) -> tensor<OUTxf32> {
 %z = stablehlo.constant dense<0.0> : tensor<f32>
 %r = stablehlo.reduce(%a init: %z) applies stablehlo.add across dimensions=[DIM] : (tensor<N0xN1xf32>, tensor<f32>) -> tensor<OUTxf32>
 return %r : tensor<OUTxf32> } }"""  # noqa: E501
UPDATE = """module { func.func @k(%a: tensor<6x4xf32>, %u: tensor<2x4xf32>, %i: tensor<i32>) -> tensor<6x4xf32> ATTRS {
 %c = stablehlo.constant dense<0> : tensor<i32>
 UPDATE
 %r = stablehlo.dynamic_update_slice %a, %v, %i, %c : (tensor<6x4xf32>, tensor<2x4xf32>, tensor<i32>, tensor<i32>) -> tensor<6x4xf32>
 return %r : tensor<6x4xf32> } }"""  # noqa: E501


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_softmax_is_one_row_loop_with_one_row_of_scratch():
    kernel = Kernel(SOFTMAX)
    assert kernel.source.scratch_bytes <= 64 * 6
    x = RNG.standard_normal((8, 4, 33)).astype(np.float32)
    np.testing.assert_allclose(kernel.run([x])[0], softmax(x.astype(np.float64)), rtol=1e-6)


@pytest.mark.parametrize(
    ("dim", "shape"), [(0, (300, 5000)), (1, (700, 600)), (1, (3, 5)), (0, (3, 5))]
)
def test_parts_of_the_grid_are_independent(dim, shape):
    text = SUMS.replace("DIM", str(dim)).replace("OUT", str(shape[1 - dim]))
    kernel = Kernel(text.replace("N0", str(shape[0])).replace("N1", str(shape[1])))
    assert (kernel.source.grid > 1) == (shape[0] > 3)
    x = RNG.standard_normal(shape).astype(np.float32)
    forward, backward = kernel.run([x])[0], kernel.run([x], reverse=True)[0]
    np.testing.assert_array_equal(forward, backward)
    np.testing.assert_allclose(forward, x.astype(np.float64).sum(dim), rtol=1e-4, atol=1e-4)


def test_several_results_of_one_shape_share_a_loop():
    text = """module { func.func @k(%a: tensor<70xf32>, %b: tensor<70xf32>) -> (tensor<70xf32>, tensor<70xf32>, tensor<70xf32>) {
      %p = stablehlo.add %a, %b : tensor<70xf32>
      %q = stablehlo.multiply %p, %p : tensor<70xf32>
      return %p, %q, %a : tensor<70xf32>, tensor<70xf32>, tensor<70xf32> } }"""  # noqa: E501
    kernel = Kernel(text)
    a, b = RNG.standard_normal((2, 70)).astype(np.float32)
    p, q, c = kernel.run([a, b])
    np.testing.assert_array_equal(p, a + b)
    np.testing.assert_array_equal(q, (a + b) * (a + b))
    np.testing.assert_array_equal(c, a)
    assert kernel.source.text.count("scf.for") == 2  # the shared loop, and the copy of %a


def in_place(text, a, *others):
    """Run a kernel whose result shares the first operand's memory."""
    import ctypes

    kernel = Kernel(text)
    data = a.copy()
    scratch = np.zeros(kernel.source.scratch_bytes + 64, np.uint8)
    buffers = [data, *others, data]
    pointers = (ctypes.c_void_p * len(buffers))(*[b.ctypes.data for b in buffers])
    kernel._entry(pointers, 0, kernel.source.grid, scratch.ctypes.data)
    return data


@pytest.mark.parametrize(
    "update",
    [
        "%v = stablehlo.negate %u : tensor<2x4xf32>",
        # Reads the operand, in rows that are overwritten in another order.
        """%t = stablehlo.reverse %a, dims = [0] : tensor<6x4xf32>
           %w = stablehlo.slice %t [1:3, 0:4] : (tensor<6x4xf32>) -> tensor<2x4xf32>
           %v = stablehlo.add %u, %w : tensor<2x4xf32>""",
    ],
)
def test_update_in_place(update):
    plain = UPDATE.replace("UPDATE", update).replace("ATTRS", "")
    alias = UPDATE.replace("UPDATE", update).replace(
        "ATTRS", "attributes {pai.alias = array<i64: 0, 0>}"
    )
    a, u = (
        RNG.standard_normal((6, 4)).astype(np.float32),
        RNG.standard_normal((2, 4)).astype(np.float32),
    )
    for i in (0, 3, 9):
        at = np.array(i, np.int32)
        np.testing.assert_array_equal(in_place(alias, a, u, at), Kernel(plain).run([a, u, at])[0])


@pytest.mark.parametrize(
    ("shape", "dims"),
    [((70, 96), (1, 0)), ((3, 40, 64), (0, 2, 1)), ((9, 33, 70), (2, 0, 1)), ((2, 3), (1, 0))],
)
def test_transpositions_are_tiled(shape, dims):
    out = tuple(shape[d] for d in dims)
    a, r = ("tensor<" + "".join(f"{n}x" for n in s) + "f32>" for s in (shape, out))
    kernel = Kernel(f"""module {{ func.func @k(%a: {a}) -> {r} {{
      %t = stablehlo.transpose %a, dims = {list(dims)} : ({a}) -> {r}
      %r = stablehlo.negate %t : {r}
      return %r : {r} }} }}""")
    x = RNG.standard_normal(shape).astype(np.float32)
    for reverse in (False, True):
        np.testing.assert_array_equal(kernel.run([x], reverse)[0], -x.transpose(dims))


def test_concatenated_parts_have_loops_without_branches():
    text = """module { func.func @k(%a: tensor<6x8xf32>, %b: tensor<6x5xf32>) -> tensor<6x17xf32> {
      %z = stablehlo.constant dense<1.5> : tensor<f32>
      %n = stablehlo.negate %a : tensor<6x8xf32>
      %c = stablehlo.concatenate %n, %b, dim = 1 : (tensor<6x8xf32>, tensor<6x5xf32>) -> tensor<6x13xf32>
      %e = stablehlo.exponential %c : tensor<6x13xf32>
      %r = stablehlo.pad %e, %z, low = [0, 1], high = [0, 3], interior = [0, 0] : (tensor<6x13xf32>, tensor<f32>) -> tensor<6x17xf32>
      return %r : tensor<6x17xf32> } }"""  # noqa: E501
    kernel = Kernel(text)
    a, b = (
        RNG.standard_normal((6, 8)).astype(np.float32),
        RNG.standard_normal((6, 5)).astype(np.float32),
    )
    want = np.pad(np.exp(np.concatenate([-a, b], 1)), ((0, 0), (1, 3)), constant_values=1.5)
    np.testing.assert_allclose(kernel.run([a, b])[0], want, rtol=1e-6)


def test_long_chains_are_no_deeper_than_short_ones():
    lines = "\n".join(f"%x{i + 1} = stablehlo.add %x{i}, %x0 : tensor<4xf32>" for i in range(1500))
    text = f"module {{ func.func @k(%x0: tensor<4xf32>) -> tensor<4xf32> {{\n{lines}\n"
    x = np.arange(4, dtype=np.float32)
    (got,) = Kernel(text + "return %x1500 : tensor<4xf32> } }").run([x])
    np.testing.assert_array_equal(got, x * 1501)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0, 4.0, -1.0, -2.0, 0.5, 2.5])
def test_constant_exponents(exponent):
    text = f"""module {{ func.func @k(%a: tensor<6xf32>) -> tensor<6xf32> {{
      %e = stablehlo.constant dense<{exponent}> : tensor<f32>
      %b = stablehlo.broadcast_in_dim %e, dims = [] : (tensor<f32>) -> tensor<6xf32>
      %r = stablehlo.power %a, %b : tensor<6xf32>
      return %r : tensor<6xf32> }} }}"""
    kernel = Kernel(text)
    assert ("@powf" in kernel.source.text) == (exponent in (0.5, 2.5))
    x = np.array([0.0, 1.5, -2.25, np.inf, np.nan, 1e-3], np.float32)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(kernel.run([x])[0], x ** np.float32(exponent), rtol=1e-6)


def test_the_same_function_gives_the_same_text():
    assert Kernel(SOFTMAX).source.text == Kernel(SOFTMAX).source.text


def test_levels_without_f16_conversion_still_convert():
    text = """module { func.func @k(%a: tensor<9xf16>) -> tensor<9xf16> {
      %r = stablehlo.add %a, %a : tensor<9xf16>
      return %r : tensor<9xf16> } }"""
    kernel = Kernel(text, parse_target("cpu:x86-64-v2"))
    x = np.array([0, -0.0, 1, 1e-7, 6e-5, 40000, np.inf, np.nan, -3.3], np.float16)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(kernel.run([x])[0], x + x)


def test_an_unknown_operation_is_named():
    text = """module { func.func @k(%a: tensor<9xf32>) -> tensor<9xf32> {
      %r = stablehlo.custom_call @mystery(%a) : (tensor<9xf32>) -> tensor<9xf32>
      return %r : tensor<9xf32> } }"""
    with pytest.raises(UnsupportedOp, match="custom_call"):
        Kernel(text)
