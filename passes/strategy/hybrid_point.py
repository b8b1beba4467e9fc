"""A point of the outer search (``hybrid.py``): its devices, its schedule, and what it costs.

The cost is a closed form (``step.py``). Of the few points that matter the step is simulated
(``pipeline/timeline.py``), and what it takes longer, or shorter, is put down as the bubble.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

from pai.passes.strategy.kernels import Kernels
from pai.passes.strategy.memory import MemoryCost, State
from pai.passes.strategy.pipeline.timeline import StageDevices, Timeline, timeline
from pai.passes.strategy.placement import collective_time, send_time
from pai.passes.strategy.step import Execution, Network, StepCost
from pai.passes.strategy.workload import Workload
from pai.runtime.mesh import Mesh
from pai.runtime.topology import ClusterSpec, DeviceSpec

STAGE, DATA, CONTEXT, TENSOR = "stage", "data", "context", "tensor"

OVERLAPPED = Execution(overlap_send=True, overlap_reduce=True)
"""Software that hides transfers between stages and the reduction of gradients."""


@dataclass(frozen=True)
class Hybrid:
    """One point of the grid.

    Args:
        stages: pipeline stages.
        virtual: chunks of layers on each device.
        tensor: devices that share every layer.
        replicas: data-parallel replicas.
        microbatch: samples of one microbatch of one replica.
        microbatches: microbatches of one replica in a step.
        zero: ZeRO stage, 0 to 3.
        recompute: what layers recompute: a name of ``Segment.recompute``.
        zero_bubble: whether gradients by weights wait for the gaps of the pipeline.
        order: the mesh axes, outermost first; the context axis is next to the tensor axis, outside.
        context: devices of a replica among which its tokens, by sequence or by sample, and the
            experts are split; each of them is ``tensor`` devices.
    """

    stages: int = 1
    virtual: int = 1
    tensor: int = 1
    replicas: int = 1
    microbatch: int = 1
    microbatches: int = 1
    zero: int = 0
    recompute: str = "none"
    zero_bubble: bool = False
    order: tuple[str, ...] = (STAGE, DATA, TENSOR)
    context: int = 1

    @property
    def mesh(self) -> Mesh:
        """The devices."""
        sizes = {STAGE: self.stages, DATA: self.replicas, TENSOR: self.tensor}
        order, place = self.order, self.order.index(TENSOR)
        if self.context > 1:
            sizes[CONTEXT] = self.context
            order = (*order[:place], CONTEXT, *order[place:])
        return Mesh(tuple((name, sizes[name]) for name in order))

    @property
    def schedule(self) -> str:
        """The name of the pipeline's schedule."""
        if self.stages == 1:
            return "none"
        if self.zero_bubble:
            return "zero-bubble"
        return "interleaved" if self.virtual > 1 else "1f1b"

    @property
    def name(self) -> str:
        """A short name that tells it from all others."""
        parts = [
            f"stages={self.stages}" + (f"x{self.virtual}" if self.virtual > 1 else ""),
            f"data={self.replicas}",
            *([f"context={self.context}"] if self.context > 1 else []),
            f"tensor={self.tensor}",
            f"microbatches={self.microbatches}x{self.microbatch}",
        ]
        parts += ["zero-bubble"] if self.zero_bubble else []
        parts += [f"zero={self.zero}"] if self.zero else []
        parts += [f"recompute={self.recompute}"] if self.recompute != "none" else []
        return " ".join(parts)

    @property
    def execution(self) -> Execution:
        """The same in the terms of ``step.py``, with all that can be hidden hidden."""
        return self.run(OVERLAPPED)

    def run(self, software: Execution) -> Execution:
        """Return this point as software runs it, which ``software`` says all the rest about."""
        return replace(
            software,
            stages=self.stages,
            microbatches=self.microbatches,
            virtual=self.virtual,
            data=(DATA,),
            replicas=self.replicas,
            context=self.context,
            context_axes=(CONTEXT,),
            zero=self.zero,
            recompute=self.recompute,
            stage_axes=(STAGE,),
            schedule="zero-bubble" if self.zero_bubble else "",
        )


@dataclass(frozen=True)
class HybridCost:
    """A point with what it costs.

    Args:
        hybrid: the point.
        step: seconds of its step.
        memory: bytes of a device.
        cuts: of a simulated pipeline, per virtual stage: first segment of the unfolded chain, the
            one behind its last, and the kind of its devices.
    """

    hybrid: Hybrid
    step: StepCost
    memory: MemoryCost
    cuts: tuple[tuple[int, int, str], ...] = ()

    @property
    def seconds(self) -> float:
        """Seconds of a step."""
        return self.step.total


