"""concatenate: shards fetch their part of every operand, or of what the operands are slices of.

Slices of one value that are joined again, as jnp.roll has it, are read from that value directly::

    %a = stablehlo.slice %x [6:8]    %b = stablehlo.slice %x [0:6]
    %y = stablehlo.concatenate %a, %b, dim = 0

On shards of 4 every device sends its last two elements on and puts those of the device before it
in front of its first two; the slices themselves are not computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pai.dialects.mlir import ir
from pai.passes.partition.cutting import cut, join, zero_of
from pai.passes.partition.fetch import fetch
from pai.passes.partition.handlers.base import Handler, Site, before_reshards, register, shape
from pai.passes.partition.handlers.moving import moving_rule, shape_of_result
from pai.passes.partition.handlers.shapes import ints
from pai.passes.partition.pieces import Piece, fetch_pieces, moved_elements, pieces
from pai.passes.partition.rule import Rule


@dataclass(frozen=True)
class Segment:
    """Elements [begin, +size) of the source, at ``offset`` of the result."""

    begin: int
    offset: int
    size: int


def _along(op: ir.Operation) -> int:
    return int(ir.IntegerAttr(op.attributes["dimension"]).value)


def _source(op: ir.Operation) -> ir.Value | None:
    """Return what all operands are slices of along the joined dimension, if there is such."""
    found = None
    for value in op.operands:
        if isinstance(value, ir.BlockArgument) or value.owner.operation.name != "stablehlo.slice":
            return None
        owner = value.owner.operation
        source, size = shape(owner.operands[0]), shape(value)
        plain = set(ints(owner, "strides")) == {1} and 0 not in size
        others = [d for d in range(len(size)) if d != _along(op) and source[d] != size[d]]
        if not plain or others or (found is not None and found != owner.operands[0]):
            return None
        found = owner.operands[0]
    return found


def inputs(op: ir.Operation) -> list[ir.Value]:
    """Return what the operands are slices of, or else the operands before a reshard.

    Shardy does not split the joined dimension and reshards what is split there, and back.
    """
    source = _source(op)
    return before_reshards(op) if source is None else [source]


def concatenate_rule(op: ir.Operation) -> Rule:
    """Split every dimension; the concatenated one as the operands are."""
    along, target = _along(op), shape(op.results[0])
    moved = [dim == along for dim in range(len(target))]
    out, dims = moving_rule(target, target, moved)
    out.operands = [
        [() if dim == along and shape(value)[dim] == 0 else f for dim, f in enumerate(dims)]
        for value in inputs(op)
    ]
    return out


def build_concatenate(site: Site) -> list[ir.Value]:
    """Fetch each operand's part of this shard's interval, and choose by position."""
    if _source(site.op) is not None:
        return [_join_segments(site, list(_segments(site.op)))]
    along = _along(site.op)
    atoms = site.layout()[along]
    if not atoms:
        return site.clone()
    emit, local = site.emit, shape_of_result(site)
    positions = emit.positions(local, along, atoms)
    out, offset = emit.constant(site.type(), 0), 0
    for index, value in enumerate(site.op.operands):
        size = shape(value)[along]
        if size == 0:
            continue
        starts = [shard * local[along] - offset for shard in range(emit.grid.count(atoms))]
        part = fetch(emit, site.operands[index], along, atoms, size, starts, local[along], None)
        own = emit.compare(positions, "GE", emit.constant(positions.type, offset))
        out = emit.select(own, part, out)
        offset += size
    return [out]


def _segments(op: ir.Operation) -> Iterator[Segment]:
    along, offset = _along(op), 0
    for value in op.operands:
        size = shape(value)[along]
        yield Segment(ints(value.owner.operation, "start_indices")[along], offset, size)
        offset += size


def _join_segments(site: Site, segments: list[Segment]) -> ir.Value:
    """Bring the segments of the one source into the result's order."""
    along, emit, value = _along(site.op), site.emit, site.operands[0]
    atoms, local = site.layout()[along], shape_of_result(site)[along]
    size = shape(inputs(site.op)[0])[along]
    if atoms:
        shards, width = emit.grid.count(atoms), shape(value)[along]
        wanted = list(_pieces(segments, shards, local, width, size))
        if moved_elements(wanted) < (shards - 1) * width:
            return fetch_pieces(emit, value, along, atoms, wanted, local, zero_of(emit, value))
        whole = emit.all_gather(value, along, atoms)
        emit.gathered.append((value.type, whole.type))
        value = whole
    parts = [cut(emit, value, along, s.begin, s.begin + s.size) for s in segments]
    joined = join(emit, parts, along)
    return emit.block(joined, along, atoms) if atoms else joined


def _pieces(
    segments: list[Segment], shards: int, local: int, width: int, size: int
) -> Iterator[Piece]:
    """Yield what shards of ``local`` elements need of source shards of ``width`` elements."""
    for shard in range(shards):
        for segment in segments:
            low = max(shard * local, segment.offset)
            high = min((shard + 1) * local, segment.offset + segment.size)
            if low < high:
                start = segment.begin + low - segment.offset
                at = low - shard * local
                for p in pieces([start], high - low, width, size):
                    yield Piece(p.source, shard, p.source_start, at + p.target_start, p.size)


register(Handler(concatenate_rule, build_concatenate, inputs), "stablehlo.concatenate")
