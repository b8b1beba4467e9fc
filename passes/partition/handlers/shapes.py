"""Operations that rearrange or make elements: broadcast, reshape, transpose, iota, constants."""

from __future__ import annotations

from pai.dialects.mlir import ir
from pai.passes.partition.emit import (
    complex_constant,
    complex_elements,
    is_complex,
)
from pai.passes.partition.handlers.base import Handler, Site, register, shape
from pai.passes.partition.rule import Rule, whole


def ints(op: ir.Operation, name: str) -> list[int]:
    """Return a dense i64 array attribute as a list."""
    return list(op.attributes[name])


def broadcast_rule(op: ir.Operation) -> Rule:
    """Follow the operand where its size is kept; new and stretched dimensions are free."""
    out = Rule()
    sizes = shape(op.results[0])
    results = out.dims(sizes)
    dims = ints(op, "broadcast_dimensions")
    kept = [size == sizes[dim] for size, dim in zip(shape(op.operands[0]), dims, strict=True)]
    out.operands = [[results[dim] if keep else () for keep, dim in zip(kept, dims, strict=True)]]
    out.results = [results]
    return out


def transpose_rule(op: ir.Operation) -> Rule:
    """Permute the factors."""
    out = Rule()
    operand = out.dims(shape(op.operands[0]))
    out.operands = [operand]
    out.results = [[operand[dim] for dim in ints(op, "permutation")]]
    return out


def reshape_rule(op: ir.Operation) -> Rule:
    """Cut both shapes at the products they share, and those pieces into common factors."""
    source, target = shape(op.operands[0]), shape(op.results[0])
    out = Rule(operands=[whole(len(source))], results=[whole(len(target))])
    if 0 in source:
        return out
    i = j = 0
    while i < len(source) and j < len(target):
        start, begin = i, j
        left, right = source[i], target[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left, i = left * source[i], i + 1
            else:
                right, j = right * target[j], j + 1
        _reshape_group(out, source, target, range(start, i), range(begin, j))
    return out


def _reshape_group(
    rule: Rule, source: list[int], target: list[int], left: range, right: range
) -> None:
    """Give factors to one group of dimensions whose sizes have the same product."""
    ends = sorted(_ends(source, left) | _ends(target, right))
    pairs = list(zip([1, *ends], ends, strict=False))
    simple = len(pairs) == 1
    if any(after % before for before, after in pairs):
        return
    factors = [(rule.factor(b // a, even=not simple), a, b) for a, b in pairs]
    for dims, sizes, out in (
        (left, source, rule.operands[0]),
        (right, target, rule.results[0]),
    ):
        begin = 1
        for dim in dims:
            end = begin * sizes[dim]
            out[dim] = tuple(f for f, a, b in factors if begin <= a and b <= end)
            begin = end


def _ends(sizes: list[int], dims: range) -> set[int]:
    out, product = set(), 1
    for dim in dims:
        product *= sizes[dim]
        if sizes[dim] > 1:
            out.add(product)
    return out


def source_rule(op: ir.Operation) -> Rule:
    """Leave every dimension free: the operation has no operands."""
    out = Rule()
    out.results = [out.dims(shape(op.results[0]))]
    return out


def build_iota(site: Site) -> list[ir.Value]:
    """Count from this device's offset, in i32, so that narrow types round once only."""
    dim = ir.IntegerAttr(site.op.attributes["iota_dimension"]).value
    atoms = site.layout()[dim]
    if not atoms:
        return site.clone()
    type_ = site.type()
    positions = site.emit.positions(list(type_.shape), dim, atoms)
    return [positions if positions.type == type_ else site.emit.unary("convert", positions, type_)]


def build_constant(site: Site) -> list[ir.Value]:
    """Shrink a splat; cut this device's block out of anything else."""
    emit, target = site.emit, site.type()
    full = site.op.results[0].type
    if is_complex(full):
        elements = complex_elements(site.op)
        if elements.startswith("("):
            return [complex_constant(target, elements)]
        value = None
    else:
        value = site.op.attributes["value"]
    if isinstance(value, ir.DenseElementsAttr) and value.is_splat:
        attr = ir.DenseElementsAttr.get_splat(target, value.get_splat_value())
        return [emit.op("stablehlo.constant", [target], [], {"value": attr}).result]
    (out,) = site.clone(types=[full])
    for dim, atoms in enumerate(site.layout()):
        if atoms:
            out = emit.block(out, dim, atoms)
    return [out]


register(Handler(broadcast_rule), "stablehlo.broadcast_in_dim")
register(Handler(transpose_rule), "stablehlo.transpose")
register(Handler(reshape_rule), "stablehlo.reshape")
register(Handler(source_rule, build_iota), "stablehlo.iota")
register(Handler(source_rule, build_constant), "stablehlo.constant")
