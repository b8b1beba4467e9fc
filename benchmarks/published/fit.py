"""Fitting the constants to the fitted halves of the tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import least_squares  # type: ignore[import-untyped]

from benchmarks.published.case import Case
from pai.passes.strategy.calibration import A100, SHEETS, Calibration, transferred

BOUNDS = {
    "gemm": (0.3, 1.0),
    "epilogue": (0.0, 5.0),
    "memory": (0.4, 1.0),
    "attention_forward": (0.1, 1.0),
    "attention_backward": (0.1, 1.0),
    "contention": (0.0, 1.0),
}
PRIORS = {"memory": (0.85, 0.05), "epilogue": (1.0, 0.5)}
"""What is known of a constant before fitting: its value and the error of that. Streaming kernels
reach 0.8 to 0.9 of the bandwidth; a result is written about once while nothing is computed."""

ERROR = 0.03
"""Error of a measured time; larger residuals count less than their square (published runs of one
configuration differ by 3 to 5 %, and some are outliers)."""

PRODUCTS = ("gemm", "attention_forward", "attention_backward")


def fit_a100(cases: Sequence[Case]) -> Calibration:
    """Return the A100's constants; every table weighs the same."""
    own = [case for case in cases if case.fitted and case.kind == "a100"]
    return fit(own, A100, tuple(BOUNDS))


def fit_h100(cases: Sequence[Case], a100: Calibration) -> Calibration:
    """Return the H100's constants: its own rates of products, the A100's other constants."""
    start = transferred(a100, SHEETS["a100"], SHEETS["h100"])
    own = [c for c in cases if c.fitted and c.kind == "h100" and c.table == "llmfoundry_fsdp"]
    return fit(own, start, PRODUCTS)


def fit(cases: Sequence[Case], start: Calibration, names: tuple[str, ...]) -> Calibration:
    """Return the constants ``names`` that fit the logarithms of the measured times best."""
    sizes = Counter(case.table for case in cases)
    most = max(sizes.values())
    weights = [math.sqrt(most / sizes[case.table]) for case in cases]
    priors = [(names.index(name), *PRIORS[name]) for name in PRIORS if name in names]

    def residuals(values: np.ndarray) -> list[float]:
        constants = _with(start, names, values)
        times = [math.log(case.predict(constants) / case.measured) for case in cases]
        known = [(values[i] - mean) / error * ERROR for i, mean, error in priors]
        return [w * t for w, t in zip(weights, times, strict=True)] + known

    low, high = (np.array([BOUNDS[name][side] for name in names]) for side in (0, 1))
    first = np.clip([getattr(start, name) for name in names], low + 1e-3, high - 1e-3)
    best = least_squares(
        residuals, first, bounds=(low, high), loss="soft_l1", f_scale=ERROR, diff_step=1e-4
    )
    return _with(start, names, best.x)


def _with(start: Calibration, names: tuple[str, ...], values: np.ndarray) -> Calibration:
    changed: dict[str, Any] = {n: float(v) for n, v in zip(names, values, strict=True)}
    return replace(start, **changed)
