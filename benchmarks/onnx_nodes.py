"""ONNX's own operator tests through the importer: right, wrong, refused or crashed.

Run ``python -m benchmarks.onnx_nodes [--filter TEXT] [--json FILE]``. Each test's model is lowered
and executed in a child process, and its outputs are held against the expected ones with the
tolerances of the test itself. A test whose result's *shape* depends on the value of an input (a
Reshape's target) is lowered with the small integer inputs fixed, and counted apart.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from select import select
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

import pai
from pai.compiler.reference import run_reference
from pai.dialects.mlir import to_text
from pai.dialects.program import Program, Role
from pai.frontends.onnx.importer import load
from pai.runtime.errors import InvalidInput, PaiError

CLASSES = (
    "right",
    "right, small inputs fixed",
    "random, only type and shape right",
    "wrong",
    "refused",
    "crashed",
)
FIXED_ELEMENTS = 64
SUITES = ("node", "simple", "pytorch-converted", "pytorch-operator")
RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomUniform"}
RANDOM |= {"RandomNormalLike", "RandomUniformLike"}


@dataclass(frozen=True)
class Outcome:
    """What became of one test: its class, and why it was not right."""

    name: str
    kind: str
    why: str = ""


@dataclass(frozen=True)
class Case:
    """One test: a model, and for each data set its inputs and expected outputs."""

    name: str
    model: ModelProto
    data_sets: Sequence[tuple[Sequence[Any], Sequence[Any]]]
    rtol: float
    atol: float


def cases(suite: str, text: str = "") -> list[Case]:
    """Return the tests of one of ONNX's suites whose name holds ``text``.

    Args:
        suite: node, simple, pytorch-converted or pytorch-operator. The operator tests that are
            the expansion of another into its function body are left out.
        text: part of the name.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = load_model_tests(kind=suite)
    return [
        Case(case.name, *_data(case), case.rtol, case.atol)
        for case in found
        if text in case.name and "_expanded" not in case.name
    ]


def _data(case: Any) -> tuple[ModelProto, Sequence[tuple[Sequence[Any], Sequence[Any]]]]:
    """Return a test's model and data, from memory or from its folder."""
    if case.model is not None:
        return case.model, case.data_sets
    folder = Path(case.model_dir)
    sets = []
    for data in sorted(folder.glob("test_data_set_*")):
        parts = []
        for kind in ("input", "output"):
            count = len(list(data.glob(f"{kind}_*.pb")))
            files = [data / f"{kind}_{index}.pb" for index in range(count)]
            parts.append([TensorProto.FromString(file.read_bytes()) for file in files])
        sets.append((parts[0], parts[1]))
    return onnx.load(folder / "model.onnx"), sets


def run_xla(program: Program, feed: Mapping[str, np.ndarray], _folder: Path) -> list[np.ndarray]:
    """Run the program as it was lowered, on XLA's CPU backend."""
    arguments = [
        feed[value.name] if value.role is Role.INPUT else program.weights.load(value.name)
        for value in program.signature.arguments
    ]
    return run_reference(to_text(program.module), arguments)


def run_pai(program: Program, feed: Mapping[str, np.ndarray], folder: Path) -> list[np.ndarray]:
    """Compile the program to a package and run that."""
    package = pai.compile(program, folder / "model.pai", devices=1, jobs=1)
    results = package.run(**feed)
    return [results[value.name] for value in program.signature.results]


EXECUTORS = {"xla": run_xla, "pai": run_pai}


def judge(case: Case, executor: str = "xla") -> Outcome:
    """Lower and run one test in this process."""
    why = ""
    try:
        for fixing in ("", "iub", "iubf"):
            try:
                for inputs, outputs in case.data_sets:
                    _check(case, inputs, outputs, fixing, executor)
            except PaiError as error:
                why = str(error)
                if "depends on the data" not in str(error) and ":=VALUE" not in str(error):
                    break
            else:
                return Outcome(case.name, CLASSES[2 if is_random(case) else 1 if fixing else 0])
    except AssertionError as error:
        return Outcome(case.name, "wrong", " ".join(str(error).split())[:300])
    except Exception as error:
        return Outcome(case.name, "crashed", f"{type(error).__name__}: {str(error)[:300]}")
    return Outcome(case.name, "refused", why)


