"""Tensors of an ONNX model: their types, and their values read only when asked for."""

from __future__ import annotations

import functools
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from pai.runtime.errors import InvalidModel

_BITS = {
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    getattr(TensorProto, "INT2", -1): 2,
    getattr(TensorProto, "UINT2", -2): 2,
}


def numpy_dtype(elem_type: int, where: str = "model") -> np.dtype:
    """Return the NumPy (or ml_dtypes) dtype of an ONNX element type.

    Raises:
        InvalidModel: for an element type that this onnx package does not know.
    """
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    except KeyError as error:
        raise InvalidModel(
            f"unknown tensor element type {elem_type}", where, "update the onnx package"
        ) from error


@dataclass(frozen=True)
class ExternalData:
    """Where a tensor's bytes are: a file beside the model, and the range in it."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the model that has not been read yet.

    Args:
        name: unique name in the model.
        dtype: element type.
        shape: dimensions.
        load: reads the value; one byte an element for sub-byte types.
        proto: the message it comes from.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    load: Callable[[], np.ndarray]
    proto: object = None

    @property
    def size(self) -> int:
        """Return the number of elements."""
        return prod(self.shape)

    @property
    def ndim(self) -> int:
        """Return the rank."""
        return len(self.shape)


def tensor_of(proto: TensorProto, folder: Path, name: str, where: str) -> Tensor:
    """Return the lazy tensor of a message, its external file checked.

    Args:
        proto: dense tensor message.
        folder: the model's folder, which external data may not leave.
        name: unique name to give it.
        where: model file, for messages.

    Raises:
        InvalidModel: unknown type, or external data missing, too short or outside the folder.
    """
    dtype = numpy_dtype(proto.data_type, where)
    shape = tuple(proto.dims)
    if proto.data_location == TensorProto.EXTERNAL:
        data = external_data(proto, folder, where)
        load = functools.partial(_read_external, data, proto.data_type, dtype, shape)
    else:
        load = functools.partial(_read_inline, proto, where)
    return Tensor(name, dtype, shape, load, proto)


def sparse_tensor_of(proto: onnx.SparseTensorProto, name: str, where: str) -> Tensor:
    """Return the dense lazy tensor of a sparse message."""
    shape = tuple(proto.dims)

    def load() -> np.ndarray:
        values = _read_inline(proto.values, where)
        indices = _read_inline(proto.indices, where)
        dense = np.zeros(shape, values.dtype)
        if indices.ndim == 1:
            dense.reshape(-1)[indices] = values
        else:
            dense[tuple(indices.T)] = values
        return dense

    return Tensor(name, numpy_dtype(proto.values.data_type, where), shape, load, proto)


def external_data(proto: TensorProto, folder: Path, where: str) -> ExternalData:
    """Return the file range of an external tensor.

    Raises:
        InvalidModel: when the file is missing, too short, or outside ``folder``.
    """
    entries = {entry.key: entry.value for entry in proto.external_data}
    at = f"{where}: tensor '{proto.name}'"
    path = folder / entries.get("location", "")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InvalidModel(
            f"external data '{entries.get('location')}' lies outside the model's folder",
            at,
            "move the file beside the model",
        )
    if not path.is_file():
        raise InvalidModel(
            f"external data file '{path}' is missing", at, "copy it beside the model"
        )
    bits = _BITS.get(proto.data_type, numpy_dtype(proto.data_type, where).itemsize * 8)
    needed = -(-prod(proto.dims) * bits // 8)
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or needed)
    except ValueError as error:
        raise InvalidModel("its external data has a bad offset or length", at) from error
    if length < needed or offset < 0 or offset + needed > path.stat().st_size:
        raise InvalidModel(
            f"external data file '{path}' is too short: it needs {needed} bytes at {offset}",
            at,
            "the file is truncated or belongs to another model",
        )
    return ExternalData(path, offset, needed)


@functools.lru_cache(maxsize=32)
def _mapped(path: Path, _stamp: tuple[int, int]) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _read_external(
    data: ExternalData, elem_type: int, dtype: np.dtype, shape: tuple[int, ...]
) -> np.ndarray:
    if not data.length:
        return np.zeros(shape, dtype)
    stat = data.path.stat()
    view = memoryview(_mapped(data.path, (stat.st_mtime_ns, stat.st_size)))
    raw = view[data.offset : data.offset + data.length]
    bits = _BITS.get(elem_type)
    if bits is None:
        return np.frombuffer(raw, dtype).reshape(shape)
    return unpack(np.frombuffer(raw, np.uint8), bits, dtype, shape)


def unpack(raw: np.ndarray, bits: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Return sub-byte elements, packed low bits first, one byte an element."""
    mask = np.uint8((1 << bits) - 1)
    codes = np.stack([(raw >> shift) & mask for shift in range(0, 8, bits)], axis=-1)
    codes = codes.reshape(-1)[: prod(shape)].reshape(shape)
    if dtype == ml_dtypes.float4_e2m1fn:
        return codes.view(dtype)
    if np.dtype(dtype).name.startswith("int"):
        sign = np.int16(1 << (bits - 1))
        return ((codes.astype(np.int16) ^ sign) - sign).astype(np.int8).astype(dtype)
    return codes.astype(dtype)


def _read_inline(proto: TensorProto, where: str) -> np.ndarray:
    try:
        return numpy_helper.to_array(proto)
    except (ValueError, TypeError) as error:
        raise InvalidModel(f"tensor '{proto.name}' is damaged: {error}", where) from error
