"""Reading and writing safetensors files whose tensors lie at multiples of 64 bytes.

The format: 8 bytes with the length of the header, the header (JSON), the data. It allows no holes
between tensors, so gaps are tensors of their own (``__pad__#k``). Element types that the format
does not know are stored as bytes; whoever reads them knows the true type.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pai.runtime.dtypes import DTYPES, itemsize
from pai.runtime.errors import PackageError

ALIGNMENT = 64
_MAX_HEADER = 100 << 20
_NAMES = {
    "i1": "BOOL", "i8": "I8", "i16": "I16", "i32": "I32", "i64": "I64", "ui8": "U8",
    "ui16": "U16", "ui32": "U32", "ui64": "U64", "f16": "F16", "bf16": "BF16", "f32": "F32",
    "f64": "F64", "f8E4M3FN": "F8_E4M3", "f8E5M2": "F8_E5M2", "complex<f32>": "C64",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A tensor to be written: its name, element type (MLIR spelling) and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of the tensor."""
        return itemsize(self.dtype) * math.prod(self.shape)


def header(entries: Iterable[Entry]) -> tuple[bytes, int]:
    """Return the bytes before the data, padded to 64, and the bytes of the data.

    Tensors follow in the given order, each padded to a multiple of 64 bytes.
    """
    fields: dict[str, object] = {}
    at = 0
    for number, entry in enumerate(entries):
        name = _NAMES.get(entry.dtype)
        shape = list(entry.shape) if name else [*entry.shape, itemsize(entry.dtype)]
        end = at + entry.size
        fields[entry.name] = {
            "dtype": name or "U8", "shape": shape, "data_offsets": [at, end],
        }  # fmt: skip
        at = -(-end // ALIGNMENT) * ALIGNMENT
        if at > end:
            fields[f"__pad__#{number}"] = {
                "dtype": "U8", "shape": [at - end], "data_offsets": [end, at],
            }  # fmt: skip
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text, at


def read(data: np.ndarray, where: str) -> dict[str, np.ndarray]:
    """Return the bytes of every tensor as views of ``data`` (uint8).

    Raises:
        PackageError: when the file is truncated or its header is damaged.
    """
    try:
        length = int.from_bytes(data[:8].tobytes(), "little")
        if data.size < 8 or length > min(_MAX_HEADER, data.size - 8):
            raise ValueError("truncated header")
        fields = json.loads(data[8 : 8 + length].tobytes())
        body = data[8 + length :]
        out = {}
        for name, field in fields.items():
            begin, end = field["data_offsets"]
            if not 0 <= begin <= end <= body.size:
                raise ValueError(f"tensor '{name}' lies outside the file")
            if not name.startswith("__pad__#"):
                out[name] = body[begin:end]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PackageError(f"is damaged or truncated ({error})", where) from error
    return out


def typed(data: np.ndarray, dtype: str, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Return bytes as an array; raises PackageError when the size does not fit."""
    if data.size != itemsize(dtype) * math.prod(shape):
        raise PackageError(f"holds {data.size} bytes, not a {dtype}{list(shape)}", where)
    return data.view(DTYPES[dtype]).reshape(shape)
