"""Plan: what the strategy chose, what it costs, and what lost; a readable file both ways.

::

    format = 1
    cluster = "a100-80g-sxm"
    strategy = "data=4 model=2"

    [mesh]                                # axis sizes, outermost first
    data = 4
    model = 2

    [patterns]                            # argument-name glob, or /regex/, to dimensions
    "encoder.*.weight" = ["model", ""]    # the first match counts

    [arguments]                           # exact names come before patterns
    "x" = ["data p0", ""]                 # axes, major first, then the priority

A dimension is a string of axes separated by commas, with ``p<n>`` for the propagation priority;
``model:(1)2`` is a sub-axis as Shardy writes it. A line ``device_ids = [0, 2, 1, 3]`` before the
first table says which device is at each position of the mesh, row-major, when it is not 0, 1, 2…
A plan written by hand needs only ``[mesh]`` and
``[patterns]`` or ``[arguments]``; everything predicted is computed again when a plan is loaded.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from pai.runtime.errors import InvalidCluster, InvalidSharding
from pai.runtime.mesh import AxisRef, Mesh, Sharding
from pai.runtime.topology_table import Document, Table

FORMAT = 1
_AXIS = re.compile(r"([A-Za-z_]\w*)(?::\((\d+)\)(\d+))?")
_PRIORITY = re.compile(r"(.*?)\s*\bp(\d+)")


@dataclass(frozen=True)
class TensorLayout:
    """The sharding of one argument and the order in which propagation applies it.

    Args:
        sharding: the axes of each dimension.
        priorities: per dimension, its priority (0 first) or None; () is none at all.
    """

    sharding: Sharding
    priorities: tuple[int | None, ...] = ()

    def priority(self, dim: int) -> int | None:
        """Return the priority of dimension ``dim``."""
        return self.priorities[dim] if self.priorities else None


@dataclass(frozen=True)
class CollectiveCost:
    """The collectives of one kind over groups of one size.

    Args:
        kind: all_reduce, all_gather, reduce_scatter, all_to_all, collective_permute, …
        group_size: devices of a group.
        count: how many a run executes.
        bytes_per_device: bytes one device holds of their (larger side's) tensors, summed.
        seconds: modelled time, summed.
    """

    kind: str
    group_size: int
    count: int
    bytes_per_device: int
    seconds: float


@dataclass(frozen=True)
class Prediction:
    """Modelled time of one run, in seconds, and memory of one device, in bytes."""

    time_s: float = 0.0
    compute_s: float = 0.0
    memory_bound_s: float = 0.0
    communication_s: float = 0.0
    overhead_s: float = 0.0
    parameter_bytes: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    temporary_bytes: int = 0
    collectives: tuple[CollectiveCost, ...] = ()

    @property
    def memory_bytes(self) -> int:
        """The memory of one device."""
        return self.parameter_bytes + self.input_bytes + self.output_bytes + self.temporary_bytes


@dataclass(frozen=True)
class Alternative:
    """A candidate that was considered and lost; time and memory are None when not modelled."""

    name: str
    reason: str
    time_s: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Plan:
    """How a program is laid over a cluster.

    Args:
        mesh: named axes over the devices.
        arguments: (name, layout) of arguments, in program order; others follow propagation.
        patterns: (glob or /regex/, layout); the first that matches a name counts.
        strategy: short name of the choice.
        cluster: name of the cluster it was made for.
        device_memory_bytes: memory of the smallest device.
        stages: pipeline stages.
        microbatches: parts the batch is cut into.
        schedule: pipeline schedule, ``none`` for one stage.
        predicted: modelled time and memory.
        alternatives: the candidates that lost, best first.
    """

    mesh: Mesh = field(default_factory=Mesh)
    arguments: tuple[tuple[str, TensorLayout], ...] = ()
    patterns: tuple[tuple[str, TensorLayout], ...] = ()
    strategy: str = "by hand"
    cluster: str = ""
    device_memory_bytes: int = 0
    stages: int = 1
    microbatches: int = 1
    schedule: str = "none"
    predicted: Prediction = field(default_factory=Prediction)
    alternatives: tuple[Alternative, ...] = ()

    def layouts(self, names: Sequence[str]) -> dict[str, TensorLayout]:
        """Return the layout of each argument that the plan names, exactly or by pattern."""
        exact = dict(self.arguments)
        out: dict[str, TensorLayout] = {}
        for name in names:
            found = exact.get(name) or next(
                (layout for pattern, layout in self.patterns if matches(pattern, name)), None
            )
            if found is not None:
                out[name] = found
        return out


def matches(pattern: str, name: str) -> bool:
    """Whether ``name`` fits a glob, or a regular expression between slashes, as a whole."""
    if len(pattern) > 1 and pattern[0] == pattern[-1] == "/":
        return re.fullmatch(pattern[1:-1], name) is not None
    return fnmatch.fnmatchcase(name, pattern)


def layout_to_texts(layout: TensorLayout) -> list[str]:
    """Return per dimension the text of its axes and priority."""
    out = []
    for dim, axes in enumerate(layout.sharding.dims):
        priority = layout.priority(dim)
        text = ",".join(map(_axis_text, axes))
        out.append(text if priority is None else f"{text} p{priority}".strip())
    return out


def _axis_text(axis: AxisRef) -> str:
    return axis.name if axis.sub_size is None else f"{axis.name}:({axis.pre_size}){axis.sub_size}"


def layout_from_texts(texts: Sequence[str], mesh: Mesh) -> TensorLayout:
    """Return the layout that ``texts`` spell.

    Raises:
        InvalidSharding: for bad syntax, an axis the mesh lacks, or one used twice.
    """
    dims, priorities = [], []
    for text in texts:
        match = _PRIORITY.fullmatch(text.strip())
        axes = (match[1] if match else text).strip()
        priorities.append(int(match[2]) if match else None)
        dims.append(tuple(_axis(part.strip(), mesh) for part in axes.split(",")) if axes else ())
    _check_used_once([axis for axes in dims for axis in axes], mesh)
    given = any(priority is not None for priority in priorities)
    return TensorLayout(Sharding(tuple(dims)), tuple(priorities) if given else ())


def _axis(text: str, mesh: Mesh) -> AxisRef:
    match = _AXIS.fullmatch(text)
    names = ", ".join(f"'{name}'" for name, _ in mesh.axes) or "none"
    if match is None:
        raise InvalidSharding(
            f"'{text}' is not an axis", hint=f"write an axis of the mesh ({names}), 'a,b', or ''"
        )
    if match[1] not in dict(mesh.axes):
        raise InvalidSharding(f"the mesh has no axis '{match[1]}'", hint=f"its axes: {names}")
    if match[2] is None:
        return AxisRef(match[1])
    ref = AxisRef(match[1], int(match[2]), int(match[3]))
    if ref.pre_size < 1 or not ref.sub_size or mesh.size(ref.name) % (ref.pre_size * ref.sub_size):
        raise InvalidSharding(
            f"'{text}' does not divide axis '{ref.name}' of size {mesh.size(ref.name)}"
        )
    return ref


def _check_used_once(axes: Sequence[AxisRef], mesh: Mesh) -> None:
    for i, axis in enumerate(axes):
        for other in axes[:i]:
            lo, hi = sorted((axis, other), key=lambda ref: ref.pre_size)
            if axis.name == other.name and lo.pre_size * lo.size(mesh) > hi.pre_size:
                raise InvalidSharding(
                    f"axis '{axis.name}' is used twice", hint="an axis shards one dimension only"
                )


def plan_to_toml(plan: Plan) -> str:
    """Return the plan as TOML; the same plan always gives the same bytes."""
    lines = [
        f"format = {FORMAT}",
        f"strategy = {_quote(plan.strategy)}",
        f"cluster = {_quote(plan.cluster)}",
        f"devices = {plan.mesh.num_devices}",
        *([f"device_ids = {list(plan.mesh.device_ids)}"] if plan.mesh.device_ids else []),
        f"device_memory_bytes = {plan.device_memory_bytes}",
        f"stages = {plan.stages}",
        f"microbatches = {plan.microbatches}",
        f"schedule = {_quote(plan.schedule)}",
        "",
        "[mesh]",
        *(f"{_key(name)} = {size}" for name, size in plan.mesh.axes),
    ]
    for section, layouts in (("patterns", plan.patterns), ("arguments", plan.arguments)):
        if layouts:
            lines += ["", f"[{section}]"]
            lines += [f"{_quote(key)} = {_quotes(layout)}" for key, layout in layouts]
    lines += ["", *_prediction_lines(plan.predicted)]
    for other in plan.alternatives:
        lines += ["", "[[alternatives]]", f"name = {_quote(other.name)}"]
        if other.time_s is not None:
            lines.append(f"time_s = {float(other.time_s)!r}")
        if other.memory_bytes is not None:
            lines.append(f"memory_bytes = {other.memory_bytes}")
        lines.append(f"reason = {_quote(other.reason)}")
    return "\n".join(lines) + "\n"


_SECONDS = ("time_s", "compute_s", "memory_bound_s", "communication_s", "overhead_s")
_BYTES = ("parameter_bytes", "input_bytes", "output_bytes", "temporary_bytes")


def _prediction_lines(predicted: Prediction) -> list[str]:
    lines = ["[predicted]  # computed again when the plan is loaded"]
    lines += [f"{key} = {float(getattr(predicted, key))!r}" for key in _SECONDS]
    lines += [f"{key} = {getattr(predicted, key)}" for key in _BYTES]
    for use in predicted.collectives:
        lines += ["", "[[predicted.collectives]]", f"kind = {_quote(use.kind)}"]
        lines += [f"{key} = {getattr(use, key)!r}" for key in ("group_size", "count")]
        lines += [f"bytes_per_device = {use.bytes_per_device}", f"seconds = {float(use.seconds)!r}"]
    return lines


def _key(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else _quote(text)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _quotes(layout: TensorLayout) -> str:
    return "[" + ", ".join(map(_quote, layout_to_texts(layout))) + "]"


def plan_from_toml(text: str, where: str = "plan") -> Plan:
    """Return the plan that ``text`` holds; ``where`` names it in messages.

    Raises:
        InvalidSharding: for bad syntax or a layout that does not fit the mesh, with file and line.
        InvalidCluster: when ``devices`` is not what the mesh makes.
    """
    top = Document(text, where, InvalidSharding).root()
    top.get("format", FORMAT, (int,), f"{FORMAT}")
    if top.data.get("format", FORMAT) != FORMAT:
        raise top.error("format", f"is {top.data['format']}", f"this version reads {FORMAT}")
    axes = top.table("mesh")
    for name in axes.data:
        if not re.fullmatch(r"(?!p\d+$)[A-Za-z_]\w*", name):
            raise axes.error(name, "is not a name for an axis", "use letters, but not p<number>")
    sizes = tuple((name, axes.integer(name, least=1)) for name in axes.data)
    try:
        mesh = Mesh(sizes, top.integers("device_ids", ()))
    except InvalidSharding as error:
        raise top.error("device_ids", f"is wrong: {error.what}", error.hint) from error
    devices = top.integer("devices", mesh.num_devices, least=1)
    if devices != mesh.num_devices:
        message = f"the mesh makes {mesh.num_devices} devices but 'devices' says {devices}"
        raise InvalidCluster(message, where, "make the axis sizes multiply to the device count")
    plan = Plan(
        mesh=mesh,
        arguments=_layouts(top.table("arguments", required=False), mesh),
        patterns=_layouts(top.table("patterns", required=False), mesh, patterns=True),
        strategy=top.text("strategy", "by hand"),
        cluster=top.text("cluster", ""),
        device_memory_bytes=top.integer("device_memory_bytes", 0, least=0),
        stages=top.integer("stages", 1, least=1),
        microbatches=top.integer("microbatches", 1, least=1),
        schedule=top.text("schedule", "none"),
        predicted=_prediction(top.table("predicted", required=False)),
        alternatives=tuple(map(_alternative, top.array("alternatives", required=False))),
    )
    top.finish()
    return plan


def _layouts(
    table: Table, mesh: Mesh, *, patterns: bool = False
) -> tuple[tuple[str, TensorLayout], ...]:
    out = []
    for key in table.data:
        try:
            if patterns and matches(key, ""):
                pass  # compiling the expression is the check
            out.append((key, layout_from_texts(table.texts(key), mesh)))
        except re.error as error:
            raise table.error(key, f"is not a regular expression: {error}") from error
        except InvalidSharding as error:
            if error.where:
                raise
            raise table.error(key, f"is wrong: {error.what}", error.hint) from error
    return tuple(out)


def _prediction(table: Table) -> Prediction:
    uses = []
    for entry in table.array("collectives", required=False):
        sizes = {k: entry.integer(k, least=0) for k in ("group_size", "count", "bytes_per_device")}
        seconds = entry.number("seconds", zero=True)
        uses.append(CollectiveCost(kind=entry.text("kind"), seconds=seconds, **sizes))
        entry.finish()
    total, compute, memory, communication, overhead = (
        table.number(key, 0.0, zero=True) for key in _SECONDS
    )
    parameters, inputs, outputs, temporaries = (table.integer(key, 0, least=0) for key in _BYTES)
    table.finish()
    return Prediction(
        total,
        compute,
        memory,
        communication,
        overhead,
        parameters,
        inputs,
        outputs,
        temporaries,
        tuple(uses),
    )


def _alternative(entry: Table) -> Alternative:
    time_s = entry.number("time_s", zero=True) if "time_s" in entry.data else None
    memory = entry.integer("memory_bytes", least=0) if "memory_bytes" in entry.data else None
    out = Alternative(entry.text("name"), entry.text("reason"), time_s, memory)
    entry.finish()
    return out
