"""diff_plans: what differs between two plans, layouts folded by the numbers in their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pai.passes.strategy.insights import fold_name, fold_names
from pai.passes.strategy.plan_data import Plan
from pai.passes.strategy.plan_layout import TensorLayout, layout_to_texts
from pai.passes.strategy.plan_write import pipeline_to_dict, prediction_to_dict

_TOP = ("strategy", "cluster", "device_memory_bytes", "objective", "precision", "replicas")


@dataclass(frozen=True)
class Change:
    """One thing that differs.

    Args:
        section: the table of the plan file; "" for keys before the first.
        key: the key there; for layouts a name with ``*`` for numbers when several changed alike.
        before: its value in the first plan, as the file has it; None where it is not said.
        after: likewise in the second.
        names: for layouts, the arguments that changed so.
    """

    section: str
    key: str
    before: Any
    after: Any
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlanDiff:
    """What differs, in the order of the file.

    Args:
        changes: decisions: mesh, pipeline, layouts….
        predicted: modelled times and memory.
    """

    changes: tuple[Change, ...]
    predicted: tuple[Change, ...]

    @property
    def differs(self) -> bool:
        """Whether anything does."""
        return bool(self.changes or self.predicted)


def diff_plans(before: Plan, after: Plan) -> PlanDiff:
    """Return what differs between two plans; the candidates that lost are not compared.

    Layouts are compared as they take effect on the arguments that either plan names.
    """
    changes = [
        Change("", key, getattr(before, key), getattr(after, key))
        for key in _TOP
        if getattr(before, key) != getattr(after, key)
    ]
    tables = [
        ("", _ids(before), _ids(after)),
        ("mesh", dict(before.mesh.axes), dict(after.mesh.axes)),
        ("pipeline", _pipeline(before), _pipeline(after)),
        ("zero", dict(before.zero), dict(after.zero)),
        ("recompute", dict(before.recompute), dict(after.recompute)),
        ("patterns", _texts(before.patterns), _texts(after.patterns)),
    ]
    for section, old, new in tables:
        changes += _changes(section, old, new)
        changes += _order(section, old, new)
    names = list(dict.fromkeys(name for plan in (before, after) for name, _ in plan.arguments))
    changes += _folded("arguments", _effective(before, names), _effective(after, names))
    changes += _folded("values", _texts(before.values), _texts(after.values))
    predicted = _changes("predicted", _figures(before), _figures(after))
    return PlanDiff(tuple(changes), tuple(predicted))


def _ids(plan: Plan) -> dict[str, Any]:
    return {"device_ids": list(plan.mesh.device_ids)} if plan.mesh.device_ids else {}


def _pipeline(plan: Plan) -> dict[str, Any]:
    data = pipeline_to_dict(plan.pipeline)
    for index, stage in enumerate(data.pop("stage", [])):
        data |= {f"stage {index}: {key}": value for key, value in stage.items()}
    return data


def _figures(plan: Plan) -> dict[str, Any]:
    data: dict[str, Any] = {"time_s": 0.0, "memory_bytes": plan.predicted.memory_bytes}
    data |= prediction_to_dict(plan.predicted)
    for use in data.pop("collectives", []):
        name = f"{use['kind']} of {use['group_size']} over {use.get('level') or 'links'}"
        for key in ("count", "bytes_per_device", "seconds"):
            data[f"{name}: {key}"] = data.get(f"{name}: {key}", 0) + use[key]
    return data


def _texts(layouts: Sequence[tuple[str, TensorLayout]]) -> dict[str, list[str]]:
    return {name: layout_to_texts(layout) for name, layout in layouts}


def _effective(plan: Plan, names: Sequence[str]) -> dict[str, list[str]]:
    return {name: layout_to_texts(layout) for name, layout in plan.layouts(names).items()}


def _changes(section: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    keys = list(dict.fromkeys([*old, *new]))
    return [
        Change(section, key, old.get(key), new.get(key))
        for key in keys
        if old.get(key) != new.get(key)
    ]


def _order(section: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return the change of an order that counts: of mesh axes, and of patterns."""
    shared = [key for key in old if key in new]
    if section not in {"mesh", "patterns", "recompute"} or shared == [k for k in new if k in old]:
        return []
    return [Change(section, "order", list(old), list(new))]


def _folded(
    section: str, old: Mapping[str, list[str]], new: Mapping[str, list[str]]
) -> list[Change]:
    """Return changed layouts, those that changed alike and differ only in numbers as one."""
    groups: dict[tuple[str, str], list[Change]] = {}
    for change in _changes(section, old, new):
        alike = (fold_name(change.key), f"{change.before} {change.after}")
        groups.setdefault(alike, []).append(change)
    out = []
    for members in groups.values():
        first = members[0]
        names = tuple(member.key for member in members)
        out.append(Change(section, fold_names(names), first.before, first.after, names))
    return out
