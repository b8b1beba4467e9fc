"""Chrome-trace JSON of a run, for chrome://tracing and Perfetto."""

from __future__ import annotations

import json
import platform
from pathlib import Path

from pai.runtime import _core
from pai.runtime.errors import PackageError


def write_trace(
    path: Path, name: str, program: _core.Program, executor: _core.Executor, num_devices: int
) -> None:
    """Write the events of the last traced run: one process (this host), one thread per device.

    Raises:
        PackageError: when the file cannot be written.
    """
    meta = {"ph": "M", "pid": 0}
    events: list[dict[str, object]] = [
        {**meta, "name": "process_name", "args": {"name": f"{platform.node()}: {name}"}}
    ]
    for device in range(num_devices):
        label = {"name": f"device {device}"}
        events.append({**meta, "name": "thread_name", "tid": device, "args": label})
        for position, worker, begin, end in executor.events(device):
            if end >= begin:
                events.append({
                    "name": program.name_of(position), "ph": "X", "pid": 0, "tid": device,
                    "ts": begin / 1000, "dur": (end - begin) / 1000,
                    "args": {"instruction": position, "worker": worker},
                })  # fmt: skip
    try:
        path.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}))
    except OSError as error:
        raise PackageError(f"cannot be written ({error.strerror})", str(path)) from error
