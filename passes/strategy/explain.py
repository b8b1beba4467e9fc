"""explain: a plan as text: where the time goes, why it is laid out so, and what would help.

The facts come from the plan alone, and, when it knows its program, from ``insights.py``, which
costs other choices. The same plan gives the same text.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table

from pai.passes.strategy.console_text import render
from pai.passes.strategy.explain_parameters import layout_text, other_text, split_text
from pai.passes.strategy.plan_layout import layout_to_texts
from pai.passes.strategy.units import bytes_text, percent_text, seconds_text, signed

if TYPE_CHECKING:
    from pai.dialects.program import Signature
    from pai.passes.strategy.insights import Insights
    from pai.passes.strategy.plan_data import Plan, Prediction

TIMES = {
    "compute_s": "arithmetic",
    "memory_bound_s": "memory traffic",
    "communication_s": "communication",
    "overhead_s": "kernel launches",
    "bubble_s": "pipeline bubble",
    "update_s": "optimizer",
}
MEMORY = {
    "parameter_bytes": "parameters",
    "state_bytes": "state",
    "gradient_bytes": "gradients",
    "activation_bytes": "activations",
    "input_bytes": "inputs",
    "output_bytes": "outputs",
    "temporary_bytes": "temporaries",
    "buffer_bytes": "communication buffers",
    "fragmentation_bytes": "fragmentation",
}
LINKS = {
    "chip": "links inside a host",
    "host": "links between hosts",
    "rack": "links between racks",
    "pod": "links between pods",
    "": "links",
}
_BAR = 24  # columns of the longest bar


def explain(
    plan: Plan,
    signature: Signature | None = None,
    *,
    width: int = 100,
    color: bool = False,
    top: int = 5,
) -> str:
    """Return the explanation of ``plan``; the same plan gives the same text.

    Args:
        plan: a plan with its prediction.
        signature: the program's arguments; with it the largest ones are listed, with their shapes,
            when the plan does not know its program.
        width: columns of the text.
        color: whether to write terminal colour codes.
        top: how many alternatives to list, and twice as many layouts.
    """
    insights = plan.insights() if plan.insights is not None else None
    first, *rest = headline(plan, insights)
    indented = [Padding(line.strip(), (0, 0, 0, 6)) for line in rest]
    parts: list[RenderableType] = [first, *indented]
    layouts = _layouts(plan, 2 * top) if signature is None else _largest(plan, signature, 2 * top)
    tables = [_times(plan.predicted, insights), _memory(plan), _collectives(plan.predicted)]
    if insights is None:
        tables.append(layouts)
    else:
        tables += [_parameters(plan, insights), _choices(plan, insights), _gains(plan, insights)]
    for table in (*tables, _alternatives(plan, top)):
        if table.row_count:
            parts.append(f"\n{table.title}")
            table.title = None
            parts.append(Padding(table, (0, 0, 0, 2)))
    return render(parts, width=width, color=color)


def headline(plan: Plan, insights: Insights | None = None) -> list[str]:
    """Return the lines that say which plan it is, what it costs, and what bounds it."""
    mesh = " x ".join(f"{name}={size}" for name, size in plan.mesh.axes) or "one device"
    lines = [f"plan: {plan.strategy} ({mesh}) on {plan.cluster or 'an unnamed cluster'}"]
    pipeline = plan.pipeline
    if pipeline.stages > 1 or pipeline.microbatches > 1:
        chunks = f", {pipeline.virtual} chunks each" if pipeline.virtual > 1 else ""
        lines.append(
            f"      {pipeline.stages} stages{chunks}, {pipeline.microbatches} microbatches, "
            f"schedule {pipeline.schedule}"
        )
    if plan.recompute:
        choices = ", ".join(f"{pattern}: {how}" for pattern, how in plan.recompute)
        lines.append(f"      recomputes {choices}")
    if plan.replicas > 1:
        devices = f"{plan.num_devices} device" + ("s" if plan.num_devices > 1 else "")
        rate = plan.replicas / plan.predicted.time_s if plan.predicted.time_s else 0.0
        lines.append(f"      {plan.replicas} copies, each on {devices}: {rate:.4g} runs a second")
    lines.append(f"      {seconds_text(plan.predicted.time_s)} a run, {_memory_line(plan)}")
    lines.append(f"      bound by {bound_by(plan, insights)}")
    lines += [f"      note: {note}" for note in plan.predicted.notes]
    return lines


def bound_by(plan: Plan, insights: Insights | None = None) -> str:
    """Return what takes the most time, and whether more memory would admit a faster plan."""
    predicted = plan.predicted
    key = max(TIMES, key=lambda name: getattr(predicted, name))
    share = getattr(predicted, key) / predicted.time_s if predicted.time_s else 0.0
    name = TIMES[key]
    if key == "communication_s" and (levels := communication_by_level(predicted, insights)):
        name = f"communication over {LINKS.get(max(levels, key=lambda n: levels[n]), 'links')}"
    text = f"{name} ({share:.0%} of the time)"
    faster = [
        (time_s, name, memory)
        for name, time_s, memory in _candidates(plan, insights)
        if memory > plan.device_memory_bytes > 0 and time_s < predicted.time_s * (1 - 1e-3)
    ]
    if faster:
        time_s, name, memory = min(faster)
        text = (
            f"memory: '{name}' would take {seconds_text(time_s)} but needs "
            f"{bytes_text(memory)} a device; else by {text}"
        )
    return text


def _candidates(plan: Plan, insights: Insights | None) -> Iterator[tuple[str, float, int]]:
    """Yield (name, seconds, bytes) of all that was costed besides the plan."""
    for other in plan.alternatives:
        if other.time_s is not None and other.memory_bytes is not None:
            yield other.name, other.time_s, other.memory_bytes
    for choice in insights.choices if insights else ():
        yield choice.name, choice.time_s, choice.memory_bytes


def communication_by_level(
    predicted: Prediction, insights: Insights | None = None
) -> dict[str, float]:
    """Return the seconds of collectives by the outermost level of links that they cross."""
    if insights and not predicted.collectives:
        return dict(insights.communication)
    out: dict[str, float] = defaultdict(float)
    for use in predicted.collectives:
        out[use.level] += use.seconds
    return dict(out)


def _memory_line(plan: Plan) -> str:
    used, limit = plan.predicted.memory_bytes, plan.device_memory_bytes
    if not limit:
        return f"{bytes_text(used)} a device"
    return f"{bytes_text(used)} of {bytes_text(limit)} a device ({used / limit:.0%})"


def _table(title: str, *columns: str) -> Table:
    """Return an empty table; a column whose name starts with ``>`` is aligned to the right."""
    named = any(name.strip(">") for name in columns)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=named)
    for name in columns:
        justify: Literal["left", "right"] = "right" if name.startswith(">") else "left"
        table.add_column(name.removeprefix(">"), justify=justify, overflow="fold")
    return table


def _bar(part: float, whole: float) -> str:
    return "#" * round(_BAR * part / whole) if whole else ""


def _times(predicted: Prediction, insights: Insights | None) -> Table:
    """List the parts of a run; communication by the links it waits for."""
    table = _table("where the time goes", "", ">", ">", "")
    parts = {TIMES[key]: getattr(predicted, key) for key in TIMES}
    levels = communication_by_level(predicted, insights)
    levels = {level: seconds for level, seconds in levels.items() if seconds > 0}
    whole = parts.pop(TIMES["communication_s"])
    if levels and math.isclose(sum(levels.values()), whole, rel_tol=1e-3):
        parts |= {f"communication, {LINKS.get(k, k)}": v for k, v in levels.items()}
    else:
        parts[TIMES["communication_s"]] = whole
    for name, seconds in sorted(parts.items(), key=lambda item: -item[1]):
        if seconds:
            share = seconds / predicted.time_s if predicted.time_s else 0.0
            bar = _bar(seconds, predicted.time_s)
            table.add_row(name, seconds_text(seconds), f"{share:.0%}", bar)
    if predicted.hidden_s:
        table.add_row("communication behind it", seconds_text(predicted.hidden_s), "", "")
    return table


def _memory(plan: Plan) -> Table:
    predicted, limit = plan.predicted, plan.device_memory_bytes
    whole = limit or predicted.memory_bytes
    table = _table("where the memory of a device goes", "", ">", ">", "")
    rows = sorted(MEMORY, key=lambda key: -getattr(predicted, key))
    for key in rows:
        size = getattr(predicted, key)
        if size:
            share = f"{size / whole:.0%}" if size >= whole / 200 else "<1%"
            table.add_row(MEMORY[key], bytes_text(size), share, _bar(size, whole))
    free = limit - predicted.memory_bytes
    if limit and free > 0:
        table.add_row("free", bytes_text(free), f"{free / whole:.0%}", "")
    return table


def _collectives(predicted: Prediction) -> Table:
    table = _table("collectives", "kind", "over", ">devices", ">count", ">bytes", ">time")
    for use in sorted(predicted.collectives, key=lambda u: (-u.seconds, u.kind, u.group_size)):
        table.add_row(
            use.kind,
            LINKS.get(use.level, use.level),
            str(use.group_size),
            str(use.count),
            bytes_text(use.bytes_per_device),
            seconds_text(use.seconds),
        )
    return table


def _parameters(plan: Plan, insights: Insights) -> Table:
    """Say how each group of large parameters is laid out, and what the other choice would cost."""
    table = _table("why parameters are laid out so", "parameter", ">size", "layout", "because")
    for group in insights.parameters:
        count = f" ({len(group.members)})" if len(group.members) > 1 else ""
        because = "; ".join(filter(None, (split_text(group), other_text(group, plan))))
        table.add_row(
            group.name + count, bytes_text(group.num_bytes), layout_text(group.layout), because
        )
    return table


def _choices(plan: Plan, insights: Insights) -> Table:
    """List the decisions made otherwise, one at a time."""
    table = _table("why not otherwise", "with", ">a run", ">change", ">memory", "")
    now, limit = plan.predicted, plan.device_memory_bytes
    for choice in sorted(insights.choices, key=lambda choice: choice.time_s):
        fits = limit == 0 or choice.memory_bytes <= limit
        table.add_row(
            choice.name,
            seconds_text(choice.time_s),
            percent_text(choice.time_s, now.time_s),
            bytes_text(choice.memory_bytes),
            "" if fits else "does not fit",
        )
    return table


def _gains(plan: Plan, insights: Insights) -> Table:
    table = _table("what would help most", "if there were", ">a run", ">change", "")
    now = plan.predicted.time_s
    for item in insights.sensitivities:
        note = f"with the plan '{item.strategy}'" if item.strategy else ""
        if math.isclose(item.time_s, now, rel_tol=1e-4):
            table.add_row(item.change, seconds_text(item.time_s), "none", note)
        else:
            change = percent_text(item.time_s, now)
            table.add_row(item.change, seconds_text(item.time_s), change, note)
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
    values = sorted(signature.arguments, key=lambda v: -v.num_bytes)
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
        size = bytes_text(value.num_bytes)
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
        time = _delta(other.time_s, plan.predicted.time_s, seconds_text)
        memory = _delta(other.memory_bytes, plan.predicted.memory_bytes, bytes_text)
        table.add_row(other.name, time, memory, other.reason)
    return table


def _delta(value: float | None, base: float, text: Callable[[float], str]) -> str:
    return "" if value is None else signed(value - base, text)


def why_lost(lost: Prediction, chosen: Prediction, limit: int) -> str:
    """Return why a modelled candidate is not the chosen one; ``limit`` is a device's memory."""
    if lost.memory_bytes > limit:
        need, have = bytes_text(lost.memory_bytes), bytes_text(limit)
        return f"needs {need} of {have} a device, most of it {largest(lost)}"
    if lost.time_s <= chosen.time_s:
        larger = lost.memory_bytes > chosen.memory_bytes
        return "as fast, but needs more memory" if larger else "as fast, but no smaller"
    extra = {key: getattr(lost, key) - getattr(chosen, key) for key in TIMES}
    worst = max(extra, key=lambda key: extra[key])
    ratio = lost.time_s / chosen.time_s if chosen.time_s else math.inf
    return f"{ratio:.2f} times slower: +{seconds_text(extra[worst])} of {TIMES[worst]}"


def largest(predicted: Prediction) -> str:
    """Return what takes the most memory, with its size."""
    key = max(MEMORY, key=lambda name: getattr(predicted, name))
    return f"{MEMORY[key]} ({bytes_text(getattr(predicted, key))})"
