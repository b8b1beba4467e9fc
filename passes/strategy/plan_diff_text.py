"""A plan diff for people and for programs."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pai.passes.strategy.console_text import render
from pai.passes.strategy.explain import MEMORY, TIMES
from pai.passes.strategy.plan_diff import Change, PlanDiff
from pai.passes.strategy.units import bytes_text, percent_text, seconds_text, signed

_TITLES = {
    "": "plan",
    "zero": "ZeRO stage",
    "patterns": "layouts by pattern",
    "arguments": "layouts of arguments",
    "values": "layouts of values",
    "predicted": "predicted",
}
_NAMES = {**TIMES, **MEMORY, "time_s": "a run", "memory_bytes": "memory of a device",
          "hidden_s": "communication behind compute"}  # fmt: skip


def diff_to_json(diff: PlanDiff) -> dict[str, Any]:
    """Return the diff as plain values; numbers come with their ``delta``."""
    return {
        "differs": diff.differs,
        "changes": [_as_dict(change) for change in diff.changes],
        "predicted": [_as_dict(change) for change in diff.predicted],
    }


def _as_dict(change: Change) -> dict[str, Any]:
    out: dict[str, Any] = (
        {"section": change.section, "key": change.key} if change.section else {"key": change.key}
    )
    out |= {"before": change.before, "after": change.after}
    if change.names:
        out["names"] = list(change.names)
    if _is_number(change.before) and _is_number(change.after):
        out["delta"] = change.after - change.before
    return out


def diff_to_text(
    diff: PlanDiff, before: str, after: str, *, width: int = 100, color: bool = False
) -> str:
    """Return the diff as tables, one a section; ``before`` and ``after`` name the plans."""
    sections: dict[str, list[Change]] = {}
    for change in (*diff.changes, *diff.predicted):
        sections.setdefault(change.section, []).append(change)
    parts: list[RenderableType] = [Text(f"- {before}", "red"), Text(f"+ {after}", "green")]
    for section, changes in sections.items():
        table = Table(box=None, pad_edge=False, show_header=False)
        for justify in ("left", "right", "left", "right", "left"):
            table.add_column(justify=justify, overflow="fold")
        for change in changes:
            table.add_row(*_row(change))
        parts += [Text(f"\n{_TITLES.get(section, section)}", "bold"), Padding(table, (0, 0, 0, 2))]
    return render(parts, width=width, color=color)


def _row(change: Change) -> tuple[Text, ...]:
    count = f" ({len(change.names)} arguments)" if len(change.names) > 1 else ""
    name = _NAMES.get(change.key, change.key) if change.section == "predicted" else change.key
    cells = [name + count, value_text(change.key, change.before), "->",
             value_text(change.key, change.after), _delta(change)]  # fmt: skip
    styles = ("", "red", "", "green", "")
    return tuple(Text(cell, style) for cell, style in zip(cells, styles, strict=True))


def value_text(key: str, value: Any) -> str:
    """Return the value of ``key`` of a plan file for people; None is a dash."""
    if value is None:
        return "-"
    if _is_number(value) and key.endswith(("_s", "seconds")):
        return seconds_text(value)
    if _is_number(value) and key.endswith(("_bytes", "bytes_per_device")):
        return bytes_text(value)
    if isinstance(value, list):
        return "[" + ", ".join(str(item) or "-" for item in value) + "]"
    if isinstance(value, dict):
        return " x ".join(f"{name}={size}" for name, size in value.items())
    return str(value)


def _delta(change: Change) -> str:
    before, after = change.before, change.after
    if change.section != "predicted" or before is None or after is None:
        return ""
    difference = signed(after - before, lambda value: value_text(change.key, value))
    return f"{difference} ({percent_text(after, before)})" if before else difference


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
