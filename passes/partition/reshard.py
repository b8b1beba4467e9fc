"""Move a value from one layout to another with as few collectives as the layouts allow."""

from __future__ import annotations

from collections.abc import Sequence

from pai.dialects.mlir import ir
from pai.passes.partition.emit import Emitter, tensor
from pai.passes.partition.layout import Atoms, Grid, Layout, common_prefix, used


def reshard(
    emitter: Emitter, value: ir.Value, shape: Sequence[int], source: Layout, target: Layout
) -> ir.Value:
    """Return ``value``, a shard of a tensor of global ``shape``, in another layout.

    In order: nothing, one collective_permute when the blocks are the same, free slices,
    all_to_all, all_gather, the remaining slices. A dimension that its shards do not divide is
    gathered whole before it is cut again, for its blocks do not nest.
    """
    if source == target:
        return value
    grid = emitter.grid
    if 0 in shape:
        local = tensor(grid.local_shape(shape, target), value.type.element_type)
        return emitter.constant(local, 0)
    if all(grid.count(a) == grid.count(b) for a, b in zip(source, target, strict=True)):
        return _permute(emitter, value, source, target)
    current = list(source)
    value = _slice(emitter, value, shape, current, target)
    value = _exchange(emitter, value, shape, current, target)
    value = _gather(emitter, value, shape, current, target)
    return _slice(emitter, value, shape, current, target)


def _nests(grid: Grid, size: int, outer: Atoms, inner: Atoms) -> bool:
    """Whether the blocks along ``inner``, which extends ``outer``, divide those of ``outer``."""
    return not outer or size % grid.count(inner) == 0


def _slice(
    emitter: Emitter, value: ir.Value, shape: Sequence[int], current: list[Atoms], target: Layout
) -> ir.Value:
    for dim, (have, want) in enumerate(zip(list(current), target, strict=True)):
        extra = want[len(have) :]
        if not extra or want[: len(have)] != have or used(tuple(current)) & set(extra):
            continue
        if _nests(emitter.grid, shape[dim], have, want):
            value = emitter.block(value, dim, extra)
            current[dim] = want
    return value


def _exchange(
    emitter: Emitter, value: ir.Value, shape: Sequence[int], current: list[Atoms], target: Layout
) -> ir.Value:
    grid = emitter.grid
    for split in range(len(current)):
        for concat in range(len(current)):
            moved = _moved(current, target, split, concat)
            if not moved:
                continue
            taken = current[split] + moved
            if shape[split] % grid.count(taken) or shape[concat] % grid.count(current[concat]):
                continue
            value = emitter.all_to_all(value, split, concat, moved)
            current[concat] = current[concat][: -len(moved)]
            current[split] = taken
    return value


def _moved(current: list[Atoms], target: Layout, split: int, concat: int) -> Atoms:
    """Return the atoms at the end of dim ``concat`` that dim ``split`` needs next."""
    have, want = current[split], target[split]
    if split == concat or want[: len(have)] != have:
        return ()
    needs = want[len(have) :]
    for length in range(len(needs), 0, -1):
        atoms = needs[:length]
        rest = current[concat][: len(current[concat]) - length]
        if current[concat][len(rest) :] == atoms and target[concat][: len(rest)] == rest:
            return atoms
    return ()


def _gather(
    emitter: Emitter, value: ir.Value, shape: Sequence[int], current: list[Atoms], target: Layout
) -> ir.Value:
    for dim, (have, want) in enumerate(zip(list(current), target, strict=True)):
        keep = common_prefix(have, want)
        if not _nests(emitter.grid, shape[dim], keep, have) or not _nests(
            emitter.grid, shape[dim], keep, want
        ):
            keep = ()
        if keep != have:
            value = emitter.all_gather(value, dim, have[len(keep) :])
            if not keep:
                value = emitter.cut_end(value, dim, shape[dim])
            current[dim] = keep
    return value


def _permute(emitter: Emitter, value: ir.Value, source: Layout, target: Layout) -> ir.Value:
    pairs = permutation(emitter.grid, source, target)
    if all(a == b for a, b in pairs):
        return value
    return emitter.collective_permute(value, pairs)


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
