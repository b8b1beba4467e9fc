"""pai-fold-padding: padding becomes part of the window operation that reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pai.dialects.mlir import ir, stablehlo
from pai.passes.base import Pass
from pai.passes.partition.cutting import is_splat
from pai.passes.partition.emit import PAD_VALUE, array_attr
from pai.passes.partition.handlers.reductions import repeats_init
from pai.passes.rewrite import collect, is_unused, replace

PAD, SLICE = "stablehlo.pad", "stablehlo.slice"
CONVOLUTION = "stablehlo.convolution"
REDUCE_WINDOW = "stablehlo.reduce_window"
SELECT_AND_SCATTER = "stablehlo.select_and_scatter"
DILATIONS = {CONVOLUTION: "lhs_dilation", REDUCE_WINDOW: "base_dilations"}


@dataclass(frozen=True)
class FoldPadding(Pass):
    """Give padding to the window operation behind it, so that shards keep their size.

    A padded tensor is cut into shards at other places than the tensor itself, so its elements
    would travel between devices only to be padded. Folded are pads of a convolution's input with
    zero, of reduce_window's operand with its initial value, and the pad and slice that JAX puts
    around select_and_scatter; so are slices of the results of the first two, and slices that a pad
    moves to another place. At select_and_scatter the attribute ``pai.pad_value`` says what the
    padding holds, for StableHLO's own padding is never selected and that of a pad is.

    Before::

        %1 = stablehlo.pad %x, %v, low = [1], high = [1], interior = [0]
        %2 = "stablehlo.select_and_scatter"(%1, %s, %i) <{window_dimensions = array<i64: 3>}> ...
        %3 = stablehlo.slice %2 [1:9]

    After::

        %3 = "stablehlo.select_and_scatter"(%x, %s, %i) <{window_dimensions = array<i64: 3>,
            padding = dense<[[1, 1]]>}> ({ ... }) {pai.pad_value = dense<0xFF800000>}
    """

    name: ClassVar[str] = "pai-fold-padding"

    def run(self, module: ir.Module) -> None:
        """Rewrite ``module`` in place."""
        with module.context, ir.Location.unknown():
            for op in collect(module, PAD):
                _fold_slice_before(op)
            for op in collect(module, CONVOLUTION, REDUCE_WINDOW, SELECT_AND_SCATTER):
                if op.name != SELECT_AND_SCATTER:
                    _fold_slice_behind(op)
                pad = _pad_of(op)
                if pad is None:
                    continue
                if op.name == SELECT_AND_SCATTER:
                    _fold_scatter(op, pad)
                else:
                    _fold(op, pad)


def _pad_of(op: ir.Operation) -> ir.Operation | None:
    """Return the pad that makes the first operand, when it may be folded."""
    source = op.operands[0]
    if isinstance(source, ir.BlockArgument) or source.owner.operation.name != PAD:
        return None
    pad = source.owner.operation
    if op.name != CONVOLUTION and len(op.operands) != (3 if op.name == SELECT_AND_SCATTER else 2):
        return None
    low, high, interior = _edges(pad)
    if min(*low, *high, 0) < 0 or not _value_fits(op, pad.operands[1]):
        return None
    dims = _dims(op)
    if any((low[d], high[d], interior[d]) != (0, 0, 0) for d in range(len(low)) if d not in dims):
        return None
    if op.name == SELECT_AND_SCATTER:
        return None if any(interior) or any(_padding(op, len(dims))) else pad
    bases = _column(op, DILATIONS[op.name], len(dims))
    return pad if all(base == 1 for base in bases) else None


def _value_fits(op: ir.Operation, value: ir.Value) -> bool:
    """Whether the padding holds what the operation's own padding would hold."""
    if op.name == CONVOLUTION:
        return is_splat(value, 0)
    if op.name == REDUCE_WINDOW:
        same = value == op.operands[1] or _constant(value) == _constant(op.operands[1]) is not None
        return same and repeats_init(op)
    return _constant(value) is not None


def _constant(value: ir.Value) -> ir.Attribute | None:
    """Return the value of a scalar constant, looked at through broadcasts."""
    while not isinstance(value, ir.BlockArgument):
        owner = value.owner.operation
        if owner.name == "stablehlo.constant":
            return owner.attributes["value"]
        if owner.name != "stablehlo.broadcast_in_dim" or owner.operands[0].type != value.type:
            return None
        value = owner.operands[0]
    return None


def _dims(op: ir.Operation) -> list[int]:
    """Return the dimensions of the first operand that have a window, in the window's order."""
    if op.name != CONVOLUTION:
        return list(range(op.operands[0].type.rank))
    numbers = stablehlo.ConvDimensionNumbers(op.attributes["dimension_numbers"])
    return list(numbers.input_spatial_dimensions)


def _edges(pad: ir.Operation) -> list[list[int]]:
    names = ("edge_padding_low", "edge_padding_high", "interior_padding")
    return [list(pad.attributes[name]) for name in names]


def _column(op: ir.Operation, name: str, size: int) -> list[int]:
    return list(op.attributes[name]) if name in op.attributes else [1] * size


def _padding(op: ir.Operation, size: int) -> list[int]:
    if "padding" not in op.attributes:
        return [0] * (2 * size)
    return [int(edge) for edge in ir.DenseIntElementsAttr(op.attributes["padding"])]


