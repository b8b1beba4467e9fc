"""Our own f32 functions against float64: errors in units of the last place on dense sweeps."""

import functools
import math

import numpy as np
import pytest

from benchmarks.run_kernel import Kernel

N = 200_000


@functools.cache
def kernel(op, dtype="f32"):
    t = f"tensor<{N}x{dtype}>"
    head = f"module {{ func.func @k(%a: {t}) -> {t} {{"
    return Kernel(f'{head}\n%r = "{op}"(%a) : ({t}) -> {t}\nreturn %r : {t} }} }}')


def sweep(low, high):
    """Half of the points evenly in [low, high], half over all exponents that fit there."""
    even = np.linspace(low, high, N // 2)
    sizes = np.exp2(np.linspace(-149, 127, N // 2)) * np.where(np.arange(N // 2) % 2, 1, -1)
    return np.concatenate([even, np.clip(sizes, low, high)]).astype(np.float32)


def ulps(got, want):
    """Return the greatest error, in units of the last place of the (f32) result."""
    with np.errstate(all="ignore"):
        rounded = want.astype(np.float32)
        special = ~np.isfinite(rounded)
        np.testing.assert_array_equal(got[special], rounded[special])
        unit = np.spacing(np.maximum(np.abs(rounded[~special]), np.float32(2**-126))).astype(
            np.float64
        )
    return float(np.max(np.abs(got[~special].astype(np.float64) - want[~special]) / unit))


def erf(x):
    return np.vectorize(math.erf)(x)


def logistic(x):
    return np.where(
        x < 0,
        np.exp(np.minimum(x, 0)) / (1 + np.exp(np.minimum(x, 0))),
        1 / (1 + np.exp(-np.maximum(x, 0))),
    )


@pytest.mark.parametrize(
    ("op", "function", "low", "high", "bound"),
    [
        ("stablehlo.exponential", np.exp, -110, 95, 1.5),
        ("stablehlo.exponential_minus_one", np.expm1, -110, 95, 2.5),
        ("stablehlo.log", np.log, 0, 3.4e38, 1.5),
        ("stablehlo.log", np.log, 0.5, 2, 1.5),
        ("stablehlo.log_plus_one", np.log1p, -0.9999, 10, 2.0),
        ("stablehlo.tanh", np.tanh, -12, 12, 2.0),
        ("stablehlo.logistic", logistic, -105, 105, 2.5),
        ("chlo.erf", erf, -5, 5, 2.5),
        ("stablehlo.sine", np.sin, -20, 20, 1.0),
        ("stablehlo.cosine", np.cos, -20, 20, 1.0),
        ("stablehlo.tan", np.tan, -20, 20, 1.0),
        ("stablehlo.sine", np.sin, -3.4e38, 3.4e38, 1.0),
        ("stablehlo.cosine", np.cos, -3.4e38, 3.4e38, 1.0),
        ("stablehlo.rsqrt", lambda x: 1 / np.sqrt(x), 1e-30, 1e30, 1.5),
    ],
)
def test_error_is_bounded(op, function, low, high, bound):
    x = sweep(low, high)
    (got,) = kernel(op).run([x])
    with np.errstate(all="ignore"):
        want = function(x.astype(np.float64))
    assert ulps(got, want) <= bound


@pytest.mark.parametrize(
    ("op", "points"),
    [
        ("stablehlo.exponential", {-np.inf: 0, np.inf: np.inf, 0: 1, 1000: np.inf, -1000: 0}),
        (
            "stablehlo.exponential_minus_one",
            {-np.inf: -1, np.inf: np.inf, 0: 0, 1000: np.inf, 1e-40: 1e-40},
        ),
        ("stablehlo.log", {-1: np.nan, 0: -np.inf, np.inf: np.inf, 1: 0}),
        ("stablehlo.log_plus_one", {-1: -np.inf, -2: np.nan, np.inf: np.inf, 0: 0, 1e-30: 1e-30}),
        ("stablehlo.tanh", {np.inf: 1, -np.inf: -1, 0: 0, 1e-40: 1e-40}),
        ("stablehlo.logistic", {np.inf: 1, -np.inf: 0, 0: 0.5}),
        ("chlo.erf", {np.inf: 1, -np.inf: -1, 0: 0}),
        ("stablehlo.sine", {np.inf: np.nan, -np.inf: np.nan, 0: 0, 1e-40: 1e-40}),
        ("stablehlo.cosine", {np.inf: np.nan, 0: 1}),
        ("stablehlo.rsqrt", {0: np.inf, np.inf: 0, -1: np.nan}),
    ],
)
def test_edges(op, points):
    x = np.zeros(N, np.float32)
    x[: len(points)] = list(points)
    x[len(points)] = np.nan
    (got,) = kernel(op).run([x])
    want = np.array([*points.values(), np.nan], np.float32)
    np.testing.assert_allclose(got[: len(want)], want, rtol=1e-6)


def test_odd_functions_keep_the_sign_of_zero():
    x = np.full(N, -0.0, np.float32)
    for op in ("stablehlo.tanh", "stablehlo.sine", "chlo.erf", "stablehlo.exponential_minus_one"):
        (got,) = kernel(op).run([x])
        assert np.signbit(got[0]), op
