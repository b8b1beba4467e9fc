"""Time partitioning against the number of operations, with repeated layers folded and without.

``python -m benchmarks.partition_speed [--json FILE] [--figure FILE]`` partitions training steps
(AdamW) of Llama 7B and GPT-3 175B with a growing number of layers, on 64 devices: tensor and data
parallel as (8, 8), and ZeRO-3. Every case runs in a fresh process, its worker started beforehand.
Seconds are wall time from the module in memory to the LocalModule, and processor time of the
process and of Shardy's worker. The last columns are the seconds of processor time by stage; what
is under "other" is mostly the exchange with the worker. Nothing is allocated: arguments are shapes.
Drawing needs the extra ``bench`` (matplotlib).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import load_package

ROOT = Path(__file__).resolve().parent.parent
FIGURE = ROOT / "benchmarks" / "figures" / "partition_speed.png"
SIZES = {"llama-7b": (4, 8, 16, 32), "gpt3-175b": (12, 24, 48, 96)}
MESHES = {"megatron": (8, 8), "zero3": (64,)}
LIMITS = {("llama-7b", False): 6.0, ("llama-7b", True): 2.0}
LIMITS |= {("gpt3-175b", False): 20.0, ("gpt3-175b", True): 3.0}
STAGES = {
    "find": ("fold", ("read", "find_layers")),
    "reduce": ("fold", ("reduce_module", "check_layouts")),
    "localize": ("partition", ("localize",)),
    "clean up": ("partition", ("run_pipeline",)),
    "collectives": ("partition", ("run_passes", "collective_uses")),
    "expand": ("fold", ("Match", "expand", "expand_account")),
}
Row = dict[str, Any]


def case_text(model: str, layout: str, layers: int) -> str:
    """Return the annotated StableHLO of a training step."""
    load_package("tests/models", "jax_models")
    from jax_models import gpt2, layouts, llama  # noqa: PLC0415

    if model == "llama-7b":
        config = llama.Config(layers, 4096, 32, 32, 11008, 32000, 2048, 10000.0)
        name = "llama"
    else:
        config = gpt2.Config(layers, 12288, 96, 49152, 50257, 2048)
        name = "gpt2"
    mesh = MESHES[layout]
    return str(layouts.case(name, layout, mesh, config=config, size=64, only_shapes=True).text)


def measure(path: Path, sizes: tuple[int, ...], *, fold: bool) -> Row:
    """Partition the module in ``path``, simplified first, and return what it took."""
    import gc  # noqa: PLC0415

    from pai.dialects.mlir import context, parse  # noqa: PLC0415
    from pai.passes.partition import isolation, partition  # noqa: PLC0415
    from pai.passes.partition.fold_graph import operation_count  # noqa: PLC0415
    from pai.passes.simplify import simplify  # noqa: PLC0415
    from pai.runtime.mesh import Mesh  # noqa: PLC0415

    module = parse(path.read_bytes(), "case", context())
    imported = operation_count(module)
    simplify(module)
    isolation.run_isolated(parse("func.func @main() { return }"), ["canonicalize"])
    gc.collect()
    stages: dict[str, float] = {}
    row: Row = {"imported": imported, "operations": operation_count(module), "fold": fold}
    with _stage_clocks(stages):
        wall, own, worker = time.perf_counter(), time.process_time(), _worker_seconds(isolation)
        local = partition(module, Mesh(tuple(zip("xyz", sizes, strict=False))), fold=fold)
        row["wall"] = time.perf_counter() - wall
        row["cpu"] = time.process_time() - own
        row["worker"] = _worker_seconds(isolation) - worker
    row["stages"] = stages
    row["notes"] = [note for note in local.report.notes if "layers" in note]
    row["collectives"] = sum(use.count for use in local.report.collectives)
    return row


@contextlib.contextmanager
def _stage_clocks(seconds: dict[str, float]) -> Iterator[None]:
    """Add up the processor time of the functions that STAGES names."""
    import importlib  # noqa: PLC0415

    saved = []
    for stage, (name, functions) in STAGES.items():
        module = importlib.import_module(f"pai.passes.partition.{name}")
        for function in functions:
            saved.append((module, function, getattr(module, function)))
            setattr(module, function, _clocked(getattr(module, function), stage, seconds))
    try:
        yield
    finally:
        for module, function, original in saved:
            setattr(module, function, original)


def _clocked(function: Callable[..., Any], stage: str, seconds: dict[str, float]) -> Any:
    def run(*arguments: Any, **options: Any) -> Any:
        start = time.process_time()
        try:
            return function(*arguments, **options)
        finally:
            seconds[stage] = seconds.get(stage, 0.0) + time.process_time() - start

    return run


def _worker_seconds(isolation: Any) -> float:
    """Return the processor time that Shardy's worker has used (Linux)."""
    fields = Path(f"/proc/{isolation._process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_case(model: str, layout: str, layers: int, folder: Path) -> Iterator[Row]:
    """Yield a row with and one without folding, each from a process of its own."""
    path = folder / f"{model}-{layout}-{layers}.mlir"
    path.write_text(case_text(model, layout, layers))
    for fold in (False, True):
        command = [sys.executable, "-m", "benchmarks.partition_speed", "--measure", str(path)]
        command += ["--mesh", ",".join(map(str, MESHES[layout]))] + ["--fold"] * fold
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        row = json.loads(done.stdout.splitlines()[-1])
        yield {"model": model, "layout": layout, "layers": layers, **row}


def table(rows: list[Row]) -> Table:
    """Return the rows as a table."""
    out = Table(title="Seconds to partition a training step for 64 devices")
    names = ("model", "layout", "layers", "imported", "operations", "folded", "wall", "cpu")
    for name in (*names, "worker", *STAGES, "other"):
        out.add_column(name, justify="left" if name in ("model", "layout") else "right")
    for row in rows:
        stages = [row["stages"].get(stage, 0.0) for stage in STAGES]
        copies = "yes" if any("copies" in note for note in row["notes"]) else "no"
        numbers = [row["wall"], row["cpu"], row["worker"], *stages, row["cpu"] - sum(stages)]
        texts = (row["model"], row["layout"], row["layers"], row["imported"], row["operations"])
        out.add_row(*map(str, texts), copies, *(f"{number:.2f}" for number in numbers))
    return out


def plot(rows: list[Row], path: Path) -> None:
    """Draw processor time, worker included, against the number of operations."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(6, 4), dpi=100)
    for model, marker in zip(SIZES, "os", strict=True):
        for layout, colour in zip(MESHES, ("tab:blue", "tab:orange"), strict=True):
            for fold, line in ((False, "-"), (True, "--")):
                chosen = sorted(
                    (row["operations"], row["cpu"] + row["worker"])
                    for row in rows
                    if (row["model"], row["layout"], row["fold"]) == (model, layout, fold)
                )
                label = f"{model} {layout}" + (", folded" if fold else "")
                if chosen:
                    axes.plot(*zip(*chosen, strict=True), line, marker=marker, color=colour,
                              markersize=4, linewidth=1, label=label)  # fmt: skip
    axes.set(xlabel="operations of the simplified module", ylabel="seconds of processor time")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
    path.parent.mkdir(exist_ok=True)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Run the cases, print the table, draw the figure; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="rows are added here; those in it are kept")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    parser.add_argument("--models", nargs="*", default=list(SIZES))
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--mesh", help=argparse.SUPPRESS)
    parser.add_argument("--fold", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        sizes = tuple(map(int, options.mesh.split(",")))
        print(json.dumps(measure(options.measure, sizes, fold=options.fold)))
        return
    rows: list[Row] = []
    if options.json and options.json.exists():
        rows = json.loads(options.json.read_text())
    with tempfile.TemporaryDirectory() as folder:
        for model in options.models:
            for layout in MESHES:
                for layers in SIZES[model]:
                    if any((r["model"], r["layout"], r["layers"]) == (model, layout, layers)
                           for r in rows):  # fmt: skip
                        continue
                    rows += run_case(model, layout, layers, Path(folder))
                    if options.json:
                        options.json.write_text(json.dumps(rows, indent=1))
    rows.sort(key=lambda row: (row["model"], row["layout"], row["layers"], row["fold"]))
    Console(width=200).print(table(rows))
    plot(rows, options.figure)
    for (model, fold), limit in LIMITS.items():
        chosen = [r for r in rows if (r["model"], r["fold"]) == (model, fold)]
        slowest = max((r["cpu"] + r["worker"] for r in chosen), default=0.0)
        kind = "folded" if fold else "whole"
        print(f"{model} {kind}: {slowest:.2f} s of processor time, the limit is {limit:g} s")


if __name__ == "__main__":
    main()
