"""Element types and shapes of MLIR types, in the spelling of ``runtime/dtypes.py``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pai.dialects.mlir import ir
from pai.runtime.dtypes import DTYPES, NAMES
from pai.runtime.errors import InvalidShape, UnsupportedOp


def element_type(type_: ir.Type) -> ir.Type:
    """Return the element type of a shaped type; any other type is its own element type."""
    return type_.element_type if isinstance(type_, ir.ShapedType) else type_


def dtype_name(type_: ir.Type) -> str:
    """Return the element type's name as the keys of ``DTYPES`` spell it.

    Args:
        type_: an element type, or a tensor of one.

    Raises:
        UnsupportedOp: for an element type that no value at run time can have.
    """
    name = str(element_type(type_))
    if name not in DTYPES:
        raise UnsupportedOp(f"element type {name} is not supported")
    return name


def numpy_dtype(type_: ir.Type) -> np.dtype:
    """Return the NumPy dtype of an element type or of a tensor's elements."""
    return DTYPES[dtype_name(type_)]


def shape_of(type_: ir.Type) -> tuple[int, ...]:
    """Return the static shape of a ranked tensor type.

    Raises:
        InvalidShape: when it is not a ranked tensor or a dimension is dynamic.
    """
    if not isinstance(type_, ir.RankedTensorType) or not type_.has_static_shape:
        raise InvalidShape(f"{type_} is not a tensor of static shape")
    return tuple(type_.shape)


def num_elements(type_: ir.Type) -> int:
    """Return the number of elements of a tensor of static shape."""
    return int(np.prod(shape_of(type_), dtype=np.int64))


def is_static_tensor(type_: ir.Type) -> bool:
    """Whether the type is a ranked tensor without dynamic dimensions."""
    return isinstance(type_, ir.RankedTensorType) and bool(type_.has_static_shape)


def parse_dtype(name: str, ctx: ir.Context | None = None) -> ir.Type:
    """Return the MLIR element type called ``name``."""
    return ir.Type.parse(name, ctx)


def tensor_type(
    shape: Sequence[int], dtype: str | ir.Type, ctx: ir.Context | None = None
) -> ir.Type:
    """Return ``tensor<shape x dtype>``; ``dtype`` is an MLIR type or its name."""
    element = parse_dtype(dtype, ctx) if isinstance(dtype, str) else dtype
    return ir.RankedTensorType.get(list(shape), element, loc=ir.Location.unknown(ctx))


def name_of_numpy(dtype: np.dtype) -> str:
    """Return the MLIR name of a NumPy (or ml_dtypes) dtype; raises UnsupportedOp when none."""
    if np.dtype(dtype) not in NAMES:
        raise UnsupportedOp(f"NumPy type {dtype} has no MLIR element type")
    return NAMES[np.dtype(dtype)]
