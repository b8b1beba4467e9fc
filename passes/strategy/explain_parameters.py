"""What to say about the layout of a group of parameters: what splits it, and why not otherwise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pai.dialects.program import Role
from pai.passes.strategy.plan_layout import TensorLayout, layout_to_texts
from pai.passes.strategy.units import bytes_text, percent_text, seconds_text
from pai.passes.strategy.uses import BATCH, LOOKED_UP, OUTPUT, SUMMED, WINDOW

if TYPE_CHECKING:
    from pai.passes.strategy.insights import ParameterGroup
    from pai.passes.strategy.plan_data import Plan

_ROLES = {
    OUTPUT: "each device makes a part of the outputs of its {operation}",
    SUMMED: "each device sums a part of its {operation}, and the sums are added up",
    BATCH: "each device does a part of its {operation}s",
    LOOKED_UP: "each device looks up in a part of the rows, and the results are added up",
    WINDOW: "each device has a part of the window",
}
STORAGE_PRIORITY = 1  # of dimensions that only storage splits


def layout_text(layout: TensorLayout) -> str:
    """Return the dimensions without priorities: ``[-, model]``."""
    texts = layout_to_texts(TensorLayout(layout.sharding))
    return "[" + ", ".join(text or "-" for text in texts) + "]"


def split_text(group: ParameterGroup) -> str:
    """Return what each axis of the layout does to the work."""
    if not group.is_split:
        return ""
    parts = []
    for dim, axes in enumerate(group.layout.sharding.dims):
        if not axes:
            continue
        names = ", ".join(axis.name for axis in axes)
        stored = group.layout.priority(dim) == STORAGE_PRIORITY
        role = group.use.roles[dim] if group.use else ""
        if stored and group.role is Role.STATE:
            parts.append(f"each device keeps and updates a part, over {names} (ZeRO)")
        elif stored:
            parts.append(f"stored in shards over {names}, gathered where it is used (ZeRO)")
        elif role and group.use:
            parts.append(f"over {names} " + _ROLES[role].format(operation=group.use.operation))
        elif group.follows:
            parts.append(f"over {names} as the values it works with")
        else:
            parts.append(f"split over {names}")
    return "; ".join(parts)


def other_text(group: ParameterGroup, plan: Plan) -> str:
    """Return what the other choice would cost: whole where it is split, in shards where whole."""
    memory, limit = group.other_bytes, plan.device_memory_bytes
    if memory is None:
        if group.is_split:
            extra = group.num_bytes - group.local_bytes
            return f"whole it would take {bytes_text(extra)} more a device"
        return "" if plan.mesh.num_devices > 1 else "there is one device"
    choice = "whole" if group.is_split else f"in shards over {group.other_axis}"
    text = f"{choice} it would take {_difference(memory - plan.predicted.memory_bytes)} a device"
    if limit and memory > limit:
        text += f" and not fit ({bytes_text(memory)} of {bytes_text(limit)})"
    elif group.is_split:
        text += " and still fit"
    return text + _time_text(group.other_s, plan.predicted.time_s)


def _time_text(other: float | None, now: float) -> str:
    if other is None:
        return ""
    if math.isclose(other, now, rel_tol=5e-3):
        return "; a run would take about as long"
    longer = "longer" if other > now else "less"
    return (
        f"; a run would take {seconds_text(abs(other - now))} {longer} ({percent_text(other, now)})"
    )


def _difference(num_bytes: int) -> str:
    if num_bytes == 0:
        return "as much"
    return f"{bytes_text(abs(num_bytes))} {'more' if num_bytes > 0 else 'less'}"
