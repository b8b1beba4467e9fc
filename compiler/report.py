"""What a compilation tells its user: the summary, as a dictionary and as a page."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pai.dialects.program import Role
from pai.passes.strategy.explain import explain
from pai.runtime.dtypes import itemsize
from pai.runtime.mesh import Mesh, Sharding
from pai.runtime.program import Call, walk

if TYPE_CHECKING:
    from pai.compiler.driver import Compilation
    from pai.compiler.verify import Verification

LARGEST_PARAMETERS = 8
PLAIN_WIDTH = 140  # columns of a page that is not for a terminal


def package_facts(state: Compilation) -> dict[str, Any]:
    """Return what the package's report.json holds: the same for the same input, so no times."""
    local, predicted = state.local, state.plan.predicted
    return {
        "model": state.program.name,
        "target": f"cpu:{state.target.level}",
        "cluster": state.cluster.name,
        "devices": local.mesh.num_devices,
        "mesh": dict(local.mesh.axes),
        "strategy": state.plan.strategy,
        "parameters": _parameters(state),
        "collectives": [
            {
                "kind": use.kind,
                "count": use.count,
                "group_size": use.group_size,
                "bytes_per_device": use.bytes_per_device,
            }
            for use in local.report.collectives
        ],
        "replicated": [
            {"op": item.op, "location": item.location, "extra_bytes": item.extra_bytes}
            for item in local.report.replicated
        ],
        "notes": list(local.report.notes),
        "memory_per_device": _memory(state),
        "predicted": {
            "seconds": predicted.time_s,
            "compute": predicted.compute_s,
            "memory_bound": predicted.memory_bound_s,
            "communication": predicted.communication_s,
            "overhead": predicted.overhead_s,
        },
        "kernels": {
            "made": len(state.kernels),
            "calls": sum(isinstance(i, Call) for i in walk(state.code.code)),
        },
    }


def summary(state: Compilation, verification: Verification | None = None) -> dict[str, Any]:
    """Return everything ``--json`` prints, as far as the stages went."""
    facts: dict[str, Any] = {"last_stage": state.options.stop_after}
    if state.output is not None:
        facts |= package_facts(state)
        facts["package"] = str(state.output)
    facts["seconds"] = {stage: round(value, 4) for stage, value in state.seconds.items()}
    facts["peak_bytes"] = state.peak_bytes
    if verification is not None:
        facts["verification"] = {
            "devices": verification.num_devices,
            "worst_relative_error": verification.worst,
            "outputs": [vars(error) for error in verification.outputs],
        }
    return facts


def print_summary(
    state: Compilation, verification: Verification | None = None, *, why: bool = False
) -> None:
    """Print the summary page on standard output.

    Args:
        state: the finished compilation.
        verification: its errors, when it was verified.
        why: also say why the plan was chosen and what lost.
    """
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    console = Console(highlight=False, soft_wrap=True, width=width)
    if why and "strategy" in state.seconds:
        console.print(explain(state.plan, state.program.signature), markup=False)
    if state.output is None:
        return
    facts = package_facts(state)
    console.print(f"package      {state.output}", markup=False)
    console.print(f"mesh         {_mesh_text(state.local.mesh)} ({facts['strategy']})")
    console.print(f"kernels      {_kernels_text(facts['kernels'])}")
    console.print(f"memory       {_memory_text(facts['memory_per_device'])} on each device")
    console.print(f"predicted    {_seconds_text(facts['predicted']['seconds'])} a run")
    _print_collectives(console, facts["collectives"])
    _print_parameters(console, facts["parameters"])
    for item in facts["replicated"]:
        console.print(
            f"replicated   {item['op']} at {item['location']}: "
            f"{_bytes_text(item['extra_bytes'])} more on each device",
            markup=False,
        )
    for note in facts["notes"]:
        console.print(f"note         {note}", markup=False)
    if verification is not None:
        _print_verification(console, verification)


