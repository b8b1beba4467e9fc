"""The collectives of a manual computation, whose tensors may be split along the other axes."""

from __future__ import annotations

from pai.dialects.mlir import ir
from pai.passes.partition.emit import MANUAL
from pai.passes.partition.handlers.base import Handler, Site, register, shape
from pai.passes.partition.rule import Factors, Rule

# The dimensions that a collective cuts or joins, by the attribute that names them.
_DIMENSIONS = ("all_gather_dim", "scatter_dimension", "split_dimension", "concat_dimension")


def rule(op: ir.Operation) -> Rule:
    """Share every dimension but those the collective changes: its groups differ in other axes."""
    changed = {
        ir.IntegerAttr(op.attributes[name]).value for name in _DIMENSIONS if name in op.attributes
    }
    out = Rule()
    for value in op.operands:
        dims: list[Factors] = [
            () if dim in changed else (out.factor(size),) for dim, size in enumerate(shape(value))
        ]
        out.operands.append(dims)
        out.results.append(dims)
    return out


def build_all_gather(site: Site) -> list[ir.Value]:
    """Mark an all_gather as the user's, whose operand no layout describes."""
    return site.clone(**{MANUAL: ir.UnitAttr.get()})


register(Handler(rule, build_all_gather), "stablehlo.all_gather")
register(
    Handler(rule),
    "stablehlo.all_reduce",
    "stablehlo.all_to_all",
    "stablehlo.collective_broadcast",
    "stablehlo.collective_permute",
    "stablehlo.reduce_scatter",
)
