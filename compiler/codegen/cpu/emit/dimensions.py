"""Dimension numbers of the attributes that have many, as plain lists."""

from __future__ import annotations

from dataclasses import dataclass

from pai.compiler.codegen.cpu.emit.graph import Node
from pai.dialects.mlir import stablehlo


@dataclass(frozen=True)
class DotDimensions:
    """Of dot_general."""

    lhs_batch: list[int]
    rhs_batch: list[int]
    lhs_contract: list[int]
    rhs_contract: list[int]


def dot_dimensions(node: Node) -> DotDimensions:
    """Return the dimension numbers of a dot_general."""
    d = stablehlo.DotDimensionNumbers(node.op.attributes["dot_dimension_numbers"])
    return DotDimensions(
        list(d.lhs_batching_dimensions),
        list(d.rhs_batching_dimensions),
        list(d.lhs_contracting_dimensions),
        list(d.rhs_contracting_dimensions),
    )
