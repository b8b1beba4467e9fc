"""What plans predict beside what comes of them: collectives and memory of ten small models.

``python -m benchmarks.plan_truth [--models gpt2,moe] [--plans cpu,a100,tight,zero,forward,intra]
[--json FILE]``

Each row compiles a model for eight devices and runs the package on virtual devices. Plans: the one
that the search chooses for a host of CPUs, the one for a host of A100s, the one for A100s that hold
twice the program's arguments and no more, ZeRO-3 by hand, and the search's for a forward pass.
Collectives are counted by kind and group, with the bytes of the larger side of one device's
tensors, three times: in the plan, in the report of the partitioner, and in the trace of the run.
Memory is that of one device, in the plan and in the package: arguments, results with memory of
their own (the next values of parameters and moments too, but where they are updated in place),
constants and the arena.

The last table holds the intra-operator program's own prediction to the module that its layouts
make: bytes sent, and memory without the second copies of updated values, which it does not count.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.intra_truth import MESHES, IntraTruth, intra_table, measure_intra, pair_text
from benchmarks.small_models import BATCH, SIZES, program_of
from pai.compiler.driver import compile_model
from pai.compiler.options import CompileOptions
from pai.dialects.program import Program, Role, Signature
from pai.passes.partition.report import CollectiveUse, PartitionReport
from pai.passes.schedule import ProgramCode, schedule
from pai.passes.strategy.plan import Plan
from pai.runtime.dtypes import itemsize
from pai.runtime.errors import PaiError
from pai.runtime.executor import LoadedPackage, load
from pai.runtime.package import open_package
from pai.runtime.program import Collective, walk

DEVICES = 8
LIMIT = 0.1  # of the memory
PROFILES = Path(__file__).resolve().parent.parent / "runtime" / "profiles"
PLANS = ("cpu", "a100", "tight", "zero", "forward")
CLUSTERS = {"cpu": "cpu", "a100": "a100-80g-sxm", "zero": "cpu", "forward": "cpu"}
Uses = dict[tuple[str, int], tuple[int, int]]
"""(kind, devices of a group or 0 for a permute) to how many and bytes of the larger side."""


@dataclass(frozen=True)
class Truth:
    """A plan and what came of it.

    Args:
        model: name of the model.
        plan: one of ``PLANS``.
        strategy: what the plan calls itself.
        planned: collectives of the plan.
        partitioned: those of the partitioner's report.
        run: those that a device executed.
        predicted: bytes of one device by role, of the plan.
        held: the same of the package.
        copies: bytes of updated values beside the old ones, in both as outputs.
        first: sum of the first result of the run, the loss of a step; None without a run.
    """

    model: str
    plan: str
    strategy: str
    planned: Uses
    partitioned: Uses
    run: Uses
    predicted: dict[str, int]
    held: dict[str, int]
    copies: int
    first: float | None = None

    @property
    def collectives_agree(self) -> bool:
        """Whether kinds, counts and bytes are equal in all three."""
        return self.planned == self.partitioned == self.run

    @property
    def memory_ratio(self) -> float:
        """Bytes predicted over bytes held."""
        return sum(self.predicted.values()) / max(sum(self.held.values()), 1)


def measure(model: str, plan: str, folder: Path, *, run: bool = True) -> Truth:
    """Compile a model under a plan and run it.

    Args:
        model: one of ``SIZES``.
        plan: one of ``PLANS``.
        folder: where the package goes.
        run: make the package and run it; else stop when its program is known.
    """
    program, inputs = program_of(model, train=plan != "forward")
    path = None
    if plan == "zero":
        path = folder / "zero.toml"
        path.write_text(zero_plan(program.signature))
    cluster = tight_cluster(program.signature, folder) if plan == "tight" else CLUSTERS[plan]
    last = "link" if run else "fuse"
    options = CompileOptions(DEVICES, cluster, plan=path, stop_after=last, jobs=1)
    return measure_program(program, inputs, options, folder, plan)


def measure_program(
    program: Program,
    inputs: dict[str, np.ndarray],
    options: CompileOptions,
    folder: Path,
    plan: str = "",
) -> Truth:
    """Compile a program and, if the options go so far, run it.

    Args:
        program: changed in place.
        inputs: arrays by name.
        options: up to the stage ``fuse`` or ``link``.
        folder: where the package goes.
        plan: what to call the plan.
    """
    output = folder / "model.pai" if options.stop_after == "link" else None
    state = compile_model(program, options, output)
    code = open_package(output).code if output else schedule(state.local.module)
    held = held_bytes(code, program.signature)
    copies = held.pop("copies")
    uses = partitioned(state.local.report)
    run, first = executed(output, inputs, folder) if output else (uses, None)
    return Truth(
        program.name,
        plan,
        state.plan.strategy or "by hand",
        planned(state.plan),
        uses,
        run,
        predicted_bytes(state.plan),
        held,
        copies,
        first,
    )


def tight_cluster(signature: Signature, folder: Path) -> str:
    """Return a file of the A100 host whose devices hold twice the program's arguments only."""
    whole = sum(math.prod(v.shape) * itemsize(v.dtype) for v in signature.arguments)
    text = (PROFILES / "a100-80g-sxm.toml").read_text()
    path = folder / "tight.toml"
    path.write_text(re.sub(r"(?m)^memory = .*", f"memory = {2 * whole}", text))
    return str(path)


