"""plan_from_toml: a plan file in, a ``Plan`` out; whatever is wrong is named with file and line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pai.passes.strategy.plan_data import (
    OBJECTIVES,
    RECOMPUTE,
    SCHEDULES,
    Alternative,
    CollectiveCost,
    Pipeline,
    Plan,
    Prediction,
    Stage,
)
from pai.passes.strategy.plan_layout import TensorLayout, layout_from_texts, matches
from pai.passes.strategy.plan_segments import check_order, parse_chunk
from pai.passes.strategy.plan_write import BYTES, FORMAT, SECONDS
from pai.runtime.dtypes import DTYPES
from pai.runtime.errors import InvalidCluster, InvalidSharding, PaiError
from pai.runtime.json_document import JsonDocument
from pai.runtime.mesh import Mesh
from pai.runtime.topology_table import Document, Table

_OLD = ("stages", "microbatches", "schedule")  # their place before there was [pipeline]


@dataclass(frozen=True)
class PlanFile:
    """A plan and the text it was read from.

    Args:
        plan: what the text says.
        document: the text, which knows the line of each key.
    """

    plan: Plan
    document: Document

    def error(
        self,
        path: tuple[str | int, ...],
        what: str,
        hint: str = "",
        kind: type[PaiError] = InvalidSharding,
    ) -> PaiError:
        """Return an error about the key at ``path``, with file and line."""
        return kind(what, self.place(path), hint)

    def place(self, path: tuple[str | int, ...] = ()) -> str:
        """Return ``file:line`` of the key at ``path``, or of the table around it."""
        line = self.document.line_of(path)
        return f"{self.document.where}:{line}" if line else self.document.where


def read_plan(path: str | Path) -> PlanFile:
    """Return the plan of a file, TOML or ``.json``, with its text.

    Raises:
        InvalidSharding: when it cannot be read or says something wrong, with file and line.
        InvalidCluster: when its numbers of devices contradict each other.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSharding(f"the plan cannot be read ({error})", str(path)) from error
    return parse_plan(text, str(path))


def plan_from_toml(text: str, where: str = "plan") -> Plan:
    """Return the plan that ``text`` holds; ``where`` names it in messages.

    Raises:
        InvalidSharding: for bad syntax or a layout that does not fit the mesh, with file and line.
        InvalidCluster: when ``devices`` is not what mesh and stages make.
    """
    return parse_plan(text, where).plan


def parse_plan(text: str, where: str) -> PlanFile:
    """Return the plan that ``text`` holds, with the text; raises as ``plan_from_toml``.

    The text is JSON when ``where`` ends in ``.json``, and TOML otherwise.
    """
    kind = JsonDocument if where.endswith(".json") else Document
    document = kind(text, where, InvalidSharding)
    top = document.root()
    if top.integer("format", FORMAT, least=0) != FORMAT:
        raise top.error("format", f"is {top.data['format']}", f"this version reads {FORMAT}")
    mesh = _mesh(top, "mesh", top.integers("device_ids", ()))
    plan = Plan(
        mesh=mesh,
        arguments=_layouts(top.table("arguments", required=False), mesh),
        patterns=_layouts(top.table("patterns", required=False), mesh, patterns=True),
        values=_layouts(top.table("values", required=False), mesh, patterns=True),
        zero=_zero(top.table("zero", required=False), mesh),
        recompute=_recompute(top.table("recompute", required=False)),
        pipeline=_pipeline(top, mesh),
        replicas=top.integer("replicas", 1, least=1),
        strategy=top.text("strategy", "by hand"),
        cluster=top.text("cluster", ""),
        device_memory_bytes=top.integer("device_memory_bytes", 0, least=0),
        precision=_choice(top, "precision", "", ("", *DTYPES)),
        objective=_choice(top, "objective", OBJECTIVES[0], OBJECTIVES),
        predicted=_prediction(top.table("predicted", required=False)),
        alternatives=tuple(map(_alternative, top.array("alternatives", required=False))),
    )
    file = PlanFile(plan, document)
    _check_devices(top, file)
    top.finish()
    return file


def _check_devices(top: Table, file: PlanFile) -> None:
    made = file.plan.num_devices
    devices = top.integer("devices", made, least=1)
    if devices != made:
        stages = " of each stage" if file.plan.pipeline.stages > 1 else ""
        raise file.error(
            ("devices",),
            f"the mesh{stages} makes {made} devices but 'devices' says {devices}",
            "make the axis sizes multiply to the device count",
            InvalidCluster,
        )


