"""The intra-operator program's own prediction beside the module that its layouts make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from benchmarks.small_models import program_of
from pai.compiler.driver import clone
from pai.passes.partition.partition import partition
from pai.passes.partition.traffic import moved
from pai.passes.simplify import simplify
from pai.passes.strategy.cost import cost_local_module
from pai.passes.strategy.intra.solution import (
    IntraOptions,
    IntraSolution,
    apply_solution,
    solve_intra,
)
from pai.passes.strategy.search import prediction_of
from pai.runtime.dtypes import itemsize
from pai.runtime.mesh import Mesh
from pai.runtime.topology import load_cluster

MESHES = ((8,), (4, 2))


@dataclass(frozen=True)
class IntraTruth:
    """What the intra-operator program predicts, and the module that its layouts make.

    Args:
        model: name of the model.
        mesh: sizes of its axes.
        predicted: bytes that one device sends by kind.
        partitioned: the same of the module.
        predicted_memory: bytes of one device.
        memory: bytes of the module, without second copies of updated values.
    """

    model: str
    mesh: tuple[int, ...]
    predicted: dict[str, int]
    partitioned: dict[str, int]
    predicted_memory: int
    memory: int


def measure_intra(model: str, sizes: tuple[int, ...], cluster: str = "cpu") -> IntraTruth:
    """Solve the intra-operator program of a training step and partition what it says."""
    program, _ = program_of(model, train=True)
    module, signature = program.module, program.signature
    simplify(module)
    mesh = Mesh(tuple(zip(("data", "model"), sizes, strict=False)))
    devices = load_cluster(cluster, mesh.num_devices)
    solution = solve_intra(module, signature, mesh, devices, options=IntraOptions(fused=False))
    annotated = clone(module)
    apply_solution(annotated, solution)
    local = partition(annotated, mesh)
    predicted = prediction_of(cost_local_module(local.module, mesh, devices), signature)
    sent: Counter[str] = Counter()
    for use in local.report.collectives:
        sent[use.kind] += use.moved_bytes
    updated = {value.updates for value in signature.results if value.updates}
    copies = sum(
        itemsize(value.dtype) * int(np.prod(sharding.local_shape(value.shape, mesh)))
        for value, sharding in zip(signature.results, local.result_shardings, strict=True)
        if value.updates in updated
    )
    return IntraTruth(
        model,
        sizes,
        dict(_sent(solution, mesh)),
        dict(sent),
        solution.memory_bytes,
        predicted.memory_bytes - copies,
    )


def _sent(solution: IntraSolution, mesh: Mesh) -> Counter[str]:
    """Return the bytes that one device sends, by kind."""
    out: Counter[str] = Counter()
    for use in solution.collectives:
        group = int(np.prod([mesh.size(axis) for axis in use.axes]))
        result = use.num_bytes / (group if use.kind == "reduce_scatter" else 1)
        out[use.kind] += round(moved(use.kind, int(result), group))
    return out


def intra_table(rows: Sequence[IntraTruth]) -> Table:
    """Return a row for each mesh; KB are those of one device."""
    table = Table(title="intra-operator program : its module (KB sent by one device)", box=None)
    for title in ("model", "mesh", "predicted", "module"):
        table.add_column(title)
    for title in ("KB sent", "ratio", "KB held", "ratio"):
        table.add_column(title, justify="right")
    for row in rows:
        sent = (sum(row.predicted.values()), sum(row.partitioned.values()))
        table.add_row(
            row.model, "×".join(map(str, row.mesh)), _sizes(row.predicted),
            _sizes(row.partitioned), pair_text(*sent), _ratio(*sent),
            pair_text(row.predicted_memory, row.memory), _ratio(row.predicted_memory, row.memory),
        )  # fmt: skip
    return table


def _sizes(sizes: dict[str, int]) -> str:
    return ", ".join(f"{kind} {size / 1e3:.1f}" for kind, size in sorted(sizes.items()))


def pair_text(predicted: int, true: int) -> str:
    """Return bytes as KB: one number when they are equal, else ``predicted:true``."""
    if predicted == true:
        return f"{true / 1e3:.1f}"
    return f"{predicted / 1e3:.1f}:{true / 1e3:.1f}"


def _ratio(predicted: int, true: int) -> str:
    return f"{predicted / true:.3f}" if true else "1.000" if not predicted else "inf"
