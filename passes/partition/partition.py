"""Partition: propagate the shardings, make the module local, tidy its collectives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pai.dialects.mlir import ir, run_pipeline
from pai.dialects.sdy import lift_meshes, mesh_from_module, mesh_ops, set_mesh
from pai.passes.base import run_passes
from pai.passes.partition.accounts import Localized
from pai.passes.partition.annotations import speaks_shardy, unsharded
from pai.passes.partition.fold import fold_layers
from pai.passes.partition.fold_padding import FoldPadding
from pai.passes.partition.localize import localize
from pai.passes.partition.propagate import Propagate
from pai.passes.partition.report import LocalModule, PartitionReport
from pai.passes.partition.traffic import collective_uses
from pai.passes.pipelines import JOINED_COLLECTIVES, SINGLE_COLLECTIVES
from pai.runtime.errors import InvalidSharding
from pai.runtime.mesh import Mesh

CLEAN_UP = "canonicalize,cse"


def partition(
    module: ir.Module,
    mesh: Mesh,
    *,
    strict: bool = False,
    dump_dir: str | Path | None = None,
    time_limit: float = 600.0,
    fold: bool = True,
    gather_factors: bool = True,
) -> LocalModule:
    """Turn a module with sharded arguments into the program of one device, in place.

    Args:
        module: simplified StableHLO, one function; arguments may carry ``sdy.sharding``.
        mesh: the devices; has to be the module's ``sdy.mesh``, which is added when absent.
        strict: refuse to gather an operand that its operation needs whole.
        dump_dir: where the module is written if Shardy fails.
        time_limit: seconds Shardy may take.
        fold: partition a few of the layers that repeat and copy them (`fold.py`); the result is
            the same, and a note in the report says what was done.
        gather_factors: whether the factors of a contraction may be gathered where that is cheaper
            than summing its results.

    Returns:
        The local module (the same object, rewritten) with the layouts of arguments and results.

    Raises:
        InvalidSharding: the meshes differ, or see ``strict``.
        UnsupportedOp: an operation that cannot be partitioned.
        PassFailure: Shardy failed, crashed or took too long.
    """
    lift_meshes(module)
    found = mesh_from_module(module)
    if found is not None and found != mesh:
        raise InvalidSharding(f"the module is for mesh {found}, not {mesh}")
    if mesh.num_devices == 1 and not speaks_shardy(module):
        return _one_device(module, mesh)
    if found is None:
        set_mesh(module, mesh)
    FoldPadding().run(module)
    propagate = Propagate(dump_dir=str(dump_dir or ""), time_limit=time_limit)

    def make_local(given: ir.Module) -> Localized:
        out = localize(given, mesh=mesh, strict=strict, gather_factors=gather_factors)
        run_pipeline(given, CLEAN_UP)
        run_passes(given, SINGLE_COLLECTIVES)
        run_pipeline(given, CLEAN_UP)
        return out

    out, note = fold_layers(module, propagate.run, make_local) if fold else (None, "")
    if out is None:
        propagate.run(module)
        out = make_local(module)
    run_passes(module, JOINED_COLLECTIVES)
    notes = (*_notes(out), *([note] if note else []))
    report = PartitionReport(collective_uses(module), tuple(out.replicated), notes)
    return LocalModule(module, mesh, out.arguments, out.results, report)


def _one_device(module: ir.Module, mesh: Mesh) -> LocalModule:
    arguments, results = unsharded(module)
    for op in list(mesh_ops(module)):
        op.operation.erase()
    return LocalModule(module, mesh, arguments, results)


def _notes(out: Localized) -> tuple[str, ...]:
    return tuple(_uneven("argument", out.uneven_arguments)) + tuple(
        _uneven("result", out.uneven_results)
    )


def _uneven(kind: str, entries: Sequence[tuple[int, int, int, int]]) -> list[str]:
    return [
        f"{kind} {index}: dimension {dim} of size {size} is padded to {shards} equal shards"
        for index, dim, size, shards in entries
    ]
