"""Time the whole search of a training step's plan, from StableHLO text to the plan.

``python -m benchmarks.plan_time [--json FILE] [--cases NAME...]`` takes AdamW steps of Llama-3 8B
on 64 devices, a mixture of experts of DeepSeek-V3's dimensions on 64, GPT-3 175B on 1,024 and
Llama-3 405B on 16,384 through ``choose_any_plan``, as ``pai.plan`` does: stages, schedule, tensor
shards, replicas, ZeRO, recompute, microbatches and the layouts. Every case runs in a fresh process.
Seconds are wall time; what does not fit says so. Nothing is allocated: arguments are shapes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import load_package

ROOT = Path(__file__).resolve().parent.parent
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A training step on a cluster.

    Args:
        name: of the case.
        batch: sequences of a step.
        cluster: profile.
        devices: how many of them.
        limit: target in seconds.
    """

    name: str
    batch: int
    cluster: str
    devices: int
    limit: float


CASES = (
    Case("llama3-8b", 128, "h100-sxm", 64, 4.0),
    Case("moe-671b", 256, "b200-sxm", 64, 10.0),
    Case("gpt3-175b", 1536, "a100-80g-sxm", 1024, 20.0),
    Case("llama3-405b", 2048, "h100-llama3", 16384, 40.0),
)


def config(name: str) -> tuple[str, Any]:
    """Return the module of ``tests/models`` and its Config; parameters are bf16."""
    load_package("tests/models", "jax_models")
    from jax_models import gpt2, llama, moe  # noqa: PLC0415

    if name == "llama3-8b":
        return "llama", llama.Config(layers=32, sequence=8192, dtype="bfloat16")
    if name == "llama3-405b":
        sizes = (126, 16384, 128, 8, 53248, 128256, 8192, 500000.0)
        return "llama", llama.Config(*sizes, dtype="bfloat16")
    if name == "moe-671b":
        experts = {"experts": 256, "chosen": 8, "hidden": 2048}
        sizes_ = {"width": 7168, "heads": 128, "vocabulary": 129280, "sequence": 4096}
        return "moe", moe.Config(layers=61, dtype="bfloat16", **sizes_, **experts)
    return "gpt2", gpt2.Config(96, 12288, 96, 49152, 50257, 2048, "bfloat16")


def measure(path: Path, case: Case) -> Row:
    """Plan the step in ``path``; return what it took and what was chosen."""
    from pai.dialects.mlir import context, parse  # noqa: PLC0415
    from pai.passes.partition.fold_graph import operation_count  # noqa: PLC0415
    from pai.passes.simplify import simplify  # noqa: PLC0415
    from pai.passes.strategy.step_plan import choose_any_plan  # noqa: PLC0415
    from pai.runtime.errors import InfeasiblePlan  # noqa: PLC0415
    from pai.runtime.topology import load_cluster  # noqa: PLC0415

    model, sizes = config(case.name)
    from jax_models import program  # noqa: PLC0415

    text = path.read_bytes()
    cluster = load_cluster(case.cluster, case.devices)
    start, own = time.perf_counter(), time.process_time()
    module = parse(text, "case", context())
    parsed = time.perf_counter()
    operations = operation_count(module)
    signature = program.sign(module, model, sizes)
    signed = time.perf_counter()
    simplify(module)
    simplified = time.perf_counter()
    try:
        plan = choose_any_plan(module, signature, cluster)
        chosen, seconds = plan.strategy, plan.predicted.time_s
        memory = plan.predicted.memory_bytes
    except InfeasiblePlan as error:
        chosen, seconds, memory = f"{error.what}; {error.hint}", 0.0, 0
    end = time.perf_counter()
    return {
        "operations": operations,
        "parse": parsed - start,
        "simplify": simplified - signed,
        "plan": end - simplified,
        "wall": end - start - (signed - parsed),
        "cpu": time.process_time() - own,
        "chosen": chosen,
        "step_s": seconds,
        "memory": memory,
    }


def run(case: Case, folder: Path) -> Row:
    """Return the row of a case, from a process of its own."""
    path = folder / f"{case.name}.mlir"
    model, sizes = config(case.name)
    from jax_models import program  # noqa: PLC0415

    path.write_text(program.step_text(model, sizes, case.batch))
    command = [sys.executable, "-m", "benchmarks.plan_time", "--measure", str(path)]
    command += ["--cases", case.name]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return {**case.__dict__, **json.loads(done.stdout.splitlines()[-1])}


def table(rows: list[Row]) -> Table:
    """Return the rows as a table."""
    out = Table(title="Seconds from StableHLO text to the plan")
    for name in ("step", "batch", "devices", "operations"):
        out.add_column(name, justify="left" if name == "step" else "right")
    for name in ("parse", "simplify", "plan", "wall", "limit", "cpu"):
        out.add_column(name, justify="right")
    out.add_column("chosen", overflow="fold")
    out.add_column("step s", justify="right")
    out.add_column("GiB", justify="right")
    for row in rows:
        out.add_row(
            row["name"], f"{row['batch']:,}", f"{row['devices']:,} {row['cluster']}",
            f"{row['operations']:,}",
            *(f"{row[key]:.2f}" for key in ("parse", "simplify", "plan", "wall")),
            f"{row['limit']:g}", f"{row['cpu']:.2f}", row["chosen"], f"{row['step_s']:.2f}",
            f"{row['memory'] / 2**30:.1f}",
        )  # fmt: skip
    return out


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cases", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    cases = [case for case in CASES if case.name in options.cases]
    if options.measure:
        print(json.dumps(measure(options.measure, cases[0])))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [run(case, Path(folder)) for case in cases]
    Console(width=170).print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