def zero_plan(signature: Signature) -> str:
    """Return a plan file: the batch over all devices, everything stored in shards."""
    lines = [f"[mesh]\ndata = {DEVICES}\n[zero]\ndata = 3\n[arguments]"]
    for value in signature.arguments:
        if value.role is Role.INPUT and value.shape and value.shape[0] == BATCH:
            dims = ["data", *[""] * (len(value.shape) - 1)]
            lines.append(f'"{value.name}" = {json.dumps(dims)}')
    return "\n".join(lines) + "\n"


def planned(plan: Plan) -> Uses:
    """Return the collectives of a plan."""
    return _sum(
        (use.kind, use.group_size, use.count, use.bytes_per_device)
        for use in plan.predicted.collectives
    )


def partitioned(report: PartitionReport) -> Uses:
    """Return the collectives of a local module."""
    return _sum((u.kind, u.group_size, u.count, _larger(u)) for u in report.collectives)


def _larger(use: CollectiveUse) -> int:
    scatters = use.kind == "reduce_scatter"
    return use.bytes_per_device * (use.group_size if scatters else 1)


def executed(path: Path, inputs: dict[str, np.ndarray], folder: Path) -> tuple[Uses, float]:
    """Run a package; return the collectives that the busiest device traced, and the first result.

    That is its sum.
    """
    package = load(path, threads=1)
    trace = folder / "trace.json"
    results = package.trace(trace, inputs)
    if not all(np.isfinite(a).all() for a in results.values() if a.dtype.kind == "f"):
        raise AssertionError(f"{path}: a result is not finite")
    found = [step for step in walk(package.code.code) if isinstance(step, Collective)]
    names = {f"{step.kind} #{number}": step for number, step in enumerate(found, 1)}
    counts: Counter[tuple[int, str]] = Counter()
    for event in json.loads(trace.read_text())["traceEvents"]:
        if event["name"] in names:
            counts[event["tid"], event["name"]] += 1
    devices = [
        _sum(
            (step.kind, max(map(len, step.groups), default=0), times, times * _bytes(step, package))
            for (device, name), times in counts.items()
            if device == number
            for step in (names[name],)
        )
        for number in range(package.num_devices)
    ]
    busiest = max(devices, key=lambda uses: sum(size for _, size in uses.values()))
    return busiest, float(next(iter(results.values())).sum())


def _bytes(step: Collective, package: LoadedPackage) -> int:
    sizes = [
        sum(package.code.buffers[number].size for number in side)
        for side in (step.sources, step.targets)
    ]
    return max(sizes)


def _sum(uses: Iterable[tuple[str, int, int, int]]) -> Uses:
    total: dict[tuple[str, int], list[int]] = {}
    for kind, group, count, size in uses:
        entry = total.setdefault((kind, 0 if kind == "collective_permute" else group), [0, 0])
        entry[0] += count
        entry[1] += size
    return {key: (count, size) for key, (count, size) in sorted(total.items())}


def predicted_bytes(plan: Plan) -> dict[str, int]:
    """Return the memory of one device by what fills it, as the plan says."""
    p = plan.predicted
    return {
        "parameters": p.parameter_bytes,
        "states": p.state_bytes,
        "inputs": p.input_bytes,
        "outputs": p.output_bytes,
        "temporaries": p.temporary_bytes + p.fragmentation_bytes,
    }


