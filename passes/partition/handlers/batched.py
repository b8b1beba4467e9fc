"""Operations that work on some dimensions at once and on the others one by one."""

from __future__ import annotations

from pai.dialects.mlir import ir
from pai.passes.partition.handlers.base import Handler, register, shape
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
    """Share every dimension but the last."""
    return _leading(op, [1])


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
register(Handler(top_k_rule), "chlo.top_k")
register(Handler(matrix_rule), "stablehlo.cholesky", "stablehlo.triangular_solve")
register(Handler(fft_rule), "stablehlo.fft")
register(
    Handler(batch_norm_rule),
    "stablehlo.batch_norm_inference",
    "stablehlo.batch_norm_training",
    "stablehlo.batch_norm_grad",
)
