"""Operations on devices in a model, which is one program: no other replica, no host to talk to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pai.dialects.constants import scalar
from pai.dialects.mlir import ir, stablehlo
from pai.passes.simplify.expansions import expands, refuse

_GROUPS = "replica_groups"
_PAIRS = "source_target_pairs"


@expands("stablehlo.infeed", "stablehlo.outfeed", "stablehlo.send", "stablehlo.recv")
def host_transfer(op: ir.Operation) -> Sequence[ir.Value]:
    """Refuse transfers to and from a host program: a package has inputs and outputs only."""
    raise refuse(
        op,
        f"{op.name} talks to a host program, which a package does not have",
        "make the value an argument or a result of the main function",
    )


@expands("stablehlo.replica_id")
def replica_id(op: ir.Operation) -> Sequence[ir.Value]:
    """Write the number of the only replica: a model is one program, split over partitions."""
    return [scalar(0, op.results[0].type.element_type)]


@expands(
    "stablehlo.all_gather",
    "stablehlo.all_reduce",
    "stablehlo.all_to_all",
    "stablehlo.collective_broadcast",
    "stablehlo.collective_permute",
    "stablehlo.reduce_scatter",
)
def collective(op: ir.Operation) -> Sequence[ir.Value] | None:
    """Drop a collective of each device with itself; those of a manual computation stay.

    JAX writes one for a shard_map over axes of size 1.
    """
    parent = op.parent
    while parent is not None:
        if parent.operation.name == "sdy.manual_computation":
            return None
        parent = parent.operation.parent
    attribute = op.attributes[_PAIRS if _PAIRS in op.attributes else _GROUPS]
    devices = np.asarray(ir.DenseElementsAttr(attribute))
    alone = devices.size > 0 and (devices == devices[:, :1]).all()
    if not alone or 0 not in devices:
        raise refuse(
            op,
            f"{op.name} asks for other devices, and this program runs for one",
            "export the model before it is split, or with shard_map; pai-compile splits it",
        )
    return list(op.operands)


@expands("stablehlo.optimization_barrier")
def barrier(op: ir.Operation) -> Sequence[ir.Value] | None:
    """Take tokens past a barrier: they order effects, and a package has none."""
    tensors = [v for v in op.operands if isinstance(v.type, ir.RankedTensorType)]
    if len(tensors) == len(op.operands):
        return None
    held = iter(stablehlo.OptimizationBarrierOp(tensors).results if tensors else ())
    return [next(held) if value in tensors else value for value in op.operands]
