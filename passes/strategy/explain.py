"""explain: a plan as text: where the time goes, what is split how, and why the others lost."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.table import Table

from pai.passes.strategy.plan import Alternative, Plan, Prediction, layout_to_texts
from pai.runtime.dtypes import itemsize

if TYPE_CHECKING:
    from pai.dialects.program import Signature

_TIMES = {
    "compute_s": "arithmetic",
    "memory_bound_s": "memory traffic",
    "communication_s": "communication",
    "overhead_s": "kernel launches",
}
_MEMORY = {
    "parameter_bytes": "parameters and state",
    "input_bytes": "inputs",
    "output_bytes": "outputs",
    "temporary_bytes": "temporaries",
}


def explain(
    plan: Plan,
    signature: Signature | None = None,
    *,
    width: int = 100,
    color: bool = False,
    top: int = 10,
) -> str:
    """Return the explanation of ``plan``; the same plan gives the same text.

    Args:
        plan: a plan with its prediction.
        signature: the program's arguments; with it the largest ones are listed, with their shapes.
        width: columns of the text.
        color: whether to write terminal colour codes.
        top: how many alternatives and layouts to list.
    """
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        no_color=not color,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
    )
    mesh = " x ".join(f"{name}={size}" for name, size in plan.mesh.axes) or "one device"
    console.print(f"plan: {plan.strategy} ({mesh}) on {plan.cluster or 'an unnamed cluster'}")
    console.print(f"      {seconds_text(plan.predicted.time_s)} a run, {_memory_line(plan)}")
    console.print(f"      bound by {_bound_by(plan)}")
    console.print(_breakdown(plan.predicted))
    layouts = _layouts(plan, top) if signature is None else _largest(plan, signature, top)
    for table in (_collectives(plan.predicted), layouts, _alternatives(plan, top)):
        if table.row_count:
            console.print(table)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _bound_by(plan: Plan) -> str:
    """Return what to change first to be faster, and whether memory leaves room to."""
    predicted = plan.predicted
    key = max(_TIMES, key=lambda name: getattr(predicted, name))
    share = getattr(predicted, key) / predicted.time_s if predicted.time_s else 0.0
    text = f"{_TIMES[key]} ({share:.0%} of the time)"
    tight = [a for a in plan.alternatives if a.reason.startswith("needs ")]
    faster = [a for a in tight if a.time_s is not None and a.time_s < predicted.time_s]
    if faster:
        text += f"; with more memory '{faster[0].name}' would take {_time_of(faster[0])}"
    return text


def _time_of(other: Alternative) -> str:
    return seconds_text(other.time_s or 0.0)


def _memory_line(plan: Plan) -> str:
    used, limit = plan.predicted.memory_bytes, plan.device_memory_bytes
    if not limit:
        return f"{bytes_text(used)} a device"
    return f"{bytes_text(used)} of {bytes_text(limit)} a device ({used / limit:.0%})"


def _table(title: str, *columns: str) -> Table:
    """Return an empty table; a column whose name starts with ``>`` is aligned to the right."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in columns:
        justify: Literal["left", "right"] = "right" if name.startswith(">") else "left"
        table.add_column(name.removeprefix(">"), justify=justify, overflow="fold")
    return table


def _breakdown(predicted: Prediction) -> Table:
    table = _table("where it goes", "time", ">", ">", "memory", ">")
    for (time_key, time_name), (memory_key, memory_name) in zip(
        _TIMES.items(), _MEMORY.items(), strict=True
    ):
        seconds = getattr(predicted, time_key)
        share = seconds / predicted.time_s if predicted.time_s else 0.0
        size = bytes_text(getattr(predicted, memory_key))
        table.add_row(time_name, seconds_text(seconds), f"{share:.0%}", memory_name, size)
    return table


def _collectives(predicted: Prediction) -> Table:
    table = _table(
        "collectives",
        "kind",
        ">devices",
        ">count",
        ">bytes",
        ">time",
    )
    for use in sorted(predicted.collectives, key=lambda u: (-u.seconds, u.kind, u.group_size)):
        table.add_row(
            use.kind,
            str(use.group_size),
            str(use.count),
            bytes_text(use.bytes_per_device),
            seconds_text(use.seconds),
        )
    return table


def _layouts(plan: Plan, top: int) -> Table:
    entries = [*plan.patterns, *plan.arguments]
    table = _table(
        f"layouts (the first {top} of {len(entries)})" if len(entries) > top else "layouts",
        "argument",
        "dimensions",
    )
    for name, layout in entries[:top]:
        dims = ", ".join(text or "whole" for text in layout_to_texts(layout))
        table.add_row(name, f"[{dims}]")
    return table


def _largest(plan: Plan, signature: Signature, top: int) -> Table:
    """List the largest arguments; those without a layout follow propagation."""
    values = sorted(signature.arguments, key=lambda v: -math.prod(v.shape) * itemsize(v.dtype))
    layouts = plan.layouts([value.name for value in values])
    table = _table(
        f"largest arguments ({min(top, len(values))} of {len(values)})",
        "argument",
        ">size",
        "shape",
        "dimensions",
    )
    for value in values[:top]:
        dims = "follows the others" if layouts else "whole"
        if value.name in layouts:
            texts = layout_to_texts(layouts[value.name])
            dims = "[" + ", ".join(text or "whole" for text in texts) + "]"
        size = bytes_text(math.prod(value.shape) * itemsize(value.dtype))
        shape = "x".join(map(str, (*value.shape, value.dtype)))
        table.add_row(value.name, size, shape, dims)
    return table


def _alternatives(plan: Plan, top: int) -> Table:
    count = len(plan.alternatives)
    table = _table(
        f"alternatives (the first {top} of {count})" if count > top else "alternatives",
        "plan",
        ">time",
        ">memory",
        "why it lost",
    )
    for other in plan.alternatives[:top]:
        time, memory = "", ""
        if other.time_s is not None:
            time = _delta(other.time_s - plan.predicted.time_s, seconds_text)
        if other.memory_bytes is not None:
            memory = _delta(other.memory_bytes - plan.predicted.memory_bytes, bytes_text)
        table.add_row(other.name, time, memory, other.reason)
    return table


def _delta(value: float, text: Callable[[float], str]) -> str:
    return ("+" if value >= 0 else "-") + text(abs(value))


def why_lost(lost: Prediction, chosen: Prediction, limit: int) -> str:
    """Return why a modelled candidate is not the chosen one; ``limit`` is a device's memory."""
    if lost.memory_bytes > limit:
        need, have = bytes_text(lost.memory_bytes), bytes_text(limit)
        return f"needs {need} of {have} a device, most of it {largest(lost)}"
    if lost.time_s <= chosen.time_s:
        return "as fast, but no smaller"
    extra = {key: getattr(lost, key) - getattr(chosen, key) for key in _TIMES}
    worst = max(extra, key=lambda key: extra[key])
    ratio = lost.time_s / chosen.time_s if chosen.time_s else math.inf
    return f"{ratio:.2f} times slower: +{seconds_text(extra[worst])} of {_TIMES[worst]}"


def largest(predicted: Prediction) -> str:
    """Return what takes the most memory, with its size."""
    key = max(_MEMORY, key=lambda name: getattr(predicted, name))
    return f"{_MEMORY[key]} ({bytes_text(getattr(predicted, key))})"


def bytes_text(num_bytes: float) -> str:
    """Return a size for people: ``3.2 GiB``."""
    for unit, scale in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes:.0f} B"


def seconds_text(seconds: float) -> str:
    """Return a time for people: ``3.2 ms``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"
