"""Model files in, Programs out; the kind of a file is told by its content."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from pai.dialects.program import Program
from pai.runtime.errors import InvalidModel

_HEAD = 4096  # bytes that tell the kind of a file
_MLIR_BYTECODE = b"ML\xefR"
_ZIP = b"PK\x03\x04"


def load(path: str | Path, shapes: Sequence[str] = ()) -> Program:
    """Import a model file: ONNX, or StableHLO as text, bytecode or portable artifact.

    Args:
        path: the file.
        shapes: bindings of open dimensions: ``batch=8,seq=128`` or ``INPUT:1,3,48,320``; for
            ONNX also ``INPUT:=VALUE,VALUE`` to fix the value of an input that shapes depend on.

    Raises:
        InvalidModel: when the file is missing, empty, damaged, or of another kind.
        UnsupportedOp: for an operator that cannot be compiled.
        InvalidShape: for a dimension left open.
    """
    path = Path(path)
    head = _read_head(path)
    importer = importlib.import_module(f"pai.frontends.{_kind(head, path)}.importer")
    program: Program = importer.load(path, shapes)
    return program


def _read_head(path: Path) -> bytes:
    if path.is_dir():
        raise InvalidModel(
            "is a directory, not a model file",
            str(path),
            "pai-run runs packages; pai-compile takes ONNX or StableHLO files",
        )
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError as error:
        raise InvalidModel("there is no such file", str(path)) from error
    except OSError as error:
        raise InvalidModel(f"cannot be read ({error.strerror})", str(path)) from error
    if not head.strip():
        raise InvalidModel("the file is empty", str(path))
    return head


def _kind(head: bytes, path: Path) -> str:
    """Return ``onnx`` or ``stablehlo``."""
    if head.startswith(_MLIR_BYTECODE) or _is_text(head):
        return "stablehlo"
    if head.startswith(_ZIP):
        raise InvalidModel(
            "is a zip archive, not an ONNX or StableHLO model",
            str(path),
            "export a PyTorch program to ONNX or StableHLO first",
        )
    if head[0] == 0x08 or path.suffix == ".onnx":  # field 1 of ModelProto: ir_version
        return "onnx"
    raise InvalidModel(
        "is neither an ONNX model nor StableHLO text or bytecode",
        str(path),
        "give a .onnx, .mlir or portable artifact file",
    )


def _is_text(head: bytes) -> bool:
    """Whether the bytes are UTF-8 text (a character may be cut at the end) without controls."""
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode()
    return all(char.isprintable() or char in "\n\r\t" for char in text)
