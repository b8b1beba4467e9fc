"""ApproxTopK, the custom call of ``lax.approx_max_k`` and ``approx_min_k``, as an exact top_k."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pai.dialects.mlir import ir, stablehlo
from pai.dialects.types import shape_of
from pai.passes.simplify.build import like, transpose

_COMPARATOR = re.compile(r"top_k_(gt|lt)_\w+_comparator(_\d+)?")
_CONFIG = "mhlo.backend_config"


def approx_top_k(op: ir.Operation) -> Sequence[ir.Value] | None:
    """Return the k best along a dimension with their places, or None for another form of the call.

    The call may miss some of the best; this misses none. Its comparator is known by its name, and
    the places it sorts along have to be counted (an iota).
    """
    values, places = op.operands[0], op.operands[1]
    config = ir.DictAttr(op.attributes[_CONFIG])
    dim = ir.IntegerAttr(config["reduction_dim"]).value
    called = ir.FlatSymbolRefAttr(ir.ArrayAttr(op.attributes["called_computations"])[0]).value
    order = _COMPARATOR.fullmatch(called)
    if not (order and ir.BoolAttr(config["aggregate_to_topk"]).value and _counts(places, dim)):
        return None
    rank = len(shape_of(values.type))
    forward = [*(d for d in range(rank) if d != dim), dim]
    back = [forward.index(d) for d in range(rank)]
    moved = transpose(values, forward)
    if order[1] == "lt":
        moved = stablehlo.negate(moved)
    k = ir.IntegerAttr(config["top_k"]).value
    shape = [*shape_of(moved.type)[:-1], k]
    best, where = ir.Operation.create(
        "chlo.top_k",
        results=[like(moved, shape), like(places, shape)],
        operands=[moved],
        attributes={"k": ir.IntegerAttr.get(ir.IntegerType.get_signless(64), k)},
    ).results
    if order[1] == "lt":
        best = stablehlo.negate(best)
    return [transpose(best, back), transpose(where, back)]


def _counts(places: ir.Value, dim: int) -> bool:
    """Whether ``places`` counts the elements along ``dim``."""
    owner = places.owner
    if isinstance(owner, ir.Block) or owner.operation.name != "stablehlo.iota":
        return False
    counted = ir.IntegerAttr(owner.operation.attributes["iota_dimension"]).value == dim
    return bool(counted and str(places.type.element_type) == "i32")
