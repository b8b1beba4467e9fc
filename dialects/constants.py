"""Constants of the IR from and to NumPy arrays, for every element type of ``runtime/dtypes.py``."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np

from pai.dialects.mlir import ir, stablehlo
from pai.dialects.types import dtype_name, num_elements, shape_of
from pai.runtime.dtypes import DTYPES
from pai.runtime.errors import UnsupportedOp

# Types whose attributes NumPy can read through the buffer protocol; the others go through text.
_BUFFERED = frozenset(
    {"i1", "i8", "i16", "i32", "i64", "ui8", "ui16", "ui32", "ui64", "f16", "f32", "f64"}
)
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_NUMBER = re.compile(r"0x[0-9A-Fa-f]+|true|false|[-+]?[\d.][-+\w.]*")


def constant_value(op: ir.Operation) -> np.ndarray:
    """Return the value of a ``stablehlo.constant`` as an array of its shape.

    A splat is a view with zero strides, so that a large one costs nothing. Do not write to it.

    Raises:
        UnsupportedOp: for a quantized constant or one whose data is in a resource.
    """
    type_ = op.results[0].type
    name, shape = dtype_name(type_), shape_of(type_)
    if name in _BUFFERED:
        attr = op.attributes["value"]
        if isinstance(attr, ir.DenseElementsAttr):
            return np.asarray(attr)
    return _from_text(op, name, shape)


def splat_value(op: ir.Operation) -> np.generic | None:
    """Return the one value of a splat constant, or None when its elements may differ."""
    value = constant_value(op)
    if value.size == 1 or (value.size and not any(value.strides)):
        return value.reshape(-1)[:1][0] if value.size == 1 else value[(0,) * value.ndim]
    return None


def is_splat(op: ir.Operation) -> bool:
    """Whether a ``stablehlo.constant`` is written as one value, whatever its element type."""
    try:
        return bool(op.attributes["value"].is_splat)
    except TypeError:  # complex elements have no class in the bindings
        return "dense<(" in op.get_asm(large_elements_limit=1)


def _from_text(op: ir.Operation, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Read the printed form, which the bindings cannot hand out otherwise (bf16, complex, i4)."""
    text = op.get_asm()
    match = re.search(r"\bdense<(.*)> : tensor<", text, re.DOTALL)
    if match is None:
        raise UnsupportedOp(
            "a constant that is not a dense literal is not supported", str(op.location)
        )
    body, dtype = match[1], DTYPES[name]
    if body.startswith('"0x'):
        return _from_bytes(bytes.fromhex(body[3:-1]), dtype, shape)
    flat = np.array([_number(word, dtype) for word in _NUMBER.findall(body)])
    if dtype.kind == "c":
        flat = flat[0::2] + 1j * flat[1::2]
    flat = flat.astype(dtype)
    return np.broadcast_to(flat.reshape(()), shape) if flat.size == 1 else flat.reshape(shape)


def _from_bytes(data: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    storage = dtype if dtype.itemsize > 1 or dtype.kind in "iu" else np.dtype(np.uint8)
    flat = np.frombuffer(data, storage)
    if dtype.kind == "b" or (_is_integer(dtype) and dtype.kind not in "iu"):
        flat = flat.view(np.int8).astype(dtype)  # sub-byte integers: the low bits count
    else:
        flat = flat.view(dtype)
    return np.broadcast_to(flat.reshape(()), shape) if flat.size == 1 else flat.reshape(shape)


def _number(word: str, dtype: np.dtype) -> float | int:
    if word in {"true", "false"}:
        return int(word == "true")
    part = np.dtype(f"f{dtype.itemsize // 2}") if dtype.kind == "c" else dtype
    if word.startswith("0x"):
        bits = np.array(int(word, 16), _UNSIGNED[part.itemsize])
        return float(bits.view(part).astype(np.float64))
    if _is_integer(dtype):
        return int(word)
    return float(word)


def _is_integer(dtype: np.dtype) -> bool:
    return dtype.kind in "iu" or dtype in {
        np.dtype(ml_dtypes.int2),
        np.dtype(ml_dtypes.uint2),
        np.dtype(ml_dtypes.int4),
        np.dtype(ml_dtypes.uint4),
    }


def dense_attr(value: np.ndarray, type_: ir.Type) -> ir.Attribute:
    """Return ``dense<...> : type_`` for an array; equal elements make a splat.

    Args:
        value: array of the type's shape (or one element, for a splat) and NumPy dtype.
        type_: ranked tensor type of static shape.
    """
    dtype, shape = DTYPES[dtype_name(type_)], shape_of(type_)
    flat = np.ascontiguousarray(np.asarray(value, dtype)).reshape(-1)
    if flat.size > 1 and all_equal(flat):
        flat = flat[:1]
    if dtype.kind not in "fiuc" and dtype.kind != "b":
        flat = flat.astype(np.int8) if _is_integer(dtype) else flat
        flat = flat.view(_UNSIGNED[flat.dtype.itemsize])
    elif dtype.kind == "b":
        flat = flat.view(np.uint8)
    if flat.size == 1 and num_elements(type_) > 1:
        return _splat(flat, type_)
    return ir.DenseElementsAttr.get(
        flat, type=type_.element_type, shape=list(shape), context=type_.context
    )


def all_equal(value: np.ndarray) -> bool:
    """Whether all elements (at least one) have the same bits."""
    raw = np.ascontiguousarray(value).view(np.uint8).reshape(value.size, -1)
    return bool((raw == raw[0]).all())


def _splat(one: np.ndarray, type_: ir.Type) -> ir.Attribute:
    return ir.DenseElementsAttr.get(
        one, type=type_.element_type, shape=list(type_.shape), context=type_.context
    )


def constant(value: np.ndarray, type_: ir.Type) -> ir.Value:
    """Build a ``stablehlo.constant`` of ``type_`` at the current insertion point."""
    return stablehlo.ConstantOp(dense_attr(value, type_)).result


def scalar(value: float | bool | np.generic, element: ir.Type) -> ir.Value:
    """Build a constant of rank 0 at the current insertion point."""
    type_ = ir.RankedTensorType.get([], element)
    return constant(np.asarray(value).astype(DTYPES[dtype_name(element)]), type_)
