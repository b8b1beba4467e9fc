"""Unlike devices in one cluster: a balanced plan against an even split, modelled.

8 A100 40 GB and 8 V100 32 GB, a host of each, as in the experiments of Whale (X. Jia et al.,
USENIX ATC 2022, section 5.3: 1.2 to 1.4 times on 8 V100 and 8 P100). The even split gives every
replica the same share of the batch and every stage the same number of layers; the balanced plan
divides both by speed and memory. Both choose the best of the same layouts, microbatches and
recomputation.

``python -m benchmarks.mixed_cluster`` prints the table.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pai.passes.strategy.collectives import collective_seconds
from pai.passes.strategy.hops import send_time
from pai.passes.strategy.kernels import Kernels
from pai.passes.strategy.pipeline.choose import split_batch
from pai.passes.strategy.pipeline.divide import divide, objective
from pai.passes.strategy.pipeline.schedules import in_flight
from pai.passes.strategy.pipeline.segment_costs import StageWork, workload_costs
from pai.passes.strategy.pipeline.stages import (
    CostFunction,
    CostTable,
    PipelinePlan,
    Stage,
    StageRange,
    Submesh,
    chain_of,
)
from pai.passes.strategy.step import Execution
from pai.passes.strategy.transformer import Split, Stack, Transformer, transformer_workload
from pai.runtime.topology import ClusterSpec, HostSpec, load_cluster

PER_HOST = 8
BATCH = 256
STACK = Stack(dtype="f16", fused_elementwise=True)
"""f16, for V100 have no bf16."""
RECOMPUTE = ("none", "selective", "full")
MICROBATCHES = (1, 2, 4, 8, 16)

MODELS = {
    "0.3B": Transformer(24, 1024, 16, 30592, 512),
    "1.3B": Transformer(24, 2048, 16, 51200, 1024),
    "2.6B": Transformer(32, 2560, 32, 51200, 1024),
    "6.7B": Transformer(32, 4096, 32, 51200, 1024),
    "13B": Transformer(40, 5120, 40, 51200, 1024),
}


def mixed_cluster() -> ClusterSpec:
    """Return a host of 8 A100 and one of 8 V100 on one network."""
    hosts = []
    for name in ("a100-40g-sxm", "v100-32g"):
        one = load_cluster(name, PER_HOST)
        hosts.append(HostSpec(one.hosts[0].device, PER_HOST, one.links))
    return ClusterSpec("8 A100 + 8 V100", tuple(hosts), hosts[0].links)


CLUSTER = mixed_cluster()
KINDS = tuple(host.device.kind for host in CLUSTER.hosts)


@dataclass(frozen=True)
class Result:
    """A plan and its time.

    Args:
        seconds: of a step.
        layout: devices for a layer, stages and replicas.
        shares: what each kind of device gets.
    """

    seconds: float
    layout: str
    shares: str


@dataclass(frozen=True)
class Layout:
    """How the 16 devices are used.

    Args:
        tensor: devices that share each layer, in one host.
        stages: stages of each replica; with one, a replica is in one host, otherwise half its
            stages are on each.
    """

    tensor: int
    stages: int

    @property
    def replicas(self) -> int:
        """Data-parallel replicas."""
        return 2 * PER_HOST // (self.tensor * self.stages)


def tensor_groups(host: int, tensor: int) -> list[list[int]]:
    """Return the devices that share layers on a host."""
    first = host * PER_HOST
    return [list(range(g, g + tensor)) for g in range(first, first + PER_HOST, tensor)]


@functools.cache
def network_seconds(kind: str, num_bytes: float, host: int, tensor: int) -> float:
    """Return the time of a collective inside a host, or of a message to the other one."""
    if kind == "send":
        return send_time(num_bytes, 0, PER_HOST, CLUSTER, tensor)
    return collective_seconds(kind, int(num_bytes), tensor_groups(host, tensor), CLUSTER)


@functools.cache
def work_of(
    model: Transformer, layout: Layout, microbatch: int, recompute: str, host: int
) -> StageWork:
    """Return the work of a device of a host for one microbatch."""
    workload = transformer_workload(model, microbatch, Split(layout.tensor), STACK)
    run = Execution(recompute=recompute, stages=layout.stages)
    kernels = Kernels.of(CLUSTER.hosts[host].device)
    return StageWork(
        workload, run, kernels,
        lambda kind, size, _: network_seconds(kind, size, host, layout.tensor),
    )  # fmt: skip


def submesh_of(host: int, tensor: int) -> Submesh:
    """Return the devices of one stage on a host."""
    return Submesh(KINDS[host], tensor, CLUSTER.hosts[host].device.memory_bytes)


@functools.cache
def table_of(model: Transformer, layout: Layout, microbatch: int, recompute: str) -> CostTable:
    """Return the costs of all ranges of layers on both kinds of device."""
    works = [work_of(model, layout, microbatch, recompute, host) for host in range(2)]
    cost = workload_costs(lambda submesh: works[KINDS.index(submesh.kind)])
    submeshes = [submesh_of(host, layout.tensor) for host in range(2)]
    return CostTable(chain_of(works[0].workload), submeshes, cost)


def once_seconds(layout: Layout, parameters: float) -> float:
    """Return the time of reducing the gradients and of the update.

    Args:
        layout: how the devices are used.
        parameters: of the fullest stage, on one device.
    """
    bandwidth = min(Kernels.of(host.device).bandwidth for host in CLUSTER.hosts)
    update = parameters * Execution().update_bytes / bandwidth
    if layout.replicas == 1:
        return update
    groups = []
    if layout.stages == 1:
        starts = range(0, 2 * PER_HOST, layout.tensor)
        groups = [[start + rank for start in starts] for rank in range(layout.tensor)]
    else:
        step = PER_HOST // layout.replicas
        for first in itertools.chain(range(step), range(PER_HOST, PER_HOST + step)):
            groups.append(list(range(first, first + PER_HOST, step)))
    return update + collective_seconds("all_reduce", int(2 * parameters), groups, CLUSTER)


# Replicas of one stage: the batch is shared.


def stage_costs(work: StageWork) -> CostFunction:
    """Return the cost function of devices that all do the same."""
    return workload_costs(lambda _: work)


@functools.cache
def passes_seconds(model: Transformer, layout: Layout, host: int) -> dict[int, float]:
    """Return the time of the passes of a microbatch that fits the memory, by its size."""
    out: dict[int, float] = {}
    for microbatch, recompute in itertools.product(MICROBATCHES, RECOMPUTE):
        work = work_of(model, layout, microbatch, recompute, host)
        chain = chain_of(work.workload)
        whole = StageRange(chain, chain[-1][0])
        submesh = submesh_of(host, layout.tensor)
        cost = stage_costs(work)(whole, submesh)
        if cost.memory(1) <= submesh.memory_bytes:
            out[microbatch] = min(out.get(microbatch, math.inf), cost.seconds)
    return out


def share_seconds(model: Transformer, layout: Layout, host: int, share: int) -> float:
    """Return the time of a replica's passes over its share, in the best microbatches that fit."""
    known = passes_seconds(model, layout, host)
    best = [0.0] + [math.inf] * share
    for n in range(1, share + 1):
        best[n] = min(
            (best[n - size] + seconds for size, seconds in known.items() if size <= n),
            default=math.inf,
        )
    return best[share]


