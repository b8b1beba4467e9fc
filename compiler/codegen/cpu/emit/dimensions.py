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


@dataclass(frozen=True)
class GatherDimensions:
    """Of gather."""

    offset: list[int]
    collapsed: list[int]
    batch: list[int]
    indices_batch: list[int]
    start_map: list[int]
    vector: int


def gather_dimensions(node: Node) -> GatherDimensions:
    """Return the dimension numbers of a gather."""
    d = stablehlo.GatherDimensionNumbers(node.op.attributes["dimension_numbers"])
    return GatherDimensions(
        list(d.offset_dims),
        list(d.collapsed_slice_dims),
        list(d.operand_batching_dims),
        list(d.start_indices_batching_dims),
        list(d.start_index_map),
        d.index_vector_dim,
    )


@dataclass(frozen=True)
class ScatterDimensions:
    """Of scatter."""

    window: list[int]
    inserted: list[int]
    batch: list[int]
    indices_batch: list[int]
    to_operand: list[int]
    vector: int


def scatter_dimensions(node: Node) -> ScatterDimensions:
    """Return the dimension numbers of a scatter."""
    d = stablehlo.ScatterDimensionNumbers(node.op.attributes["scatter_dimension_numbers"])
    return ScatterDimensions(
        list(d.update_window_dims),
        list(d.inserted_window_dims),
        list(d.input_batching_dims),
        list(d.scatter_indices_batching_dims),
        list(d.scattered_dims_to_operand_dims),
        d.index_vector_dim,
    )


@dataclass(frozen=True)
class ConvDimensions:
    """Of convolution."""

    input_batch: int
    input_feature: int
    input_spatial: list[int]
    kernel_input: int
    kernel_output: int
    kernel_spatial: list[int]
    output_batch: int
    output_feature: int
    output_spatial: list[int]


def conv_dimensions(node: Node) -> ConvDimensions:
    """Return the dimension numbers of a convolution."""
    d = stablehlo.ConvDimensionNumbers(node.op.attributes["dimension_numbers"])
    return ConvDimensions(
        d.input_batch_dimension,
        d.input_feature_dimension,
        list(d.input_spatial_dimensions),
        d.kernel_input_feature_dimension,
        d.kernel_output_feature_dimension,
        list(d.kernel_spatial_dimensions),
        d.output_batch_dimension,
        d.output_feature_dimension,
        list(d.output_spatial_dimensions),
    )
