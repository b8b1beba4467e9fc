"""Time the intra-operator search, from StableHLO text to layouts.

``python -m benchmarks.search_time [--json FILE] [--figure FILE] [--cases NAME...]`` takes training
steps (AdamW) of Llama-3 8B, of a mixture of experts of DeepSeek-V3's dimensions and of GPT-3 175B,
and the same with fewer layers, on other numbers of devices and other meshes. Every case runs in a
fresh process. Seconds are of processor time, and of wall time where the column says so; *read* is
from the simplified module to the problem (reading, folding, merging). The gap is to the bound of
the relaxation over all axes, or, in brackets, over any two of them; *proved* is to what a minute
of branch and bound proves afterwards. Nothing is allocated:
arguments are shapes. Drawing needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import load_package

ROOT = Path(__file__).resolve().parent.parent
FIGURE = ROOT / "benchmarks" / "figures" / "search_time.png"
GROWTH = ("layers", "devices", "axes")
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A training step on a mesh.

    Args:
        name: of the case.
        model: a key of ``MODELS``.
        layers: how many.
        mesh: sizes of the axes, the slowest first.
        cluster: profile.
        limit: target in seconds, 0 for none.
        microbatches: parts in which the batch is run.
    """

    name: str
    model: str
    layers: int
    mesh: tuple[int, ...]
    cluster: str = "h100-sxm"
    limit: float = 0.0
    microbatches: int = 1


MODELS = {"llama3-8b": 64, "moe-671b": 64, "gpt3-175b": 1536}
"""Sequences in the batch."""

CASES = (
    Case("llama3-8b on 64", "llama3-8b", 32, (8, 8), limit=4.0),
    Case("moe-671b on 64", "moe-671b", 61, (8, 8), "h200-sxm", 10.0),
    Case("gpt3-175b on 1,024", "gpt3-175b", 96, (32, 4, 8), "a100-80g-sxm", 20.0, 8),
    *(
        Case("layers", "gpt3-175b", n, (128, 8), "a100-80g-sxm", 0.0, 8)
        for n in (6, 12, 24, 48, 96)
    ),
    *(
        Case("devices", "llama3-8b", 32, mesh)
        for mesh in ((1, 8), (8, 8), (64, 8), (512, 8), (2048, 8))
    ),
    *(Case("axes", "llama3-8b", 32, mesh) for mesh in ((64,), (8, 8), (4, 2, 8), (2, 4, 2, 4))),
)


def config(model: str, layers: int) -> tuple[str, Any]:
    """Return the module of ``tests/models`` and its Config; parameters are bf16."""
    load_package("tests/models", "jax_models")
    from jax_models import gpt2, llama, moe  # noqa: PLC0415

    if model == "llama3-8b":
        return "llama", llama.Config(layers=layers, sequence=8192, dtype="bfloat16")
    if model == "moe-671b":
        experts = {"experts": 256, "chosen": 8, "hidden": 2048}
        sizes = {"width": 7168, "heads": 128, "vocabulary": 129280, "sequence": 4096}
        return "moe", moe.Config(layers=layers, dtype="bfloat16", **sizes, **experts)
    return "gpt2", gpt2.Config(layers, 12288, 96, 49152, 50257, 2048, "bfloat16")


def measure(path: Path, case: Case) -> Row:
    """Search a plan for the module in ``path``; return what it took."""
    from pai.dialects.mlir import context, parse  # noqa: PLC0415
    from pai.passes.partition.fold_graph import operation_count  # noqa: PLC0415
    from pai.passes.simplify import simplify  # noqa: PLC0415
    from pai.passes.strategy.intra import solution  # noqa: PLC0415
    from pai.runtime.mesh import Mesh  # noqa: PLC0415
    from pai.runtime.topology import load_cluster  # noqa: PLC0415

    model, sizes = config(case.model, case.layers)
    from jax_models import program  # noqa: PLC0415

    text = path.read_bytes()
    mesh = Mesh(tuple(zip("abcd", case.mesh, strict=False)))
    cluster = load_cluster(case.cluster, mesh.num_devices)
    options = solution.IntraOptions(microbatches=case.microbatches, must_fit=False)
    clock = _Clock()
    module = parse(text, "case", context())
    row: Row = {"imported": operation_count(module)}
    clock.lap("parse")
    signature = program.sign(module, model, sizes)
    clock.skip()
    simplify(module)
    row["operations"] = operation_count(module)
    clock.lap("simplify")
    lowered = solution.read_problem(module, signature, 0.9 * cluster.memory_bytes, options)
    clock.lap("read")
    found = solution.solve_problem(lowered, signature, mesh, cluster, options)
    clock.lap("solve")
    row |= {"nodes": len(lowered.problem.nodes), "edges": len(lowered.problem.edges)}
    row |= {"gap": found.gap, "pair_gap": found.pair_gap, "timed_out": found.timed_out}
    row |= {"time_s": found.time_s, "memory": found.memory_bytes, "recompute": found.recompute}
    row["proved"] = proved_gap(lowered, signature, mesh, cluster, found)
    return {**row, "stages": clock.cpu, "cpu": sum(clock.cpu.values()), "wall": clock.wall}