def _choice(table: Table, key: str, default: str, known: tuple[str, ...]) -> str:
    value = table.text(key, default)
    if value not in known:
        raise table.error(key, f"is '{value}'", f"one of {', '.join(filter(None, known))}")
    return value


def _mesh(outer: Table, key: str, device_ids: tuple[int, ...] = ()) -> Mesh:
    axes = outer.table(key)
    for name in axes.data:
        if not re.fullmatch(r"(?!p\d+$)[A-Za-z_]\w*", name):
            raise axes.error(name, "is not a name for an axis", "use letters, but not p<number>")
    sizes = tuple((name, axes.integer(name, least=1)) for name in axes.data)
    try:
        return Mesh(sizes, device_ids)
    except InvalidSharding as error:
        raise outer.error("device_ids", f"is wrong: {error.what}", error.hint) from error


def _layouts(
    table: Table, mesh: Mesh, *, patterns: bool = False
) -> tuple[tuple[str, TensorLayout], ...]:
    out = []
    for key in table.data:
        if patterns:
            _check_pattern(table, key)
        try:
            out.append((key, layout_from_texts(table.texts(key), mesh)))
        except InvalidSharding as error:
            if error.where:
                raise
            raise table.error(key, f"is wrong: {error.what}", error.hint) from error
    return tuple(out)


def _check_pattern(table: Table, key: str) -> None:
    try:
        matches(key, "")
    except re.error as error:
        raise table.error(key, f"is not a regular expression: {error}") from error


def _zero(table: Table, mesh: Mesh) -> tuple[tuple[str, int], ...]:
    names = dict(mesh.axes)
    for axis in table.data:
        if axis not in names:
            known = ", ".join(f"'{name}'" for name in names) or "none"
            raise table.error(axis, "is no axis of the mesh", f"its axes: {known}")
        if table.integer(axis, least=0) > 3:
            raise table.error(axis, f"is {table.data[axis]}", "ZeRO has the stages 0, 1, 2 and 3")
    return tuple(table.data.items())


def _recompute(table: Table) -> tuple[tuple[str, str], ...]:
    for key in table.data:
        _check_pattern(table, key)
        _choice(table, key, "none", RECOMPUTE)
    return tuple(table.data.items())


def _pipeline(top: Table, mesh: Mesh) -> Pipeline:
    old = [key for key in _OLD if key in top.data]
    if old and "pipeline" in top.data:
        raise top.error(old[0], "is said twice", "keep it in [pipeline] only")
    table = top if old else top.table("pipeline", required=False)
    stages = table.integer("stages", 1, least=1)
    parts = () if old else _parts(table, mesh, stages)
    pipeline = Pipeline(
        stages=stages,
        virtual=1 if old else table.integer("virtual", 1, least=1),
        microbatches=table.integer("microbatches", 1, least=1),
        schedule=_schedule(table, stages),
        parts=parts,
    )
    _check_virtual(table, pipeline)
    if not old:
        table.finish()
        _check_chunks(table, pipeline)
        _check_stage_devices(table, pipeline, mesh)
    return pipeline


def _schedule(table: Table, stages: int) -> str:
    schedule = _choice(table, "schedule", "none" if stages == 1 else "1f1b", ("none", *SCHEDULES))
    if (schedule == "none") != (stages == 1):
        what = f"is '{schedule}' but there are {stages} stages"
        hint = "one stage has no schedule" if stages == 1 else f"one of {', '.join(SCHEDULES)}"
        raise table.error("schedule", what, hint)
    return schedule


def _check_virtual(table: Table, pipeline: Pipeline) -> None:
    if (pipeline.virtual > 1) != (pipeline.schedule == "interleaved"):
        raise table.error(
            "virtual" if "virtual" in table.data else "schedule",
            f"does not fit: schedule '{pipeline.schedule}' with {pipeline.virtual} virtual stages",
            'virtual = 2 or more goes with schedule = "interleaved", and the other way round',
        )
    if pipeline.virtual > 1 and pipeline.microbatches % pipeline.stages:
        raise table.error(
            "microbatches",
            f"is {pipeline.microbatches}, which {pipeline.stages} stages do not divide",
            "an interleaved schedule runs microbatches in groups of as many as there are stages",
        )


