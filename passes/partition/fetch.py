"""Give each device an interval of a sharded dimension: slices, pads, reversals, halos.

Device shard d wants elements [starts[d], starts[d] + length) of the global dimension. Each piece
of it that another shard holds travels by collective_permute, in rounds in which every device
sends at most one piece and receives at most one. What lies outside the dimension is ``fill``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pai.dialects.mlir import ir
from pai.passes.partition.emit import Emitter, array_attr, tensor
from pai.passes.partition.layout import Atoms


@dataclass(frozen=True)
class Piece:
    """Elements [source_start, +size) of shard ``source``, wanted at ``target_start`` of another."""

    source: int
    target: int
    source_start: int
    target_start: int
    size: int


def pieces(starts: Sequence[int], length: int, local: int, size: int) -> list[Piece]:
    """Return what every shard needs from every shard of ``local`` elements."""
    out = []
    for target, start in enumerate(starts):
        low, high = max(start, 0), min(start + length, size)
        for source in range(low // local, -(-high // local) if high > low else low // local):
            begin, end = max(low, source * local), min(high, (source + 1) * local)
            out.append(Piece(source, target, begin - source * local, begin - start, end - begin))
    return out


def rounds(wanted: Sequence[Piece]) -> list[list[Piece]]:
    """Deal pieces into rounds with distinct sources and distinct targets; local ones first."""
    out: list[list[Piece]] = []
    own = [piece for piece in wanted if piece.source == piece.target]
    if own:
        out.append(own)
    for piece in sorted(wanted, key=lambda p: -p.size):
        if piece.source == piece.target:
            continue
        for group in out[bool(own) :]:
            if all(p.source != piece.source and p.target != piece.target for p in group):
                group.append(piece)
                break
        else:
            out.append([piece])
    return out


def fetch(
    emit: Emitter,
    value: ir.Value,
    dim: int,
    atoms: Atoms,
    size: int,
    starts: Sequence[int],
    length: int,
    fill: ir.Value,
) -> ir.Value:
    """Return this device's interval.

    Args:
        emit: where to append.
        value: the local shard; ``dim`` is split by ``atoms``.
        dim: the dimension.
        atoms: what splits it.
        size: its global size.
        starts: per shard, where the wanted interval begins; may be negative.
        length: length of the interval, the same for every shard.
        fill: scalar for what lies outside of [0, size).
    """
    shape = list(value.type.shape)
    local = shape[dim]
    wanted = pieces(starts, length, local, size)
    shape[dim] = length
    out = emit.broadcast(fill, shape, [])
    for group in rounds(wanted):
        out = _round(emit, value, out, dim, atoms, group)
    return out


def _round(
    emit: Emitter, value: ir.Value, out: ir.Value, dim: int, atoms: Atoms, group: list[Piece]
) -> ir.Value:
    """Move one piece to each target and put it in its place."""
    local, length = value.type.shape[dim], out.type.shape[dim]
    width = max(piece.size for piece in group)
    count = emit.grid.count(atoms)
    # Columns: where a source cuts; where a target puts the cut; the valid part there.
    table = np.zeros((count, 4), np.int32)
    for piece in group:
        cut = min(piece.source_start, local - width)
        table[piece.source, 0] = cut
        place = width + piece.target_start - (piece.source_start - cut)
        begin = width + piece.target_start
        table[piece.target, 1:] = place, begin, begin + piece.size
    cut_at, place, begin, end = _row(emit, table, atoms)
    chunk = _dynamic_slice(emit, value, dim, cut_at, width)
    if any(piece.source != piece.target for piece in group):
        chunk = emit.collective_permute(chunk, _pairs(emit, atoms, group))
    padded = pad_both(emit, out, dim, width)
    placed = _update(emit, padded, chunk, dim, place)
    sizes = list(padded.type.shape)
    positions = emit.positions(sizes, dim, ())
    after = emit.compare(positions, "GE", emit.broadcast(begin, sizes, []))
    before = emit.compare(positions, "LT", emit.broadcast(end, sizes, []))
    mixed = emit.select(emit.binary("and", after, before), placed, padded)
    return _dynamic_slice(emit, mixed, dim, emit.scalar(width), length)


def _row(emit: Emitter, table: np.ndarray, atoms: Atoms) -> list[ir.Value]:
    """Return the entries of this device's row of a table, as i32 scalars."""
    i32 = ir.IntegerType.get_signless(32)
    out = []
    for column in table.T:
        if len(set(column.tolist())) == 1:
            out.append(emit.scalar(int(column[0])))
            continue
        attr = ir.DenseElementsAttr.get(np.ascontiguousarray(column))
        attributes = {"value": attr}
        constant = emit.op("stablehlo.constant", [attr.type], [], attributes).result
        entry = _dynamic_slice(emit, constant, 0, emit.shard_index(atoms), 1)
        out.append(emit.unary("reshape", entry, tensor([], i32)))
    return out


def _pairs(emit: Emitter, atoms: Atoms, group: Sequence[Piece]) -> list[tuple[int, int]]:
    groups = emit.grid.groups(atoms)
    return [(devices[p.source], devices[p.target]) for devices in groups for p in group]


def _dynamic_slice(
    emit: Emitter, value: ir.Value, dim: int, start: ir.Value, size: int
) -> ir.Value:
    shape = list(value.type.shape)
    if shape[dim] == size:
        return value
    shape[dim] = size
    starts = [emit.scalar(0)] * len(shape)
    starts[dim] = start
    attributes = {"slice_sizes": array_attr(shape)}
    type_ = tensor(shape, value.type.element_type)
    return emit.op("stablehlo.dynamic_slice", [type_], [value, *starts], attributes).result


def _update(emit: Emitter, value: ir.Value, chunk: ir.Value, dim: int, start: ir.Value) -> ir.Value:
    starts = [emit.scalar(0)] * value.type.rank
    starts[dim] = start
    return emit.op("stablehlo.dynamic_update_slice", [value.type], [value, chunk, *starts]).result


def pad_both(emit: Emitter, value: ir.Value, dim: int, width: int) -> ir.Value:
    """Put ``width`` zeros on both sides of a dimension."""
    shape = list(value.type.shape)
    edge = [0] * len(shape)
    edge[dim] = width
    shape[dim] += 2 * width
    element = value.type.element_type
    attributes = {
        "edge_padding_low": array_attr(edge),
        "edge_padding_high": array_attr(edge),
        "interior_padding": array_attr([0] * len(shape)),
    }
    zero = emit.constant(tensor([], element), 0)
    return emit.op("stablehlo.pad", [tensor(shape, element)], [value, zero], attributes).result
