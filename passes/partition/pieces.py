"""Pieces of shards that travel on their own: the general, longer way to fetch an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pai.dialects.mlir import ir
from pai.passes.partition.cutting import cut, dynamic_cut, entry, join, pad_edges
from pai.passes.partition.emit import Emitter
from pai.passes.partition.layout import Atoms


@dataclass(frozen=True)
class Piece:
    """Elements [source_start, +size) of shard ``source``, wanted at ``target_start`` of another."""

    source: int
    target: int
    source_start: int = 0
    target_start: int = 0
    size: int = 0


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
    own = [piece for piece in wanted if piece.source == piece.target]
    moved = [piece for piece in wanted if piece.source != piece.target]
    return [*_deal(own), *_deal(sorted(moved, key=lambda piece: -piece.size))]


def _deal(wanted: Sequence[Piece]) -> list[list[Piece]]:
    out: list[list[Piece]] = []
    for piece in wanted:
        for group in out:
            if all(p.source != piece.source and p.target != piece.target for p in group):
                group.append(piece)
                break
        else:
            out.append([piece])
    return out


def pairs(emit: Emitter, atoms: Atoms, group: Sequence[Piece]) -> list[tuple[int, int]]:
    """Return the (sender, receiver) devices of a round."""
    groups = emit.grid.groups(atoms)
    return [(devices[p.source], devices[p.target]) for devices in groups for p in group]


def moved_elements(wanted: Sequence[Piece]) -> int:
    """Return how many elements a device receives when the pieces travel in rounds."""
    return sum(
        max(piece.size for piece in group)
        for group in rounds(wanted)
        if group[0].source != group[0].target
    )


def fetch_pieces(
    emit: Emitter,
    value: ir.Value,
    dim: int,
    atoms: Atoms,
    wanted: Sequence[Piece],
    length: int,
    fill: ir.Value,
) -> ir.Value:
    """Return the interval of ``length`` that is made of ``wanted``, and of ``fill`` elsewhere."""
    dealt = sorted(rounds(wanted), key=lambda group: group[0].target_start)
    if _tile(dealt, emit.grid.count(atoms), length):
        return join(emit, [_same(emit, value, dim, atoms, group) for group in dealt], dim)
    shape = list(value.type.shape)
    shape[dim] = length
    out = emit.broadcast(fill, shape, [])
    for group in rounds(wanted):
        out = _round(emit, value, out, dim, atoms, group)
    return out


def _tile(dealt: Sequence[Sequence[Piece]], shards: int, length: int) -> bool:
    """Whether the rounds are the same for every shard and fill the interval side by side."""
    end = 0
    for group in dealt:
        places = {(p.source_start, p.target_start, p.size) for p in group}
        if len(group) != shards or len(places) != 1 or group[0].target_start != end:
            return False
        end += group[0].size
    return end == length


def _same(
    emit: Emitter, value: ir.Value, dim: int, atoms: Atoms, group: Sequence[Piece]
) -> ir.Value:
    """Move a piece that lies at the same place of every shard."""
    begin = group[0].source_start
    chunk = cut(emit, value, dim, begin, begin + group[0].size)
    if all(piece.source == piece.target for piece in group):
        return chunk
    return emit.collective_permute(chunk, pairs(emit, atoms, group))


def _round(
    emit: Emitter, value: ir.Value, out: ir.Value, dim: int, atoms: Atoms, group: list[Piece]
) -> ir.Value:
    """Move one piece to each target and put it in its place."""
    local, length = value.type.shape[dim], out.type.shape[dim]
    width = max(piece.size for piece in group)
    # Columns: where a source cuts; where a target puts the cut; the valid part there.
    table = np.zeros((emit.grid.count(atoms), 4), np.int32)
    for piece in group:
        at = min(piece.source_start, local - width)
        table[piece.source, 0] = at
        place = width + piece.target_start - (piece.source_start - at)
        begin = width + piece.target_start
        table[piece.target, 1:] = place, begin, begin + piece.size
    cut_at, place, begin, end = (entry(emit, column, atoms) for column in table.T)
    chunk = dynamic_cut(emit, value, dim, cut_at, width)
    if any(piece.source != piece.target for piece in group):
        chunk = emit.collective_permute(chunk, pairs(emit, atoms, group))
    padded = pad_edges(emit, out, dim, width, width)
    starts = [emit.scalar(0)] * len(padded.type.shape)
    starts[dim] = place
    operands = [padded, chunk, *starts]
    placed = emit.op("stablehlo.dynamic_update_slice", [padded.type], operands).result
    sizes = list(padded.type.shape)
    positions = emit.positions(sizes, dim, ())
    after = emit.compare(positions, "GE", emit.broadcast(begin, sizes, []))
    before = emit.compare(positions, "LT", emit.broadcast(end, sizes, []))
    mixed = emit.select(emit.binary("and", after, before), placed, padded)
    return dynamic_cut(emit, mixed, dim, emit.scalar(width), length)