def proved_gap(lowered: Any, signature: Any, mesh: Any, cluster: Any, found: Any) -> float | None:
    """Return how far a solution is above what a long search of the tree proves, at most."""
    from pai.passes.strategy.intra import ilp, solution  # noqa: PLC0415

    if found.gap is None:
        return None
    limits = ilp.Limits(seconds=60.0)
    options = solution.IntraOptions(
        prove=True, refine_s=60.0, limits=limits, recompute=found.recompute, must_fit=False
    )
    longer = solution.solve_problem(lowered, signature, mesh, cluster, options)
    if longer.gap is None:
        return None
    bound = longer.time_s * (1 - longer.gap)
    return float(max(0.0, (found.time_s - bound) / found.time_s))


class _Clock:
    def __init__(self) -> None:
        self.cpu: dict[str, float] = {}
        self.wall = 0.0
        self.skip()

    def skip(self) -> None:
        self.start = (time.process_time(), time.perf_counter())

    def lap(self, stage: str) -> None:
        self.cpu[stage] = time.process_time() - self.start[0]
        self.wall += time.perf_counter() - self.start[1]
        self.skip()


def run(cases: list[Case], folder: Path) -> Iterator[Row]:
    """Yield a row for each case, each from a process of its own."""
    from pai.passes.strategy.intra import ilp  # noqa: F401, PLC0415 (fails early without highspy)

    for case in cases:
        path = folder / f"{case.model}-{case.layers}.mlir"
        if not path.exists():
            model, sizes = config(case.model, case.layers)
            from jax_models import program  # noqa: PLC0415

            path.write_text(program.step_text(model, sizes, MODELS[case.model]))
        command = [sys.executable, "-m", "benchmarks.search_time", "--measure", str(path)]
        command += ["--number", str(CASES.index(case))]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        sizes = json.loads(done.stdout.splitlines()[-1])
        yield {**case.__dict__, "mesh": list(case.mesh), **sizes}


def table(rows: list[Row]) -> Table:
    """Return the rows as a table."""
    stages = ("parse", "simplify", "read", "solve")
    out = Table(title="Seconds from StableHLO text to layouts")
    names = ("case", "model", "layers", "mesh", "imported", "operations", "nodes", *stages)
    for name in (
        *names,
        "total",
        "wall",
        "limit",
        "gap %",
        "proved %",
        "step s",
        "GB",
        "recompute",
    ):
        out.add_column(name, justify="left" if name in ("case", "model") else "right")
    for row in rows:
        known, pair = row["gap"], row["pair_gap"]
        gap = f"{100 * known:.2f}" if known is not None else "-"
        gap = gap if pair is None else f"({100 * pair:.2f})"
        proved = "" if row["proved"] is None else f"{100 * row['proved']:.2f}"
        out.add_row(
            row["name"], row["model"], str(row["layers"]), "x".join(map(str, row["mesh"])),
            *(str(row[key]) for key in ("imported", "operations", "nodes")),
            *(f"{row['stages'][stage]:.2f}" for stage in stages), f"{row['cpu']:.2f}",
            f"{row['wall']:.2f}", f"{row['limit']:g}" if row["limit"] else "",
            gap + "*" * row["timed_out"], proved, f"{row['time_s']:.3f}",
            f"{row['memory'] / 1e9:.1f}", row["recompute"],
        )  # fmt: skip
    return out


def plot(rows: list[Row], path: Path) -> None:
    """Draw seconds of processor time against layers, devices and axes."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, panels = plt.subplots(1, 3, figsize=(10, 3.2), dpi=100, sharey=True)
    for panel, (name, label, of) in zip(
        panels,
        (
            ("layers", "layers (GPT-3 175B, 1,024 devices)", lambda row: row["layers"]),
            ("devices", "devices (Llama-3 8B)", lambda row: _product(row["mesh"])),
            ("axes", "mesh axes (Llama-3 8B, 64 devices)", lambda row: len(row["mesh"])),
        ),
        strict=True,
    ):
        chosen = sorted((row for row in rows if row["name"] == name), key=of)
        where = [of(row) for row in chosen]
        panel.plot(where, [row["cpu"] for row in chosen], "o-", markersize=4, label="all")
        solve = [row["stages"]["solve"] for row in chosen]
        panel.plot(where, solve, "s--", markersize=4, label="solve")
        panel.set(xlabel=label)
        if name == "devices":
            panel.set_xscale("log", base=2)
        panel.set_ylim(0, 1.1 * max(row["cpu"] for row in rows if row["name"] in GROWTH))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("seconds of processor time")
    panels[0].legend(fontsize=8)
    path.parent.mkdir(exist_ok=True)
    figure.tight_layout()
    figure.savefig(path)


def _product(sizes: list[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


def main() -> None:
    """Run the cases, print the table, draw the figure; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="rows are added here; those in it are kept")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    parser.add_argument("--cases", nargs="*", help="names of cases; all by default")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, CASES[options.number])))
        return
    rows: list[Row] = []
    if options.json and options.json.exists():
        rows = json.loads(options.json.read_text())
    known = {(row["name"], row["model"], row["layers"], tuple(row["mesh"])) for row in rows}
    cases = [
        case
        for case in CASES
        if (not options.cases or case.name in options.cases)
        and (case.name, case.model, case.layers, case.mesh) not in known
    ]
    with tempfile.TemporaryDirectory() as folder:
        for row in run(cases, Path(folder)):
            rows.append(row)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1))
    Console(width=190).print(table(rows))
    if not options.cases:
        plot(rows, options.figure)
    for row in rows:
        if row["limit"]:
            seconds, limit = row["cpu"], row["limit"]
            print(f"{row['name']}: {seconds:.2f} s of processor time, the limit is {limit:g} s")


if __name__ == "__main__":
    main()
