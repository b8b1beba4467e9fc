"""expand_zero: write what ``[zero]`` says into the layouts of parameters and optimizer state."""

from __future__ import annotations

from dataclasses import replace

from pai.dialects.program import Role, Signature, Value
from pai.passes.strategy.plan_data import Plan
from pai.passes.strategy.plan_layout import TensorLayout
from pai.runtime.mesh import AxisRef, Mesh, Sharding

OPTIMIZER, PARAMETERS = 1, 3  # the ZeRO stages from which they are stored in shards


def optimizer_state(signature: Signature) -> frozenset[str]:
    """Return the names of state arguments that have the shape of a parameter."""
    shapes = {value.shape for value in signature.arguments if value.role is Role.PARAMETER}
    return frozenset(
        value.name
        for value in signature.arguments
        if value.role is Role.STATE and value.shape in shapes
    )


def is_training(signature: Signature) -> bool:
    """Whether a result updates a parameter, or a state that has the shape of one."""
    updated = {result.updates for result in signature.results if result.updates}
    learned = {v.name for v in signature.arguments if v.role is Role.PARAMETER}
    return bool(updated & (learned | optimizer_state(signature)))


def expand_zero(plan: Plan, signature: Signature) -> Plan:
    """Return ``plan`` with a layout for each argument that ``[zero]`` speaks of.

    Where it is stored in shards, the largest dimension that the axis divides and nothing splits
    takes the axis, with priority 1, so that it is gathered where it is used (S. Rajbhandari et al.,
    "ZeRO", SC 2020). Where it is not, propagation may not split it along the axis either: without
    that, parameters would follow their optimizer state, and stage 1 would be stage 3. An argument
    whose layout the plan says stays so, and so does one that the axis cannot divide.

    Before: ``[zero] data = 3``. After, for ``w`` of 64x32: ``"w" = ["data p1", ""]``.
    """
    found = plan.layouts([value.name for value in signature.arguments])
    state = optimizer_state(signature)
    layouts = dict(plan.arguments)
    for axis, stage in plan.zero:
        for value in signature.arguments:
            if value.role is not Role.PARAMETER and value.name not in state:
                continue
            stored = stage >= (PARAMETERS if value.role is Role.PARAMETER else OPTIMIZER)
            old = layouts.get(value.name, found.get(value.name))
            new = (_with_axis if stored else _without_axis)(value, old, axis, plan.mesh)
            if new is not None:
                layouts[value.name] = new
    names = [value.name for value in signature.arguments if value.name in layouts]
    return replace(plan, arguments=tuple((name, layouts[name]) for name in names))


def _without_axis(
    value: Value, layout: TensorLayout | None, axis: str, mesh: Mesh
) -> TensorLayout | None:
    """Return the layout that keeps ``axis`` off; None when the plan says a layout."""
    if mesh.size(axis) == 1 or (layout is not None and not layout.kept):
        return None
    kept = (*(layout.kept if layout else ()), AxisRef(axis))
    return TensorLayout(Sharding.replicated(len(value.shape)), kept=tuple(dict.fromkeys(kept)))


def _with_axis(
    value: Value, layout: TensorLayout | None, axis: str, mesh: Mesh
) -> TensorLayout | None:
    """Return ``layout`` with ``axis`` on its best free dimension; None when there is none."""
    rank, shards = len(value.shape), mesh.size(axis)
    dims: list[tuple[AxisRef, ...]] = list(layout.sharding.dims) if layout else [()] * rank
    if shards == 1 or any(ref.name == axis for refs in dims for ref in refs):
        return None
    free = [d for d, size in enumerate(value.shape) if not dims[d] and size and size % shards == 0]
    if not free:
        return None
    place = max(free, key=lambda d: (value.shape[d], -d))
    dims[place] = (AxisRef(axis),)
    priorities: list[int | None] = [None] * rank
    if layout and layout.priorities:
        priorities = list(layout.priorities)
    priorities[place] = 1
    return TensorLayout(Sharding(tuple(dims)), tuple(priorities))
