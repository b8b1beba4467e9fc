"""Operations that work on some dimensions at once and on the others one by one."""

from __future__ import annotations

from pai.dialects.mlir import ir, stablehlo
from pai.passes.partition.emit import Emitter, identity, tensor
from pai.passes.partition.handlers.base import Handler, Site, before_reshards, register, shape
from pai.passes.partition.handlers.shapes import ints
from pai.passes.partition.rule import Factors, Rule, whole


def _leading(op: ir.Operation, inner: list[int]) -> Rule:
    """Share the leading dimensions; the last ``inner[i]`` of operand i (and results) are whole."""
    out = Rule()
    first = shape(op.operands[0])
    batch: list[Factors] = out.dims(first[: len(first) - inner[0]])
    out.operands = [batch + whole(count) for count in inner[: len(op.operands)]]
    out.results = [batch + whole(value.type.rank - len(batch)) for value in op.results]
    return out


def sort_rule(op: ir.Operation) -> Rule:
    """Share every dimension but the sorted one."""
    dimension = ir.IntegerAttr(op.attributes["dimension"]).value
    out = Rule()
    dims: list[Factors] = [
        () if dim == dimension % len(shape(op.operands[0])) else (out.factor(size),)
        for dim, size in enumerate(shape(op.operands[0]))
    ]
    out.operands = [dims] * len(op.operands)
    out.results = [dims] * len(op.results)
    return out


def top_k_rule(op: ir.Operation) -> Rule:
    """Share the leading dimensions; the last may be split where few of its elements are wanted."""
    out = _leading(op, [1])
    size, wanted = shape(op.operands[0])[-1], shape(op.results[0])[-1]
    if 0 < 4 * wanted <= size:
        out.operands[0][-1] = (out.factor(size),)
    return out


def build_top_k(site: Site) -> list[ir.Value]:
    """Take each shard's greatest, gather them with their places, and sort these few.

    The sort is stable and shards come in order, so that the first of equal elements wins as on
    one device. By the total order nothing is below what the padded tail is filled with.
    """
    atoms = site.split(0, site.operands[0].type.rank - 1)
    if not atoms:
        return site.clone()
    emit, kind = site.emit, site.operands[0].type
    dim, size = kind.rank - 1, shape(site.op.operands[0])[-1]
    local, wanted = kind.shape[dim], shape(site.op.results[0])[-1]
    least = _least(emit, kind.element_type)
    value = emit.mask_tail(site.operands[0], dim, size, atoms, least)
    few = [*kind.shape[:dim], min(wanted, local)]
    types = [tensor(few, result.type.element_type) for result in site.op.results]
    i64 = ir.IntegerType.get_signless(64)
    attributes = {"k": ir.IntegerAttr.get(i64, few[dim])}
    values, places = emit.op("chlo.top_k", types, [value], attributes).results
    offset = emit.broadcast(emit.offset(atoms, local), few, [])
    places = emit.binary("add", places, offset)
    gathered = [emit.all_gather(part, dim, atoms) for part in (values, places)]
    best = _sort_greatest_first(emit, gathered, dim)
    return [emit.cut_end(part, dim, wanted) for part in best]


def _least(emit: Emitter, element: ir.Type) -> ir.Value:
    """Return the scalar that comes last in the total order: a negative NaN for floats."""
    type_ = tensor([], element)
    if isinstance(element, ir.IntegerType):
        return emit.constant(type_, identity("max", element))
    bits = "F" * (ir.FloatType(element).width // 4)
    attributes = {"value": ir.Attribute.parse(f"dense<0x{bits}> : {type_}")}
    return emit.op("stablehlo.constant", [type_], [], attributes).result


def _sort_greatest_first(emit: Emitter, values: list[ir.Value], dim: int) -> list[ir.Value]:
    """Sort by the first of ``values``, the greatest first, and keep the order of equal ones."""
    attributes = {
        "dimension": ir.IntegerAttr.get(ir.IntegerType.get_signless(64), dim),
        "is_stable": ir.BoolAttr.get(True),
    }
    op = emit.op("stablehlo.sort", [v.type for v in values], values, attributes, regions=1)
    scalars = [tensor([], v.type.element_type) for v in values for _ in range(2)]
    block = op.regions[0].blocks.append(*scalars, arg_locs=[op.location] * len(scalars))
    order = "TOTALORDER"
    if isinstance(values[0].type.element_type, ir.IntegerType):
        signed = str(values[0].type.element_type).startswith("i")
        order = "SIGNED" if signed and not _is_flag(values[0]) else "UNSIGNED"
    attributes = {
        "comparison_direction": stablehlo.ComparisonDirectionAttr.get("GT"),
        "compare_type": stablehlo.ComparisonTypeAttr.get(order),
    }
    with ir.InsertionPoint(block):
        flag = tensor([], ir.IntegerType.get_signless(1))
        first = emit.op("stablehlo.compare", [flag], list(block.arguments)[:2], attributes).result
        emit.op("stablehlo.return", [], [first])
    return list(op.results)


def _is_flag(value: ir.Value) -> bool:
    return str(value.type.element_type) == "i1"


def matrix_rule(op: ir.Operation) -> Rule:
    """Share the batch dimensions of matrices."""
    return _leading(op, [2] * len(op.operands))


def fft_rule(op: ir.Operation) -> Rule:
    """Share the dimensions that are not transformed."""
    return _leading(op, [len(ints(op, "fft_length"))])


def batch_norm_rule(op: ir.Operation) -> Rule:
    """Share the features; in inference, where nothing is summed, every dimension."""
    feature = ir.IntegerAttr(op.attributes["feature_index"]).value
    inference = op.name.endswith("inference")
    rank = op.operands[0].type.rank
    out = Rule()
    dims: list[Factors] = [
        (out.factor(size),) if inference or dim == feature else ()
        for dim, size in enumerate(shape(op.operands[0]))
    ]

    def of(value: ir.Value) -> list[Factors]:
        return dims if value.type.rank == rank and rank > 1 else [dims[feature]]

    out.operands = [of(value) for value in op.operands]
    out.results = [of(value) for value in op.results]
    return out


register(Handler(sort_rule), "stablehlo.sort")
register(Handler(top_k_rule, build_top_k, before_reshards), "chlo.top_k")
register(Handler(matrix_rule), "stablehlo.cholesky", "stablehlo.triangular_solve")
register(Handler(fft_rule), "stablehlo.fft")
register(
    Handler(batch_norm_rule),
    "stablehlo.batch_norm_inference",
    "stablehlo.batch_norm_training",
    "stablehlo.batch_norm_grad",
)
