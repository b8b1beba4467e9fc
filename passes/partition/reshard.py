"""Move a value from one layout to another by the steps that send the fewest bytes."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pai.dialects.mlir import ir
from pai.dialects.types import dtype_name
from pai.passes.partition.emit import Emitter, tensor
from pai.passes.partition.fetch import fetch
from pai.passes.partition.intervals import Intervals
from pai.passes.partition.layout import Atoms, Grid, Layout, used
from pai.runtime.dtypes import itemsize

COLLECTIVE_BYTES = 64  # what a further collective may cost in place of bytes
SLICE_BYTES = 1
MOST_PERMUTATIONS = 120


@dataclass(frozen=True)
class Step:
    """One step of a reshard, to ``layout``.

    Args:
        kind: slice, gather, exchange (all_to_all), permute, or regrid: blocks along more or fewer
            atoms that do not share their edges.
        layout: what the step leads to.
        dim: the dimension cut or gathered; of an exchange the one that is gathered.
        atoms: what it is cut or gathered along.
        split: of an exchange, the dimension that is cut.
        cost: bytes that a device sends, and a little for the step itself.
    """

    kind: str
    layout: Layout
    dim: int = 0
    atoms: Atoms = ()
    split: int = 0
    cost: float = 0.0


def reshard(
    emitter: Emitter, value: ir.Value, shape: Sequence[int], source: Layout, target: Layout
) -> ir.Value:
    """Return ``value``, a shard of a tensor of global ``shape``, in another layout."""
    if source == target:
        return value
    if 0 in shape:
        local = tensor(emitter.grid.local_shape(shape, target), value.type.element_type)
        return emitter.constant(local, 0)
    kind = tensor(shape, value.type.element_type)
    current = source
    for step in route_of(emitter, kind, source, target):
        value = _EMIT[step.kind](emitter, value, shape, current, step)
        current = step.layout
    return value


def route_of(emitter: Emitter, kind: ir.Type, source: Layout, target: Layout) -> tuple[Step, ...]:
    """Return the cheapest steps for a tensor of global type ``kind``; kept, for many are alike."""
    key = (kind, source, target)
    steps = emitter.routes.get(key)
    if steps is None:
        width = itemsize(dtype_name(kind))
        steps = emitter.routes[key] = route(emitter.grid, kind.shape, width, source, target)
    return steps


def route(
    grid: Grid, shape: Sequence[int], width: int, source: Layout, target: Layout
) -> tuple[Step, ...]:
    """Return the cheapest steps from ``source`` to ``target`` (Dijkstra's algorithm).

    Args:
        grid: the devices.
        shape: global shape, no size 0.
        width: bytes of an element.
        source: the layout now.
        target: the layout wanted.
    """
    for step in _steps(grid, shape, width, source, target):
        gathered = step.kind == "gather" and not _is_hollow(grid, shape[step.dim], step.atoms)
        if step.layout == target and (gathered or step.kind == "slice"):
            return (step,)  # no way sends less
    order = itertools.count()
    heap: list[tuple[float, int, Layout, tuple[Step, ...]]] = [(0.0, next(order), source, ())]
    done: set[Layout] = set()
    while True:
        cost, _, layout, steps = heapq.heappop(heap)
        if layout == target:
            return steps
        if layout in done:
            continue
        done.add(layout)
        for step in _steps(grid, shape, width, layout, target):
            if step.layout not in done:
                entry = (cost + step.cost, next(order), step.layout, (*steps, step))
                heapq.heappush(heap, entry)


def _steps(
    grid: Grid, shape: Sequence[int], width: int, layout: Layout, target: Layout
) -> Iterator[Step]:
    size = width * math.prod(grid.local_shape(shape, layout))
    for dim in range(len(shape)):
        yield from _slices(grid, shape, size, layout, target, dim)
        for length in range(1, len(layout[dim]) + 1):
            keep, atoms = layout[dim][:-length], layout[dim][-length:]
            if not _joins(grid, shape[dim], keep, atoms):
                yield _regrid(grid, shape, size, layout, dim, keep, atoms)
                continue
            others = grid.count(atoms) - 1
            gathered = _with(layout, dim, keep)
            yield Step("gather", gathered, dim, atoms, cost=COLLECTIVE_BYTES + size * others)
            cost = COLLECTIVE_BYTES + size * others / (others + 1)
            hollow = not keep and _is_hollow(grid, shape[dim], atoms)
            for split in range(len(shape)):
                wanted = split != dim and (hollow or set(atoms) <= set(target[split]))
                if wanted and _cuts(grid, shape[split], layout[split], atoms):
                    moved = _with(gathered, split, layout[split] + atoms)
                    yield Step("exchange", moved, dim, atoms, split, cost)
    for permuted in _permuted(grid, layout, target):
        yield Step("permute", permuted, cost=COLLECTIVE_BYTES + size)


def _slices(
    grid: Grid, shape: Sequence[int], size: int, layout: Layout, target: Layout, dim: int
) -> Iterator[Step]:
    """Cut a dimension along atoms it is to have: the next ones, or one that is out of order."""
    have, want = layout[dim], target[dim]
    free = set(want) - used(layout)
    choices: set[Atoms] = {(atom,) for atom in free}
    if want[: len(have)] == have:
        rest = want[len(have) :]
        choices |= {rest[:n] for n in range(1, len(rest) + 1) if set(rest[:n]) <= free}
    for atoms in sorted(choices):
        if _cuts(grid, shape[dim], have, atoms):
            yield Step("slice", _with(layout, dim, have + atoms), dim, atoms, cost=SLICE_BYTES)
        else:
            yield _regrid(grid, shape, size, layout, dim, have + atoms, atoms)


def _regrid(
    grid: Grid, shape: Sequence[int], size: int, layout: Layout, dim: int, to: Atoms, atoms: Atoms
) -> Step:
    """Return the step to blocks along ``to``, ``atoms`` more or fewer than there are now."""
    wanted = _intervals(grid, shape[dim], layout[dim], to)
    cost = COLLECTIVE_BYTES + size * wanted.moved() // wanted.local
    return Step("regrid", _with(layout, dim, to), dim, atoms, cost=cost)


def _intervals(grid: Grid, size: int, have: Atoms, to: Atoms) -> Intervals:
    """Return what the shards along ``have`` need of each other to make the blocks along ``to``.

    For more blocks, a shard takes those of all its parts.
    """
    shards, blocks = grid.count(have), grid.count(to)
    length = -(-size // blocks) * max(1, blocks // shards)
    starts = tuple(d * min(blocks, shards) // shards * length for d in range(shards))
    return Intervals(-(-size // shards), size, starts, length, (length,) * shards)


def _permuted(grid: Grid, layout: Layout, target: Layout) -> Iterator[Layout]:
    """Yield the layouts whose blocks are the same, on other devices."""
    slots = [atom for atoms in layout for atom in atoms]
    pool = sorted(set(slots) | used(target))
    if math.perm(len(pool), len(slots)) > MOST_PERMUTATIONS:
        if all(grid.count(a) == grid.count(b) for a, b in zip(layout, target, strict=True)):
            yield target
        return
    sizes = [grid.atoms[atom].size for atom in slots]
    for choice in itertools.permutations(pool, len(slots)):
        if list(choice) != slots and [grid.atoms[atom].size for atom in choice] == sizes:
            rest = iter(choice)
            yield tuple(tuple(itertools.islice(rest, len(atoms))) for atoms in layout)


def _cuts(grid: Grid, size: int, have: Atoms, atoms: Atoms) -> bool:
    """Whether each block along ``have`` is cut into whole blocks along ``have + atoms``."""
    local = -(-size // grid.count(have))
    return not have or local % grid.count(atoms) == 0


def _is_hollow(grid: Grid, size: int, atoms: Atoms) -> bool:
    """Whether whole blocks are padding, more than one: gathering would send them."""
    count = grid.count(atoms)
    local = -(-size // count)
    return local * count - size > local


def _joins(grid: Grid, size: int, keep: Atoms, atoms: Atoms) -> bool:
    """Whether blocks along ``keep + atoms`` make up those along ``keep``; a whole may be cut."""
    return not keep or _cuts(grid, size, keep, atoms)


def _with(layout: Layout, dim: int, atoms: Atoms) -> Layout:
    return (*layout[:dim], atoms, *layout[dim + 1 :])


def _emit_slice(
    emitter: Emitter, value: ir.Value, shape: Sequence[int], current: Layout, step: Step
) -> ir.Value:
    return emitter.block(value, step.dim, step.atoms)


def _emit_gather(
    emitter: Emitter, value: ir.Value, shape: Sequence[int], current: Layout, step: Step
) -> ir.Value:
    value = emitter.all_gather(value, step.dim, step.atoms)
    return _unpad(emitter, value, shape, step)


def _emit_exchange(
    emitter: Emitter, value: ir.Value, shape: Sequence[int], current: Layout, step: Step
) -> ir.Value:
    count = emitter.grid.count(step.atoms)
    local = -(-value.type.shape[step.split] // count)
    value = emitter.pad_end(value, step.split, local * count)
    value = emitter.all_to_all(value, step.split, step.dim, step.atoms)
    return _unpad(emitter, value, shape, step)


def _unpad(emitter: Emitter, value: ir.Value, shape: Sequence[int], step: Step) -> ir.Value:
    """Cut off the padding of a dimension that is whole now."""
    if step.layout[step.dim]:
        return value
    return emitter.cut_end(value, step.dim, shape[step.dim])


def _emit_regrid(
    emitter: Emitter, value: ir.Value, shape: Sequence[int], current: Layout, step: Step
) -> ir.Value:
    have, to = current[step.dim], step.layout[step.dim]
    wanted = _intervals(emitter.grid, shape[step.dim], have, to)
    value = fetch(
        emitter, value, step.dim, have, wanted.size, wanted.starts, wanted.length, fill=None
    )
    return emitter.block(value, step.dim, step.atoms) if len(to) > len(have) else value


def _emit_permute(
    emitter: Emitter, value: ir.Value, shape: Sequence[int], current: Layout, step: Step
) -> ir.Value:
    pairs = permutation(emitter.grid, current, step.layout)
    if all(a == b for a, b in pairs):
        return value
    return emitter.collective_permute(value, pairs)


_EMIT: dict[str, Callable[[Emitter, ir.Value, Sequence[int], Layout, Step], ir.Value]] = {
    "slice": _emit_slice,
    "gather": _emit_gather,
    "exchange": _emit_exchange,
    "permute": _emit_permute,
    "regrid": _emit_regrid,
}


def permutation(grid: Grid, source: Layout, target: Layout) -> list[tuple[int, int]]:
    """Return (sender, receiver) pairs that turn ``source`` into ``target``.

    Every device sends once and receives once; a device that has its block already keeps it.
    """
    holders: dict[tuple[int, ...], list[int]] = {}
    wanters: dict[tuple[int, ...], list[int]] = {}
    for device in range(grid.num_devices):
        has = tuple(grid.index(atoms, device) for atoms in source)
        needs = tuple(grid.index(atoms, device) for atoms in target)
        holders.setdefault(has, []).append(device)
        wanters.setdefault(needs, []).append(device)
    pairs = []
    for block, devices in wanters.items():
        own = holders[block]
        stay = set(own) & set(devices)
        pairs += [(d, d) for d in stay]
        senders = [d for d in own if d not in stay]
        receivers = [d for d in devices if d not in stay]
        pairs += list(zip(senders, receivers, strict=True))
    return sorted(pairs, key=lambda pair: pair[1])
