"""Verification: the package on virtual devices against the untouched one-device program.

The oracle is XLA's CPU backend on the module as it was imported, before any pass of ours; for an
ONNX model also onnxruntime on the model file, when it is installed. The relative error of an
output is its largest absolute error over the largest magnitude of the reference output; NaN and
infinities must be in the same places. Against onnxruntime that magnitude is at least 0.01: its
sigmoid and softmax have absolute errors of about 1e-7, however small their results are.

Some models amplify rounding: a value that is quantized at run time lies on a rounding boundary, or
a variance is nearly zero. When an output is over its tolerance, the oracle is run once more with
every float weight and input moved by four units in the last place, about what math libraries differ
by; what that changes is the model's own noise, and four times it is allowed. The report shows it.

The checks of a self-checking module must be true; they are an oracle of their own, and XLA runs
only when there are other outputs. What XLA does not read (quantized types, say) it gets simplified.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from pai.compiler.inputs import random_inputs
from pai.compiler.reference import run_reference
from pai.dialects.mlir import parse, to_text
from pai.dialects.program import Program, Role
from pai.passes.base import run_passes
from pai.passes.pipelines import STAGES as PIPELINES
from pai.runtime.dtypes import DTYPES, NAMES
from pai.runtime.errors import VerificationFailed
from pai.runtime.executor import load

ITSELF = "itself"  # the oracle of checks

# Largest relative error allowed, by the dtype of the output. f32 sums of some thousand terms in
# another order differ by 1e-6..1e-5; the narrow types allow a few units in their last place.
RELATIVE_TOLERANCE = {
    "f64": 1e-9,
    "complex<f64>": 1e-9,
    "f32": 1e-4,
    "complex<f32>": 1e-4,
    "f16": 4e-3,
    "bf16": 3e-2,
}
NARROW_FLOAT_TOLERANCE = 0.26  # f8 and smaller: one unit in the last place of two mantissa bits
SMALLEST_SCALE = {"onnxruntime": 1e-2}  # smaller outputs are measured against this
NOISE_MARGIN = 4.0
NOISE_UNITS = 4
NOISE_DRAWS = 4
QUANTIZED_UNITS = 1  # 8-bit integers: one unit, where a value lies on a rounding boundary


@dataclass(frozen=True)
class OutputError:
    """How far one output is from one oracle.

    Args:
        name: of the output.
        oracle: ``xla``, ``xla (simplified)``, ``onnxruntime``, or ``itself`` for a check.
        dtype: of the output.
        max_abs: largest absolute error.
        max_rel: that over the largest magnitude of the oracle's output.
        tolerance: the largest relative error allowed (units for 8-bit integers).
        ok: whether it is within the tolerance.
        noise: relative change of the oracle when weights and inputs move by a few units in the last
            place; 0 when it was not needed.
    """

    name: str
    oracle: str
    dtype: str
    max_abs: float
    max_rel: float
    tolerance: float
    ok: bool
    noise: float = 0.0


@dataclass(frozen=True)
class Verification:
    """The errors of every output against every oracle that ran."""

    num_devices: int
    outputs: tuple[OutputError, ...]

    @property
    def ok(self) -> bool:
        """Whether every output is within its tolerance."""
        return all(error.ok for error in self.outputs)

    @property
    def worst(self) -> float:
        """The largest relative error of all outputs."""
        return max((error.max_rel for error in self.outputs), default=0.0)


def verify_package(
    program: Program,
    reference: str,
    path: Path,
    inputs: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
) -> Verification:
    """Run the package at ``path`` and the oracles on the same inputs.

    Args:
        program: the simplified program, for its signature and weights.
        reference: text of the module as imported.
        path: the package.
        inputs: arrays by name; random ones are drawn for those not given.
        seed: of the random inputs.

    Raises:
        VerificationFailed: when an output is off by more than its tolerance, or a check is false.
    """
    feed = {**random_inputs(program, seed), **(inputs or {})}
    package = load(path)
    got = package.run(**feed)
    arguments = [
        feed[value.name] if value.role is Role.INPUT else program.weights.load(value.name)
        for value in program.signature.arguments
    ]
    results = program.signature.results
    checks = {value.name: np.array(True) for value in results if value.role is Role.CHECK}
    names = [value.name for value in results if value.name not in checks]
    oracles = {ITSELF: checks} if checks else {}
    if names:
        oracle, reference, values = _run_xla(reference, arguments)
        oracles[oracle] = dict(zip(names, values, strict=False))  # checks are the last results
    peer = _run_onnxruntime(program, feed)
    if peer is not None:
        oracles["onnxruntime"] = peer
    outputs = tuple(
        compare(name, oracle, got[name], expected[name])
        for oracle, expected in oracles.items()
        for name in expected
    )
    if not all(error.ok or error.oracle == ITSELF for error in outputs):
        noise = _noise(reference, arguments, oracles[oracle], seed)
        outputs = tuple(_allow_noise(error, noise.get(error.name, 0.0)) for error in outputs)
    result = Verification(package.num_devices, outputs)
    _raise_if_wrong(result, path)
    return result


def _run_xla(reference: str, arguments: Sequence[np.ndarray]) -> tuple[str, str, list[np.ndarray]]:
    """Run the module on XLA, simplified when XLA does not read it as it is.

    Returns:
        The oracle's name, the text that ran, and its results.
    """
    try:
        return "xla", reference, run_reference(reference, arguments)
    except jax.errors.JaxRuntimeError:
        module = parse(reference, "reference")
        run_passes(module, PIPELINES["simplify"])
    simplified = to_text(module)
    try:
        return "xla (simplified)", simplified, run_reference(simplified, arguments)
    except jax.errors.JaxRuntimeError as error:
        raise VerificationFailed(
            f"the reference executor cannot run this module: {str(error).splitlines()[0]}",
            hint="compile it without --verify",
        ) from error


def _noise(
    reference: str, arguments: Sequence[np.ndarray], expected: Mapping[str, np.ndarray], seed: int
) -> dict[str, float]:
    """Return per output the largest relative change that a few units in the inputs make."""
    noise = dict.fromkeys(expected, 0.0)
    for draw in range(NOISE_DRAWS):
        moved = run_reference(reference, _few_units_off(arguments, seed + draw))
        for name, value in zip(expected, moved, strict=False):
            noise[name] = max(noise[name], compare(name, "xla", value, expected[name]).max_rel)
    return noise


def _few_units_off(arrays: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """Return the arrays with every f32 and f64 element moved by NOISE_UNITS, up or down."""
    generator = np.random.default_rng(seed)
    moved = []
    for array in map(np.asarray, arrays):
        if array.dtype in (np.float32, np.float64):
            signs = generator.choice(np.array([-1, 1], array.dtype), array.shape)
            array = array + signs * NOISE_UNITS * np.spacing(np.abs(array))  # noqa: PLW2901
        moved.append(array)
    return moved


def _allow_noise(error: OutputError, noise: float) -> OutputError:
    if error.ok or error.dtype.startswith(("i", "ui")) or not np.isfinite(noise):
        return error
    tolerance = max(error.tolerance, NOISE_MARGIN * noise)
    ok = bool(error.max_rel <= tolerance)
    return replace(error, tolerance=tolerance, ok=ok, noise=noise)


def compare(name: str, oracle: str, got: np.ndarray, expected: np.ndarray) -> OutputError:
    """Return the error of ``got`` against ``expected`` (same shape and dtype)."""
    dtype = NAMES[expected.dtype]
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return OutputError(name, oracle, dtype, np.inf, np.inf, 0.0, ok=False)
    if dtype.startswith(("i", "ui")):
        return _compare_integers(name, oracle, dtype, got, expected)
    wide = np.complex128 if dtype.startswith("complex") else np.float64
    a, b = got.astype(wide), expected.astype(wide)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(a - b))
    magnitude = float(np.abs(b)[np.isfinite(b)].max(initial=0.0))
    max_abs = float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0))
    scale = max(magnitude, SMALLEST_SCALE.get(oracle, 0.0))
    max_rel = max_abs / scale if scale > 0 else max_abs
    tolerance = RELATIVE_TOLERANCE.get(dtype, NARROW_FLOAT_TOLERANCE)
    return OutputError(name, oracle, dtype, max_abs, max_rel, tolerance, bool(max_rel <= tolerance))


def _compare_integers(
    name: str, oracle: str, dtype: str, got: np.ndarray, expected: np.ndarray
) -> OutputError:
    a, b = np.atleast_1d(got).astype(object), np.atleast_1d(expected).astype(object)
    max_abs = float(max(np.abs(a - b).ravel().tolist(), default=0))
    magnitude = float(max(np.abs(b).ravel().tolist(), default=0))
    allowed = QUANTIZED_UNITS if dtype in ("i8", "ui8") else 0
    relative = max_abs / magnitude if magnitude else max_abs
    return OutputError(
        name, oracle, dtype, max_abs, relative, float(allowed), bool(max_abs <= allowed)
    )


def _run_onnxruntime(
    program: Program, feed: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray] | None:
    """Run the ONNX file the program came from, or None when there is none or no onnxruntime."""
    if Path(program.source).suffix != ".onnx" or not importlib.util.find_spec("onnxruntime"):
        return None
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        program.source, options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    wanted = {value.name for value in session.get_inputs()}
    given = {**program.fixed, **feed}
    results = session.run(names, {k: v for k, v in given.items() if k in wanted})
    dtypes = {value.name: DTYPES[value.dtype] for value in program.signature.results}
    return {n: np.asarray(r).view(dtypes[n]) if r.dtype.itemsize == dtypes[n].itemsize else r
            for n, r in zip(names, results, strict=True)}  # fmt: skip


def _raise_if_wrong(result: Verification, path: Path) -> None:
    wrong = [error for error in result.outputs if not error.ok]
    failed = [error.name for error in wrong if error.oracle == ITSELF]
    if failed:
        raise VerificationFailed(
            f"false in this self-checking module: {', '.join(failed)}",
            str(path),
            "the module expects other values; --dump-dir keeps the IR of every stage",
        )
    if wrong:
        first = wrong[0]
        raise VerificationFailed(
            f"output '{first.name}' ({first.dtype}) differs from {first.oracle} by "
            f"{first.max_abs:.3g} absolute, {first.max_rel:.3g} relative, "
            f"above the tolerance {first.tolerance:g} ({len(wrong)} of {len(result.outputs)} "
            "comparisons failed)",
            str(path),
            "please report this with the model; --dump-dir keeps the IR of every stage",
        )
