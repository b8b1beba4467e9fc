"""What XLA's CPU backend cannot run, said in another way."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pai.dialects.mlir import ir, parse, stablehlo, to_text
from pai.passes.rewrite import walk

BITWISE = ("stablehlo.and", "stablehlo.or", "stablehlo.xor")


_NEGATIVE = re.compile(r"(low|high) = \[[^\]]*-")


def sayable(text: str) -> str:
    """Return a module with what XLA's CPU backend refuses written in another way.

    all_reduce by and, or of integers and by xor becomes all_gather and a reduction of the parts;
    negative padding, which XLA takes away in a pass that is off here, a slice.
    """
    collective = "all_reduce" in text or "reduce_scatter" in text
    bitwise = collective and any(name in text for name in BITWISE)
    if not bitwise and not _NEGATIVE.search(text):
        return text
    module = parse(text, "oracle")
    with module.context:
        for op in list(walk(module.operation)):
            if op.name in ("stablehlo.all_reduce", "stablehlo.reduce_scatter"):
                _spell_out(op)
            elif op.name == "stablehlo.pad":
                _cut(op)
    return to_text(module)


def _spell_out(op: ir.Operation) -> None:
    kind = next(iter(op.regions[0].blocks[0].operations)).operation.name
    integer = op.operands[0].type.element_type
    if kind == "stablehlo.xor" or (kind in BITWISE and str(integer) != "i1"):
        with op.location, ir.InsertionPoint(op):
            parts = _gathered if op.name == "stablehlo.all_reduce" else _exchanged
            for old, value in zip(op.results, op.operands, strict=True):
                stacked, dim = parts(op, value)
                old.replace_all_uses_with(_joined(kind, stacked, dim, old.type))
        op.erase()


def _cut(op: ir.Operation) -> None:
    """Pad where the padding is positive, then slice off the rest."""
    low, high = (list(op.attributes[f"edge_padding_{side}"]) for side in ("low", "high"))
    if min([0, *low, *high]) == 0:
        return
    shape = list(op.results[0].type.shape)
    more = [-min(0, n) for n in low]
    wide = [n + a - min(0, b) for n, a, b in zip(shape, more, high, strict=True)]
    element = op.results[0].type.element_type

    def array(numbers: Iterable[int]) -> ir.Attribute:
        return ir.DenseI64ArrayAttr.get(list(numbers))

    edges = {
        "edge_padding_low": array(max(0, n) for n in low),
        "edge_padding_high": array(max(0, n) for n in high),
        "interior_padding": op.attributes["interior_padding"],
    }
    cut = {
        "start_indices": array(more),
        "limit_indices": array(a + n for a, n in zip(more, shape, strict=True)),
        "strides": array([1] * len(shape)),
    }
    with op.location, ir.InsertionPoint(op):
        padded = _op(op.name, ir.RankedTensorType.get(wide, element), list(op.operands), edges)
        new = _op("stablehlo.slice", op.results[0].type, [padded], cut)
    op.results[0].replace_all_uses_with(new)
    op.erase()


def _gathered(op: ir.Operation, value: ir.Value) -> tuple[ir.Value, int]:
    """Return every device's value, one after another along a first dimension."""
    shape, element = list(value.type.shape), value.type.element_type
    count = ir.ShapedType(op.attributes["replica_groups"].type).shape[1]
    row = _op("stablehlo.reshape", ir.RankedTensorType.get([1, *shape], element), [value])
    attributes = {**_devices(op), "all_gather_dim": _i64(0)}
    kind = ir.RankedTensorType.get([count, *shape], element)
    return _op("stablehlo.all_gather", kind, [row], attributes), 0


def _exchanged(op: ir.Operation, value: ir.Value) -> tuple[ir.Value, int]:
    """Return every device's block for this one, along a new dimension before the scattered one."""
    shape = list(value.type.shape)
    count = ir.ShapedType(op.attributes["replica_groups"].type).shape[1]
    dim = ir.IntegerAttr(op.attributes["scatter_dimension"]).value
    attributes = {
        **_devices(op),
        "split_dimension": _i64(dim),
        "concat_dimension": _i64(dim),
        "split_count": _i64(count),
    }
    blocks = _op("stablehlo.all_to_all", value.type, [value], attributes)
    shape[dim : dim + 1] = [count, shape[dim] // count]
    kind = ir.RankedTensorType.get(shape, value.type.element_type)
    return _op("stablehlo.reshape", kind, [blocks]), dim


def _devices(op: ir.Operation) -> dict[str, ir.Attribute]:
    return {"replica_groups": op.attributes["replica_groups"]}  # channels are dropped anyway


def _i64(number: int) -> ir.Attribute:
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), number)


def _joined(kind: str, stacked: ir.Value, dim: int, type_: ir.Type) -> ir.Value:
    """Reduce a dimension by a bitwise operation."""
    element = type_.element_type
    scalar = ir.RankedTensorType.get([], element)
    # The bindings take signed numbers: -1 has all bits set, but narrow unsigned types refuse it.
    full = 2**element.width - 1 if "ui" in str(element) and element.width < 64 else -1
    first = full if kind == "stablehlo.and" else 0
    start = ir.DenseElementsAttr.get_splat(scalar, ir.IntegerAttr.get(element, first))
    init = _op("stablehlo.constant", scalar, [], {"value": start})
    out = ir.Operation.create(
        "stablehlo.reduce",
        results=[type_],
        operands=[stacked, init],
        attributes={"dimensions": ir.DenseI64ArrayAttr.get([dim])},
        regions=1,
    )
    loc = ir.Location.unknown()
    block = out.regions[0].blocks.append(scalar, scalar, arg_locs=[loc, loc])
    with ir.InsertionPoint(block):
        stablehlo.ReturnOp([_op(kind, scalar, list(block.arguments))])
    return out.result


def _op(
    name: str,
    kind: ir.Type,
    operands: list[ir.Value],
    attributes: dict[str, ir.Attribute] | None = None,
) -> ir.Value:
    return ir.Operation.create(
        name, results=[kind], operands=operands, attributes=attributes or {}
    ).result