def _check(
    case: Case, inputs: Sequence[Any], outputs: Sequence[Any], fixing: str, executor: str
) -> None:
    model = case.model
    stored = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in stored]
    given = dict(_flat(names, inputs))
    if any(value is None for value in inputs):
        raise InvalidInput("an optional input without a value cannot be given")
    small = [name for name, value in given.items() if value.size <= FIXED_ELEMENTS]
    first = next(iter(given), "")
    if "f" in fixing and given[first].size > 1:
        small.remove(first)
    kinds = {name: given[name].dtype.kind.replace("V", "f") for name in small}
    fixed = {name: given[name] for name in small if kinds[name] in fixing}
    free = {name: value for name, value in given.items() if name not in fixed}
    shapes = [f"{name}:{','.join(map(str, value.shape))}" for name, value in free.items()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        program = load(path, shapes, fixed)
        results = EXECUTORS[executor](program, free, Path(folder))
    wanted = list(_flat([value.name for value in model.graph.output], outputs))
    assert len(results) == len(wanted), f"{len(results)} outputs, not {len(wanted)}"
    rtol = np.inf if is_random(case) else case.rtol
    for (name, expected), result in zip(wanted, results, strict=True):
        compare(name, result, expected, rtol, case.atol)


def _flat(names: Sequence[str], values: Sequence[Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and arrays; the elements of a sequence are numbered ``NAME.0`` on."""
    for name, value in zip(names, values, strict=False):
        if isinstance(value, list):
            yield from ((f"{name}.{i}", value_of(item)) for i, item in enumerate(value))
        elif value is not None:
            yield name, value_of(value)


def is_random(case: Case) -> bool:
    """Return whether a test's outputs are random numbers, so that no other run repeats them."""
    kinds = {node.op_type for node in case.model.graph.node}
    return bool(kinds & RANDOM) or (
        "Dropout" in kinds and "training" in case.name and "zero_ratio" not in case.name
    )


def value_of(value: Any) -> np.ndarray:
    """Return a test's value as an array; types that NumPy lacks come as messages."""
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def compare(name: str, result: np.ndarray, expected: np.ndarray, rtol: float, atol: float) -> None:
    """Raise AssertionError when a result is not the expected one in type, shape and value."""
    assert result.dtype == expected.dtype, f"{name}: {result.dtype}, not {expected.dtype}"
    assert result.shape == expected.shape, f"{name}: {result.shape}, not {expected.shape}"
    wide = [
        value if value.dtype.kind in "iubfc" and value.dtype.itemsize > 1 else value.astype("f4")
        for value in (result, expected)
    ]
    if np.isinf(rtol):
        assert np.isfinite(result).all(), name
        return
    np.testing.assert_allclose(*wide, rtol=rtol, atol=atol, err_msg=name)


def work(suite: str, executor: str) -> None:
    """Serve tests to the parent: a name a line in, an outcome a line out."""
    known = {case.name: case for case in cases(suite)}
    print("ready", flush=True)
    for line in sys.stdin:
        outcome = judge(known[line.strip()], executor)
        print("outcome " + json.dumps(asdict(outcome)), flush=True)


class Worker:
    """A child process that judges tests, replaced when it dies or takes too long."""

    def __init__(self, suite: str, executor: str) -> None:
        self.suite, self.executor = suite, executor
        self.child: subprocess.Popen[str] | None = None

    def judge(self, name: str, limit: float) -> Outcome:
        """Return the outcome of one test; a dead or late child is a crash."""
        if self.child is None:
            command = [sys.executable, "-m", "benchmarks.onnx_nodes", "--worker"]
            command += ["--suite", self.suite, "--executor", self.executor]
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._read("ready", 300)
        assert self.child.stdin is not None
        self.child.stdin.write(name + "\n")
        self.child.stdin.flush()
        answer = self._read("outcome ", limit)
        if answer is None:
            self.stop()
            return Outcome(name, "crashed", f"died, or took more than {limit:.0f} s")
        return Outcome(**json.loads(answer))

    def _read(self, prefix: str, limit: float) -> str | None:
        assert self.child is not None and self.child.stdout is not None
        end = time.monotonic() + limit
        while select([self.child.stdout], [], [], max(end - time.monotonic(), 0))[0]:
            line = self.child.stdout.readline()
            if line.startswith(prefix):
                return line.removeprefix(prefix)
            if not line:
                return None
        return None

    def stop(self) -> None:
        """End the child."""
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            self.child = None


def run(suite: str, executor: str, names: Sequence[str], limit: float) -> Iterator[Outcome]:
    """Yield the outcome of each test."""
    worker = Worker(suite, executor)
    try:
        for name in names:
            yield worker.judge(name, limit)
    finally:
        worker.stop()


def report(outcomes: Sequence[Outcome]) -> str:
    """Return the table of classes, and every test that is not right with the reason."""
    counts = Counter(outcome.kind for outcome in outcomes)
    total = max(len(outcomes), 1)
    lines = [f"{kind:34}{counts[kind]:6}{100 * counts[kind] / total:8.1f} %" for kind in CLASSES]
    lines.append(f"{'all':34}{len(outcomes):6}")
    bad = [outcome for outcome in outcomes if not outcome.kind.startswith(("right", "random"))]
    return "\n".join([*(f"{o.kind:8} {o.name}: {o.why}" for o in bad), "", *lines])


def main() -> None:
    """Run the tests and print the table; exit status 1 when any is wrong or crashed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--suite", choices=SUITES, default="node", help="which of ONNX's suites")
    parser.add_argument("--executor", choices=EXECUTORS, default="xla", help="what runs them")
    parser.add_argument("--filter", default="", help="only tests whose name holds this text")
    parser.add_argument("--json", type=Path, help="write the outcomes to this file")
    parser.add_argument("--limit", type=float, default=120, help="seconds for one test")
    parser.add_argument("--verbose", action="store_true", help="print each outcome as it comes")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.suite, options.executor)
        return
    names = [case.name for case in cases(options.suite, options.filter)]
    outcomes = []
    for outcome in run(options.suite, options.executor, names, options.limit):
        outcomes.append(outcome)
        if options.verbose:
            print(outcome.kind, outcome.name, outcome.why, flush=True)
    print(report(outcomes))
    if options.json:
        options.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    sys.exit(any(outcome.kind in ("wrong", "crashed") for outcome in outcomes))


if __name__ == "__main__":
    main()