def _parameters(state: Compilation) -> list[dict[str, Any]]:
    """Return the largest parameters with their shardings, largest first."""
    pairs = zip(state.program.signature.arguments, state.local.argument_shardings, strict=True)
    sized = [
        (itemsize(value.dtype) * _product(value.shape), value, sharding)
        for value, sharding in pairs
        if value.role is not Role.INPUT
    ]
    sized.sort(key=lambda entry: (-entry[0], entry[1].name))
    return [
        {
            "name": value.name,
            "shape": list(value.shape),
            "dtype": value.dtype,
            "bytes": size,
            "sharding": _sharding_text(sharding),
        }
        for size, value, sharding in sized[:LARGEST_PARAMETERS]
    ]


def _memory(state: Compilation) -> dict[str, int]:
    """Return the bytes one device holds, by kind; temporaries as the arena was laid out."""
    mesh = state.local.mesh
    sizes = dict.fromkeys(("parameters", "inputs"), 0)
    pairs = zip(state.program.signature.arguments, state.local.argument_shardings, strict=True)
    for value, sharding in pairs:
        kind = "inputs" if value.role is Role.INPUT else "parameters"
        sizes[kind] += itemsize(value.dtype) * _product(sharding.local_shape(value.shape, mesh))
    constants = sum(buffer.size for buffer in state.code.buffers if buffer.space == "constant")
    return {**sizes, "arena": state.code.arena_bytes, "constants": constants}


def _product(shape: tuple[int, ...]) -> int:
    size = 1
    for dim in shape:
        size *= dim
    return size


def _sharding_text(sharding: Sharding) -> str:
    if sharding.is_replicated:
        return "replicated"
    return "[" + ", ".join("·".join(a.name for a in axes) or "-" for axes in sharding.dims) + "]"


def _mesh_text(mesh: Mesh) -> str:
    return " x ".join(f"{name}={size}" for name, size in mesh.axes) or "one device"


def _kernels_text(kernels: dict[str, int]) -> str:
    reused = kernels["calls"] - kernels["made"]
    return f"{kernels['made']} made, called {kernels['calls']} times ({reused} reuses)"


def _memory_text(memory: dict[str, int]) -> str:
    parts = ", ".join(f"{kind} {_bytes_text(size)}" for kind, size in memory.items())
    return f"{_bytes_text(sum(memory.values()))} ({parts})"


def _bytes_text(size: float) -> str:
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def _seconds_text(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"


def _print_collectives(console: Console, collectives: list[dict[str, Any]]) -> None:
    if not collectives:
        console.print("collectives  none")
    for use in collectives:
        console.print(
            f"collectives  {use['count']} {use['kind']} over groups of {use['group_size']}, "
            f"{_bytes_text(use['bytes_per_device'])} on each device"
        )


def _print_parameters(console: Console, parameters: list[dict[str, Any]]) -> None:
    if not parameters:
        return
    table = Table("largest parameters", "shape", "dtype", "size", "sharding", box=None)
    for entry in parameters:
        shape = "x".join(map(str, entry["shape"]))
        size = _bytes_text(entry["bytes"])
        name, sharding = escape(entry["name"]), escape(entry["sharding"])
        table.add_row(name, shape, entry["dtype"], size, sharding)
    console.print(table)


def _print_verification(console: Console, verification: Verification) -> None:
    table = Table("output", "against", "max abs", "max rel", "tolerance", box=None)
    for error in verification.outputs:
        figures = (f"{x:.2e}" for x in (error.max_abs, error.max_rel, error.tolerance))
        table.add_row(escape(error.name), error.oracle, *figures)
    console.print(table)
    noise = max((error.noise for error in verification.outputs), default=0.0)
    if noise:
        console.print(
            f"note         the model itself turns a change of a few units in the last place "
            f"into {noise:.2e}; four times that is allowed"
        )
    console.print(f"verified on {verification.num_devices} virtual devices")
