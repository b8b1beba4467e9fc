"""A model in a layout on a mesh, against one device: what is run and how errors are measured.

The error of a tensor is its largest difference from the one-device result, relative to the
largest magnitude of that result: gradients, parameters and activations have no common scale, and
an element near zero is a difference of larger ones. The first moments of a training step start at
zero, so what is compared there is the gradient times 0.1.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import jax
import numpy as np
from harness import device_arguments, unshard

from jax_models import common, layouts
from pai.compiler.reference import QUICK_COMPILE, run_reference, run_reference_spmd
from pai.dialects.mlir import context, ir, parse, to_text
from pai.passes.partition.partition import partition
from pai.passes.partition.report import LocalModule, PartitionReport
from pai.passes.simplify.inline import Inline
from pai.passes.simplify.legalize import Legalize

LIMIT = {"float32": 1e-5, "bfloat16": 4e-2}
"""The largest error. A bfloat16 has 8 bits, and partial sums of split contractions are rounded to
it before they are added, once more than on one device, in every layer forward and back. One device
is no oracle where it adds thousands of bfloat16 (its gradient of a bias over all pixels is off by
half of itself): there the error is how much farther from the f32 result the devices are than one
device is."""

OPTIONS = {
    "float32": QUICK_COMPILE,
    # XLA needs its simplifier to see through the conversions around every bf16 operation: without
    # it, compiling takes six times as long.
    "bfloat16": {k: v for k, v in QUICK_COMPILE.items() if k != "xla_disable_hlo_passes"},
}


@dataclass(frozen=True)
class Cell:
    """A model, a layout, a mesh, a training step or forward pass, a type."""

    model: str
    layout: str
    mesh: tuple[int, ...]
    train: bool
    dtype: str = "float32"
    seed: int = 0

    def __str__(self) -> str:
        mesh = "x".join(map(str, self.mesh))
        kind = "train" if self.train else "forward"
        more = (f"-{self.dtype}" * (self.dtype != "float32")) + f"-{self.seed}" * bool(self.seed)
        return f"{self.model}-{self.layout}-{mesh}-{kind}{more}"


@dataclass(frozen=True)
class Measured:
    """What came of a cell: the largest error, which tensor has it, the report, and seconds."""

    error: float
    worst: str
    report: PartitionReport
    seconds: float


def simplified(text: str) -> ir.Module:
    """Return the module of an annotated case, as the partitioner takes it."""
    module = parse(text, "case", context())
    Inline().run(module)
    Legalize().run(module)
    return module


def case_of(cell: Cell) -> layouts.Case:
    """Return the program of a cell."""
    config = layouts.load(cell.model).Config.small(cell.dtype)
    return layouts.case(
        cell.model, cell.layout, cell.mesh, train=cell.train, config=config, seed=cell.seed
    )


@functools.cache
def expected(model: str, train: bool, dtype: str) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """Return names and values of the results on one device, without any constraint."""
    module = layouts.load(model)
    config = module.Config.small(dtype)
    function = layouts.build(module, config, common.identity, train=train)
    given = layouts.arguments(module, config, layouts.BATCH, train=train, only_shapes=False)
    lowered = jax.jit(function, keep_unused=True).lower(*given)
    flat = [np.asarray(leaf) for leaf in jax.tree.leaves(given)]
    names = ["output"]
    if train:
        kept = layouts.names(module, config, train=True)
        names = ["loss", *(name for name in kept if not name.startswith("batch/"))]
    return tuple(names), run_reference(lowered.as_text(), flat, OPTIONS[dtype])


def measure(cell: Cell) -> Measured:
    """Partition the program of a cell, run it on its devices and compare."""
    start = time.perf_counter()
    case = case_of(cell)
    local = partition(simplified(case.text), case.mesh)
    names, want = expected(cell.model, cell.train, cell.dtype)
    got = run(local, case.flat, want, cell.dtype)
    errors = [error_of(a, b) for a, b in zip(got, want, strict=True)]
    if cell.dtype != "float32":
        _, exact = expected(cell.model, cell.train, "float32")
        pairs = zip(got, want, exact, strict=True)
        farther = [_wide_error(a, c) - _wide_error(b, c) for a, b, c in pairs]
        errors = [min(error, max(0.0, more)) for error, more in zip(errors, farther, strict=True)]
    worst = int(np.argmax(errors))
    return Measured(errors[worst], names[worst], local.report, time.perf_counter() - start)


def run(
    local: LocalModule, arguments: list[np.ndarray], want: list[np.ndarray], dtype: str
) -> list[np.ndarray]:
    """Return the results of all devices, put together."""
    text = to_text(local.module)
    assert "sdy." not in text
    devices = run_reference_spmd(text, device_arguments(local, arguments), OPTIONS[dtype])
    return [
        unshard([results[i] for results in devices], sharding, local.mesh, value.shape)
        for i, (sharding, value) in enumerate(zip(local.result_shardings, want, strict=True))
    ]


def _wide_error(got: np.ndarray, want: np.ndarray) -> float:
    return error_of(got.astype(want.dtype), want)


def error_of(got: np.ndarray, want: np.ndarray) -> float:
    """Return the largest difference relative to the largest magnitude; infinite for NaN."""
    assert got.dtype == want.dtype and got.shape == want.shape
    wide, exact = got.astype(np.float64), want.astype(np.float64)
    scale = float(np.abs(exact).max())
    assert np.isfinite(scale)
    difference = float(np.abs(wide - exact).max())
    if not np.isfinite(difference):
        return float("inf")
    return difference / scale if scale else difference