def _alone(point: Hybrid) -> bool:
    return point.stages == point.tensor == point.context == 1


FAMILIES: dict[str, Callable[[Hybrid], bool]] = {
    "data parallel": lambda h: _alone(h) and h.zero == 0,
    "ZeRO-1": lambda h: _alone(h) and h.zero == 1,
    "ZeRO-2": lambda h: _alone(h) and h.zero == 2,
    "ZeRO-3": lambda h: _alone(h) and h.zero == 3,
    "tensor and data parallel": lambda h: h.stages == h.context == 1 < h.tensor and h.zero < 2,
    "Megatron grid": lambda h: h.context == 1 and h.zero < 2,
}
"""The plain ways to spread a training step, which are always scored."""


def simulated(
    cost: HybridCost,
    workload: Workload,
    cluster: ClusterSpec,
    software: Execution = OVERLAPPED,
    state: State | None = None,
) -> HybridCost:
    """Return a point with the time of its simulated step; one stage stays as it is.

    Args:
        cost: the point with its closed form.
        workload: its work.
        cluster: the devices.
        software: what it runs on.
        state: bytes of training state of a parameter.
    """
    found = course(cost.hybrid, workload, cluster, software, state)
    if found is None:
        return cost
    cuts = tuple((stage.first, stage.end, stage.submesh.kind) for stage in found.plan.stages)
    bubble = cost.step.bubble + found.seconds - cost.step.total
    if bubble >= 0:
        return replace(cost, step=replace(cost.step, bubble=bubble), cuts=cuts)
    # Faster devices than the slowest kind's do part of the work.
    share = found.seconds / (cost.step.total - cost.step.bubble)
    parts = {name: share * seconds for name, seconds in vars(cost.step).items()}
    return replace(cost, step=replace(cost.step, **parts | {"bubble": 0.0}), cuts=cuts)


def course(
    point: Hybrid,
    workload: Workload,
    cluster: ClusterSpec,
    software: Execution = OVERLAPPED,
    state: State | None = None,
) -> Timeline | None:
    """Return the simulated step of a point; None for one stage, or when no division fits.

    Args:
        point: the point.
        workload: its work.
        cluster: the devices.
        software: what it runs on.
        state: bytes of training state of a parameter.
    """
    if point.stages == 1:
        return None
    run, links = point.run(software), network(point, cluster)
    return timeline(workload, run, stage_devices(point, cluster), links, state=state)


def stage_devices(point: Hybrid, cluster: ClusterSpec) -> list[StageDevices]:
    """Return the kinds of devices that stages can be made of.

    Chunks, and stages that would have to mix kinds, take all devices for the slowest kind.
    """
    each = point.mesh.num_devices // point.stages
    counts: dict[DeviceSpec, int] = {}
    for host in cluster.hosts:
        counts[host.device] = counts.get(host.device, 0) + host.devices
    whole = all(count % each == 0 for count in counts.values())
    if point.virtual > 1 or len(counts) == 1 or not whole:
        return [StageDevices(slowest_kernels(cluster), cluster.memory_bytes, point.stages)]
    return [
        StageDevices(Kernels.of(device), device.memory_bytes, count // each)
        for device, count in counts.items()
    ]


def network(hybrid: Hybrid, cluster: ClusterSpec) -> Network:
    """Return the times of collectives over the axes of a point."""
    mesh = hybrid.mesh
    stride = mesh.num_devices // hybrid.stages if hybrid.order[0] == STAGE else 0

    @functools.cache
    def seconds(kind: str, num_bytes: float, axes: tuple[str, ...]) -> float:
        if kind != "send":
            return collective_time(kind, num_bytes, mesh, axes, cluster)
        if stride and hybrid.stages > 1:
            concurrent = min(stride, cluster.hosts[0].devices)
            places = range(0, stride * (hybrid.stages - 1), stride)
            times = [send_time(num_bytes, p, p + stride, cluster, concurrent) for p in places]
            return sum(times) / len(times)
        return collective_time("collective_permute", num_bytes, mesh, axes, cluster)

    return seconds


def slowest_kernels(cluster: ClusterSpec) -> Kernels:
    """Return the clock of the slowest kind of device, by its f32 rate and bandwidth."""
    kinds = {host.device for host in cluster.distinct_hosts}
    return Kernels.of(min(kinds, key=lambda d: (d.flops("bf16"), d.memory_bandwidth, d.kind)))
