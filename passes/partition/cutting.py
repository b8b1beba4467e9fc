"""Cut, pad, join and index one dimension of a local value."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from pai.dialects.mlir import ir
from pai.passes.partition.emit import (
    Emitter,
    array_attr,
    complex_elements,
    is_complex,
    splat,
    tensor,
)
from pai.passes.partition.layout import Atoms

SAME_SCALAR = ("stablehlo.broadcast_in_dim", "stablehlo.reshape", "sdy.reshard")


def zero_of(emit: Emitter, value: ir.Value) -> ir.Value:
    """Return a scalar zero of ``value``'s element type."""
    return emit.constant(tensor([], value.type.element_type), 0)


def is_splat(value: ir.Value, wanted: float) -> bool:
    """Whether a value is a constant, or a broadcast or reshape of one, all ``wanted``."""
    while not isinstance(value, ir.BlockArgument):
        owner = value.owner.operation
        if owner.name == "stablehlo.constant":
            if is_complex(value.type):
                return wanted == 0 and complex_elements(owner) == "(0.000000e+00,0.000000e+00)"
            return bool(owner.attributes["value"] == splat(value.type, wanted))
        zero_stays = wanted == 0 and owner.name == "stablehlo.convert"
        if owner.name not in SAME_SCALAR and not zero_stays:
            return False
        value = owner.operands[0]
    return False


def cut(
    emit: Emitter, value: ir.Value, dim: int, begin: int, end: int, stride: int = 1
) -> ir.Value:
    """Keep elements ``begin`` to ``end``, every ``stride``-th, of a dimension."""
    shape = list(value.type.shape)
    if (begin, end, stride) == (0, shape[dim], 1):
        return value
    starts, strides, limits = [0] * len(shape), [1] * len(shape), list(shape)
    starts[dim], limits[dim], strides[dim] = begin, end, stride
    shape[dim] = -(-(end - begin) // stride)
    attributes = {
        "start_indices": array_attr(starts),
        "limit_indices": array_attr(limits),
        "strides": array_attr(strides),
    }
    type_ = tensor(shape, value.type.element_type)
    return emit.op("stablehlo.slice", [type_], [value], attributes).result


def dynamic_cut(emit: Emitter, value: ir.Value, dim: int, start: ir.Value, length: int) -> ir.Value:
    """Keep ``length`` elements of a dimension from the i32 scalar ``start`` on."""
    shape = list(value.type.shape)
    if shape[dim] == length:
        return value
    shape[dim] = length
    starts = [emit.scalar(0)] * len(shape)
    starts[dim] = start
    attributes = {"slice_sizes": array_attr(shape)}
    type_ = tensor(shape, value.type.element_type)
    return emit.op("stablehlo.dynamic_slice", [type_], [value, *starts], attributes).result


def pad_edges(
    emit: Emitter,
    value: ir.Value,
    dim: int,
    low: int,
    high: int,
    fill: ir.Value | None = None,
    interior: int = 0,
) -> ir.Value:
    """Put the scalar ``fill``, by default zero, around and between the elements of a dimension."""
    if (low, high, interior) == (0, 0, 0):
        return value
    shape = list(value.type.shape)
    edges = [[0] * len(shape) for _ in range(3)]
    for row, width in zip(edges, (low, high, interior), strict=True):
        row[dim] = width
    shape[dim] += low + high + max(0, shape[dim] - 1) * interior
    attributes = {
        "edge_padding_low": array_attr(edges[0]),
        "edge_padding_high": array_attr(edges[1]),
        "interior_padding": array_attr(edges[2]),
    }
    operands = [value, zero_of(emit, value) if fill is None else fill]
    type_ = tensor(shape, value.type.element_type)
    return emit.op("stablehlo.pad", [type_], operands, attributes).result


def join(emit: Emitter, parts: Sequence[ir.Value], dim: int) -> ir.Value:
    """Concatenate along a dimension."""
    if len(parts) == 1:
        return parts[0]
    shape = list(parts[0].type.shape)
    shape[dim] = sum(part.type.shape[dim] for part in parts)
    attributes = {"dimension": ir.IntegerAttr.get(ir.IntegerType.get_signless(64), dim)}
    type_ = tensor(shape, parts[0].type.element_type)
    return emit.op("stablehlo.concatenate", [type_], list(parts), attributes).result


def entry(emit: Emitter, column: Iterable[int], atoms: Atoms) -> ir.Value:
    """Return, as an i32 scalar, the entry of ``column`` of this device's shard along ``atoms``.

    A progression is computed, anything else looked up.
    """
    values = [int(value) for value in column]
    step = values[1] - values[0] if len(values) > 1 else 0
    if any(b - a != step for a, b in itertools.pairwise(values)):
        return _looked_up(emit, values, atoms)
    if not step:
        return emit.scalar(values[0])
    out = emit.shard_index(atoms)
    if step != 1:
        out = emit.binary("multiply", out, emit.scalar(step))
    return emit.binary("add", out, emit.scalar(values[0])) if values[0] else out


def _looked_up(emit: Emitter, values: Sequence[int], atoms: Atoms) -> ir.Value:
    attr = ir.DenseElementsAttr.get(np.array(values, np.int32))
    constant = emit.op("stablehlo.constant", [attr.type], [], {"value": attr}).result
    one = dynamic_cut(emit, constant, 0, emit.shard_index(atoms), 1)
    return emit.unary("reshape", one, tensor([], ir.IntegerType.get_signless(32)))


def choose(emit: Emitter, mask: ir.Value, value: ir.Value, fill: ir.Value) -> ir.Value:
    """Keep ``value`` where ``mask``, a scalar or of the same shape, is true, else ``fill``."""
    sizes = list(value.type.shape)
    whole = mask if mask.type.rank == len(sizes) else emit.broadcast(mask, sizes, [])
    return emit.select(whole, value, emit.broadcast(fill, sizes, []))
