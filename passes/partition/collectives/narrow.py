"""pai-narrow-gathers: gather the smaller of what a value is made of and what is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pai.dialects.mlir import ir
from pai.dialects.types import dtype_name
from pai.passes.base import Pass
from pai.passes.partition.collectives.common import (
    ALL_GATHER,
    definition,
    inner_first,
    like,
    operations,
)
from pai.passes.partition.emit import MANUAL, complex_constant, complex_elements, is_complex
from pai.passes.rewrite import building_before, replace
from pai.runtime.dtypes import itemsize

BROADCAST, CONVERT = "stablehlo.broadcast_in_dim", "stablehlo.convert"


@dataclass(frozen=True)
class NarrowGathers(Pass):
    """Move all_gathers before broadcasts and widening conversions, and behind narrowing ones.

    Those of splats go. A parameter kept in f32 and used in bf16 travels in bf16.

    Before::

        %1 = stablehlo.broadcast_in_dim %0, dims = [1] : (tensor<2xf32>) -> tensor<8x2xf32>
        %2 = all_gather(%1) dim 1 : (tensor<8x2xf32>) -> tensor<8x4xf32>

    After::

        %1 = all_gather(%0) dim 0 : (tensor<2xf32>) -> tensor<4xf32>
        %2 = stablehlo.broadcast_in_dim %1, dims = [1] : (tensor<4xf32>) -> tensor<8x4xf32>
    """

    name: ClassVar[str] = "pai-narrow-gathers"

    def run(self, module: ir.Module) -> None:
        """Rewrite ``module`` in place."""
        for block in inner_first(module):
            for op in [op for op in operations(block) if op.name == ALL_GATHER]:
                gather: ir.Operation | None = op
                while gather is not None:
                    gather = _narrow(gather)
            for op in [op for op in operations(block) if MANUAL in op.attributes]:
                del op.attributes[MANUAL]


def _narrow(gather: ir.Operation) -> ir.Operation | None:
    """Rewrite one all_gather; return the one it turned into, None when it is gone or stays."""
    maker = definition(gather.operands[0])
    if len(gather.operands) != 1:
        return None
    if _is_only_narrowed(gather):
        return _behind_convert(gather)
    if maker is None:
        return None
    with building_before(gather):
        if maker.name == BROADCAST:
            return _before_broadcast(gather, maker)
        if maker.name == CONVERT:
            return _before_convert(gather, maker)
        if maker.name == "stablehlo.constant":
            _of_constant(gather, maker)
    return None


def _of_constant(gather: ir.Operation, constant: ir.Operation) -> None:
    """Make a splat as large as the gathered value; the bindings cannot hold a complex one."""
    type_ = gather.results[0].type
    if is_complex(type_):
        elements = complex_elements(constant)
        if elements.startswith("("):
            replace(gather, [complex_constant(type_, elements)])
        return
    value = constant.attributes["value"]
    if isinstance(value, ir.DenseElementsAttr) and value.is_splat:
        attr = ir.DenseElementsAttr.get_splat(type_, value.get_splat_value())
        new = ir.Operation.create(constant.name, [type_], attributes={"value": attr})
        replace(gather, list(new.results))


def _before_broadcast(gather: ir.Operation, broadcast: ir.Operation) -> ir.Operation | None:
    source = broadcast.operands[0]
    dim = ir.IntegerAttr(gather.attributes["all_gather_dim"]).value
    dims = list(broadcast.attributes["broadcast_dimensions"])
    sizes = list(source.type.shape)
    inner: ir.Operation | None = None
    if dim in dims and sizes[dims.index(dim)] == gather.operands[0].type.shape[dim]:
        at = dims.index(dim)
        sizes[at] = gather.results[0].type.shape[dim]
        type_ = ir.RankedTensorType.get(sizes, source.type.element_type)
        i64 = ir.IntegerType.get_signless(64)
        inner = like(gather, [source], [type_], all_gather_dim=ir.IntegerAttr.get(i64, at))
        source = inner.results[0]
    elif MANUAL in gather.attributes:
        return None
    attributes = {"broadcast_dimensions": broadcast.attributes["broadcast_dimensions"]}
    new = ir.Operation.create(BROADCAST, [gather.results[0].type], [source], attributes=attributes)
    replace(gather, list(new.results))
    return inner


def _before_convert(gather: ir.Operation, convert: ir.Operation) -> ir.Operation | None:
    source = convert.operands[0]
    if itemsize(dtype_name(source.type)) >= itemsize(dtype_name(gather.operands[0].type)):
        return None
    out = gather.results[0].type
    type_ = ir.RankedTensorType.get(out.shape, source.type.element_type)
    inner = like(gather, [source], [type_])
    new = ir.Operation.create(CONVERT, [out], [inner.results[0]])
    replace(gather, list(new.results))
    return inner


def _is_only_narrowed(gather: ir.Operation) -> bool:
    """Whether all that becomes of a gathered value is one conversion to a narrower type."""
    users = [use.owner.operation for use in gather.results[0].uses]
    types = {user.results[0].type for user in users if user.name == CONVERT}
    if len(types) != 1 or any(user.name != CONVERT for user in users):
        return False
    return itemsize(dtype_name(types.pop())) < itemsize(dtype_name(gather.results[0].type))


def _behind_convert(gather: ir.Operation) -> ir.Operation:
    users = [use.owner.operation for use in gather.results[0].uses]
    source, out = gather.operands[0], users[0].results[0].type
    with building_before(gather):
        narrow = ir.RankedTensorType.get(source.type.shape, out.element_type)
        converted = ir.Operation.create(CONVERT, [narrow], [source])
        new = like(gather, [converted.results[0]], [out])
    for user in users:
        replace(user, list(new.results))
    gather.erase()
    return new
