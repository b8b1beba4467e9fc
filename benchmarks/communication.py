"""Bytes that our partitioner moves against XLA's, on the same annotated modules.

``python -m benchmarks.communication [--models a,b] [--layouts ...] [--meshes 8,4x2] [--json F]``

Each cell is a training step of one of the models of ``tests/models`` in a layout, as StableHLO
text with Shardy annotations. Our side is `partition`; the other is XLA's CPU compiler with the
Shardy propagation and its SPMD partitioner, whose collectives are read off the optimized HLO.
Bytes are those that one device sends with bandwidth-optimal algorithms (`traffic.moved`); loops
count as often as they run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)

from rich.console import Console
from rich.table import Table

from benchmarks import load_package
from benchmarks.hlo_traffic import hlo_uses, partition_with_xla
from pai.dialects.mlir import context, parse
from pai.passes.partition import CollectiveUse, partition
from pai.passes.simplify.inline import Inline
from pai.passes.simplify.legalize import Legalize

load_package("tests/models", "jax_models")

from jax_models import MODELS, layouts  # noqa: E402

SIZES = {
    "vocabulary": 128,
    "width": 64,
    "heads": 8,
    "kv_heads": 8,
    "hidden": 128,
    "sequence": 16,
    "image": 32,
}
"""What the small configurations are widened to, so that every mesh axis divides them."""


@dataclass(frozen=True)
class Cell:
    """One comparison; ours is empty after an error of ours, theirs after one of XLA's."""

    model: str
    layout: str
    mesh: tuple[int, ...]
    ours: tuple[CollectiveUse, ...] = ()
    theirs: tuple[CollectiveUse, ...] = ()
    replicated: int = 0
    seconds: float = 0.0
    error: str = ""
    xla_error: str = ""

    @property
    def ratio(self) -> float:
        """Bytes we move for each byte XLA moves."""
        return bytes_of(self.ours) / max(1, bytes_of(self.theirs))


def bytes_of(uses: Sequence[CollectiveUse]) -> int:
    """Return the bytes that one device sends."""
    return sum(use.moved_bytes for use in uses)


def summary(uses: Sequence[CollectiveUse]) -> str:
    """Return the collectives in a line: AR all_reduce, AG all_gather, RS, A2A, CP."""
    short = {"all_reduce": "AR", "all_gather": "AG", "reduce_scatter": "RS", "all_to_all": "A2A",
             "collective_permute": "CP"}  # fmt: skip
    counts: dict[str, int] = {}
    for use in uses:
        counts[use.kind] = counts.get(use.kind, 0) + use.count
    return " ".join(f"{count} {short.get(kind, kind)}" for kind, count in sorted(counts.items()))


def config_of(model: str) -> Any:
    """Return a model's small configuration, widened to sizes that the meshes divide."""
    small = layouts.load(model).Config.small()
    return replace(small, **{k: v for k, v in SIZES.items() if hasattr(small, k)})


def compare(model: str, layout: str, mesh: tuple[int, ...], dump: Path | None = None) -> Cell:
    """Partition one training step both ways."""
    cell = Cell(model, layout, mesh)
    try:
        case = layouts.case(model, layout, mesh, config=config_of(model))
        module = parse(case.text, "jax", context())
        Inline().run(module)
        Legalize().run(module)
        start = time.process_time()
        local = partition(module, case.mesh)
        seconds = time.process_time() - start
    except Exception as error:
        return replace(cell, error=_message(error))
    cell = replace(
        cell,
        ours=local.report.collectives,
        replicated=len(local.report.replicated),
        seconds=seconds,
    )
    try:
        hlo = partition_with_xla(case.text, case.mesh.num_devices)
    except Exception as error:
        return replace(cell, xla_error=_message(error))
    if dump:
        name = f"{model}-{layout}-{'x'.join(map(str, mesh))}"
        (dump / f"{name}.in.mlir").write_text(case.text)
        (dump / f"{name}.ours.mlir").write_text(str(local.module))
        (dump / f"{name}.xla.hlo").write_text(hlo)
    return replace(cell, theirs=hlo_uses(hlo, case.mesh.num_devices))


def _message(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def table(cells: Sequence[Cell]) -> Table:
    """Return the comparison side by side."""
    out = Table("model", "layout", "mesh", "ours", "XLA", "ours B", "XLA B", "ratio", "gathered")
    for cell in cells:
        mesh = "x".join(map(str, cell.mesh))
        if cell.error:
            out.add_row(cell.model, cell.layout, mesh, cell.error)
            continue
        theirs = cell.xla_error or summary(cell.theirs)
        out.add_row(
            cell.model, cell.layout, mesh, summary(cell.ours), theirs, f"{bytes_of(cell.ours):,}",
            *(("", "") if cell.xla_error else (f"{bytes_of(cell.theirs):,}", f"{cell.ratio:.2f}")),
            str(cell.replicated or ""),
        )  # fmt: skip
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; exit 1 when a cell moves more than XLA does, 2 when one fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--layouts", default=",".join(layouts.LAYOUTS))
    parser.add_argument("--meshes", default="8,4x2,2x2x2,3x2")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--dump", type=Path, help="folder for the modules of both sides")
    options = parser.parse_args(arguments)
    meshes = [tuple(map(int, mesh.split("x"))) for mesh in options.meshes.split(",")]
    if options.dump:
        options.dump.mkdir(parents=True, exist_ok=True)
    cells = [
        compare(model, layout, mesh, options.dump)
        for model in options.models.split(",")
        for layout in options.layouts.split(",")
        if not layouts.skipped(model, layout)
        for mesh in meshes
    ]
    Console(width=180).print(table(cells))
    if options.json:
        options.json.write_text(json.dumps([asdict(cell) for cell in cells], indent=1))
    failed = [cell for cell in cells if cell.error]
    alone = [cell for cell in cells if cell.xla_error]
    done = [cell for cell in cells if not cell.error and not cell.xla_error]
    worse = [cell for cell in done if cell.ratio > 1]
    print(
        f"{len(done)} of {len(cells)} cells compared: {len(worse)} move more than XLA; "
        f"XLA fails on {len(alone)}, we on {len(failed)}"
    )
    return 2 if failed else int(bool(worse))


if __name__ == "__main__":
    sys.exit(main())
