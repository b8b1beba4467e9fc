"""reduce_window: pooling fetches halos, cumulative sums add what the shards before have.

Each dimension of the window is of one of these kinds:

- *sliding*: operand and result are split alike; a shard fetches the positions its windows see.
- *scanning* (a window of everything before, as ``cumsum`` has it): a shard scans what it holds;
  the shards' totals are gathered and those before are combined with the shard's result.
- *covering* (one window over everything): a shard reduces what it holds; results are all-reduced.
"""

from __future__ import annotations

from pai.dialects.mlir import ir
from pai.passes.partition.cutting import cut
from pai.passes.partition.emit import REDUCTIONS, array_attr, identity, tensor
from pai.passes.partition.handlers.base import Handler, Site, register, shape
from pai.passes.partition.handlers.reductions import is_neutral, reduction_kind, repeats_init
from pai.passes.partition.handlers.shapes import ints
from pai.passes.partition.handlers.windows import (
    Remainder,
    Window,
    fetch_positions,
    window_attributes,
    windows_of,
)
from pai.passes.partition.layout import Atoms
from pai.passes.partition.rule import Factors, Rule, whole

NAMES = {
    "stride": "window_strides",
    "base_dilation": "base_dilations",
    "dilation": "window_dilations",
}


def _windows(op: ir.Operation) -> list[Window]:
    return windows_of(op, ints(op, "window_dimensions"), NAMES)


def _kind(op: ir.Operation) -> str | None:
    """Return how to combine partial windows; None when that is not known to be right."""
    kind = reduction_kind(op) if len(op.operands) == 2 else None
    return kind if kind and is_neutral(op.operands[1], kind) else None


def _plain(window: Window) -> bool:
    return window.dilation == window.base_dilation == 1 and min(window.low, window.high) >= 0


def scanning(window: Window, size: int) -> bool:
    """Whether every window is all elements up to its place, or all from there on."""
    edges = sorted((window.low, window.high))
    long = _plain(window) and window.stride == 1 and window.size >= size
    return long and edges == [0, window.size - 1]


def covering(window: Window, size: int, result: int) -> bool:
    """Whether there is one window and it has all elements."""
    return result == 1 and _plain(window) and window.size - window.low >= size


def window_rule(op: ir.Operation) -> Rule:
    """Share the dimensions; sliding windows follow their operand's split.

    Where padding is not to be filled in with initial values, a padded dimension is whole.
    """
    inputs = len(op.operands) // 2
    out, kind = Rule(), _kind(op)
    operand, result = whole(op.operands[0].type.rank), whole(op.operands[0].type.rank)
    sizes = zip(_windows(op), shape(op.operands[0]), shape(op.results[0]), strict=True)
    for dim, (window, size, count) in enumerate(sizes):
        padded = window.base_dilation > 1 or max(window.low, window.high) > 0
        if 0 in (size, count) or (padded and not repeats_init(op)):
            continue
        operand[dim] = result[dim] = (out.factor(count),)
        if window.trivial or (kind and scanning(window, size)):
            continue
        if kind and covering(window, size, count):
            out.sizes[operand[dim][0]] = size
            result[dim] = ()
        else:
            out.follow |= set(operand[dim])
    out.operands = [operand] * inputs + [whole(0)] * inputs
    out.results = [result] * inputs
    return out


def build_window(site: Site) -> list[ir.Value]:
    """Reduce the windows of each shard and combine what windows have in several shards."""
    op, kind = site.op, _kind(site.op)
    sizes, counts, local = shape(op.operands[0]), shape(op.results[0]), shape(site.operands[0])
    dimensions = ints(op, "window_dimensions")
    left: dict[int, Remainder] = {}
    scans: list[tuple[int, bool]] = []
    covers: list[Factors] = []
    for dim, window in enumerate(_windows(op)):
        factors = site.rule.operands[0][dim]
        if window.trivial or not site.atoms(factors):
            continue
        if kind and scanning(window, sizes[dim]):
            _mask(site, factors, kind)
            dimensions[dim] = local[dim]
            left[dim] = Remainder(
                *(min(edge, local[dim] - 1) for edge in (window.low, window.high))
            )
            scans.append((dim, window.low == 0))
        elif kind and covering(window, sizes[dim], counts[dim]):
            _mask(site, factors, kind)
            dimensions[dim] = local[dim]
            left[dim] = Remainder()
            covers.append(factors)
        else:
            left[dim] = _slide(site, dim, window)
    attributes = window_attributes(op, len(sizes), left, NAMES["base_dilation"])
    out = site.clone(**attributes, window_dimensions=array_attr(dimensions))
    for dim, backwards in scans:
        atoms = site.split(0, dim)
        out = [_add_before(site, out[0], dim, atoms, str(kind), backwards=backwards)]
    if covers:
        out = site.emit.all_reduce(out, str(kind), site.atoms([f for fs in covers for f in fs]))
    return out


def _mask(site: Site, factors: Factors, kind: str) -> None:
    site.mask(0, factors, _neutral(site, site.operands[0], kind))


def _neutral(site: Site, value: ir.Value, kind: str) -> ir.Value:
    element = value.type.element_type
    return site.emit.constant(tensor([], element), identity(kind, element))


def _slide(site: Site, dim: int, window: Window) -> Remainder:
    """Fetch what the windows see of every operand."""
    half = len(site.operands) // 2
    count, shards = site.type().shape[dim], site.emit.grid.count(site.split(0, dim))
    begins, span = window.begins(shards, count), window.span(count)
    needed = window.needed(shards, count, shape(site.op.results[0])[dim])
    for operand in range(half):
        fill, base = site.operands[half + operand], window.base_dilation
        left = fetch_positions(site, operand, dim, begins, span, base, fill, needed)
    return left


def _add_before(
    site: Site, value: ir.Value, dim: int, atoms: Atoms, kind: str, *, backwards: bool
) -> ir.Value:
    """Combine a shard's scan with the totals of the shards before (behind) it."""
    emit = site.emit
    sizes = list(value.type.shape)
    at = 0 if backwards else sizes[dim] - 1
    totals = emit.all_gather(cut(emit, value, dim, at, at + 1), dim, atoms)
    rows = list(totals.type.shape)
    places = emit.positions(rows, dim, ())
    own = emit.broadcast(emit.shard_index(atoms), rows, [])
    neutral = _neutral(site, value, kind)
    wanted = emit.compare(places, "GT" if backwards else "LT", own)
    totals = emit.select(wanted, totals, emit.broadcast(neutral, rows, []))
    total = emit.reduce(totals, neutral, kind, dim)
    others = [d for d in range(len(sizes)) if d != dim]
    before = emit.broadcast(total, sizes, others)
    name = REDUCTIONS[kind].removeprefix("stablehlo.")
    return emit.binary(name, before, value)


register(Handler(window_rule, build_window), "stablehlo.reduce_window")
