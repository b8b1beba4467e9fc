"""A plan as text: one dictionary of stable keys, printed as TOML or JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pai.passes.strategy.plan_layout import TensorLayout, layout_to_texts

if TYPE_CHECKING:
    from pai.passes.strategy.plan_data import Alternative, Pipeline, Plan, Prediction, Stage

FORMAT = 1
SECONDS = (
    "time_s",
    "compute_s",
    "memory_bound_s",
    "communication_s",
    "overhead_s",
    "bubble_s",
    "update_s",
    "hidden_s",
)
BYTES = (
    "parameter_bytes",
    "state_bytes",
    "gradient_bytes",
    "activation_bytes",
    "input_bytes",
    "output_bytes",
    "temporary_bytes",
    "buffer_bytes",
    "fragmentation_bytes",
)
_NAMED = {("patterns",), ("arguments",), ("values",), ("recompute",)}  # keys are the model's names
_NOTES = {"predicted": "computed again when the plan is loaded"}


def plan_to_toml(plan: Plan) -> str:
    """Return the plan as TOML; the same plan always gives the same bytes."""
    return "\n".join(_table(plan_to_dict(plan), ())).lstrip("\n") + "\n"


def plan_to_json(plan: Plan) -> str:
    """Return the plan as JSON, with the keys of the TOML file."""
    return json.dumps(plan_to_dict(plan), indent=2, ensure_ascii=False) + "\n"


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """Return the plan as plain values; keys that say nothing are left out."""
    out: dict[str, Any] = {
        "format": FORMAT,
        "strategy": plan.strategy,
        "cluster": plan.cluster,
        "devices": plan.num_devices,
        "device_ids": list(plan.mesh.device_ids),
        "device_memory_bytes": plan.device_memory_bytes,
        "objective": plan.objective,
        "precision": plan.precision,
        "replicas": plan.replicas if plan.replicas > 1 else "",
    }
    out = {key: value for key, value in out.items() if value != [] and _says(key, value)}
    out["mesh"] = dict(plan.mesh.axes)
    sections = {
        "pipeline": pipeline_to_dict(plan.pipeline),
        "zero": dict(plan.zero),
        "recompute": dict(plan.recompute),
        "patterns": _layouts(plan.patterns),
        "arguments": _layouts(plan.arguments),
        "values": _layouts(plan.values),
    }
    out |= {key: value for key, value in sections.items() if value}
    out["predicted"] = prediction_to_dict(plan.predicted)
    if plan.alternatives:
        out["alternatives"] = [_alternative(other) for other in plan.alternatives]
    return out


def _says(key: str, value: object) -> bool:
    return value != "" or key in {"strategy", "cluster"}


def pipeline_to_dict(pipeline: Pipeline) -> dict[str, Any]:
    """Return the pipeline's keys; none for one stage that runs its batch at once."""
    if (pipeline.stages, pipeline.microbatches, pipeline.parts) == (1, 1, ()):
        return {}
    out: dict[str, Any] = {
        "stages": pipeline.stages,
        "virtual": pipeline.virtual,
        "microbatches": pipeline.microbatches,
        "schedule": pipeline.schedule,
    }
    if pipeline.parts:
        out["stage"] = [_stage(part) for part in pipeline.parts]
    return out


def _stage(part: Stage) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if part.chunks:
        out["chunks"] = list(part.chunks)
    if part.mesh is not None:
        out["mesh"] = dict(part.mesh.axes)
    if part.devices:
        out["devices"] = devices_to_text(part.devices)
    return out


def devices_to_text(devices: Sequence[int]) -> str:
    """Return device numbers with runs folded: ``0-7, 12``."""
    runs: list[list[int]] = []
    for device in devices:
        if runs and device == runs[-1][1] + 1:
            runs[-1][1] = device
        else:
            runs.append([device, device])
    return ", ".join(f"{lo}-{hi}" if hi > lo else str(lo) for lo, hi in runs)


def _layouts(entries: Sequence[tuple[str, TensorLayout]]) -> dict[str, list[str]]:
    return {key: layout_to_texts(layout) for key, layout in entries}


def prediction_to_dict(predicted: Prediction) -> dict[str, Any]:
    """Return times in seconds, memory in bytes, and the collectives."""
    out: dict[str, Any] = {key: float(getattr(predicted, key)) for key in SECONDS}
    out |= {key: int(getattr(predicted, key)) for key in BYTES}
    if predicted.notes:
        out["notes"] = list(predicted.notes)
    uses = [
        {
            "kind": use.kind,
            "group_size": use.group_size,
            "count": use.count,
            "bytes_per_device": use.bytes_per_device,
            "seconds": float(use.seconds),
            **({"level": use.level} if use.level else {}),
        }
        for use in predicted.collectives
    ]
    return out | ({"collectives": uses} if uses else {})


def _alternative(other: Alternative) -> dict[str, Any]:
    out: dict[str, Any] = {"name": other.name}
    if other.time_s is not None:
        out["time_s"] = float(other.time_s)
    if other.memory_bytes is not None:
        out["memory_bytes"] = other.memory_bytes
    return out | {"reason": other.reason}


def _table(data: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of a table: its own keys, then the tables and arrays of tables inside."""
    for key, value in data.items():
        if not _is_nested(value):
            yield f"{_key(key, quoted=path[:1] in _NAMED)} = {_inline(value)}"
    for key, value in data.items():
        name = ".".join((*path, key))
        if isinstance(value, dict):
            yield from ("", f"[{name}]" + (f"  # {_NOTES[name]}" if name in _NOTES else ""))
            yield from _table(value, (*path, key))
        elif _is_nested(value):
            for entry in value:
                yield from ("", f"[[{name}]]")
                yield from (f"{_key(k)} = {_inline(v)}" for k, v in entry.items())


def _is_nested(value: object) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and isinstance(value[0], dict)
    )


def _inline(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_inline(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return _quote(value) if isinstance(value, str) else repr(value)


def _key(text: str, *, quoted: bool = False) -> str:
    return text if not quoted and re.fullmatch(r"[A-Za-z0-9_-]+", text) else _quote(text)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
