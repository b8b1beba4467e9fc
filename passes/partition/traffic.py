"""How much the collectives of a local module move."""

from __future__ import annotations

from collections.abc import Iterator

from pai.dialects.mlir import ir
from pai.passes.loops import trip_count
from pai.passes.partition.collectives.common import KINDS, bytes_of
from pai.passes.partition.report import CollectiveUse


def moved(kind: str, result_bytes: int, group_size: int) -> float:
    """Return the bytes each device sends in one collective of a group.

    With n devices and B bytes of the whole tensor of a group: all_reduce 2(n-1)/n B; all_gather,
    reduce_scatter and all_to_all (n-1)/n B (R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of
    Collective Communication Operations in MPICH", IJHPCA 19(1), 2005).

    Args:
        kind: StableHLO's name without the dialect, not collective_permute.
        result_bytes: bytes of the result on one device.
        group_size: devices of the group.
    """
    rest = group_size - 1
    if kind == "all_reduce":
        return 2 * rest / group_size * result_bytes
    if kind == "reduce_scatter":
        return float(rest * result_bytes)
    return rest / group_size * result_bytes


def collective_uses(module: ir.Module) -> tuple[CollectiveUse, ...]:
    """Return the collectives of a local module by kind and group size."""
    totals: dict[tuple[str, int], list[float]] = {}
    for op, trips in _collectives(module.operation, 1):
        kind, size = op.name.removeprefix("stablehlo."), _group_size(op)
        result = sum(map(bytes_of, op.results))
        sent = _sent(op) * result if kind == "collective_permute" else moved(kind, result, size)
        total = totals.setdefault((kind, size), [0, 0, 0])
        for index, amount in enumerate((1, result, sent)):
            total[index] += trips * amount
    return tuple(
        CollectiveUse(kind, int(count), int(result), size, round(sent))
        for (kind, size), (count, result, sent) in sorted(totals.items())
    )


def _collectives(op: ir.Operation, trips: int) -> Iterator[tuple[ir.Operation, int]]:
    for region in op.regions:
        for block in region.blocks:
            for view in block.operations:
                inner = view.operation
                if inner.name in KINDS:
                    yield inner, trips
                elif inner.name == "stablehlo.while":
                    yield from _collectives(inner, trips * trip_count(inner))
                elif len(inner.regions):
                    yield from _collectives(inner, trips)


def _group_size(op: ir.Operation) -> int:
    if "replica_groups" not in op.attributes:
        return 0
    return ir.ShapedType(op.attributes["replica_groups"].type).shape[1]


def _sent(op: ir.Operation) -> float:
    """Return the part of the devices that a collective_permute sends something to others."""
    values = list(ir.DenseIntElementsAttr(op.attributes["source_target_pairs"]))
    pairs = list(zip(values[::2], values[1::2], strict=True))
    devices = max(max(pair) for pair in pairs) + 1 if pairs else 1
    return sum(a != b for a, b in pairs) / devices
