"""A process that compiles kernels, so that an LLVM abort costs one kernel and not the compiler.

The parent and the worker exchange length-prefixed pickles over the worker's stdin and stdout;
what LLVM prints goes to a file that the parent reads when a kernel fails.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from typing import IO, Any

from pai.compiler.codegen.cpu.target import CpuTarget
from pai.compiler.codegen.cpu.toolchain import compile_text
from pai.runtime.errors import PassFailure


class Worker:
    """One child process; usable from one thread at a time.

    Args:
        time_limit: seconds one kernel may take.
    """

    def __init__(self, time_limit: float) -> None:
        self.time_limit = time_limit
        self._closed = False
        self._messages = tempfile.TemporaryFile(prefix="pai-")  # noqa: SIM115
        code = (
            f"import sys; sys.path[:] = {sys.path!r}\n"
            "from pai.compiler.codegen.cpu import worker; worker.main()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            start_new_session=True,  # Ctrl-C is for the parent, which then closes its workers
        )

    def compile(self, text: str, target: CpuTarget, name: str) -> bytes:
        """Compile one kernel there.

        Raises:
            PassFailure: the kernel was refused, LLVM died on it, or it took too long; in the last
                two cases the worker is gone and the kernel's text is in the file that it names.
        """
        assert self._process.stdin and self._process.stdout
        try:
            _send(self._process.stdin, (text, target, name))
            kind, value = _receive(self._process.stdout, time.monotonic() + self.time_limit)
        except TimeoutError:
            self.close()
            raise _lost(text, name, f"took more than {self.time_limit:g} s", "") from None
        except (EOFError, OSError, ValueError):
            if self._closed:
                raise PassFailure("was cancelled", f"kernel {name}") from None
            status = self._process.wait()
            reason = f"signal {-status}" if status < 0 else f"status {status}"
            raise _lost(
                text, name, f"killed its compiler process ({reason})", self._tail()
            ) from None
        if kind == "error":
            raise PassFailure(*value)
        return bytes(value)

    def close(self) -> None:
        """End the process at once."""
        self._closed = True
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._messages):
            if stream is not None:
                stream.close()

    def _tail(self) -> str:
        self._messages.seek(0)
        return self._messages.read().decode(errors="replace").strip()[-500:]


def _lost(text: str, name: str, what: str, messages: str) -> PassFailure:
    with tempfile.NamedTemporaryFile("w", prefix=f"{name}-", suffix=".mlir", delete=False) as file:
        file.write(text)
    what = f"{what}: {messages}" if messages else what
    return PassFailure(what, f"kernel {name}", f"its text is in {file.name}")


def _send(stream: IO[bytes], value: Any) -> None:
    data = pickle.dumps(value)
    stream.write(struct.pack("<q", len(data)) + data)
    stream.flush()


def _receive(stream: IO[bytes], deadline: float | None) -> Any:
    (size,) = struct.unpack("<q", _read(stream, 8, deadline))
    return pickle.loads(_read(stream, size, deadline))


def _read(stream: IO[bytes], size: int, deadline: float | None) -> bytes:
    """Read exactly ``size`` bytes; EOFError at the end of the stream, TimeoutError when late."""
    parts = bytearray()
    while len(parts) < size:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([stream], [], [], left)[0]:
            raise TimeoutError
        part = os.read(stream.fileno(), size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def main() -> None:
    """Compile what the parent sends until it closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source, output = os.fdopen(0, "rb", buffering=0), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that LLVM prints may land among the answers
    while True:
        try:
            text, target, name = _receive(source, None)
        except EOFError:
            return
        try:
            answer: tuple[str, Any] = ("object", compile_text(text, target, name))
        except PassFailure as error:
            answer = ("error", (error.what, error.where, error.hint))
        _send(output, answer)
