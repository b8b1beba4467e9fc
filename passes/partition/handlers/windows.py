"""Windows that slide along a split dimension: shards fetch the halo they need."""

from __future__ import annotations

from dataclasses import dataclass

from pai.dialects.mlir import ir
from pai.passes.partition.handlers.base import Site
from pai.passes.partition.handlers.moving import fetch_dims


@dataclass(frozen=True)
class Window:
    """How a window slides along one dimension of the operand.

    Args:
        size: elements of the window.
        stride: step between windows.
        low: padding in front.
        high: padding behind.
        base_dilation: distance between the operand's elements.
        dilation: distance between the window's elements.
    """

    size: int = 1
    stride: int = 1
    low: int = 0
    high: int = 0
    base_dilation: int = 1
    dilation: int = 1

    @property
    def extent(self) -> int:
        """The elements from a window's first to its last."""
        return (self.size - 1) * self.dilation + 1

    @property
    def trivial(self) -> bool:
        """Whether every window is one element in its place."""
        return self == Window(dilation=self.dilation)

    def may_split(self, size: int) -> bool:
        """Whether a halo is worth fetching: the window sees less than half the dimension."""
        return self.trivial or (self.base_dilation == 1 and 2 * self.extent <= size)


def windows_of(
    op: ir.Operation, rank: int, sizes: list[int], names: dict[str, str]
) -> list[Window]:
    """Return the window of each dimension; ``names`` maps Window's fields to attributes."""
    columns: dict[str, list[int]] = {"size": sizes}
    for field, name in names.items():
        if name in op.attributes:
            columns[field] = list(op.attributes[name])
    if "padding" in op.attributes:
        edges = list(ir.DenseIntElementsAttr(op.attributes["padding"]))
        columns["low"], columns["high"] = edges[::2], edges[1::2]
    return [Window(**{key: int(column[d]) for key, column in columns.items()}) for d in range(rank)]


def fetch_halos(
    site: Site,
    operand: int,
    windows: dict[int, tuple[Window, int]],
    fill: ir.Value,
) -> list[int]:
    """Fetch what the windows of each split dimension see; return those dimensions.

    Args:
        site: the operation.
        operand: which operand the windows slide over.
        windows: by dimension of the operand, its window and the dimension of the result.
        fill: scalar that padding holds.
    """
    local = list(site.type().shape)

    def interval(dim: int, shards: int) -> tuple[list[int], int]:
        window, result = windows[dim]
        step = local[result] * window.stride
        starts = [shard * step - window.low for shard in range(shards)]
        return starts, (local[result] - 1) * window.stride + window.extent

    moved = [dim for dim, (window, _) in windows.items() if not window.trivial]
    return fetch_dims(site, moved, interval, fill, operand)


def without_padding(op: ir.Operation, dims: list[int]) -> dict[str, ir.Attribute]:
    """Return the padding attribute of a window operation with none on ``dims``."""
    if "padding" not in op.attributes or not dims:
        return {}
    edges = list(ir.DenseIntElementsAttr(op.attributes["padding"]))
    for dim in dims:
        edges[2 * dim] = edges[2 * dim + 1] = 0
    i64 = ir.IntegerType.get_signless(64)
    type_ = ir.RankedTensorType.get([len(edges) // 2, 2], i64)
    attrs = [ir.IntegerAttr.get(i64, int(edge)) for edge in edges]
    return {"padding": ir.DenseElementsAttr.get(attrs, type_)}
