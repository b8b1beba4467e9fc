"""Narrow floats: every code decoded, and roundings of f32 and f64, against ml_dtypes."""

import ml_dtypes
import numpy as np
import pytest

from benchmarks.run_kernel import run_kernel
from pai.compiler.codegen.cpu.emit.types import FORMATS
from pai.runtime.dtypes import DTYPES


def convert(x, source, target):
    n = len(x)
    a, r = f"tensor<{n}x{source}>", f"tensor<{n}x{target}>"
    head = f"module {{ func.func @k(%a: {a}) -> {r} {{"
    body = f"%r = stablehlo.convert %a : ({a}) -> {r}\nreturn %r : {r}"
    return run_kernel(f"{head}\n{body} }} }}", [x])[0]


def bits(x):
    """Return codes, with all NaNs the same."""
    code = x.view(f"u{x.dtype.itemsize}").copy()
    code[np.isnan(x.astype(np.float32))] = 0xFF
    return code


@pytest.mark.parametrize("name", FORMATS)
def test_every_code_has_its_value(name):
    dtype = DTYPES[name]
    codes = np.arange(1 << ml_dtypes.finfo(dtype).bits)
    x = codes.astype(f"u{dtype.itemsize}").view(dtype)
    np.testing.assert_array_equal(convert(x, name, "f32"), x.astype(np.float32))


@pytest.mark.parametrize("name", FORMATS)
def test_f32_is_rounded_as_ml_dtypes_does(name):
    dtype = DTYPES[name]
    codes = (
        np.arange(1 << min(ml_dtypes.finfo(dtype).bits, 16))
        .astype(f"u{dtype.itemsize}")
        .view(dtype)
    )
    with np.errstate(all="ignore"):
        exact = np.sort(codes.astype(np.float32))
        exact = exact[np.isfinite(exact)]
        middle = (exact[1:].astype(np.float64) + exact[:-1]) / 2
        middle = middle.astype(np.float32)
        around = [
            exact,
            middle,
            np.nextafter(middle, np.float32(np.inf)),
            np.nextafter(middle, np.float32(-np.inf)),
        ]
        edge = [
            0.0,
            -0.0,
            np.inf,
            -np.inf,
            np.nan,
            3e38,
            -3e38,
            1e-45,
            -1e-45,
            448,
            449,
            464,
            465,
            480,
            57344,
            61440,
            65519,
            65520,
        ]
        x = np.concatenate([*around, np.array(edge, np.float32)])
        want = x.astype(dtype)
    got = convert(x, "f32", name)
    wrong = bits(got) != bits(want)
    assert not wrong.any(), list(zip(x[wrong][:5], got[wrong][:5], want[wrong][:5], strict=True))


@pytest.mark.parametrize("name", ["bf16", "f16"])
def test_f64_is_rounded_once(name):
    """Just above the middle of two neighbours: a detour over f32 would round down, then to even."""
    dtype = DTYPES[name]
    low = np.array([1.0, 1.0, 2.0], np.float64)
    step = float(ml_dtypes.finfo(dtype).eps)
    x = low * (1 + step / 2) + np.array([1e-12, -1e-12, 1e-12])
    want = np.array([1 + step, 1.0, 2 * (1 + step)])
    np.testing.assert_array_equal(convert(x, "f64", name).astype(np.float64), want)
