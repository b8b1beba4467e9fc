"""What only the cost model can say about a plan: what other choices would cost, what would help.

A plan is costed again with one group of parameters whole on every device, or with one that is
whole stored in shards, and on clusters with twice as much of something (``scaling.py``). Nothing is
searched again, so that "twice the links" is what the same plan gains; for twice the memory the
fastest of the candidates that were too large counts as well.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pai.dialects.program import Role, Signature, Value
from pai.passes.strategy.plan_layout import TensorLayout
from pai.passes.strategy.scaling import scaled
from pai.passes.strategy.uses import Use
from pai.runtime.dtypes import itemsize
from pai.runtime.errors import PaiError
from pai.runtime.mesh import AxisRef, Mesh, Sharding
from pai.runtime.topology import LEVELS, ClusterSpec

if TYPE_CHECKING:
    from pai.passes.strategy.plan_data import Plan, Prediction

Predict = Callable[["Plan", ClusterSpec], "Prediction"]
GROUPS = 6  # groups of parameters and states that are explained
STATES = 2  # of them, groups of states, where there are so many
BUDGET_S = 30.0  # wall time after which no further plan is costed


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that differ only in the numbers of their names, and are laid out alike.

    Args:
        name: their name with ``*`` for what differs.
        role: parameter or state.
        members: their names.
        shape: of each.
        dtype: of each.
        layout: of each, after propagation.
        follows: whether the plan leaves it to propagation.
        use: what the program does with the first; None when it is no product's operand.
        num_bytes: of all, on one device if whole.
        local_bytes: of all, on one device as laid out.
        other_bytes: memory of a device with the other choice: whole if it is split now, stored in
            shards if it is whole now; None when it was not costed.
        other_s: seconds of a run with it; None when only the memory is known.
        other_axis: the axis that would store it in shards.
    """

    name: str
    role: Role
    members: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    layout: TensorLayout
    follows: bool
    use: Use | None
    num_bytes: int
    local_bytes: int
    other_bytes: int | None = None
    other_s: float | None = None
    other_axis: str = ""

    @property
    def is_split(self) -> bool:
        """Whether a device holds only a part."""
        return self.local_bytes < self.num_bytes


@dataclass(frozen=True)
class Sensitivity:
    """The step time on a cluster with more of something.

    Args:
        change: what there is more of.
        time_s: seconds of a run.
        strategy: the candidate that is then the best; "" is the chosen plan.
    """

    change: str
    time_s: float
    strategy: str = ""


@dataclass(frozen=True)
class Choice:
    """A decision of the plan made otherwise, everything else as it is.

    Args:
        name: the other decision.
        time_s: seconds of a run.
        memory_bytes: bytes of one device.
    """

    name: str
    time_s: float
    memory_bytes: int


@dataclass(frozen=True)
class Insights:
    """What the cost model says of other choices.

    Args:
        parameters: groups of parameters, the largest first.
        sensitivities: what more of something would give, the largest gain first.
        choices: decisions made otherwise.
        communication: (level of links, seconds) where the prediction lists no collectives.
    """

    parameters: tuple[ParameterGroup, ...]
    sensitivities: tuple[Sensitivity, ...]
    choices: tuple[Choice, ...] = ()
    communication: tuple[tuple[str, float], ...] = ()


def analyze(
    plan: Plan,
    signature: Signature,
    cluster: ClusterSpec,
    predict: Predict,
    shardings: Sequence[Sharding],
    uses: dict[int, Use],
) -> Insights:
    """Return what other choices and other clusters would mean for ``plan``.

    Args:
        plan: a costed plan.
        signature: the program's arguments.
        cluster: the devices.
        predict: the cost model: a plan on a cluster.
        shardings: how propagation lays out each argument.
        uses: what the program does with its arguments, by number (``uses.parameter_uses``).
    """
    deadline = time.monotonic() + BUDGET_S
    sensitivities = tuple(_sensitivities(plan, cluster, predict))
    groups = _largest(parameter_groups(plan, signature, shardings, uses))
    out = []
    for group in groups:
        late = time.monotonic() > deadline
        out.append(group if late else _with_other(group, plan, cluster, predict))
    return Insights(tuple(out), sensitivities)


def parameter_groups(
    plan: Plan, signature: Signature, shardings: Sequence[Sharding], uses: dict[int, Use]
) -> list[ParameterGroup]:
    """Return the parameters and states in groups of like name, type and layout, largest first."""
    said = plan.layouts([value.name for value in signature.arguments])
    groups: dict[tuple[object, ...], list[tuple[int, Value]]] = {}
    for index, value in enumerate(signature.arguments):
        if value.role in {Role.PARAMETER, Role.STATE}:
            # Moments and copies of one parameter are one group.
            name = "" if value.role is Role.STATE else fold_name(value.name)
            key = (value.role, name, value.shape, value.dtype, shardings[index])
            groups.setdefault(key, []).append((index, value))
    out = []
    for members in groups.values():
        index, value = members[0]
        size = itemsize(value.dtype) * math.ceil(len(members) / plan.pipeline.stages)
        local = shardings[index].local_shape(value.shape, plan.mesh)
        priorities = said[value.name].priorities if value.name in said else ()
        out.append(
            ParameterGroup(
                name=_group_name([member.name for _, member in members]),
                role=value.role,
                members=tuple(member.name for _, member in members),
                shape=value.shape,
                dtype=value.dtype,
                layout=TensorLayout(shardings[index], priorities),
                follows=value.name not in said,
                use=uses.get(index),
                num_bytes=size * math.prod(value.shape),
                local_bytes=size * math.prod(local),
            )
        )
    return sorted(out, key=lambda group: (-group.num_bytes, group.name))


