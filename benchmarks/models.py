"""Compile the sample models for 1 to 64 devices and verify each: errors, times, memory.

``python -m benchmarks.models [--models a,b] [--devices 1,2,8] [--json]``

Every cell is a fresh process. The first run of a cell compiles without the kernel cache and
without verification (its stage times and peak memory are those printed); a second one verifies.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("import", "simplify", "strategy", "partition", "fuse", "codegen", "link")
TIME_LIMIT_S = 1200


def _example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def models(folder: Path, wanted: set[str]) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """Return name to (path, shapes), exporting MiniLM into ``folder``."""
    found = {
        name: (model.path(), model.shapes)
        for name, model in _example("models").SAMPLE_MODELS.items()
        if not wanted or name in wanted
    }
    if not wanted or "minilm" in wanted:
        path = folder / "minilm.onnx"
        subprocess.run([sys.executable, ROOT / "examples/export_minilm.py", path],
                       check=True, capture_output=True)  # fmt: skip
        found["minilm"] = (path, ("batch=8,seq=64",))
    return found


def compile_once(path: Path, shapes: tuple[str, ...], devices: int, *flags: str) -> dict[str, Any]:
    """Run ``pai-compile`` in a process of its own and return its JSON summary, or the error."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            str(path),
            "--devices",
            str(devices),
            "--json",
            "-o",
            f"{folder}/out.pai",
            *flags,
        ]
        for shape in shapes:
            arguments += ["--shape", shape]
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "pai.cli", *arguments],
                capture_output=True,
                text=True,
                timeout=TIME_LIMIT_S,
                check=False,
                cwd=folder,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"over {TIME_LIMIT_S} s"}
    if done.returncode:
        return {"error": done.stderr.strip()[-300:]}
    return dict(json.loads(done.stdout))


def measure(path: Path, shapes: tuple[str, ...], devices: int) -> dict[str, Any]:
    """Return the figures of one cell."""
    built = compile_once(path, shapes, devices, "--no-cache")
    if "error" in built:
        return built
    checked = compile_once(path, shapes, devices, "--verify")
    if "error" in checked:
        return checked
    errors: dict[str, float] = {}
    for output in checked["verification"]["outputs"]:
        errors[output["oracle"]] = max(errors.get(output["oracle"], 0.0), output["max_rel"])
    return {
        "seconds": built["seconds"],
        "peak_bytes": built["peak_bytes"],
        "model_bytes": path.stat().st_size,
        "kernels": built["kernels"],
        "mesh": built["mesh"],
        "collectives": built["collectives"],
        "errors": errors,
    }


def main() -> int:
    """Print the table; the exit code counts cells that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="", help="comma-separated names (default: all)")
    parser.add_argument("--devices", default="1,2,4,8,64")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    counts = [int(n) for n in arguments.devices.split(",")]
    wanted = set(filter(None, arguments.models.split(",")))
    rows: dict[str, dict[int, dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (path, shapes) in models(Path(folder), wanted).items():
            rows[name] = {}
            for count in counts:
                print(f"{name} on {count} devices", file=sys.stderr, flush=True)
                rows[name][count] = measure(path, shapes, count)
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        _print_table(rows)
    return sum("error" in cell for cells in rows.values() for cell in cells.values())


def _print_table(rows: dict[str, dict[int, dict[str, Any]]]) -> None:
    table = Table(title="seconds per stage; relative errors; memory", box=None)
    for title in ("model", "devices", *STAGES, "total", "kernels", "vs xla", "vs ort", "peak MB",
                  "limit MB"):  # fmt: skip
        table.add_column(title, justify="left" if title == "model" else "right")
    for name, cells in rows.items():
        for count, cell in cells.items():
            if "error" in cell:
                table.add_row(name, str(count), cell["error"])
                continue
            seconds = cell["seconds"]
            limit = 3 * cell["model_bytes"] / 1e6 + 2000
            table.add_row(
                name, str(count), *(f"{seconds[s]:.2f}" for s in STAGES),
                f"{sum(seconds.values()):.1f}",
                f"{cell['kernels']['made']}/{cell['kernels']['calls']}",
                f"{cell['errors'].get('xla', float('nan')):.1e}",
                f"{cell['errors'].get('onnxruntime', float('nan')):.1e}",
                f"{cell['peak_bytes'] / 1e6:.0f}", f"{limit:.0f}",
            )  # fmt: skip
    Console(width=180).print(table)


if __name__ == "__main__":
    sys.exit(main())
