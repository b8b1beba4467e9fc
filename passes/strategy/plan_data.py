"""What a plan holds, as frozen dataclasses; ``plan.py`` says how it reads as a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pai.passes.strategy import explain, plan_write
from pai.passes.strategy.plan_layout import TensorLayout, compiled
from pai.runtime.mesh import Mesh

if TYPE_CHECKING:
    from pai.passes.strategy.insights import Insights

SCHEDULES = ("gpipe", "1f1b", "interleaved", "zero-bubble")
RECOMPUTE = ("none", "selective", "full")
OBJECTIVES = ("latency", "throughput", "devices")


@dataclass(frozen=True)
class CollectiveCost:
    """The collectives of one kind over groups of one size and extent.

    Args:
        kind: all_reduce, all_gather, reduce_scatter, all_to_all, collective_permute, …
        group_size: devices of a group.
        count: how many a run executes.
        bytes_per_device: bytes one device holds of their (larger side's) tensors, summed.
        seconds: modelled time that compute does not hide, summed.
        level: the outermost level of links that the groups cross ("" when not known).
    """

    kind: str
    group_size: int
    count: int
    bytes_per_device: int
    seconds: float
    level: str = ""


@dataclass(frozen=True)
class Prediction:
    """Modelled time of one run, in seconds, and memory of one device, in bytes.

    Args:
        time_s: a training step or a request: the sum of the six parts that follow.
        compute_s: kernels bound by arithmetic.
        memory_bound_s: kernels bound by memory bandwidth.
        communication_s: collectives and transfers that compute does not hide.
        overhead_s: launches and the host.
        bubble_s: waiting for other pipeline stages.
        update_s: the optimizer, where it is apart.
        hidden_s: communication behind compute; no part of ``time_s``.
        parameter_bytes: parameters.
        state_bytes: optimizer state, key-value caches.
        gradient_bytes: gradients that live from microbatch to microbatch.
        activation_bytes: what the backward pass reads, of all microbatches in flight.
        input_bytes: inputs.
        output_bytes: outputs that are no input's memory.
        temporary_bytes: other values alive at the peak.
        buffer_bytes: gathered parameters, gradients and messages on their way.
        fragmentation_bytes: what an allocator holds and does not use.
        collectives: by kind, group size and level.
        notes: what is not in the figures.
    """

    time_s: float = 0.0
    compute_s: float = 0.0
    memory_bound_s: float = 0.0
    communication_s: float = 0.0
    overhead_s: float = 0.0
    bubble_s: float = 0.0
    update_s: float = 0.0
    hidden_s: float = 0.0
    parameter_bytes: int = 0
    state_bytes: int = 0
    gradient_bytes: int = 0
    activation_bytes: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    temporary_bytes: int = 0
    buffer_bytes: int = 0
    fragmentation_bytes: int = 0
    collectives: tuple[CollectiveCost, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def memory_bytes(self) -> int:
        """The memory of one device."""
        return sum(getattr(self, key) for key in explain.MEMORY)


@dataclass(frozen=True)
class Alternative:
    """A candidate that was considered and lost; time and memory are None when not modelled."""

    name: str
    reason: str
    time_s: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Stage:
    """One pipeline stage.

    Args:
        chunks: the segments of each of its virtual stages, such as ``embedding, layer[0:12]``.
        mesh: its own mesh; None takes the plan's.
        devices: its device numbers, in the order of its mesh; () the next ones in line.
    """

    chunks: tuple[str, ...] = ()
    mesh: Mesh | None = None
    devices: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pipeline:
    """How a step is cut over time and over stages.

    Args:
        stages: pipeline stages.
        virtual: chunks of the model that each stage holds.
        microbatches: parts the batch is cut into.
        schedule: one of ``SCHEDULES``, ``none`` for one stage.
        parts: what each stage holds, first to last; () leaves it to the cost model.
    """

    stages: int = 1
    virtual: int = 1
    microbatches: int = 1
    schedule: str = "none"
    parts: tuple[Stage, ...] = ()

    def order(self) -> tuple[str, ...]:
        """Return the chunks in the order in which a microbatch passes through them."""
        return tuple(
            part.chunks[chunk]
            for chunk in range(self.virtual)
            for part in self.parts
            if len(part.chunks) == self.virtual
        )


@dataclass(frozen=True)
class Plan:
    """How a program is laid over a cluster.

    Args:
        mesh: named axes over the devices of one pipeline stage.
        arguments: (name, layout) of arguments, in program order; others follow propagation.
        patterns: (glob or /regex/, layout); the first that matches a name counts.
        values: (key, layout) of values inside the program; ``plan_values.py`` says what keys are.
        zero: (mesh axis, ZeRO stage 0 to 3): what is stored in shards along the axis: optimizer
            state, then gradients, then parameters.
        recompute: (glob or /regex/ of segments, one of ``RECOMPUTE``); the first match counts.
        pipeline: stages, microbatches and schedule.
        replicas: independent copies that serve requests, each on devices of its own.
        strategy: short name of the choice.
        cluster: name of the cluster it was made for.
        device_memory_bytes: memory of the smallest device.
        precision: element type of the parameters; "" is not said.
        objective: one of ``OBJECTIVES``.
        predicted: modelled time and memory.
        alternatives: the candidates that lost, best first.
        insights: computes what only the program and the cost model can say; None without them.
    """

    mesh: Mesh = field(default_factory=Mesh)
    arguments: tuple[tuple[str, TensorLayout], ...] = ()
    patterns: tuple[tuple[str, TensorLayout], ...] = ()
    values: tuple[tuple[str, TensorLayout], ...] = ()
    zero: tuple[tuple[str, int], ...] = ()
    recompute: tuple[tuple[str, str], ...] = ()
    pipeline: Pipeline = field(default_factory=Pipeline)
    replicas: int = 1
    strategy: str = "by hand"
    cluster: str = ""
    device_memory_bytes: int = 0
    precision: str = ""
    objective: str = "latency"
    predicted: Prediction = field(default_factory=Prediction)
    alternatives: tuple[Alternative, ...] = ()
    insights: Callable[[], Insights] | None = field(default=None, compare=False, repr=False)

    @property
    def num_devices(self) -> int:
        """The devices of one copy of the program: those of all its stages."""
        parts = self.pipeline.parts
        if not parts:
            return self.mesh.num_devices * self.pipeline.stages
        return sum((part.mesh or self.mesh).num_devices for part in parts)

    def layouts(self, names: Sequence[str]) -> dict[str, TensorLayout]:
        """Return the layout of each argument that the plan names, exactly or by pattern."""
        exact = dict(self.arguments)
        patterns = [(compiled(pattern), layout) for pattern, layout in self.patterns]
        out: dict[str, TensorLayout] = {}
        for name in names:
            found = exact.get(name) or next(
                (layout for pattern, layout in patterns if pattern.fullmatch(name)), None
            )
            if found is not None:
                out[name] = found
        return out

    def to_toml(self) -> str:
        """Return the plan as TOML; the same plan always gives the same bytes."""
        return plan_write.plan_to_toml(self)

    def to_json(self) -> str:
        """Return the plan as JSON, with the keys of the TOML file."""
        return plan_write.plan_to_json(self)

    def explain(self, *, width: int = 100, color: bool = False, top: int = 5) -> str:
        """Return why the plan is as it is, for people; ``explain.py`` says what is in it."""
        return explain.explain(self, width=width, color=color, top=top)
