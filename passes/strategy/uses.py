"""What a program does with each dimension of its parameters: products, convolutions, look-ups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pai.dialects.mlir import ir, stablehlo
from pai.passes.strategy.tensor_parallel import reshaped_dims

_SAME_SHAPE = frozenset(
    {"stablehlo.convert", "stablehlo.multiply", "stablehlo.subtract", "stablehlo.divide",
     "stablehlo.add", "stablehlo.optimization_barrier"}
)  # fmt: skip
OUTPUT, SUMMED, BATCH, LOOKED_UP, WINDOW = "output", "summed", "batch", "looked up", "window"
_Trace = tuple[int, tuple[int | None, ...]]  # (argument, its dimension for each dimension)


@dataclass(frozen=True)
class Use:
    """The first operation that works with a parameter.

    Args:
        operation: ``product``, ``convolution`` or ``look-up``.
        roles: what it does with each dimension of the parameter: ``output`` (features that it
            makes), ``summed`` (it adds over them), ``batch``, ``looked up`` (rows that indices
            choose), ``window``; "" when a reshape hides it.
    """

    operation: str
    roles: tuple[str, ...]


def parameter_uses(block: ir.Block) -> dict[int, Use]:
    """Return by argument number its first use in ``block``, the body of ``@main``."""
    traces: dict[ir.Value, _Trace] = {
        argument: (argument.arg_number, tuple(range(argument.type.rank)))
        for argument in block.arguments
        if isinstance(argument.type, ir.RankedTensorType)
    }
    uses: dict[int, Use] = {}
    for operation in block.operations:
        op = operation.operation
        for side, operation_name, roles in _roles(op):
            trace = traces.get(op.operands[side])
            if trace is not None and trace[0] not in uses:
                uses[trace[0]] = Use(operation_name, _on_argument(trace, roles, block))
        _follow(op, traces)
    return uses


def _on_argument(trace: _Trace, roles: dict[int, str], block: ir.Block) -> tuple[str, ...]:
    argument, dims = trace
    out = [""] * ir.RankedTensorType(block.arguments[argument].type).rank
    for dim, source in enumerate(dims):
        if source is not None:
            out[source] = roles.get(dim, OUTPUT)
    return tuple(out)


def _follow(op: ir.Operation, traces: dict[ir.Value, _Trace]) -> None:
    """Carry the trace of an argument through layout changes and element-wise scaling."""
    source = next((value for value in op.operands if value in traces), None)
    if source is None or len(op.results) != 1:
        return
    argument, dims = traces[source]
    result = op.results[0]
    if op.name == "stablehlo.transpose":
        order = [int(d) for d in op.attributes["permutation"]]
        traces[result] = (argument, tuple(dims[d] for d in order))
    elif op.name == "stablehlo.reshape":
        kept = reshaped_dims(
            list(ir.RankedTensorType(source.type).shape),
            list(ir.RankedTensorType(result.type).shape),
        )
        traces[result] = (argument, tuple(dims[d] if d is not None else None for d in kept))
    elif op.name in _SAME_SHAPE:
        traces[result] = (argument, dims)


def _roles(op: ir.Operation) -> Iterator[tuple[int, str, dict[int, str]]]:
    """Yield (operand, name of the operation, roles by the operand's dimension)."""
    if op.name == "stablehlo.dot_general":
        numbers = stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"])
        sides = (
            (numbers.lhs_contracting_dimensions, numbers.lhs_batching_dimensions),
            (numbers.rhs_contracting_dimensions, numbers.rhs_batching_dimensions),
        )
        for side, (summed, batch) in enumerate(sides):
            yield side, "product", {**dict.fromkeys(summed, SUMMED), **dict.fromkeys(batch, BATCH)}
    elif op.name == "stablehlo.convolution":
        shape = stablehlo.ConvDimensionNumbers(op.attributes["dimension_numbers"])
        roles = dict.fromkeys(shape.kernel_spatial_dimensions, WINDOW)
        yield 1, "convolution", {**roles, shape.kernel_input_feature_dimension: SUMMED}
    elif op.name == "stablehlo.gather":
        start = stablehlo.GatherDimensionNumbers(op.attributes["dimension_numbers"])
        yield 0, "look-up", dict.fromkeys(start.start_index_map, LOOKED_UP)
