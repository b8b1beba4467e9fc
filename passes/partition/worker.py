"""The child process that runs Shardy's passes, which can abort, away from the compiler.

Speaks over two pipes. A message is a length (8 bytes, little endian) and a pickle. The request is
``(bytecode, passes)``; the replies are ``("pass", name)`` before each pass, and at the end
``("done", bytecode)`` or ``("error", text)``.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
from typing import IO, Any

from pai.dialects.mlir import ir, parse, run_pipeline
from pai.runtime.errors import PaiError


def send(stream: IO[bytes], message: Any) -> None:
    """Write one message."""
    payload = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(struct.pack("<Q", len(payload)))
    stream.write(payload)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Read one message; raises EOFError when the other side is gone."""
    head = stream.read(8)
    if len(head) < 8:
        raise EOFError
    (size,) = struct.unpack("<Q", head)
    payload = stream.read(size)
    if len(payload) < size:
        raise EOFError
    return pickle.loads(payload)


def bytecode(module: ir.Module) -> bytes:
    """Return the module as MLIR bytecode: large constants stay binary."""
    buffer = io.BytesIO()
    module.operation.write_bytecode(buffer)
    return buffer.getvalue()


def _serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    while True:
        try:
            code, passes = receive(requests)
        except EOFError:
            return
        try:
            module = parse(code, "the module sent to the propagation worker")
            for name in passes:
                send(replies, ("pass", name))
                run_pipeline(module, name)
            send(replies, ("done", bytecode(module)))
        except PaiError as error:
            send(replies, ("error", error.what))


def main() -> None:
    """Serve requests from stdin until it closes; what MLIR prints goes to stderr."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
