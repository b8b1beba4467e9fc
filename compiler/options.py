"""What a user may choose about a compilation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pai.runtime.errors import PaiError

STAGES = ("import", "simplify", "strategy", "partition", "fuse", "codegen", "link")


@dataclass(frozen=True)
class CompileOptions:
    """The choices of one compilation; every field has a command-line flag.

    Args:
        devices: number of devices; None takes the cluster's own count, or 1.
        cluster: name of a built-in profile or path of a TOML file; "" takes the target's default.
        target: what kernels are made for: ``cpu`` or ``cpu:<level>``.
        shapes: bindings of open dimensions: ``batch=8,seq=128`` or ``INPUT:1,3,48,320``.
        plan: a plan file to use instead of the search.
        objective: what a plan is chosen for: ``latency``, ``throughput`` or ``devices``
            (``passes/strategy/inference.py``).
        max_latency_s: most seconds that one run may take; None is any.
        runnable: leave out what packages cannot run yet: plans with stages or microbatches.
        strict: make it an error when the partitioner would replicate an operand for want of a rule.
        stop_after: name of the last stage to run.
        dump_dir: folder for the IR after every stage.
        jobs: processes that compile kernels.
        cache: reuse kernels compiled before (on disk).
    """

    devices: int | None = None
    cluster: str = ""
    target: str = "cpu"
    shapes: tuple[str, ...] = ()
    plan: Path | None = None
    objective: str = "latency"
    max_latency_s: float | None = None
    runnable: bool = True
    strict: bool = False
    stop_after: str = STAGES[-1]
    dump_dir: Path | None = None
    jobs: int = 2
    cache: bool = True

    def __post_init__(self) -> None:
        """Check what can be checked without the model."""
        if self.stop_after not in STAGES:
            raise PaiError(
                f"there is no stage '{self.stop_after}'",
                "--stop-after",
                f"one of {', '.join(STAGES)}",
            )
        if self.devices is not None and self.devices < 1:
            raise PaiError(
                f"{self.devices} devices cannot run anything",
                "--devices",
                "give a number from 1 up",
            )
        if self.jobs < 1:
            raise PaiError(f"{self.jobs} jobs cannot compile", "--jobs", "give a number from 1 up")