def stored_groups(
    plan: Plan, signature: Signature, uses: dict[int, Use]
) -> tuple[ParameterGroup, ...]:
    """Return the largest groups of a plan that is not costed from a partitioned module.

    Layouts are those of the plan, arguments that it leaves open are taken as whole, and only the
    memory of the other choice is known: what the whole group takes more.
    """
    said = plan.layouts([value.name for value in signature.arguments])
    shardings = [
        said[value.name].sharding if value.name in said else Sharding.replicated(len(value.shape))
        for value in signature.arguments
    ]
    groups = _largest(parameter_groups(plan, signature, shardings, uses))
    return tuple(_with_memory(group, plan) for group in groups)


def _with_memory(group: ParameterGroup, plan: Plan) -> ParameterGroup:
    """Return ``group`` with the memory of the other choice."""
    used = plan.predicted.memory_bytes - group.local_bytes
    if group.is_split:
        return replace(group, other_bytes=used + group.num_bytes)
    stored = _stored(group.shape, plan.mesh)
    if stored is None:
        return group
    layout, axis = stored
    part = math.prod(layout.sharding.local_shape(group.shape, plan.mesh)) / math.prod(group.shape)
    return replace(group, other_bytes=used + int(part * group.num_bytes), other_axis=axis)


def _largest(groups: Sequence[ParameterGroup]) -> list[ParameterGroup]:
    """Return the largest groups: of parameters first, then of states, at least some of each."""
    parameters = [group for group in groups if group.role is Role.PARAMETER]
    states = [group for group in groups if group.role is not Role.PARAMETER]
    kept = parameters[: max(GROUPS - STATES, GROUPS - len(states))]
    return [*kept, *states[: GROUPS - len(kept)]]


def _group_name(names: Sequence[str]) -> str:
    """Return the folded names, the first two of several."""
    by_fold: dict[str, list[str]] = {}
    for name in names:
        by_fold.setdefault(fold_name(name), []).append(name)
    folded = [fold_names(alike) for alike in by_fold.values()]
    more = f" and {len(folded) - 2} more" if len(folded) > 2 else ""
    return ", ".join(folded[:2]) + more


def fold_name(name: str) -> str:
    """Return ``name`` with ``*`` for each number in it."""
    return re.sub(r"\d+", "*", name)


def fold_names(names: Sequence[str]) -> str:
    """Return one name for several that differ only in numbers, with ``*`` for those that do."""
    pieces = [re.split(r"(\d+)", name) for name in names]
    return "".join(
        column[0] if len(set(column)) == 1 else "*" for column in zip(*pieces, strict=True)
    )


def _with_other(
    group: ParameterGroup, plan: Plan, cluster: ClusterSpec, predict: Predict
) -> ParameterGroup:
    """Return ``group`` with the cost of the plan that lays only it out in the other way."""
    layout, axis = TensorLayout(Sharding(((),) * len(group.shape))), ""
    if not group.is_split:
        stored = _stored(group.shape, plan.mesh)
        if stored is None:
            return group
        layout, axis = stored
    arguments = dict(plan.arguments) | dict.fromkeys(group.members, layout)
    changed = replace(plan, arguments=tuple(arguments.items()), zero=())
    try:
        other = predict(changed, cluster)
        return replace(group, other_bytes=other.memory_bytes, other_s=other.time_s, other_axis=axis)
    except PaiError:  # a layout that cannot be partitioned is no choice
        return group


def _stored(shape: tuple[int, ...], mesh: Mesh) -> tuple[TensorLayout, str] | None:
    """Return the layout that stores a tensor in shards over the largest axis that divides it."""
    for axis, shards in sorted(mesh.axes, key=lambda item: -item[1]):
        dims = [d for d, size in enumerate(shape) if size and size % shards == 0]
        if shards > 1 and dims:
            place = max(dims, key=lambda d: shape[d])
            axes = tuple((AxisRef(axis),) if d == place else () for d in range(len(shape)))
            priorities = tuple(1 if d == place else None for d in range(len(shape)))
            return TensorLayout(Sharding(axes), priorities), axis
    return None


def _sensitivities(plan: Plan, cluster: ClusterSpec, predict: Predict) -> Iterator[Sensitivity]:
    """Yield what twice as much of each thing gives, the largest gain first."""
    crossed = {use.level for use in plan.predicted.collectives if use.seconds}
    clusters = {"arithmetic twice as fast": scaled(cluster, flops=2),
                "memory bandwidth twice as high": scaled(cluster, bandwidth=2)}  # fmt: skip
    if LEVELS[0] in crossed or "" in crossed:
        clusters["links inside a host twice as fast"] = scaled(cluster, inner=2)
    if crossed - {LEVELS[0], ""}:
        clusters["links between hosts twice as fast"] = scaled(cluster, outer=2)
    found = [Sensitivity(name, predict(plan, c).time_s) for name, c in clusters.items()]
    found.append(_more_memory(plan, cluster.memory_bytes))
    yield from sorted(found, key=lambda item: (item.time_s, item.change))


def _more_memory(plan: Plan, memory_bytes: int) -> Sensitivity:
    """Return the fastest of the plan and the candidates that only twice the memory admits."""
    admitted = [
        other
        for other in plan.alternatives
        if other.time_s is not None
        and other.memory_bytes is not None
        and memory_bytes < other.memory_bytes <= 2 * memory_bytes
    ]
    change = "memory twice as large"
    best = min(admitted, key=lambda other: other.time_s or 0.0, default=None)
    if best is None or best.time_s is None or best.time_s >= plan.predicted.time_s:
        return Sensitivity(change, plan.predicted.time_s)
    return Sensitivity(change, best.time_s, best.name)
