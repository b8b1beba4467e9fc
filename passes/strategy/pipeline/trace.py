"""A simulated step as Chrome-trace JSON, for Perfetto and chrome://tracing."""

from __future__ import annotations

import json
from pathlib import Path

from pai.passes.strategy.pipeline.simulate import STREAMS, Simulation
from pai.runtime.errors import PackageError

MICROSECONDS = 1e6


def chrome_trace(simulation: Simulation, name: str = "step") -> dict[str, object]:
    """Return the trace: a process for each stage, a thread for each stream, times in µs.

    Args:
        simulation: made with ``timeline=True``.
        name: what the stages are of.
    """
    events: list[dict[str, object]] = []
    for stage in range(len(simulation.stages)):
        label = {"name": f"{name}: stage {stage}"}
        events.append({"ph": "M", "pid": stage, "name": "process_name", "args": label})
        events.append(
            {"ph": "M", "pid": stage, "name": "process_sort_index", "args": {"sort_index": stage}}
        )
        for tid, stream in enumerate(STREAMS):
            label = {"name": stream}
            events.append(
                {"ph": "M", "pid": stage, "tid": tid, "name": "thread_name", "args": label}
            )
    events += [
        {
            "ph": "X",
            "pid": event.stage,
            "tid": STREAMS.index(event.stream),
            "name": event.name,
            "ts": round(event.start * MICROSECONDS, 3),
            "dur": round((event.end - event.start) * MICROSECONDS, 3),
        }
        for event in simulation.timeline
    ]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def write_trace(path: Path, simulation: Simulation, name: str = "step") -> None:
    """Write ``chrome_trace`` to a file; equal simulations give equal files.

    Raises:
        PackageError: when the file cannot be written.
    """
    text = json.dumps(chrome_trace(simulation, name), separators=(",", ":"))
    try:
        path.write_text(text + "\n")
    except OSError as error:
        raise PackageError(f"cannot be written ({error.strerror})", str(path)) from error
