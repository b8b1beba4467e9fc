"""What XLA's CPU backend cannot run, said in another way."""

from __future__ import annotations

from pai.dialects.mlir import ir, parse, stablehlo, to_text
from pai.passes.rewrite import walk

BITWISE = ("stablehlo.and", "stablehlo.or", "stablehlo.xor")


def without_bitwise_collectives(text: str) -> str:
    """Write all_reduce by and, or, xor of integers as all_gather and a reduction of the parts."""
    if "all_reduce" not in text or not any(name in text for name in BITWISE):
        return text
    module = parse(text, "oracle")
    with module.context:
        for op in [op for op in walk(module.operation) if op.name == "stablehlo.all_reduce"]:
            body = op.regions[0].blocks[0]
            kind = next(iter(body.operations)).operation.name
            integer = op.operands[0].type.element_type
            if kind == "stablehlo.xor" or (kind in BITWISE and str(integer) != "i1"):
                with op.location, ir.InsertionPoint(op):
                    for old, value in zip(op.results, op.operands, strict=True):
                        old.replace_all_uses_with(_gathered(op, kind, value))
                op.erase()
    return to_text(module)


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
