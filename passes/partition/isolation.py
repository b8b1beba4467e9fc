"""Run MLIR passes in a reused child process, so that an abort is an error message."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from pai.dialects.mlir import ir, parse
from pai.passes.partition.worker import bytecode, receive, send
from pai.runtime.errors import PassFailure

_lock = threading.Lock()
_process: subprocess.Popen[bytes] | None = None


def run_isolated(
    module: ir.Module,
    passes: Sequence[str],
    *,
    dump_dir: str | Path | None = None,
    time_limit: float = 600.0,
) -> ir.Module:
    """Run ``passes``, one after another, in the worker process.

    Args:
        module: the module; it is not changed.
        passes: upstream passes, each with its options.
        dump_dir: where to write the module when a pass fails; a temporary folder by default.
        time_limit: seconds for the whole request.

    Returns:
        The new module, in the same context.

    Raises:
        PassFailure: when a pass fails, the process dies, or the time is up; it names the pass
            and the file that holds the module.
    """
    code = bytecode(module)
    with _lock:
        try:
            return parse(_request(code, passes, time_limit), "propagated module", module.context)
        except PassFailure as error:
            dump = _dump(code, dump_dir)
            raise PassFailure(error.what, error.where, f"the module is in {dump}") from error


def warm_up() -> None:
    """Start the worker, so that it is there when it is asked; it loads beside other work."""
    with _lock:
        _start()


def _request(code: bytes, passes: Sequence[str], time_limit: float) -> bytes:
    process = _start()
    expired = threading.Event()

    def stop() -> None:
        expired.set()
        process.kill()

    timer = threading.Timer(time_limit, stop)
    timer.start()
    current = "start of the worker"
    try:
        send(_pipe(process.stdin), (code, list(passes)))
        while True:
            kind, value = receive(_pipe(process.stdout))
            if kind == "done":
                return bytes(value)
            if kind == "error":
                raise PassFailure(f"pass '{current}' failed: {value}")
            current = value
    except (EOFError, OSError) as error:
        shutdown()
        why = f"took longer than {time_limit:g} s" if expired.is_set() else "crashed"
        raise PassFailure(f"pass '{current}' {why}") from error
    except KeyboardInterrupt:
        shutdown()  # its answer would be taken for that of the next request
        raise
    finally:
        timer.cancel()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise EOFError
    return stream


def _start() -> subprocess.Popen[bytes]:
    global _process  # noqa: PLW0603
    if _process is None or _process.poll() is not None:
        _process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pai.passes.partition.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
    return _process


@atexit.register
def shutdown() -> None:
    """End the worker process; the next request starts a new one."""
    global _process  # noqa: PLW0603
    if _process is not None:
        _process.kill()
        _process.wait()
        _process = None


def _dump(code: bytes, dump_dir: str | Path | None) -> Path:
    folder = Path(dump_dir) if dump_dir else Path(tempfile.mkdtemp(prefix="pai-"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pai-propagate-failed.mlirbc"
    path.write_bytes(code)
    return path
