"""search_hybrids: how many stages, tensor shards, replicas and microbatches, ZeRO and recompute.

This is the outer level of a hierarchical search. The inner one (which dimension every operation
splits over the tensor axis: ``intra/``, or a split written by hand: ``transformer.py``) gives the
work of one device for each size of the tensor axis and of the microbatch; that work does not depend
on how many stages or replicas there are. What is left is a grid of a few thousand points, each a
closed form (``step.py``, ``memory.py``), so the time to search hardly grows with the devices.

Every point of the plain families (``FAMILIES``) is in the grid, so the best is never modelled worse
than they are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from pai.passes.strategy.hybrid_point import (
    FAMILIES,
    OVERLAPPED,
    TENSOR,
    Hybrid,
    HybridCost,
    network,
    simulated,
    slowest_kernels,
)
from pai.passes.strategy.memory import MemoryCost, State, memory_cost
from pai.passes.strategy.placement import axis_orders
from pai.passes.strategy.step import Execution, Known, Network, StepCost, step_cost
from pai.passes.strategy.workload import Workload
from pai.runtime.errors import InfeasiblePlan
from pai.runtime.mesh import Mesh
from pai.runtime.topology import ClusterSpec

Workloads = Callable[..., Workload | None]
"""The work of one device for a size of the tensor axis, a number of samples and, where it is not 1,
a size of the context axis; None: no such."""


SHARE = 0.5
"""Part of the memory that one sample's activations fill from which on sequences are split."""

LARGE = 256
"""Devices from which on layers may be shared by those of two hosts."""


@dataclass(frozen=True)
class HybridOptions:
    """What is tried.

    Args:
        tensor: most devices that share a layer; 0 is those of a host, and of two on clusters of
            more than ``LARGE`` devices.
        stages: most pipeline stages.
        microbatch: most samples of a microbatch; powers of two beyond are tried while they fit.
        virtual: numbers of chunks of a stage.
        zero_bubble: whether gradients by weights may fill a pipeline's bubble.
        zero: ZeRO stages; 2 and 3 go with one stage, because every microbatch would gather.
        recompute: names of choices of ``Segment.recompute``.
        state: bytes of training state of a parameter.
        memory_share: part of a device's memory that a plan may fill.
        microbatches: whether a replica may run its batch in parts, one after the other.
        software: what is hidden, and the bytes that gradients and the update move.
        context: most devices along the context axis; 1 leaves the axis out. It is tried for
            programs with experts, in microbatches that it divides, and, in microbatches of one
            sample, where that is too large (``SHARE``) or the batch too small for the devices.
        experts: what the axis has to divide, experts of a layer; 0 for programs without.
    """

    tensor: int = 0
    stages: int = 128
    microbatch: int = 16
    virtual: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    zero_bubble: bool = True
    zero: tuple[int, ...] = (0, 1, 2, 3)
    recompute: tuple[str, ...] = ("none", "selective", "full")
    state: State = field(default_factory=State)
    memory_share: float = 1.0
    microbatches: bool = True
    software: Execution = OVERLAPPED
    context: int = 1
    experts: int = 0


@dataclass(frozen=True)
class HybridResult:
    """What the search found.

    Args:
        best: those that fit, fastest first.
        families: the fastest of each plain family that fits, or None.
        scored: points costed.
        smallest: the point that needs the least memory.
        baselines: those that were given, whether they fit or not.
    """

    best: tuple[HybridCost, ...]
    families: tuple[tuple[str, HybridCost | None], ...]
    scored: int
    smallest: HybridCost
    baselines: tuple[HybridCost, ...] = ()


def search_hybrids(
    workloads: Workloads,
    batch: int,
    cluster: ClusterSpec,
    options: HybridOptions = HybridOptions(),
    *,
    keep: int = 16,
    baselines: Sequence[Hybrid] = (),
) -> HybridResult:
    """Return the fastest points of the grid that fit the memory.

    Args:
        workloads: the inner level.
        batch: samples of a step, all replicas together.
        cluster: the devices; the slowest kind counts.
        options: what is tried.
        keep: how many points to simulate and return.
        baselines: points of the user's that are scored too, in the grid or not.

    Raises:
        InfeasiblePlan: when nothing fits; names the least that a point needs.
    """
    grid = _Grid(workloads, batch, cluster, options)
    scored = [(p, grid.memory(p)) for p in dict.fromkeys((*grid.points(), *baselines))]
    if not scored:
        raise InfeasiblePlan(
            f"a batch of {batch} cannot be spread over {cluster.num_devices} devices",
            cluster.name,
            "use a batch that the replicas divide, or fewer devices",
        )
    fitting = [(point, memory) for point, memory in scored if memory.total <= grid.limit]
    smallest, needs = min(scored, key=lambda pair: (pair[1].total, pair[0].name))
    if not fitting:
        raise _infeasible(smallest, needs, grid.limit, cluster)
    costs = [HybridCost(point, grid.step(point), memory) for point, memory in fitting]
    costs.sort(key=_rank)
    plain = [next((c for c in costs if of(c.hybrid)), None) for of in FAMILIES.values()]
    given = [cost for cost in costs if cost.hybrid in baselines]
    chosen = dict.fromkeys([*map(grid.placed, costs[:keep]), *filter(None, plain), *given])
    known = {cost.hybrid: grid.simulated(cost) for cost in chosen}
    best = sorted(known.values(), key=_rank)
    families = tuple(
        (name, next((cost for cost in best if belongs(cost.hybrid)), None))
        for name, belongs in FAMILIES.items()
    )
    best = best[:keep]
    theirs = tuple(known.get(point) or grid.simulated(grid.cost(point)) for point in baselines)
    return HybridResult(tuple(best), families, len(scored), grid.cost(smallest), theirs)


