"""Products and convolutions against NumPy and XLA, over ragged shapes, levels and layouts."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from pai.compiler.codegen.cpu.target import parse_target
from pai.dialects.mlir import parse
from pai.passes.base import run_passes
from pai.passes.fuse import fuse

sys.path.insert(0, str(Path(__file__).parent))
from kernel_runner import LoadedKernel, compile_here

# Rounding grows with the number of terms n like sqrt(n); inputs and results are of order one.
TOLERANCE = {np.float32: 1e-5, np.float64: 2e-14}


def random(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def compile_one(function, arrays, level):
    """Return the only kernel of a function, and which arguments it takes."""
    module = parse(jax.jit(function, keep_unused=True).lower(*arrays).as_text())
    run_passes(module, "pai-inline,pai-legalize,pai-cse,pai-dce")
    fuse(module)
    (kernel,) = compile_here(module, parse_target(level)).values()
    (call,) = [
        op
        for op in module.body.operations[0].regions[0].blocks[0].operations
        if op.operation.name == "func.call"
    ]
    order = [int(value.arg_number) for value in call.operands]
    return LoadedKernel(kernel), order


def check(function, arrays, terms, level="cpu", parts=3):
    dtype = arrays[0].dtype.type
    with jax.enable_x64(dtype is np.float64):
        kernel, order = compile_one(function, arrays, level)
        expected = np.asarray(jax.jit(function)(*arrays))
    result = np.full(expected.shape, np.nan, dtype)
    kernel([arrays[i] for i in order], [result], parts)
    error = np.abs(result - expected).max() / np.sqrt(terms)
    assert np.abs(expected).max() > 0.1
    assert error < TOLERANCE[dtype]


DOTS = {
    "square": ((64, 48), (48, 96), ((1,), (0,)), ((), ())),
    "ragged": ((50, 37), (37, 101), ((1,), (0,)), ((), ())),
    "few rows": ((3, 200), (200, 300), ((1,), (0,)), ((), ())),
    "one row": ((1, 70), (70, 333), ((1,), (0,)), ((), ())),
    "rhs by rows": ((50, 32), (70, 32), ((1,), (1,)), ((), ())),
    "rhs by rows, ragged": ((50, 37), (70, 37), ((1,), (1,)), ((), ())),
    "few rows by rows": ((3, 37), (70, 37), ((1,), (1,)), ((), ())),
    "lhs by columns": ((37, 50), (37, 70), ((0,), (0,)), ((), ())),
    "both": ((37, 50), (70, 37), ((0,), (1,)), ((), ())),
    "long sum": ((20, 1801), (1801, 60), ((1,), (0,)), ((), ())),
    "batch": ((4, 20, 16), (4, 16, 33), ((2,), (1,)), ((0,), (0,))),
    "heads": ((2, 20, 3, 16), (2, 25, 3, 16), ((3,), (3,)), ((0, 2), (0, 2))),
    "two contracted": ((5, 7, 9), (9, 4, 7), ((1, 2), (2, 0)), ((), ())),
    "two free": ((2, 20, 16), (16, 3, 8), ((2,), (0,)), ((), ())),
    "matrix by vector": ((64, 100), (100,), ((1,), (0,)), ((), ())),
    "vector by matrix": ((100,), (100, 30), ((0,), (0,)), ((), ())),
    "outer product": ((33,), (18,), ((), ()), ((), ())),
}


def dot(dimensions):
    def function(a, b, r):
        return jax.nn.relu(jax.lax.dot_general(a, b, dimensions) * 0.5 + r)

    return function


@pytest.mark.parametrize("name", DOTS)
def test_dot_with_epilogue(name):
    a, b, *dimensions = DOTS[name]
    result = np.asarray(jax.lax.dot_general(random(a), random(b), dimensions)).shape
    arrays = [random(a), random(b, seed=1), random(result, seed=2)]
    check(dot(dimensions), arrays, np.prod([a[d] for d in dimensions[0][0]]))


@pytest.mark.parametrize("level", ["cpu:x86-64-v2", "cpu:x86-64-v3", "cpu:host"])
@pytest.mark.parametrize("name", ["ragged", "rhs by rows", "few rows by rows"])
def test_dot_at_every_level(name, level):
    a, b, *dimensions = DOTS[name]
    arrays = [random(a), random(b, seed=1)]
    check(lambda x, y: jax.lax.dot_general(x, y, dimensions), arrays, a[1], level)


@pytest.mark.parametrize("name", ["ragged", "rhs by rows", "one row"])
def test_dot_in_double_precision(name):
    a, b, *dimensions = DOTS[name]
    arrays = [random(a, np.float64), random(b, np.float64, 1)]
    check(lambda x, y: jax.lax.dot_general(x, y, dimensions), arrays, a[1])


FIRST, LAST = ("NCHW", "OIHW", "NCHW"), ("NHWC", "HWIO", "NHWC")
SAME, ODD = ((1, 1), (1, 1)), ((1, 0), (2, 1))
CONVS = {
    "1x1": ((2, 5, 9, 11), (7, 5, 1, 1), FIRST, {}),
    "3x3": ((2, 5, 9, 70), (20, 5, 3, 3), FIRST, {"padding": SAME}),
    "stride 2": ((1, 3, 20, 21), (16, 3, 3, 3), FIRST, {"padding": SAME, "window_strides": (2, 2)}),
    "groups": (
        (1, 8, 20, 21),
        (16, 4, 3, 3),
        FIRST,
        {"padding": ODD, "window_strides": (2, 1), "feature_group_count": 2},
    ),
    "dilated": ((1, 4, 10, 12), (6, 4, 3, 3), FIRST, {"padding": ODD, "rhs_dilation": (2, 3)}),
    "transposed": ((1, 4, 6, 7), (6, 4, 2, 2), FIRST, {"padding": SAME, "lhs_dilation": (2, 2)}),
    "wide window": ((1, 2, 40), (6, 2, 19), ("NCW", "OIW", "NCW"), {"padding": ((9, 3),)}),
    "depthwise, wide": (
        (1, 3, 9, 150),
        (3, 1, 7, 6),
        FIRST,
        {"padding": ((3, 3), (5, 2)), "feature_group_count": 3, "window_strides": (1, 1)},
    ),
    "cropped": ((1, 4, 9, 9), (6, 4, 2, 2), FIRST, {"padding": ((-1, 0), (0, -2))}),
    "many channels": ((1, 300, 6, 7), (6, 300, 3, 3), FIRST, {"padding": SAME}),
    "depthwise": ((2, 6, 9, 40), (6, 1, 3, 3), FIRST, {"padding": SAME, "feature_group_count": 6}),
    "depthwise stride 2": (
        (2, 6, 9, 41),
        (6, 1, 5, 5),
        FIRST,
        {"padding": SAME, "feature_group_count": 6, "window_strides": (2, 2)},
    ),
    "depthwise, two each": (
        (1, 6, 9, 40),
        (12, 1, 3, 3),
        FIRST,
        {"padding": SAME, "feature_group_count": 6, "rhs_dilation": (2, 3)},
    ),
    "last 1x1": ((2, 9, 11, 5), (1, 1, 5, 7), LAST, {}),
    "last 3x3": ((2, 9, 11, 5), (3, 3, 5, 70), LAST, {"padding": SAME}),
    "last groups": (
        (2, 9, 11, 6),
        (3, 3, 3, 8),
        LAST,
        {"padding": ODD, "window_strides": (2, 2), "feature_group_count": 2},
    ),
    "last transposed": (
        (1, 6, 7, 4),
        (2, 2, 4, 6),
        LAST,
        {"padding": SAME, "lhs_dilation": (2, 2)},
    ),
    "last many channels": ((1, 6, 7, 300), (3, 3, 300, 6), LAST, {"padding": SAME}),
    "last depthwise": (
        (2, 9, 40, 21),
        (3, 3, 1, 21),
        LAST,
        {"padding": SAME, "feature_group_count": 21, "window_strides": (1, 2)},
    ),
    "one axis": ((2, 5, 40), (7, 5, 3), ("NCW", "OIW", "NCW"), {"window_strides": (2,)}),
    "one axis last": ((2, 40, 5), (3, 5, 7), ("NWC", "WIO", "NWC"), {"rhs_dilation": (2,)}),
    "other layouts": ((2, 9, 11, 5), (7, 5, 3, 3), ("NHWC", "OIHW", "NHWC"), {}),
    "left to the elemental emitter": ((9, 2, 11, 5), (7, 5, 3, 3), ("HNWC", "OIHW", "NWHC"), {}),
}


def conv(dimensions, options):
    options = {"window_strides": (1,) * (len(dimensions[0]) - 2), "padding": "VALID", **options}

    def function(x, w, b):
        y = jax.lax.conv_general_dilated(x, w, dimension_numbers=dimensions, **options)
        shape = [1] * y.ndim
        shape[dimensions[2].index("C")] = -1
        return jax.nn.relu(y + b.reshape(shape))

    return function


@pytest.mark.parametrize("name", CONVS)
def test_convolution(name):
    x, w, dimensions, options = CONVS[name]
    outputs = w[dimensions[1].index("O")]
    arrays = [random(x), random(w, seed=1), random((outputs,), seed=2)]
    check(conv(dimensions, options), arrays, np.prod(w) / outputs)


@pytest.mark.parametrize("level", ["cpu:x86-64-v2", "cpu:x86-64-v3"])
@pytest.mark.parametrize("name", ["3x3", "last 3x3", "depthwise", "last depthwise"])
def test_convolution_at_lesser_levels(name, level):
    x, w, dimensions, options = CONVS[name]
    outputs = w[dimensions[1].index("O")]
    arrays = [random(x), random(w, seed=1), random((outputs,), seed=2)]
    check(conv(dimensions, options), arrays, np.prod(w) / outputs, level)


def test_reversed_window():
    shape, window = (1, 3, 8, 9), (4, 3, 3, 2)

    def function(x, w):
        return jax.lax.conv_general_dilated(x, jax.lax.rev(w, (2, 3)), (1, 1), "VALID")

    text = jax.jit(function).lower(random(shape), random(window)).as_text()
    assert "stablehlo.reverse" in text
    text = "\n".join(line for line in text.splitlines() if "stablehlo.reverse" not in line)
    text = text.replace("%0", "%arg1").replace("reverse = [false, false]", "reverse = [true, true]")
    text = text.replace("%arg1 = stablehlo.conv", "%1 = stablehlo.conv")
    module = parse(text)
    fuse(module)
    (kernel,) = compile_here(module, parse_target("cpu")).values()
    arrays = [random(shape), random(window, seed=1)]
    expected = np.asarray(jax.jit(function)(*arrays))
    result = np.full(expected.shape, np.nan, np.float32)
    LoadedKernel(kernel)(arrays, [result])
    np.testing.assert_allclose(result, expected, atol=1e-5)