def _parts(table: Table, mesh: Mesh, stages: int) -> tuple[Stage, ...]:
    entries = table.array("stage", required=False)
    if entries and len(entries) != stages:
        what = f"is {stages} but there are {len(entries)} tables [[pipeline.stage]]"
        raise table.error("stages", what, "give one for each stage, or none")
    return tuple(_part(entry, mesh) for entry in entries)


def _part(entry: Table, mesh: Mesh) -> Stage:
    own = _mesh(entry, "mesh") if "mesh" in entry.data else None
    for name, _ in own.axes if own else ():
        if name not in dict(mesh.axes):
            raise entry.error("mesh", f"has the axis '{name}', which [mesh] has not")
    missing = [name for name, _ in mesh.axes if own and name not in dict(own.axes)]
    if missing:
        raise entry.error("mesh", f"lacks the axis '{missing[0]}' of [mesh]", "give it size 1")
    devices = _devices(entry)
    count = (own or mesh).num_devices
    if devices and len(devices) != count:
        raise entry.error("devices", f"lists {len(devices)} devices for a mesh of {count}")
    part = Stage(entry.texts("chunks", ()), own, devices)
    entry.finish()
    return part


def _devices(entry: Table) -> tuple[int, ...]:
    out: list[int] = []
    for run in filter(None, re.split(r"\s*,\s*", entry.text("devices", "").strip())):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", run)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise entry.error("devices", f"has '{run}'", "write device numbers such as '0-7, 12'")
        out += range(int(match[1]), int(match[2] or match[1]) + 1)
    return tuple(out)


def _check_chunks(table: Table, pipeline: Pipeline) -> None:
    """Check that every stage says its chunks, or none does, and that they follow each other."""
    if not any(part.chunks for part in pipeline.parts):
        return
    for entry, part in zip(table.array("stage"), pipeline.parts, strict=True):
        if len(part.chunks) != pipeline.virtual:
            raise entry.error(
                "chunks",
                f"lists {len(part.chunks)} chunks for {pipeline.virtual} virtual stages",
                "a chunk is one string, such as 'embedding, layer[0:12]'",
            )
        for chunk in part.chunks:
            _wrapped(entry, partial(parse_chunk, chunk))
    entries = table.array("stage")
    for position in range(pipeline.stages * pipeline.virtual):
        seen = [parse_chunk(chunk) for chunk in pipeline.order()[: position + 1]]
        _wrapped(entries[position % pipeline.stages], partial(check_order, seen))


def _wrapped(entry: Table, check: Callable[[], object]) -> None:
    try:
        check()
    except InvalidSharding as error:
        raise entry.error("chunks", f"is wrong: {error.what}", error.hint) from error


def _check_stage_devices(table: Table, pipeline: Pipeline, mesh: Mesh) -> None:
    given = [part for part in pipeline.parts if part.devices]
    if not given:
        return
    entries = table.array("stage")
    seen: set[int] = set()
    total = sum((part.mesh or mesh).num_devices for part in pipeline.parts)
    for entry, part in zip(entries, pipeline.parts, strict=True):
        if not part.devices:
            raise entry.error("devices", "is missing", "list the devices of every stage, or none")
        wrong = seen.intersection(part.devices) or {d for d in part.devices if d >= total}
        if wrong or len(set(part.devices)) < len(part.devices):
            named = min(wrong, default=part.devices[0])
            raise entry.error(
                "devices",
                f"names device {named} twice or beyond the {total} devices of the plan",
                "give every device to one stage",
            )
        seen.update(part.devices)


def _prediction(table: Table) -> Prediction:
    uses = []
    for entry in table.array("collectives", required=False):
        sizes = {k: entry.integer(k, least=0) for k in ("group_size", "count", "bytes_per_device")}
        seconds = entry.number("seconds", zero=True)
        use = CollectiveCost(entry.text("kind"), seconds=seconds, **sizes,
                             level=entry.text("level", ""))  # fmt: skip
        uses.append(use)
        entry.finish()
    figures: dict[str, Any] = {key: table.number(key, 0.0, zero=True) for key in SECONDS}
    figures |= {key: table.integer(key, 0, least=0) for key in BYTES}
    notes = table.texts("notes", ())
    table.finish()
    return Prediction(**figures, collectives=tuple(uses), notes=notes)


def _alternative(entry: Table) -> Alternative:
    time_s = entry.number("time_s", zero=True) if "time_s" in entry.data else None
    memory = entry.integer("memory_bytes", least=0) if "memory_bytes" in entry.data else None
    out = Alternative(entry.text("name"), entry.text("reason"), time_s, memory)
    entry.finish()
    return out
