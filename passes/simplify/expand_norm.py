"""Expansion of batch normalization (StableHLO specification, batch_norm_*)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pai.dialects.mlir import ir, stablehlo
from pai.dialects.types import shape_of
from pai.passes.simplify.build import broadcast, full, reduce_add
from pai.passes.simplify.expansions import expands


@dataclass(frozen=True)
class _Norm:
    """The operand, the feature dimension, and the epsilon of a batch normalization."""

    op: ir.Operation

    @property
    def operand(self) -> ir.Value:
        return self.op.operands[0]

    @property
    def feature(self) -> int:
        return int(ir.IntegerAttr(self.op.attributes["feature_index"]).value)

    @property
    def other_dims(self) -> list[int]:
        return [d for d in range(len(shape_of(self.operand.type))) if d != self.feature]

    @property
    def count(self) -> int:
        """Elements that share one feature."""
        shape = shape_of(self.operand.type)
        total = 1
        for dim in self.other_dims:
            total *= shape[dim]
        return total

    def spread(self, feature_values: ir.Value) -> ir.Value:
        """Broadcast one value per feature to the operand's shape."""
        return broadcast(feature_values, shape_of(self.operand.type), [self.feature])

    def stddev(self, variance: ir.Value) -> ir.Value:
        """Return sqrt(variance + epsilon), one value per feature."""
        epsilon = float(ir.FloatAttr(self.op.attributes["epsilon"]).value)
        return stablehlo.sqrt(stablehlo.add(variance, full(epsilon, variance)))

    def mean(self, value: ir.Value) -> ir.Value:
        """Return the mean over all dimensions but the feature's."""
        total = reduce_add(value, self.other_dims)
        return stablehlo.divide(total, full(self.count, total))


def _normalize(
    norm: _Norm, scale: ir.Value, offset: ir.Value, mean: ir.Value, variance: ir.Value
) -> ir.Value:
    centered = stablehlo.subtract(norm.operand, norm.spread(mean))
    scaled = stablehlo.multiply(norm.spread(scale), centered)
    divided = stablehlo.divide(scaled, norm.spread(norm.stddev(variance)))
    return stablehlo.add(divided, norm.spread(offset))


@expands("stablehlo.batch_norm_inference")
def batch_norm_inference(op: ir.Operation) -> Sequence[ir.Value]:
    """Scale * (x - mean) / sqrt(variance + epsilon) + offset."""
    _, scale, offset, mean, variance = op.operands
    return [_normalize(_Norm(op), scale, offset, mean, variance)]


@expands("stablehlo.batch_norm_training")
def batch_norm_training(op: ir.Operation) -> Sequence[ir.Value]:
    """Normalize with the batch's own mean and (biased) variance, and return them too."""
    norm = _Norm(op)
    mean = norm.mean(norm.operand)
    centered = stablehlo.subtract(norm.operand, norm.spread(mean))
    variance = norm.mean(stablehlo.multiply(centered, centered))
    _, scale, offset = op.operands
    return [_normalize(norm, scale, offset, mean, variance), mean, variance]


@expands("stablehlo.batch_norm_grad")
def batch_norm_grad(op: ir.Operation) -> Sequence[ir.Value]:
    """Gradients with respect to operand, scale and offset."""
    norm = _Norm(op)
    operand, scale, mean, variance, grad = op.operands
    stddev = norm.stddev(variance)
    centered = stablehlo.subtract(operand, norm.spread(mean))
    grad_offset = reduce_add(grad, norm.other_dims)
    projected = reduce_add(stablehlo.multiply(grad, centered), norm.other_dims)
    grad_scale = stablehlo.divide(projected, stddev)
    squared = stablehlo.multiply(stddev, stddev)
    count = full(norm.count, operand)
    correction = stablehlo.divide(
        stablehlo.multiply(centered, norm.spread(projected)), norm.spread(squared)
    )
    inner = stablehlo.subtract(
        stablehlo.subtract(stablehlo.multiply(grad, count), norm.spread(grad_offset)), correction
    )
    factor = stablehlo.divide(stablehlo.divide(norm.spread(scale), norm.spread(stddev)), count)
    return [stablehlo.multiply(factor, inner), grad_scale, grad_offset]
