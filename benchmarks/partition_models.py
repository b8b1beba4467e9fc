"""Partition ten models in every layout and mesh, run them on XLA's CPU devices, compare with one.

``python -m benchmarks.partition_models [--jobs 2] [--json FILE]`` prints a row for each training
step and forward pass: right or not, the largest error, collectives and their bytes, seconds. What
does not apply is listed with its reason. Cells run in child processes, so one that aborts or hangs
is a result too. ``--seeds N`` adds random shardings, ``--models`` and ``--layouts`` choose. Rows
are appended to FILE as they come, and those it already holds are not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import load_package

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 300.0
BFLOAT16_MODELS = ("llama", "unet")
BFLOAT16_LAYOUTS = ("data", "zero3", "megatron")
BFLOAT16_MESHES = ((4, 2), (3, 2))
Row = dict[str, Any]


def _layouts() -> Any:
    load_package("tests/models", "jax_models")
    from jax_models import layouts  # noqa: PLC0415

    return layouts


def wanted(models: Sequence[str], names: Sequence[str], seeds: int) -> list[Row]:
    """Return the cells to run, as rows with nothing measured yet."""
    layouts = _layouts()
    rows = []
    for model, layout, mesh, train in layouts.cells():
        if (models and model not in models) or (names and layout not in names):
            continue
        row = {"model": model, "layout": layout, "mesh": list(mesh), "train": train}
        count = max(1, seeds) if layout == "random" else 1
        rows += [{**row, "dtype": "float32", "seed": seed} for seed in range(count)]
        narrow = model in BFLOAT16_MODELS and layout in BFLOAT16_LAYOUTS
        if narrow and mesh in BFLOAT16_MESHES:
            rows.append({**row, "dtype": "bfloat16", "seed": 0})
    return rows


def serve() -> None:
    """Answer cells, a line of JSON each, until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.insert(0, str(ROOT / "tests" / "differential"))
    load_package("tests/models", "jax_models")
    import cells  # type: ignore[import-not-found]  # noqa: PLC0415

    for line in sys.stdin:
        row = json.loads(line)
        try:
            measured = cells.measure(cells.Cell(**{**row, "mesh": tuple(row["mesh"])}))
            limit = cells.LIMIT[row["dtype"]]
            row |= {
                "state": "right" if measured.error <= limit else "wrong",
                "error": measured.error,
                "worst": measured.worst,
                "seconds": measured.seconds,
                "collectives": [dataclasses.asdict(u) for u in measured.report.collectives],
                "replicated": len(measured.report.replicated),
            }
        except Exception as error:  # every failure is a result
            row |= {"state": "failed", "why": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(row), file=answers, flush=True)


class Child:
    """A process that runs cells, started again when it dies."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def run(self, row: Row) -> Row:
        """Return the row with what was measured, or how the process ended."""
        process = self.process = self._alive()
        timer = threading.Timer(LIMIT_S, process.kill)
        timer.start()
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(row) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            timer.cancel()
        if answer:
            return dict(json.loads(answer))
        code = process.wait()
        return {**row, "state": "aborted", "why": f"the process ended with {code}"}

    def _alive(self) -> subprocess.Popen[str]:
        if self.process is not None and self.process.poll() is None:
            return self.process
        flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.partition_models", "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env={**os.environ, "XLA_FLAGS": flags.strip()},
        )

    def close(self) -> None:
        """End the process."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            self.process.wait()


def run_all(rows: Iterable[Row], jobs: int, file: Path | None) -> list[Row]:
    """Run the cells in ``jobs`` processes; a model stays with one, which keeps its reference.

    Returns the rows of ``file``, to which each is appended, and the new ones.
    """
    done = _read(file)
    known = {_name(row) for row in done}
    lock = threading.Lock()
    work: queue.Queue[list[Row]] = queue.Queue()
    groups: dict[tuple[str, bool, str], list[Row]] = {}
    for row in rows:
        if _name(row) not in known:
            groups.setdefault((row["model"], row["train"], row["dtype"]), []).append(row)
    for group in groups.values():
        work.put(group)

    def loop() -> None:
        child = Child()
        while True:
            try:
                group = work.get_nowait()
            except queue.Empty:
                break
            for row in group:
                answer = child.run(row)
                with lock:
                    keep(answer)
        child.close()

    def keep(row: Row) -> None:
        done.append(row)
        print(_line(row), file=sys.stderr, flush=True)
        if file is not None:
            with file.open("a") as out:
                out.write(json.dumps(row) + "\n")

    threads = [threading.Thread(target=loop) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def _read(file: Path | None) -> list[Row]:
    if file is None or not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines()]


def _name(row: Row) -> str:
    kind = "step" if row["train"] else "forward"
    mesh = "×".join(map(str, row["mesh"]))
    return f"{row['model']} {row['layout']} {mesh} {kind} {row['dtype']} {row['seed']}"


def _line(row: Row) -> str:
    return f"{_name(row)}: {row['state']} {row.get('why') or format(row['error'], '.1e')}"


def summary(rows: Sequence[Row]) -> Table:
    """Return right cells of all, largest error, collectives and bytes by model and layout."""
    table = Table(title="cells right of all · largest error · collectives and KB (steps)", box=None)
    names = list(dict.fromkeys(row["layout"] for row in rows))
    for title in ("model", "type", *names):
        table.add_column(title, justify="left" if title in ("model", "type") else "right")
    layouts = _layouts()
    for model, dtype in dict.fromkeys((row["model"], row["dtype"]) for row in rows):
        cells = []
        for name in names:
            found = [
                r for r in rows if (r["model"], r["dtype"], r["layout"]) == (model, dtype, name)
            ]
            cells.append(_cell(found) if found else layouts.skipped(model, name) and "–")
        table.add_row(model, dtype, *cells)
    return table


def _cell(rows: Sequence[Row]) -> str:
    right = sum(row["state"] == "right" for row in rows)
    error = max((row["error"] for row in rows if "error" in row), default=float("nan"))
    uses = [use for row in rows if row["train"] for use in row.get("collectives", [])]
    count = sum(use["count"] for use in uses)
    size = sum(use["bytes_per_device"] for use in uses) / 1000
    return f"{right}/{len(rows)} {error:.0e} {count} {size:.0f}K"


def _print(rows: Sequence[Row]) -> None:
    rows = sorted(rows, key=_name)
    console = Console(width=200)
    console.print(summary(rows))
    layouts = _layouts()
    for model in dict.fromkeys(row["model"] for row in rows):
        for name in layouts.LAYOUTS:
            if reason := layouts.skipped(model, name):
                console.print(f"skipped: {model} {name}: {reason}")
    for row in rows:
        if row["state"] != "right":
            console.print(_line(row))
    seconds = sum(row.get("seconds", 0.0) for row in rows)
    right = sum(row["state"] == "right" for row in rows)
    console.print(f"{right} of {len(rows)} cells right; {seconds:.0f} s in cells")


def main() -> int:
    """Run and print; the exit code is 1 when a cell is not right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="rows, a line of JSON each")
    parser.add_argument("--models", default="", help="comma-separated names (default: all)")
    parser.add_argument("--layouts", default="", help="comma-separated names (default: all)")
    parser.add_argument("--seeds", type=int, default=1, help="random shardings per cell")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return 0
    models, names = (
        [name for name in text.split(",") if name] for text in (arguments.models, arguments.layouts)
    )
    rows = run_all(wanted(models, names, arguments.seeds), arguments.jobs, arguments.json)
    _print(rows)
    return int(any(row["state"] != "right" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
