"""dot_general."""

from __future__ import annotations

import math

from pai.dialects.mlir import ir, stablehlo
from pai.passes.partition.handlers.base import Handler, Site, register, shape
from pai.passes.partition.rule import Rule


def dot_rule(op: ir.Operation) -> Rule:
    """Share batch dimensions; free ones follow their operand; contracting ones are reduced."""
    numbers = stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"])
    out = Rule()
    lhs = out.dims(shape(op.operands[0]))
    rhs = out.dims(shape(op.operands[1]))
    batch = list(numbers.lhs_batching_dimensions)
    contract = list(numbers.lhs_contracting_dimensions)
    for left, right in zip(
        batch + contract,
        [*numbers.rhs_batching_dimensions, *numbers.rhs_contracting_dimensions],
        strict=True,
    ):
        rhs[right] = lhs[left]
    result = [lhs[dim] for dim in batch]
    result += [dims for i, dims in enumerate(lhs) if i not in batch + contract]
    paired = set(numbers.rhs_batching_dimensions) | set(numbers.rhs_contracting_dimensions)
    result += [dims for i, dims in enumerate(rhs) if i not in paired]
    out.operands = [lhs, rhs]
    out.results = [result]
    return out


def build_contraction(site: Site) -> list[ir.Value]:
    """Multiply local shards, padded tails zeroed, and add over the contracted factors."""
    results = {f for dims in site.rule.results[0] for f in dims}
    inputs = {f for dims in site.rule.operands[0] for f in dims}
    reduced = site.split_factors(sorted(inputs - results))
    for operand in range(2):
        element = site.operands[operand].type.element_type
        zero = site.emit.constant(ir.RankedTensorType.get([], element), 0)
        site.mask(operand, reduced, zero)
    out = site.clone()
    kind = "or" if str(out[0].type.element_type) == "i1" else "add"
    return site.emit.all_reduce(out, kind, site.atoms(reduced))


def dot_work(op: ir.Operation) -> int:
    """Return the multiplications: one for each element of the result and of what is contracted."""
    numbers = stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"])
    sizes = shape(op.operands[0])
    contracted = [sizes[dim] for dim in numbers.lhs_contracting_dimensions]
    return math.prod(shape(op.results[0])) * math.prod(contracted)


register(Handler(dot_rule, build_contraction, work=dot_work), "stablehlo.dot_general")