def replicated(model: Transformer, layout: Layout, *, balanced: bool) -> Result | None:
    """Return the plan of replicas in one host each."""
    times = [[share_seconds(model, layout, host, n) for n in range(BATCH + 1)] for host in range(2)]
    if math.isinf(times[0][1]) or math.isinf(times[1][1]):
        return None
    each = layout.replicas // 2
    if balanced:
        clocks = [times[host].__getitem__ for host in range(2) for _ in range(each)]
        shares = split_batch(BATCH, clocks)
    else:
        shares = (BATCH // layout.replicas,) * layout.replicas
    slowest = max(times[i // each][share] for i, share in enumerate(shares))
    named = [f"{sum(shares[:each])} sequences on A100", f"{sum(shares[each:])} on V100"]
    return Result(
        slowest + once_seconds(layout, model.parameters / layout.tensor),
        f"tensor {layout.tensor}, data {layout.replicas}",
        ", ".join(named),
    )


# Replicas of several stages: the layers are divided.


def pipelined(model: Transformer, layout: Layout, *, balanced: bool) -> Result | None:
    """Return the plan whose replicas have half their stages on each host."""
    found: list[tuple[float, PipelinePlan]] = []
    for microbatch, recompute in itertools.product(MICROBATCHES, RECOMPUTE):
        count, rest = divmod(BATCH, layout.replicas * microbatch)
        if rest or not count:
            continue
        table = table_of(model, layout, microbatch, recompute)
        if balanced:
            pools = dict.fromkeys(KINDS, layout.stages // 2 * layout.tensor)
            plan = divide(table, pools, "1f1b", layout.stages, count)
        else:
            plan = even_plan(table, layout.stages, count)
        if plan is not None:
            found.append((plan.seconds, plan))
    if not found:
        return None
    _, plan = min(found, key=lambda item: item[0])
    fullest = max(stage.cost.parameters for stage in plan.stages)
    seconds = plan.simulate().total + once_seconds(layout, fullest)
    name = f"tensor {layout.tensor}, {layout.stages} stages"
    if layout.replicas > 1:
        name += f", data {layout.replicas}"
    return Result(seconds, name, layers_by_kind(plan, model.layers))


def even_plan(table: CostTable, stages: int, microbatches: int) -> PipelinePlan | None:
    """Return the same layers on each stage, A100 first; embedding and head come on top."""
    layers = table.length - 2
    if layers % stages:
        return None
    each = layers // stages
    edges = [0, *(1 + each * number for number in range(1, stages)), table.length]
    out = []
    for number, (first, end) in enumerate(itertools.pairwise(edges)):
        host = int(number >= stages // 2)
        cost = table.at(host, first, end)
        memory = cost.memory(in_flight("1f1b", stages, microbatches, number))
        if memory > table.submeshes[host].memory_bytes:
            return None
        out.append(Stage(first, end, table.submeshes[host], cost, memory))
    aim = objective("1f1b", stages, microbatches)
    seconds = aim.repeats * max(s.cost.seconds for s in out) + sum(
        aim.fill(s.cost) + aim.sends * s.cost.send for s in out[:-1]
    )
    return PipelinePlan("1f1b", microbatches, 1, tuple(out), seconds + aim.fill(out[-1].cost))


def layers_by_kind(plan: PipelinePlan, layers: int) -> str:
    """Return how many layers the stages of each kind have."""
    out = []
    for kind in KINDS:
        counts = [
            min(s.end, layers + 1) - max(s.first, 1) for s in plan.stages if s.submesh.kind == kind
        ]
        out.append(f"{'/'.join(map(str, counts))} layers on {kind[:4].upper()}")
    return ", ".join(out)


def layouts() -> Iterable[Layout]:
    """Yield the layouts that use all devices."""
    for tensor in (1, 2, 4, 8):
        for stages in (1, 2, 4, 8, 16):
            if tensor * stages <= 2 * PER_HOST:
                yield Layout(tensor, stages)


def plan_seconds(model: Transformer, layout: Layout, *, balanced: bool) -> Result | None:
    """Return the best plan of a layout."""
    make = replicated if layout.stages == 1 else pipelined
    return make(model, layout, balanced=balanced)


def compare(model: Transformer, some: Sequence[Layout]) -> tuple[Result, Result] | None:
    """Return the best even and the best balanced plan of some layouts."""
    best = []
    for balanced in (False, True):
        plans = [plan_seconds(model, layout, balanced=balanced) for layout in some]
        feasible = [plan for plan in plans if plan is not None]
        if not feasible:
            return None
        best.append(min(feasible, key=lambda plan: plan.seconds))
    return best[0], best[1]


def rows() -> Iterable[str]:
    """Yield the lines of the table."""
    yield "| model | plans | even split | s | balanced | s | speed-up |"
    yield "|---|---|---|---|---|---|---|"
    families = {
        "replicas only": [one for one in layouts() if one.stages == 1],
        "pipelines only": [one for one in layouts() if one.stages > 1],
        "any": list(layouts()),
    }
    for name, model in MODELS.items():
        for family, some in families.items():
            found = compare(model, some)
            if found is None:
                yield f"| {name} | {family} | does not fit | | | | |"
                continue
            even, balanced = found
            yield (
                f"| {name} | {family} | {even.layout} | {even.seconds:.2f} "
                f"| {balanced.layout}: {balanced.shares} | {balanced.seconds:.2f} "
                f"| {even.seconds / balanced.seconds:.2f} |"
            )


def main() -> None:
    """Print the table, or write it to a file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, help="write the table here too")
    given = parser.parse_args()
    lines = []
    for line in rows():
        print(line, flush=True)
        lines.append(line)
    if given.out:
        given.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