def cost_hybrid(
    hybrid: Hybrid,
    workload: Workload,
    cluster: ClusterSpec,
    options: HybridOptions = HybridOptions(),
) -> HybridCost:
    """Return what one point costs, whether it fits or not."""
    grid = _Grid(lambda *_: workload, 0, cluster, options)
    return grid.simulated(grid.cost(hybrid))


@dataclass
class _Grid:
    """The points and their costs; workloads are asked for once."""

    workloads: Workloads
    batch: int
    cluster: ClusterSpec
    options: HybridOptions
    known: dict[tuple[int, int, int], Workload | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kernels = slowest_kernels(self.cluster)
        self.networks: dict[Mesh, Network] = {}
        self.passes: dict[tuple[int, int, int, tuple[str, ...]] | None, Known] = {}
        self.limit = self.cluster.memory_bytes * self.options.memory_share

    def workload(self, tensor: int, microbatch: int, context: int = 1) -> Workload | None:
        key = (tensor, microbatch, context)
        if key not in self.known:
            more = (context,) if context > 1 else ()
            self.known[key] = self.workloads(tensor, microbatch, *more)
        return self.known[key]

    def points(self) -> Iterator[Hybrid]:
        """Yield the points, those that share work next to each other."""
        devices = self.cluster.num_devices
        for context in (1, *self.contexts()):
            for tensor in tensor_sizes(self.cluster, self.options):
                if devices % (tensor * context) == 0:
                    yield from self.splits(tensor, context)

    def splits(self, tensor: int, context: int) -> Iterator[Hybrid]:
        """Yield the points of one size of each axis inside a replica's stage."""
        devices = self.cluster.num_devices // (tensor * context)
        for microbatch in self.microbatches(context):
            workload = self.workload(tensor, microbatch, context)
            if workload is None:
                continue
            points = [
                point
                for stages in divisors(devices, self.options.stages)
                for point in self.schedules(
                    Hybrid(stages, 1, tensor, devices // stages, microbatch, context=context),
                    workload,
                )
            ]
            yield from points
            if microbatch >= self.options.microbatch * context and not any(map(self.fits, points)):
                break

    def contexts(self) -> list[int]:
        """Return the sizes of the context axis to try, ascending (``HybridOptions.context``)."""
        most, experts = self.options.context, self.options.experts
        sizes = divisors(self.cluster.num_devices, most)[1:]
        if experts:
            return [size for size in sizes if experts % size == 0]
        return sizes if sizes and self.crowded else []

    @functools.cached_property
    def crowded(self) -> bool:
        """Whether one sample fills the devices that share a layer, or samples are too few."""
        sizes = tensor_sizes(self.cluster, self.options)
        if self.cluster.num_devices > self.batch * sizes[-1]:
            return True
        work = next(filter(None, (self.workload(size, 1) for size in reversed(sizes))), None)
        if work is None:
            return False
        saved = work.layers.repeat * work.layers.recompute[0].saved_bytes
        return saved > SHARE * self.limit

    def microbatches(self, context: int = 1) -> list[int]:
        """Return the sizes of microbatches to try, ascending."""
        most, powers = self.options.microbatch, (2**n for n in range(self.batch.bit_length()))
        if context == 1:
            larger = [size for size in powers if size > most and self.batch % size == 0]
            return [*divisors(self.batch, most), *larger]
        sizes = {1} if self.crowded else set()
        if self.options.experts:
            sizes |= {context * n for n in (*divisors(self.batch, most), *powers)}
        return [size for size in sorted(sizes) if self.batch % size == 0]

    def fits(self, point: Hybrid) -> bool:
        """Whether the memory of a point fits."""
        return self.memory(point).total <= self.limit

    def schedules(self, point: Hybrid, workload: Workload) -> Iterator[Hybrid]:
        """Yield the ways to run a split: chunks, ZeRO stage, recompute."""
        if self.batch % (point.replicas * point.microbatch):
            return
        layers = workload.layers.repeat
        count = self.batch // (point.replicas * point.microbatch)
        choices = max((s.recompute for s in workload.segments), key=len)
        choices = tuple(c for c in choices if c.name in self.options.recompute)
        if point.stages > layers or (count > 1 and not self.options.microbatches):
            return
        for virtual in self.options.virtual if point.stages > 1 else (1,):
            if virtual > 1 and (count % point.stages or not interleaves(layers, point, virtual)):
                continue
            for zero in self.options.zero if point.replicas * point.context > 1 else (0,):
                if zero > 1 and point.stages > 1:
                    continue
                for choice in choices:
                    full = replace(
                        point,
                        virtual=virtual,
                        microbatches=count,
                        zero=zero,
                        recompute=choice.name,
                    )
                    yield full
                    if point.stages > 1 and virtual == 1 and self.options.zero_bubble:
                        yield replace(full, zero_bubble=True)

    def memory(self, point: Hybrid) -> MemoryCost:
        """Return the memory of a point."""
        return memory_cost(self._of(point), point.run(self.options.software), self.options.state)

    def step(self, point: Hybrid) -> StepCost:
        """Return the time of a point."""
        if point.mesh not in self.networks:
            self.networks[point.mesh] = network(point, self.cluster)
        links = self.networks[point.mesh]
        # What replicas do not exchange in a segment is the same on all meshes with tensor inside.
        alike = point.order[-1] == TENSOR and point.zero < 2
        key = None if alike else (point.replicas, point.stages, point.context, point.order)
        known = self.passes.setdefault(key, {})
        run = point.run(self.options.software)
        return step_cost(self._of(point), run, self.kernels, links, known)

    def cost(self, point: Hybrid) -> HybridCost:
        """Return time and memory of a point."""
        return HybridCost(point, self.step(point), self.memory(point))

    def simulated(self, cost: HybridCost) -> HybridCost:
        """Return a point with the time of its simulated step."""
        work, options = self._of(cost.hybrid), self.options
        return simulated(cost, work, self.cluster, options.software, options.state)

    def placed(self, cost: HybridCost) -> HybridCost:
        """Return a point in the order of axes on the cluster that is fastest."""
        point = cost.hybrid
        whole = replace(point, tensor=point.context * point.tensor, context=1)
        orders = axis_orders(whole.mesh.axes, self.cluster)
        points = [replace(point, order=tuple(name for name, _ in order)) for order in orders]
        others = [self.cost(point) for point in points]
        return min([cost, *others], key=lambda other: other.seconds)

    def _of(self, point: Hybrid) -> Workload:
        workload = self.workload(point.tensor, point.microbatch, point.context)
        assert workload is not None, point
        return workload


def work_of(workloads: Workloads, point: Hybrid) -> Workload | None:
    """Return the work of one device at a point; None when the program cannot be split so."""
    more = (point.context,) if point.context > 1 else ()
    return workloads(point.tensor, point.microbatch, *more)


def tensor_sizes(cluster: ClusterSpec, options: HybridOptions) -> list[int]:
    """Return the sizes of the tensor axis to try, ascending."""
    devices = cluster.num_devices
    most = options.tensor or cluster.hosts[0].devices * (1 + (devices > LARGE))
    return divisors(devices, most)


def interleaves(layers: int, point: Hybrid, virtual: int) -> bool:
    """Whether stages of ``virtual`` chunks need hold no more layers than those of one chunk."""
    chunk = math.ceil(layers / (point.stages * virtual))
    return virtual * chunk == math.ceil(layers / point.stages)


def divisors(number: int, most: int) -> list[int]:
    """Return the divisors of ``number`` up to ``most``, ascending."""
    return [n for n in range(1, min(number, most) + 1) if number % n == 0]


def _rank(cost: HybridCost) -> tuple[float, float, str]:
    return (cost.seconds, cost.memory.total, cost.hybrid.name)


def _infeasible(
    point: Hybrid, needs: MemoryCost, limit: float, cluster: ClusterSpec
) -> InfeasiblePlan:
    parts = {name: getattr(needs, name) for name in vars(needs)}
    largest = max(parts, key=lambda name: parts[name])
    return InfeasiblePlan(
        f"no plan fits: the smallest ({point.name}) needs {needs.total / 2**30:.1f} GiB of "
        f"{limit / 2**30:.1f} GiB a device, most of it {largest} "
        f"({parts[largest] / 2**30:.1f} GiB)",
        cluster.name,
        "use more devices, devices with more memory, a smaller batch, or a narrower type",
    )
