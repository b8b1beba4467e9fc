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
    bitwise = "all_reduce" in text and any(name in text for name in BITWISE)
    if not bitwise and not _NEGATIVE.search(text):
        return text
    module = parse(text, "oracle")
    with module.context:
        for op in list(walk(module.operation)):
            if op.name == "stablehlo.all_reduce":
                _spell_out(op)
            elif op.name == "stablehlo.pad":
                _cut(op)
    return to_text(module)


def _spell_out(op: ir.Operation) -> None:
    kind = next(iter(op.regions[0].blocks[0].operations)).operation.name
    integer = op.operands[0].type.element_type
    if kind == "stablehlo.xor" or (kind in BITWISE and str(integer) != "i1"):
        with op.location, ir.InsertionPoint(op):
            for old, value in zip(op.results, op.operands, strict=True):
                old.replace_all_uses_with(_gathered(op, kind, value))
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


def _gathered(op: ir.Operation, kind: str, value: ir.Value) -> ir.Value:
    groups = op.attributes["replica_groups"]
    count = ir.ShapedType(groups.type).shape[1]
    kind_of = value.type
    element = kind_of.element_type
    row = ir.RankedTensorType.get([1, *kind_of.shape], element)
    rows = ir.RankedTensorType.get([count, *kind_of.shape], element)
    part = _op("stablehlo.reshape", row, [value])
    keep = ("channel_handle", "use_global_device_ids", "replica_groups")
    attributes = {name: op.attributes[name] for name in keep if name in op.attributes}
    attributes["all_gather_dim"] = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), 0)
    stacked = _op("stablehlo.all_gather", rows, [part], attributes)
    scalar = ir.RankedTensorType.get([], element)
    ones = {"stablehlo.and": -1 if "ui" not in str(element) else 2**element.width - 1}
    start = ir.DenseElementsAttr.get_splat(scalar, ir.IntegerAttr.get(element, ones.get(kind, 0)))
    init = _op("stablehlo.constant", scalar, [], {"value": start})
    out = ir.Operation.create(
        "stablehlo.reduce",
        results=[kind_of],
        operands=[stacked, init],
        attributes={"dimensions": ir.DenseI64ArrayAttr.get([0])},
        regions=1,
    )
    loc = op.location
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
