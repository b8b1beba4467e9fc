"""One training step: a workload on stages, microbatches and data-parallel replicas.

Closed forms. A pipeline of p stages whose slowest stage needs t for the two passes of a microbatch
needs, for m microbatches and v virtual stages on each device, m·t and a bubble of (p-1)·t/v
(Narayanan et al., SC'21, §2.2). With ZeRO-3 the parameters of a segment are gathered while the one
before it computes, and gradients are scattered behind the next one (S. Rajbhandari et al., "ZeRO",
SC'20; Y. Zhao et al., "PyTorch FSDP", VLDB 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pai.passes.strategy.kernels import Kernels, KernelTime
from pai.passes.strategy.workload import Collective, Segment, Stream, Task, Workload

Network = Callable[[str, float, tuple[str, ...]], float]
"""Seconds of a collective of a kind and bytes (the larger side, on one device) over mesh axes.

The kind ``send`` is a message from each position to the next one; its mean along the axes counts.
"""


@dataclass(frozen=True)
class Execution:
    """How a workload runs.

    Args:
        stages: pipeline stages.
        microbatches: microbatches of one replica in a step.
        virtual: chunks of layers on each device (interleaving).
        data: axes over which replicas spread.
        replicas: their product.
        context: devices of a replica among which its tokens are split, by sequence or by sample.
            They have the parameters of dense layers alike, which are reduced and, by ZeRO, stored
            over ``data`` and the context axis; experts are apart (``Segment.experts``).
        context_axes: the axes over which they spread.
        zero: 0 all state everywhere, 1 optimizer split, 2 gradients too, 3 parameters too.
        recompute: name of the choice that layers take.
        stage_axes: axes over which stages spread.
        overlap_send: whether interleaved chunks are sent beside the compute.
        schedule: ``gpipe``, ``1f1b``, ``interleaved`` or ``zero-bubble``; "" is ``1f1b``, or
            ``interleaved`` when there are chunks.
        overlap_reduce: whether gradients are reduced behind the backward pass.
        segmented: whether ZeRO-2 gathers parameters and scatters gradients in every microbatch,
            segment by segment (FSDP's SHARD_GRAD_OP), as ZeRO-3 always does.
        gather_bytes: bytes of a gathered parameter.
        reduce_bytes: bytes of a reduced gradient.
        gradient_bytes: bytes read and written for a parameter of this device in each backward
            pass besides the products' results: accumulating, casting, copying into buckets.
        update_bytes: bytes that the update reads and writes for a parameter it owns.
    """

    stages: int = 1
    microbatches: int = 1
    virtual: int = 1
    data: tuple[str, ...] = ("data",)
    replicas: int = 1
    context: int = 1
    context_axes: tuple[str, ...] = ("context",)
    zero: int = 0
    recompute: str = "none"
    stage_axes: tuple[str, ...] = ("stage",)
    overlap_send: bool = False
    schedule: str = ""
    overlap_reduce: bool = False
    segmented: bool = False
    gather_bytes: float = 2
    reduce_bytes: float = 2
    gradient_bytes: float = 0
    update_bytes: float = 36

    @property
    def by_segment(self) -> bool:
        """Whether replicas exchange parameters and gradients in every microbatch."""
        return self.copies > 1 and (self.zero == 3 or (self.zero == 2 and self.segmented))

    @property
    def copies(self) -> int:
        """Devices that have the parameters of dense layers alike."""
        return self.replicas * self.context

    def alike(self, parameters: float, experts: float) -> list[tuple[float, tuple[str, ...]]]:
        """Return elements that several devices have alike, with the axes of those devices."""
        axes = (*self.data, *self.context_axes) if self.context > 1 else self.data
        groups = ((parameters - experts, axes, self.copies), (experts, self.data, self.replicas))
        return [(count, over) for count, over, devices in groups if count > 0 and devices > 1]

    def owned(self, parameters: float, experts: float, level: int) -> float:
        """Return the elements that a device has of what ZeRO splits from stage ``level`` on."""
        if self.zero < level and not (level == 3 and self.by_segment):
            return parameters
        return (parameters - experts) / self.copies + experts / self.replicas

    @property
    def schedule_name(self) -> str:
        """The schedule, as ``pipeline/schedules.py`` calls it."""
        return self.schedule or ("interleaved" if self.virtual > 1 else "1f1b")


@dataclass(frozen=True)
class StepCost:
    """Seconds of one step, in parts that add up.

    Args:
        compute: kernels bound by arithmetic.
        memory_bound: kernels bound by memory, and launches.
        exposed_communication: collectives that nothing hides, and what hidden ones slow down.
        bubble: waiting for other stages.
        optimizer: the update.
        overhead: outside of kernels.
    """

    compute: float
    memory_bound: float
    exposed_communication: float
    bubble: float
    optimizer: float
    overhead: float

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return (
            self.compute
            + self.memory_bound
            + self.exposed_communication
            + self.bubble
            + self.optimizer
            + self.overhead
        )


@dataclass(frozen=True)
class _Pass:
    """Work of a device, one or more passes through segments."""

    kernels: KernelTime = field(default_factory=KernelTime)
    communication: float = 0.0
    host: float = 0.0
    weights: float = 0.0

    @property
    def total(self) -> float:
        return self.kernels.total + self.communication + self.host

    def __add__(self, other: _Pass) -> _Pass:
        return _Pass(
            self.kernels + other.kernels,
            self.communication + other.communication,
            self.host + other.host,
            self.weights + other.weights,
        )

    def __mul__(self, times: float) -> _Pass:
        return _Pass(
            self.kernels * times,
            self.communication * times,
            self.host * times,
            self.weights * times,
        )


Known = dict[tuple[int, str, bool, int], "_Pass"]
"""Both passes of segments: by identity of the segment, recompute, and how parameters are stored."""


def step_cost(
    workload: Workload,
    run: Execution,
    kernels: Kernels,
    network: Network,
    known: Known | None = None,
) -> StepCost:
    """Return the time of one step.

    Args:
        workload: the work of one device for one microbatch, after tensor and context parallelism.
        run: stages, schedule, replicas, ZeRO stage and recompute.
        kernels: the device's clock.
        network: the collectives' clock, with the axes of ``workload`` and ``run``.
        known: passes of segments, kept from step to step: of the same segments and software, on
            meshes on which the segments' own collectives take as long, and so do gathers.
    """
    model = _Step(run, kernels, network, {} if known is None else known)
    stages = model.stage_passes(workload)
    slowest = max(stages, key=lambda stage: stage.total)
    transfer = model.transfer(workload)
    work = slowest * run.microbatches
    reduce = model.reduce_seconds(workload, slowest.total)
    return StepCost(
        compute=work.kernels.compute,
        memory_bound=work.kernels.memory + work.kernels.launch,
        exposed_communication=work.communication + transfer * run.microbatches + reduce,
        bubble=model.bubble(stages, transfer),
        optimizer=model.update_seconds(*model.stage_parameters(workload)),
        overhead=work.host,
    )


@dataclass(frozen=True)
class _Step:
    """The parts of a step's time."""

    run: Execution
    kernels: Kernels
    network: Network
    known: Known

    def stage_passes(self, workload: Workload) -> list[_Pass]:
        """Return both passes of one microbatch, by stage."""
        layers, place = workload.layers, workload.place
        middle = self.segment(layers)
        stages = [middle * count for count in spread(layers.repeat, self.run.stages)]
        for segment in workload.segments[:place]:
            stages[0] = stages[0] + self.segment(segment) * segment.repeat
        for segment in workload.segments[place + 1 :]:
            stages[-1] = stages[-1] + self.segment(segment) * segment.repeat
        return stages

    def segment(self, segment: Segment) -> _Pass:
        """Return both passes of one segment with its recompute and its parameters' gathering."""
        key = (id(segment), self.run.recompute, self.run.by_segment, self.run.zero)
        if key not in self.known:
            self.known[key] = self._segment(segment)
        return self.known[key]

    def _segment(self, segment: Segment) -> _Pass:
        again = {r.name: r.tasks for r in segment.recompute}.get(self.run.recompute, ())
        kept = Stream(segment.parameters * self.run.gradient_bytes)
        forward = self.tasks(segment.forward)
        backward = self.tasks((*segment.backward, *segment.weight_backward, *again, kept))
        if self.run.by_segment:
            gather, scatter = self.gathering(segment)
            forward = self.beside(forward, gather)
            backward = self.beside(backward, scatter + (gather if self.run.zero == 3 else 0.0))
        weights = self.kernels.seconds(segment.weight_backward).total
        return forward + backward + _Pass(weights=weights)

    def gathering(self, segment: Segment) -> tuple[float, float]:
        """Return seconds to gather a segment's parameters and to scatter its gradients."""
        run, parts = self.run, self.run.alike(segment.parameters, segment.experts)
        return (
            sum(self.network("all_gather", n * run.gather_bytes, axes) for n, axes in parts),
            sum(self.network("reduce_scatter", n * run.reduce_bytes, axes) for n, axes in parts),
        )

    def beside(self, work: _Pass, hidden: float, contention: float | None = None) -> _Pass:
        """Add a collective that runs beside ``work``: what is longer counts, and contention."""
        share = self.kernels.constants.contention if contention is None else contention
        slow = share * min(hidden, work.total)
        return work + _Pass(communication=slow + max(0.0, hidden - work.total - slow))

    def tasks(self, tasks: tuple[Task, ...]) -> _Pass:
        """Return kernels and collectives, of which hidden ones run beside the kernels."""
        shown = hidden = offloaded = 0.0
        for task in tasks:
            if isinstance(task, Collective):
                seconds = task.count * self.network(task.kind, task.num_bytes, task.axes)
                shown += seconds if not task.hidden else 0.0
                hidden += seconds if task.hidden and not task.offloaded else 0.0
                offloaded += seconds if task.hidden and task.offloaded else 0.0
        kernels = self.kernels.seconds(tasks)
        waits = max(0.0, kernels.count * self.kernels.constants.host_s - kernels.total)
        work = self.beside(_Pass(kernels, host=waits), hidden)
        return self.beside(work, offloaded, contention=0.0) + _Pass(communication=shown)

    def transfer(self, workload: Workload) -> float:
        """Return the seconds by which transfers between stages delay each microbatch.

        1F1B keeps as many microbatches in flight as a round trip without transfers takes: each of
        the 2(p-1) transfers of a round trip delays p microbatches. Interleaved chunks wait for
        theirs, unless they are sent beside the compute.
        """
        run = self.run
        if run.stages == 1 or (run.overlap_send and run.virtual > 1):
            return 0.0
        one = self.network("send", workload.layers.output_bytes, run.stage_axes)
        return 2 * one * (run.virtual if run.virtual > 1 else (run.stages - 1) / run.stages)

    def bubble(self, stages: list[_Pass], transfer: float) -> float:
        """Return what the slowest stage waits for others while the pipeline fills and drains.

        With weights' gradients apart, they fill two of the three parts of it: ZB-H1 of P. Qi et
        al., "Zero Bubble Pipeline Parallelism", ICLR 2024.
        """
        others = sum(stage.total for stage in stages) - max(stage.total for stage in stages)
        if self.run.schedule == "zero-bubble":
            weights = sum(stage.weights for stage in stages) / len(stages)
            others = max(0.0, others - 2 * (len(stages) - 1) * weights)
        return (others + (len(stages) - 1) * transfer) / self.run.virtual

    def stage_parameters(self, workload: Workload) -> tuple[float, float]:
        """Return the parameters of the fullest stage on one device, and the experts among them."""
        layers, place = workload.layers, workload.place
        counts = spread(layers.repeat, self.run.stages)
        held = [[(layers, count)] for count in counts]
        held[0] += [(s, s.repeat) for s in workload.segments[:place]]
        held[-1] += [(s, s.repeat) for s in workload.segments[place + 1 :]]
        return max(
            (sum(s.parameters * n for s, n in stage), sum(s.experts * n for s, n in stage))
            for stage in held
        )

    def reduce_seconds(self, workload: Workload, microbatch: float) -> float:
        """Return the exposed part of what replicas exchange once in a step.

        With ZeRO-2 on one stage there are no whole gradients to add microbatches up in: all but
        the last exchange theirs too.
        """
        run = self.run
        if run.copies == 1 or run.by_segment:
            return 0.0
        if run.zero == 0:
            seconds = self.exchanged("all_reduce", workload, run.reduce_bytes)
            return self.behind(seconds, microbatch)
        scatter = self.exchanged("reduce_scatter", workload, run.reduce_bytes)
        gather = self.exchanged("all_gather", workload, run.gather_bytes)
        earlier = run.microbatches - 1 if run.zero == 2 and run.stages == 1 else 0
        again = earlier * self.behind(scatter, microbatch) if earlier else 0.0
        return again + self.behind(scatter + gather, microbatch)

    def exchanged(self, kind: str, workload: Workload, each: float) -> float:
        """Return seconds of a collective on the fullest stage's parameters of ``each`` bytes."""
        parts = self.run.alike(*self.stage_parameters(workload))
        return sum(self.network(kind, elements * each, axes) for elements, axes in parts)

    def behind(self, seconds: float, microbatch: float) -> float:
        """Return the exposed part of an exchange that may run behind a backward pass."""
        if not self.run.overlap_reduce:
            return seconds
        hidden = _BACKWARD * microbatch
        slow = self.kernels.constants.contention * min(seconds, hidden)
        return slow + max(0.0, seconds - hidden)

    def update_seconds(self, parameters: float, experts: float) -> float:
        """Return seconds of the update of the parameters that this device owns."""
        owned = self.run.owned(parameters, experts, 1)
        return owned * self.run.update_bytes / self.kernels.bandwidth


_BACKWARD = 2 / 3  # of a microbatch: two products for each of the forward pass


@dataclass(frozen=True)
class SegmentSeconds:
    """Seconds of one segment for one microbatch, exposed collectives included.

    Args:
        forward: the forward pass.
        backward: gradients by activations, with recomputation.
        weight: gradients by weights.
    """

    forward: float
    backward: float
    weight: float


def segment_seconds(
    segment: Segment, run: Execution, kernels: Kernels, network: Network
) -> SegmentSeconds:
    """Return the passes of one segment; they add up to what ``step_cost`` takes for it."""
    model = _Step(run, kernels, network, {})
    forward = model.tasks(segment.forward)
    if run.by_segment:
        forward = model.beside(forward, model.gathering(segment)[0])
    kept = Stream(segment.parameters * run.gradient_bytes)
    weight = kernels.seconds((*segment.weight_backward, kept)).total
    backward = model.segment(segment).total - forward.total - weight
    return SegmentSeconds(forward.total, backward, weight)


def spread(layers: int, stages: int) -> list[float]:
    """Return layers by stage; what is left over goes to stages away from the ends.

    The first also has the embedding and the last the head. More stages than layers hold half
    layers (attention and MLP apart).
    """
    if stages > layers:
        return [count / 2 for count in spread(2 * layers, stages)]
    base, extra = divmod(layers, stages)
    start = (stages - extra) // 2
    return [float(base + (start <= stage < start + extra)) for stage in range(stages)]
