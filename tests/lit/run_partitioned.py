"""Run a sharded module on virtual devices and on one, for the ``-run.mlir`` files.

``%run-partitioned FILE`` partitions every module of FILE (between lines ``// -----``) as its sdy
annotations say, runs the local program on XLA CPU replicas, and prints a line for filecheck::

    OK devices=4 max_error=0 all_reduce=1 gathered=0 padded=1

that is, the collectives by kind, the operations whose operand had to be gathered, and the
dimensions of arguments and results that are padded. The one-device program is ``@main`` without
its annotations, or ``@expected`` where the module has one. Inputs are small multiples of 1/4, so
that sums of floats are exact. A difference beyond the tolerance of the type ends with exit code 1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "differential"))

import jax
import numpy as np
from harness import run_and_compare

from pai.compiler.reference import run_reference
from pai.dialects.mlir import func, ir, parse, to_text
from pai.dialects.sdy import mesh_from_module
from pai.dialects.types import numpy_dtype
from pai.opt import split
from pai.passes.partition import LocalModule, partition
from pai.passes.rewrite import walk
from pai.runtime.mesh import Mesh


def main(argv: Sequence[str]) -> int:
    """Check every module of the file; the exit code is 1 when one differs."""
    (path,) = argv
    code = 0
    for chunk in split(Path(path).read_text()):
        try:
            print(check(chunk.text))
        except AssertionError as error:
            print(f"{path}:{chunk.line}: DIFFERS: {error}")
            code = 1
    return code


def check(text: str) -> str:
    """Compare one module with one device and return the line to print."""
    module, plain = parse(text), parse(text)
    if functions(plain).get("expected") is not None:
        functions(module)["expected"].operation.erase()
        functions(plain)["main"].operation.erase()
        functions(plain)["expected"].attributes["sym_name"] = ir.StringAttr.get(
            "main", plain.context
        )
    strip(plain)
    inputs = draw(functions(plain)["main"])
    if "lapack_" in text:
        jax.jit(jax.lax.linalg.lu).lower(np.eye(2))  # it binds the library's functions
    expected = run_reference(to_text(plain), inputs)
    local = partition(module, mesh_from_module(module) or Mesh())
    results = run_and_compare(local, inputs, expected).results
    return summary(local, max(map(error_of, results, expected), default=0.0))


def functions(module: ir.Module) -> dict[str, ir.OpView]:
    """Return the functions of a module by name."""
    found = [op for op in module.body.operations if isinstance(op, func.FuncOp)]
    return {op.name.value: op for op in found}


def strip(module: ir.Module) -> None:
    """Remove everything of Shardy: its operations have one operand and return it."""
    for op in list(walk(module.operation)):
        for name in ("sdy.sharding", "arg_attrs", "res_attrs"):
            if name in op.attributes:
                del op.attributes[name]
        if op.name.startswith("sdy."):
            if op.results:
                op.results[0].replace_all_uses_with(op.operands[0])
            op.erase()


def draw(main: ir.OpView) -> list[np.ndarray]:
    """Return seeded inputs: integers from 0 to 6, other numbers in quarters from -2 to 2."""
    rng = np.random.default_rng(0)
    out = []
    for kind in main.type.inputs:
        dtype = numpy_dtype(kind.element_type)
        quarters = rng.integers(-8, 9, (2, *kind.shape)) / 4
        if dtype.kind == "c":
            values = quarters[0] + 1j * quarters[1]
        elif dtype.kind in "iub" or "int" in dtype.name:
            values = rng.integers(0, 2 if dtype == np.bool_ else 7, kind.shape)
        else:
            values = quarters[0]
        out.append(np.asarray(values).astype(dtype))
    return out


def error_of(got: np.ndarray, want: np.ndarray) -> float:
    """Return the largest difference; equal infinities and NaNs do not differ."""
    wide = np.complex128 if want.dtype.kind == "c" else np.float64
    got, want = got.astype(wide), want.astype(wide)
    differs = (got != want) & ~(np.isnan(got) & np.isnan(want))
    return float(np.abs(got[differs] - want[differs]).max(initial=0.0))


def summary(local: LocalModule, error: float) -> str:
    """Return the line that filecheck reads."""
    report = local.report
    counts: dict[str, int] = {}
    for use in report.collectives:
        counts[use.kind] = counts.get(use.kind, 0) + use.count
    parts = [f"OK devices={local.mesh.num_devices} max_error={error:.0e}".replace("0e+00", "0")]
    parts += [f"{kind}={count}" for kind, count in sorted(counts.items())]
    parts += [f"gathered={len(report.replicated)}", f"padded={len(report.notes)}"]
    return " ".join(parts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
