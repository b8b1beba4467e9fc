"""Candidates of ``choose_plan`` from the integer program over a module's operations (``intra/``).

They are partitioned and costed as all others are, so the program's own prices only say what to try.
"""

from __future__ import annotations

import math

from pai.dialects.mlir import ir
from pai.dialects.program import Signature
from pai.passes.strategy.candidates import DATA, MODEL, Candidate
from pai.passes.strategy.estimate import Estimate
from pai.passes.strategy.intra.solution import (
    IntraOptions,
    read_problem,
    solve_problem,
)
from pai.passes.strategy.plan_values import values_from_constraints
from pai.runtime.mesh import Mesh
from pai.runtime.topology import ClusterSpec

OPTIONS = IntraOptions(refine_s=0.0, must_fit=False)
"""Axis by axis and no more: what is solved within a time limit could differ from run to run."""


def solved_candidates(
    module: ir.Module, signature: Signature, cluster: ClusterSpec
) -> list[tuple[Candidate, Estimate]]:
    """Return the best layouts over one axis and over two, with what the program says they cost.

    Args:
        module: the simplified global module, without shardings of its own; not changed.
        signature: its arguments and results.
        cluster: the devices.
    """
    lowered = read_problem(module, signature, cluster.memory_bytes, OPTIONS)
    out = []
    for mesh in _meshes(cluster):
        found = solve_problem(lowered, signature, mesh, cluster, OPTIONS)
        sizes = " ".join(f"{name}={size}" for name, size in mesh.axes)
        candidate = Candidate(
            f"integer program {sizes}",
            mesh,
            tuple((name, layout) for name, layout in found.arguments if any(layout.sharding.dims)),
            data=mesh.size(DATA),
            model=mesh.num_devices // mesh.size(DATA),
            values=values_from_constraints(module, found.constraints),
        )
        out.append((candidate, Estimate(found.time_s, found.memory_bytes)))
    return out


def _meshes(cluster: ClusterSpec) -> list[Mesh]:
    """Return one axis, and two that are as equal as can be, the inner one inside a host."""
    devices = cluster.num_devices
    out = [Mesh(((DATA, devices),))]
    most = min(math.isqrt(devices), max(host.devices for host in cluster.distinct_hosts))
    inner = max(n for n in range(1, most + 1) if devices % n == 0)
    return [*out, Mesh(((DATA, devices // inner), (MODEL, inner)))] if inner > 1 else out
