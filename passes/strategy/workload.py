"""What one device does for one microbatch, as the cost model sees it: tasks in segments.

A *segment* is a piece of the model that a pipeline stage holds whole: the embedding, one layer, the
head with its loss. Its tasks are those of one device after sharding: kernels with local shapes and
collectives over mesh axes. Both ways into the cost model end here: a module with its shardings
(``passes/strategy/intra``) and a transformer's published dimensions with a plan written by hand
(``transformer.py``).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dot:
    """A matrix product, or a convolution seen as one, with local sizes.

    Args:
        m: rows of the result.
        n: columns of the result.
        k: contracted elements.
        batch: independent products.
        dtype: element type of the operands, as MLIR spells it.
        count: how many such kernels.
    """

    m: int
    n: int
    k: int
    batch: int = 1
    dtype: str = "bf16"
    count: int = 1


@dataclass(frozen=True)
class Attention:
    """Attention whose scores never reach memory.

    Args:
        batch: sequences times query heads.
        query: query positions.
        keys: key positions.
        head: elements of a head.
        causal: whether half the scores are masked and skipped.
        backward: whether this is the gradient (2.5 times the products).
        dtype: element type.
        kv_batch: sequences times key heads; 0 is ``batch``.
        speed: of this kernel relative to the one that devices are calibrated with.
    """

    batch: int
    query: int
    keys: int
    head: int
    causal: bool = True
    backward: bool = False
    dtype: str = "bf16"
    kv_batch: int = 0
    speed: float = 1.0


@dataclass(frozen=True)
class Stream:
    """A kernel bound by memory: element-wise, normalization, softmax, optimizer, copies.

    Args:
        num_bytes: bytes read and written.
        count: how many such kernels, each of ``num_bytes``.
    """

    num_bytes: float
    count: int = 1


@dataclass(frozen=True)
class Collective:
    """A collective over mesh axes.

    Args:
        kind: as the StableHLO operation without its prefix.
        num_bytes: the larger side of one device's tensors: what an all_gather returns, what a
            reduce_scatter takes.
        axes: the mesh axes, major first.
        hidden: whether it may run behind the compute of its segment.
        offloaded: whether copy engines move it, so that kernels beside it lose nothing.
        count: how many.
    """

    kind: str
    num_bytes: float
    axes: tuple[str, ...]
    hidden: bool = False
    offloaded: bool = False
    count: int = 1


Task = Dot | Attention | Stream | Collective


@dataclass(frozen=True)
class Recompute:
    """A choice of what a segment keeps for its backward pass.

    Args:
        name: ``none``, ``selective`` or ``full``.
        saved_bytes: bytes kept for each microbatch in flight.
        tasks: what the backward pass does again.
    """

    name: str
    saved_bytes: float
    tasks: tuple[Task, ...] = ()


@dataclass(frozen=True)
class Segment:
    """A piece of a model on one device, for one microbatch.

    Args:
        name: unique in its workload.
        repeat: how many like it follow each other.
        forward: tasks of the forward pass.
        backward: tasks of the gradients by activations.
        weight_backward: tasks of the gradients by weights.
        parameters: elements of its parameters on one device, ZeRO not counted.
        recompute: the choices, ``none`` first.
        output_bytes: what it hands to the next segment, on one device.
        transient_bytes: most bytes of temporaries inside it, in either pass.
        experts: the elements of ``parameters`` that the context axis splits; devices along it have
            the others alike, and their gradients are added up over it once a step.
    """

    name: str
    forward: tuple[Task, ...]
    backward: tuple[Task, ...] = ()
    weight_backward: tuple[Task, ...] = ()
    repeat: int = 1
    parameters: float = 0
    recompute: tuple[Recompute, ...] = (Recompute("none", 0.0),)
    output_bytes: float = 0
    transient_bytes: float = 0
    experts: float = 0


@dataclass(frozen=True)
class Workload:
    """A step or a request: its segments in order.

    Args:
        segments: first to last.
        tied: parameters of the first segment that the last one uses too, in elements.
        training: whether there are a backward pass and an update.
    """

    segments: tuple[Segment, ...]
    tied: float = 0
    training: bool = True

    @property
    def place(self) -> int:
        """The place of the layers among the segments: what repeats most."""
        return max(range(len(self.segments)), key=lambda i: self.segments[i].repeat)

    @property
    def layers(self) -> Segment:
        """The segment that repeats most."""
        return self.segments[self.place]
