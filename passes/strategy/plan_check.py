"""check_plan: hold a plan file to the program and the cluster; require_runnable: to the runtime."""

from __future__ import annotations

from collections.abc import Sequence

from pai.dialects.program import Role, Signature
from pai.passes.strategy.plan_data import Plan
from pai.passes.strategy.plan_layout import matches
from pai.passes.strategy.plan_read import PlanFile
from pai.passes.strategy.plan_segments import check_segments, parse_chunk
from pai.runtime.errors import InvalidCluster, InvalidSharding, UnsupportedPlan
from pai.runtime.topology import ClusterSpec


def check_plan(
    file: PlanFile,
    signature: Signature,
    cluster: ClusterSpec,
    segments: Sequence[tuple[str, int]] = (),
) -> None:
    """Check that the plan fits the program and the cluster.

    Args:
        file: the plan, with its text.
        signature: the program's arguments and results.
        cluster: the devices.
        segments: (name, repetitions) of the model's segments, where they are known.

    Raises:
        InvalidSharding: for an unknown argument or segment, a pattern that matches none, a wrong
            rank, another precision, or microbatches that do not divide the batch.
        InvalidCluster: for another number of devices. Both name file and line.
    """
    _check_devices(file, cluster)
    _check_names(file, signature)
    _check_ranks(file, signature)
    _check_precision(file, signature)
    _check_microbatches(file, signature)
    if segments:
        _check_segments(file, segments)


def require_runnable(plan: Plan, where: str = "") -> None:
    """Check that the compiler can make a package of ``plan``.

    Raises:
        UnsupportedPlan: for pipeline stages, microbatches or recomputation.
    """
    pipeline = plan.pipeline
    found = [
        text
        for given, text in (
            (pipeline.stages > 1, f"{pipeline.stages} pipeline stages"),
            (pipeline.microbatches > 1, f"{pipeline.microbatches} microbatches"),
            (any(how != "none" for _, how in plan.recompute), "recomputation"),
        )
        if given
    ]
    if found:
        raise UnsupportedPlan(
            f"the plan has {' and '.join(found)}, which packages cannot run yet",
            where,
            "stop after the stage 'strategy' to model such plans; a package needs stages = 1, "
            'microbatches = 1 and recompute "none"',
        )


def _check_devices(file: PlanFile, cluster: ClusterSpec) -> None:
    plan = file.plan
    used, have = plan.num_devices * plan.replicas, cluster.num_devices
    if used == have or (plan.objective != "latency" and used < have):
        return
    made = f"{used} devices" + (f" in {plan.replicas} copies" if plan.replicas > 1 else "")
    stages = plan.pipeline.stages
    if stages > 1:
        made += f" in {stages} stages"
    said = file.document.root().data
    path = next((key for key in ("devices", "stages") if key in said), "mesh")
    pipelined = stages > 1 and path == "mesh"
    raise file.error(
        ("pipeline", "stages") if pipelined else (path,),
        f"the plan's mesh makes {made} but cluster '{cluster.name}' has {have}",
        f"pass --devices {used} or change [mesh]",
        InvalidCluster,
    )


def _check_names(file: PlanFile, signature: Signature) -> None:
    names = [value.name for value in signature.arguments]
    for name, _ in file.plan.arguments:
        if name not in names:
            known = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
            raise file.error(
                ("arguments", name), f"the model has no argument '{name}'", f"it has: {known}"
            )
    for pattern, _ in file.plan.patterns:
        if not any(matches(pattern, name) for name in names):
            raise file.error(
                ("patterns", pattern),
                f"pattern '{pattern}' matches no argument",
                "correct it or remove the line",
            )


def _check_ranks(file: PlanFile, signature: Signature) -> None:
    exact = dict(file.plan.arguments)
    ranks = {value.name: len(value.shape) for value in signature.arguments}
    for name, layout in file.plan.layouts(list(ranks)).items():
        given, rank = len(layout.sharding.dims), ranks[name]
        if given != rank:
            pattern = next((p for p, _ in file.plan.patterns if matches(p, name)), "")
            raise file.error(
                ("arguments", name) if name in exact else ("patterns", pattern),
                f"the plan gives {given} dimensions but '{name}' has {rank}",
                "give one string for each dimension, '' where it is not sharded",
            )


def _check_precision(file: PlanFile, signature: Signature) -> None:
    said = file.plan.precision
    floats = {
        v.dtype for v in signature.arguments if v.role is Role.PARAMETER and is_float(v.dtype)
    }
    if said and floats and said not in floats:
        have = " and ".join(sorted(floats))
        raise file.error(
            ("precision",),
            f"the plan is for parameters of {said} but the model's are {have}",
            "convert the model, or remove the line",
        )


def is_float(dtype: str) -> bool:
    """Whether ``dtype``, as MLIR spells it, is a floating-point type."""
    return dtype.startswith(("f", "bf"))


def _check_microbatches(file: PlanFile, signature: Signature) -> None:
    count = file.plan.pipeline.microbatches
    if count == 1:
        return
    at = ("pipeline", "microbatches")
    path = at if "pipeline" in file.document.root().data else at[1:]
    for value in signature.arguments:
        if value.role is Role.INPUT and value.shape and value.shape[0] % count:
            raise file.error(
                path,
                f"{count} microbatches do not divide the {value.shape[0]} of input '{value.name}'",
                "give a divisor of the batch",
            )


def _check_segments(file: PlanFile, segments: Sequence[tuple[str, int]]) -> None:
    order = file.plan.pipeline.order()
    if not order:
        return
    try:
        check_segments([parse_chunk(chunk) for chunk in order], segments)
    except InvalidSharding as error:
        named = next(
            (
                index
                for index, part in enumerate(file.plan.pipeline.parts)
                if any(f"'{s.name}'" in error.what for c in part.chunks for s in parse_chunk(c))
            ),
            0,
        )
        raise file.error(("pipeline", "stage", named, "chunks"), error.what, error.hint) from error
