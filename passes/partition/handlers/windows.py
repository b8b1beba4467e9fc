"""Windows that slide along a split dimension: what a shard's windows see, fetched.

All of convolution, reduce_window, pad and slice are windows over an operand that may be dilated:
element i of the operand stands at position ``i * base_dilation``, window o begins at position
``o * stride - low`` and sees ``extent`` positions. The windows of shard d, ``count`` of them, see
positions [d * count * stride - low, + (count - 1) * stride + extent).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pai.dialects.mlir import ir
from pai.passes.partition.cutting import dynamic_cut, entry, pad_edges
from pai.passes.partition.emit import array_attr
from pai.passes.partition.fetch import fetch
from pai.passes.partition.handlers.base import Site, shape


@dataclass(frozen=True)
class Window:
    """How a window slides along one dimension of the operand.

    Args:
        size: elements of the window.
        stride: step between windows.
        low: padding in front; negative cuts.
        high: padding behind; negative cuts.
        base_dilation: distance between the operand's elements.
        dilation: distance between the window's elements.
        reversed: whether the window's elements are taken last to first.
    """

    size: int = 1
    stride: int = 1
    low: int = 0
    high: int = 0
    base_dilation: int = 1
    dilation: int = 1
    reversed: int = 0

    @property
    def extent(self) -> int:
        """The positions from a window's first element to its last."""
        return (self.size - 1) * self.dilation + 1

    @property
    def trivial(self) -> bool:
        """Whether every window is one element in its place."""
        return self == Window(dilation=self.dilation, reversed=self.reversed)

    def begins(self, shards: int, count: int) -> list[int]:
        """Return the first position that the ``count`` windows of each shard see."""
        return [shard * count * self.stride - self.low for shard in range(shards)]

    def span(self, count: int) -> int:
        """Return the positions that ``count`` windows see."""
        return (count - 1) * self.stride + self.extent if count else 0

    def needed(self, shards: int, count: int, total: int) -> list[int]:
        """Return the positions that those windows of each shard see that are among ``total``."""
        counts = [min(count, max(0, total - shard * count)) for shard in range(shards)]
        return [self.span(part) for part in counts]


def windows_of(op: ir.Operation, sizes: Sequence[int], names: Mapping[str, str]) -> list[Window]:
    """Return the window of each dimension; ``names`` maps Window's fields to attributes."""
    columns: dict[str, Sequence[int]] = {"size": sizes}
    for field, name in names.items():
        if name in op.attributes:
            columns[field] = list(op.attributes[name])
    if "padding" in op.attributes:
        edges = list(ir.DenseIntElementsAttr(op.attributes["padding"]))
        columns["low"], columns["high"] = edges[::2], edges[1::2]
    return [
        Window(**{key: int(column[d]) for key, column in columns.items()})
        for d in range(len(sizes))
    ]


@dataclass(frozen=True)
class Remainder:
    """What is left for the operation to do on a dimension whose positions have been fetched."""

    low: int = 0
    high: int = 0
    base_dilation: int = 1


def fetch_positions(
    site: Site,
    operand: int,
    dim: int,
    begins: Sequence[int],
    span: int,
    base_dilation: int,
    fill: ir.Value | None,
    needed: Sequence[int] | None = None,
) -> Remainder:
    """Replace an operand by the elements at positions [begins[shard], + span) of a dimension.

    Where the shards begin at different distances from an element, the operand is dilated here and
    nothing is left to the operation.

    Args:
        site: the operation.
        operand: which operand.
        dim: a split dimension of it.
        begins: per shard, the first position.
        span: how many positions.
        base_dilation: distance of the operand's elements.
        fill: scalar for what is no element; None when it does not matter.
        needed: per shard, how many of the positions matter; all by default.
    """
    emit, atoms = site.emit, site.split(operand, dim)
    size = shape(site.op.operands[operand])[dim]
    firsts = [-(-begin // base_dilation) for begin in begins]
    leads = [first * base_dilation - begin for first, begin in zip(firsts, begins, strict=True)]
    length = max(1, *_elements([span] * len(leads), leads, base_dilation))
    matter = _elements(needed or [span] * len(leads), leads, base_dilation)
    value = fetch(emit, site.operands[operand], dim, atoms, size, firsts, length, fill, matter)
    site.operands[operand] = value
    width = (length - 1) * base_dilation + 1
    if len(set(leads)) == 1 and leads[0] + width <= span:
        return Remainder(leads[0], span - leads[0] - width, base_dilation)
    most = max(leads)
    high = max(0, span - min(leads) - width)
    value = pad_edges(emit, value, dim, most, high, fill, base_dilation - 1)
    places = entry(emit, [most - lead for lead in leads], atoms)
    site.operands[operand] = dynamic_cut(emit, value, dim, places, span)
    return Remainder()


def _elements(spans: Sequence[int], leads: Sequence[int], base_dilation: int) -> list[int]:
    """Return how many elements stand among positions of which the first ``leads`` have none."""
    pairs = zip(spans, leads, strict=True)
    return [max(0, (span - lead - 1) // base_dilation + 1) for span, lead in pairs]


def window_attributes(
    op: ir.Operation, windows: int, left: Mapping[int, Remainder], dilation: str
) -> dict[str, ir.Attribute]:
    """Return the padding and base dilation attributes of a window operation.

    Args:
        op: the operation on global shapes.
        windows: how many dimensions have a window.
        left: by index of the window, what is left to do; others stay as they are.
        dilation: name of the base dilation attribute.
    """
    if not left:
        return {}
    edges, bases = [0] * (2 * windows), [1] * windows
    if "padding" in op.attributes:
        edges = [int(edge) for edge in ir.DenseIntElementsAttr(op.attributes["padding"])]
    if dilation in op.attributes:
        bases = list(op.attributes[dilation])
    for index, remainder in left.items():
        edges[2 * index : 2 * index + 2] = [remainder.low, remainder.high]
        bases[index] = remainder.base_dilation
    i64 = ir.IntegerType.get_signless(64)
    type_ = ir.RankedTensorType.get([windows, 2], i64)
    attrs = [ir.IntegerAttr.get(i64, edge) for edge in edges]
    return {"padding": ir.DenseElementsAttr.get(attrs, type_), dilation: array_attr(bases)}