def held_bytes(code: ProgramCode, signature: Signature) -> dict[str, int]:
    """Return the memory of one device by what fills it, as a package's program lays it out.

    ``copies`` are the outputs that hold the next value of an argument.
    """
    sizes = dict.fromkeys(("parameter", "state", "input"), 0)
    for number, argument in zip(code.arguments, signature.arguments, strict=True):
        sizes[argument.role.value] += code.buffers[number].size
    spaces: Counter[str] = Counter()
    for buffer in code.buffers:
        spaces[buffer.space] += buffer.size
    copies = {
        number: code.buffers[number].size
        for number, result in zip(code.results, signature.results, strict=True)
        if result.updates and code.buffers[number].space == "result"
    }
    return {
        "parameters": sizes["parameter"],
        "states": sizes["state"],
        "inputs": sizes["input"],
        "outputs": spaces["result"],
        "temporaries": code.arena_bytes + spaces["constant"],
        "copies": sum(copies.values()),
    }


def plan_table(rows: Sequence[Truth]) -> Table:
    """Return a row for each plan; KB are those of one device."""
    table = Table(title="plan : package (KB of one device)", box=None)
    for title in ("model", "plan", "strategy", "collectives: count, KB", "equal"):
        table.add_column(title)
    memory = ("parameters", "states", "inputs", "outputs", "temporaries")
    for title in (*memory, "all", "ratio"):
        table.add_column(title, justify="right")
    for row in rows:
        equal = "yes" if row.collectives_agree else f"NO {_uses(row.partitioned)} {_uses(row.run)}"
        pairs = [(row.predicted[key], row.held[key]) for key in memory]
        pairs.append((sum(row.predicted.values()), sum(row.held.values())))
        table.add_row(
            row.model, row.plan, row.strategy, _uses(row.planned), equal,
            *(pair_text(*pair) for pair in pairs), f"{row.memory_ratio:.3f}",
        )  # fmt: skip
    return table


def loss_spread(rows: Sequence[Truth]) -> float:
    """Return how much the losses of a model's steps differ between plans at most, relatively."""
    losses: dict[str, list[float]] = {}
    for row in rows:
        if row.first is not None and row.plan != "forward":
            losses.setdefault(row.model, []).append(row.first)
    return max((max(v) / min(v) - 1 for v in losses.values()), default=0.0)


def _uses(uses: Uses) -> str:
    return ", ".join(
        f"{kind}{f'/{group}' if group else ''} {count}, {size / 1e3:.1f}"
        for (kind, group), (count, size) in uses.items()
    )


def _rows(model: str, plans: Sequence[str]) -> Iterator[Truth | IntraTruth | str]:
    """Yield a model's rows; what fails is a line of text."""
    wanted = [plan for plan in plans if plan != "intra"]
    for plan in wanted:
        with tempfile.TemporaryDirectory() as folder:
            try:
                yield measure(model, plan, Path(folder))
            except PaiError as error:
                yield f"{model} {plan}: {error}"
    for sizes in MESHES if "intra" in plans else ():
        try:
            yield measure_intra(model, sizes)
        except PaiError as error:
            yield f"{model} intra {sizes}: {error}"


def _json(row: Truth | IntraTruth) -> dict[str, Any]:
    """Return a row with texts as keys."""
    out = asdict(row)
    for key in ("planned", "partitioned", "run"):
        if isinstance(row, Truth):
            out[key] = {f"{k}/{g}": list(v) for (k, g), v in getattr(row, key).items()}
    return out


def main() -> int:
    """Print the tables; the exit code counts plans that are not equal, or more than 10 % off."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(SIZES))
    parser.add_argument("--plans", default=",".join((*PLANS, "intra")))
    parser.add_argument("--json", type=Path, metavar="FILE", help="rows as they come, one a line")
    arguments = parser.parse_args()
    truths, intra, failed = [], [], []
    for model in arguments.models.split(","):
        for row in _rows(model, arguments.plans.split(",")):
            if isinstance(row, str):
                failed.append(row)
            elif isinstance(row, Truth):
                truths.append(row)
            else:
                intra.append(row)
            line = row if isinstance(row, str) else json.dumps(_json(row))
            print(line, file=sys.stderr, flush=True)
            if arguments.json is not None:
                with arguments.json.open("a") as file:
                    file.write(line + "\n")
    console = Console(width=None if sys.stdout.isatty() else 250)
    console.print(plan_table(truths))
    console.print(f"the losses of a model's steps differ by {loss_spread(truths):.1e} at most")
    console.print(intra_table(intra))
    for line in failed:
        console.print(line)
    bad = sum(not t.collectives_agree or abs(t.memory_ratio - 1) > LIMIT for t in truths)
    return bad + len(failed)


if __name__ == "__main__":
    sys.exit(main())
