"""``pai-run``: run a package on inputs from files or at random, and say what came out."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pai.runtime.dtypes import DTYPES, NAMES
from pai.runtime.errors import InvalidInput, PaiError, VerificationFailed
from pai.runtime.executor import DEADLINE_S, LoadedPackage, load
from pai.runtime.manifest import TensorSpec

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``pai-run`` and return its exit code; errors are one line on stderr."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except PaiError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)


def _fail(message: str, code: int) -> int:
    print(f"pai-run: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _run(arguments: argparse.Namespace) -> int:
    package = load(
        arguments.package,
        threads=arguments.threads,
        deadline_s=arguments.deadline,
        verify=not arguments.no_verify,
    )
    inputs = _gather_inputs(package, arguments)
    outputs, seconds = package.run_repeated(arguments.repeat, inputs)
    if arguments.trace is not None:
        outputs = package.trace(arguments.trace, inputs)
    if arguments.output is not None:
        _save(arguments.output, outputs)
    facts = {
        "package": str(arguments.package),
        "devices": package.num_devices,
        "threads": package.threads,
        "outputs": {name: describe(array) for name, array in outputs.items()},
        "seconds": {
            "runs": len(seconds),
            "median": statistics.median(seconds),
            "min": min(seconds),
            "max": max(seconds),
        },
    }
    print(json.dumps(facts, indent=2)) if arguments.json else _print(facts)
    _require_checks(package, outputs)
    return 0


def _require_checks(package: LoadedPackage, outputs: Mapping[str, np.ndarray]) -> None:
    """Raise VerificationFailed when a check of a self-checking module is false."""
    checks = [spec.name for spec in package.outputs if spec.role == "check"]
    failed = [name for name in checks if not outputs[name].all()]
    if failed:
        raise VerificationFailed(
            f"{len(failed)} of {len(checks)} checks are false: {', '.join(failed)}",
            "",
            "the module expects other values than the package computes",
        )


def _gather_inputs(package: LoadedPackage, arguments: argparse.Namespace) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    if arguments.random is not None:
        inputs |= random_inputs(package.inputs, arguments.random)
    if arguments.inputs is not None:
        inputs |= _read(arguments.inputs, many=True)
    for text in arguments.input:
        name, equals, path = text.partition("=")
        if not equals:
            raise InvalidInput(f"'{text}' is not name=file.npy", "--input")
        inputs[name] = _read(Path(path), many=False)
    return {name: _restore(package.inputs, name, array) for name, array in inputs.items()}


def _read(path: Path, *, many: bool) -> Any:
    try:
        data = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or "not a NumPy file"
        raise InvalidInput(f"cannot be read ({reason})", str(path)) from error
    if isinstance(data, Mapping) != many:
        raise InvalidInput(
            "holds one array" if many else "holds several arrays", str(path),
            "use --input name=file.npy for .npy and --inputs for .npz files",
        )  # fmt: skip
    try:
        return dict(data) if isinstance(data, Mapping) else data
    except ValueError as error:
        raise InvalidInput("is damaged", str(path)) from error


def _restore(specs: Sequence[TensorSpec], name: str, array: np.ndarray) -> np.ndarray:
    """Give bytes their element type back: .npy files do not know bf16, f8 and the like."""
    kind = {spec.name: DTYPES[spec.dtype] for spec in specs}.get(name)
    if kind is not None and array.dtype.kind == "V" and array.dtype.itemsize == kind.itemsize:
        return array.view(kind)
    return array


def random_inputs(specs: Sequence[TensorSpec], seed: int) -> dict[str, np.ndarray]:
    """Return arrays for the inputs: floats standard normal, integers 0 or 1."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for spec in specs:
        whole = spec.dtype.startswith(("i", "ui"))
        drawn: Any = (
            generator.integers(0, 2, spec.shape) if whole else generator.standard_normal(spec.shape)
        )
        arrays[spec.name] = np.asarray(drawn).astype(DTYPES[spec.dtype])
    return arrays


def _save(path: Path, outputs: Mapping[str, np.ndarray]) -> None:
    try:
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **outputs)
    except OSError as error:
        raise InvalidInput(f"cannot be written ({error.strerror})", str(path)) from error


def describe(array: np.ndarray) -> dict[str, Any]:
    """Return type, shape, smallest, largest and mean element, and the number of NaNs."""
    out: dict[str, Any] = {"dtype": NAMES[array.dtype], "shape": list(array.shape), "nan": 0}
    if array.size == 0:
        return out
    wide = np.abs(array) if array.dtype.kind == "c" else array
    values = wide.astype(np.float64).reshape(-1)
    missing = np.isnan(values)
    out["nan"] = int(missing.sum())
    values = values[~missing]
    if values.size:
        with np.errstate(all="ignore"):
            out |= {"min": float(values.min()), "max": float(values.max())}
            out["mean"] = float(values.mean())
    return out


def _print(facts: dict[str, Any]) -> None:
    console = Console(highlight=False)
    rows = [
        (name, f"{o['dtype']}[{','.join(map(str, o['shape']))}]", *_numbers(o))
        for name, o in facts["outputs"].items()
    ]
    head = ("output", "type", "min", "max", "mean", "NaN")
    if console.is_terminal:
        table = Table(*head)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:
        for row in (head, *rows):
            print("  ".join(row))
    seconds = facts["seconds"]
    spread = f" ({seconds['min'] * 1e3:.3f} to {seconds['max'] * 1e3:.3f})"
    print(
        f"{seconds['median'] * 1e3:.3f} ms median of {seconds['runs']}{spread}, "
        f"{facts['devices']} devices on {facts['threads']} threads"
    )


def _numbers(output: dict[str, Any]) -> tuple[str, ...]:
    values = (output.get(key) for key in ("min", "max", "mean"))
    return (*("-" if v is None else f"{v:.6g}" for v in values), str(output["nan"]))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pai-run",
        description="Run a package that pai-compile made.",
        epilog="Exit codes: 0 done, 2 wrong usage, 10 bad package, 11 bad input, "
        "12 a collective failed, 13 a check is false, 130 interrupted.",
    )
    # fmt: off
    add = parser.add_argument
    add("package", type=Path, metavar="OUT.pai", help="package directory or stored zip")
    add("--input", action="append", default=[], metavar="NAME=FILE.npy", help="one input")
    add("--inputs", type=Path, metavar="FILE.npz", help="inputs by name")
    add("--random", type=int, metavar="SEED", help="random values for inputs that are not given")
    add("--output", type=Path, metavar="FILE.npz", help="save the outputs")
    add("--repeat", type=_positive, default=1, metavar="N", help="run N times and time each run")
    add("--threads", type=_positive, metavar="N", help="worker threads (default: all cores)")
    add("--deadline", type=float, default=DEADLINE_S, metavar="S",
        help="seconds that devices wait for another one in a collective (default: %(default)g)")
    add("--no-verify", action="store_true", help="do not compare checksums")
    add("--trace", type=Path, metavar="FILE.json", help="also run once with a Chrome trace")
    add("--json", action="store_true", help="print JSON and nothing else")
    # fmt: on
    return parser


if __name__ == "__main__":
    sys.exit(main())
