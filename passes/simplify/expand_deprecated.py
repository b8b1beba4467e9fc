"""Expansion of deprecated StableHLO: map, einsum, torch_index_select, tuples, sharding marks."""

from __future__ import annotations

from collections.abc import Sequence

from pai.dialects.mlir import ir, stablehlo
from pai.dialects.types import shape_of
from pai.passes.partition.handlers.custom_calls import CUSTOM_CALLS
from pai.passes.rewrite import is_unused
from pai.passes.simplify.build import broadcast, dot, i64s, like, reduce_add, transpose
from pai.passes.simplify.dce import has_effect
from pai.passes.simplify.expand_lapack import lapack_call
from pai.passes.simplify.expand_topk import approx_top_k
from pai.passes.simplify.expansions import expands, refuse


@expands("stablehlo.map")
def map_(op: ir.Operation) -> Sequence[ir.Value]:
    """Run the scalar region on whole tensors."""
    block = op.regions[0].blocks[0]
    shape = shape_of(op.results[0].type)
    values: dict[ir.Value, ir.Value] = dict(zip(block.arguments, op.operands, strict=True))

    def whole(value: ir.Value) -> ir.Value:
        if value not in values:
            values[value] = broadcast(value, shape)
        return values[value]

    for view in block.operations:
        inner = view.operation
        if inner.name == "stablehlo.return":
            return [whole(value) for value in inner.operands]
        if len(inner.regions) or not inner.name.startswith(("stablehlo.", "chlo.")):
            raise refuse(inner, "this operation inside a map is not supported")
        if inner.name == "stablehlo.constant":
            values[inner.results[0]] = broadcast(inner.clone().results[0], shape)
            continue
        types = [like(result, shape) for result in inner.results]
        copy = ir.Operation.create(
            inner.name,
            results=types,
            operands=[whole(value) for value in inner.operands],
            attributes={name: inner.attributes[name] for name in inner.attributes},
        )
        values.update(zip(inner.results, copy.results, strict=True))
    raise refuse(op, "the region of the map has no return")


@expands("stablehlo.einsum", "stablehlo.unary_einsum")
def einsum(op: ir.Operation) -> Sequence[ir.Value]:
    """Write an einsum as sums, one dot_general, and a transpose."""
    config = str(ir.StringAttr(op.attributes["einsum_config"]).value).replace(" ", "")
    inputs, _, out = config.partition("->")
    names = inputs.split(",")
    if "..." in config or any(len(set(labels)) != len(labels) for labels in [*names, out]):
        raise refuse(op, f"einsum '{config}' repeats a label in one tensor or has an ellipsis")
    summed = []
    for index, (labels, value) in enumerate(zip(names, op.operands, strict=True)):
        others = set(out).union(*(n for i, n in enumerate(names) if i != index))
        drop = [dim for dim, label in enumerate(labels) if label not in others]
        kept = "".join(label for label in labels if label in others)
        summed.append((kept, reduce_add(value, drop)))
    labels, value = summed[0] if len(summed) == 1 else _contract(op, summed, out)
    return [transpose(value, [labels.index(label) for label in out])]


def _contract(
    op: ir.Operation, operands: list[tuple[str, ir.Value]], out: str
) -> tuple[str, ir.Value]:
    (left, lhs), (right, rhs) = operands
    batch = [label for label in left if label in right and label in out]
    summed = [label for label in left if label in right and label not in out]
    rest = [n for n in left if n not in right] + [n for n in right if n not in left]
    value = dot(
        lhs,
        rhs,
        ([left.index(n) for n in batch], [right.index(n) for n in batch]),
        ([left.index(n) for n in summed], [right.index(n) for n in summed]),
        op.results[0].type.element_type,
        op.attributes.get("precision_config"),
    )
    return "".join(batch + rest), value


@expands("stablehlo.torch_index_select")
def torch_index_select(op: ir.Operation) -> Sequence[ir.Value]:
    """Write the selection as a gather."""
    operand, index = op.operands
    dim = int(ir.IntegerAttr(op.attributes["dim"]).value)
    batch = int(ir.IntegerAttr(op.attributes["batch_dims"]).value)
    shape, index_rank = shape_of(operand.type), len(shape_of(index.type))
    dim += len(shape) if dim < 0 else 0
    batch += index_rank if batch < 0 else 0
    spread = index_rank - batch  # dimensions that replace ``dim``
    offsets = [*range(batch, dim), *range(dim + spread, len(shape) + spread - 1)]
    numbers = stablehlo.GatherDimensionNumbers.get(
        offset_dims=offsets,
        collapsed_slice_dims=[dim],
        operand_batching_dims=list(range(batch)),
        start_indices_batching_dims=list(range(batch)),
        start_index_map=[dim],
        index_vector_dim=index_rank,
    )
    sizes = [1 if d == dim or d < batch else size for d, size in enumerate(shape)]
    return [
        stablehlo.GatherOp(
            operand, index, numbers, i64s(sizes), results=[op.results[0].type]
        ).result
    ]


@expands("stablehlo.get_tuple_element")
def get_tuple_element(op: ir.Operation) -> Sequence[ir.Value]:
    """Take the element straight from the operation that made the tuple."""
    owner = op.operands[0].owner
    index = int(ir.IntegerAttr(op.attributes["index"]).value)
    if isinstance(owner, ir.Block) or owner.operation.name != "stablehlo.tuple":
        raise refuse(op, "a tuple that does not come from a 'tuple' operation is not supported")
    return [owner.operation.operands[index]]


@expands("stablehlo.custom_call")
def custom_call(op: ir.Operation) -> Sequence[ir.Value] | None:
    """Drop marks of shardings and layouts, expand LAPACK's calls, refuse unregistered others."""
    target = str(ir.StringAttr(op.attributes["call_target_name"]).value)
    if target in {"Sharding", "annotate_device_placement", "LayoutConstraint"}:
        return list(op.operands)
    if target in {"SPMDFullToShardShape", "SPMDShardToFullShape"}:
        raise refuse(
            op,
            f"'{target}' marks a part that the user has split by hand with GSPMD",
            "export the model with Shardy (jax_use_shardy_partitioner) or without shard_map",
        )
    if target == "shape_assertion" or (is_unused(op) and not has_effect(op)):
        return None
    if target in CUSTOM_CALLS:
        return None
    values = approx_top_k(op) if target == "ApproxTopK" else lapack_call(op, target)
    if values is not None:
        return values
    raise refuse(
        op,
        f"the custom call '{target}' runs code that is not in the model",
        "export the model for a platform where it lowers to StableHLO",
    )