def _set_padding(op: ir.Operation, edges: list[int]) -> None:
    i64 = ir.IntegerType.get_signless(64)
    type_ = ir.RankedTensorType.get([len(edges) // 2, 2], i64)
    attrs = [ir.IntegerAttr.get(i64, edge) for edge in edges]
    op.attributes["padding"] = ir.DenseElementsAttr.get(attrs, type_)


def _add_padding(op: ir.Operation, pad: ir.Operation) -> None:
    """Add a pad's edges to the padding of ``op`` and let it read what is padded."""
    low, high, _ = _edges(pad)
    dims = _dims(op)
    edges = _padding(op, len(dims))
    for index, dim in enumerate(dims):
        edges[2 * index] += low[dim]
        edges[2 * index + 1] += high[dim]
    _set_padding(op, edges)
    op.operands[0] = pad.operands[0]


def _fold(op: ir.Operation, pad: ir.Operation) -> None:
    interior = _edges(pad)[2]
    dims = _dims(op)
    if any(interior):
        op.attributes[DILATIONS[op.name]] = array_attr([interior[dim] + 1 for dim in dims])
    _add_padding(op, pad)
    if is_unused(pad):
        pad.erase()


def _fold_scatter(op: ir.Operation, pad: ir.Operation) -> None:
    """Fold a pad whose only effect on the result is sliced off again."""
    uses = list(op.results[0].uses)
    if len(uses) != 1 or uses[0].owner.operation.name != SLICE:
        return
    cut = uses[0].owner.operation
    low, sizes = _edges(pad)[0], list(pad.operands[0].type.shape)
    limits = [begin + size for begin, size in zip(low, sizes, strict=True)]
    wanted = {"start_indices": low, "limit_indices": limits, "strides": [1] * len(low)}
    if any(list(cut.attributes[name]) != values for name, values in wanted.items()):
        return
    value = _constant(pad.operands[1])
    assert value is not None
    _add_padding(op, pad)
    if any(_padding(op, len(low))):
        op.attributes[PAD_VALUE] = value
    op.results[0].set_type(pad.operands[0].type)
    replace(cut, [op.results[0]])
    if is_unused(pad):
        pad.erase()


def _cut_of(op: ir.Operation) -> tuple[list[int], list[int]] | None:
    """Return how much a slice, or a pad with negative edges, cuts off in front and behind.

    None when the operation does anything else, or nothing is left.
    """
    if op.name not in (SLICE, PAD) or 0 in op.results[0].type.shape:
        return None
    if op.name == PAD:
        low, high, interior = _edges(op)
        cuts = [-edge for edge in low], [-edge for edge in high]
        return None if any(interior) or min(*cuts[0], *cuts[1], 0) < 0 else cuts
    if any(stride != 1 for stride in op.attributes["strides"]):
        return None
    sizes = zip(op.operands[0].type.shape, op.attributes["limit_indices"], strict=True)
    return list(op.attributes["start_indices"]), [size - limit for size, limit in sizes]


def _fold_slice_before(pad: ir.Operation) -> None:
    """Let a pad cut what a slice before it cuts, on sides where it adds nothing."""
    source = pad.operands[0]
    if isinstance(source, ir.BlockArgument):
        return
    cut = source.owner.operation
    amounts = _cut_of(cut)
    low, high, interior = _edges(pad)
    if amounts is None:
        return
    for a, b, edge_a, edge_b, gap in zip(*amounts, low, high, interior, strict=True):
        if (a or b) and (gap or (a and edge_a > 0) or (b and edge_b > 0)):
            return
    front, back = amounts
    pad.attributes["edge_padding_low"] = array_attr(
        [x - a for x, a in zip(low, front, strict=True)]
    )
    pad.attributes["edge_padding_high"] = array_attr(
        [x - a for x, a in zip(high, back, strict=True)]
    )
    pad.operands[0] = cut.operands[0]
    if is_unused(cut):
        cut.erase()


def _result_dims(op: ir.Operation) -> list[int]:
    """Return the dimensions of the result that have a window, in the window's order."""
    if op.name != CONVOLUTION:
        return _dims(op)
    numbers = stablehlo.ConvDimensionNumbers(op.attributes["dimension_numbers"])
    return list(numbers.output_spatial_dimensions)


def _fold_slice_behind(op: ir.Operation) -> None:
    """Leave out the windows that a slice of the result throws away."""
    uses = list(op.results[0].uses) if len(op.results) == 1 else []
    if len(uses) != 1 or uses[0].operand_number != 0:
        return
    cut = uses[0].owner.operation
    amounts, dims = _cut_of(cut), _result_dims(op)
    if amounts is None:
        return
    front, back = amounts
    if any(front[d] or back[d] for d in range(len(front)) if d not in dims):
        return
    strides = _column(op, "window_strides", len(dims))
    edges = _padding(op, len(dims))
    for index, dim in enumerate(dims):
        edges[2 * index] -= front[dim] * strides[index]
        edges[2 * index + 1] -= back[dim] * strides[index]
    _set_padding(op, edges)
    op.results[0].set_type(cut.results[0].type)
    replace(cut, [op.results[0]])
