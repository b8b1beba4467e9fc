"""Building blocks of local programs: shard numbers, blocks, masks and collectives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pai.dialects.mlir import ir, stablehlo
from pai.dialects.types import numpy_dtype
from pai.passes.partition.layout import Atoms, Grid

# A device's block of a larger tensor is marked with the groups in which the devices, in this
# order, take consecutive blocks along the dimension; pai-scatter-collectives reads it.
BLOCK_GROUPS = "pai.block_groups"
BLOCK_DIM = "pai.block_dim"

# An all_gather of a manual body: what it joins may differ between devices in any way, also where
# the gathered dimension is a broadcast. pai-narrow-gathers reads and removes it.
MANUAL = "pai.manual"
# What the padding of a select_and_scatter holds, where pai-fold-padding has folded a pad.
PAD_VALUE = "pai.pad_value"

REDUCTIONS = {
    "add": "stablehlo.add",
    "mul": "stablehlo.multiply",
    "max": "stablehlo.maximum",
    "min": "stablehlo.minimum",
    "and": "stablehlo.and",
    "or": "stablehlo.or",
    "xor": "stablehlo.xor",
}


def tensor(shape: Sequence[int], element: ir.Type) -> ir.Type:
    """Return the ranked tensor type."""
    return ir.RankedTensorType.get(list(shape), element)


def array_attr(values: Sequence[int]) -> ir.Attribute:
    """Return ``array<i64: ...>``."""
    return ir.DenseI64ArrayAttr.get(list(values))


def splat(type_: ir.Type, value: Any) -> ir.Attribute:
    """Return a dense attribute of ``type_``, not complex, with every element ``value``."""
    element = type_.element_type
    if isinstance(element, ir.IntegerType):
        bits = int(value) - (1 << 64) * (int(value) >= 1 << 63)  # what the bindings take is signed
        return ir.DenseElementsAttr.get_splat(type_, ir.IntegerAttr.get(element, bits))
    return ir.DenseElementsAttr.get_splat(type_, ir.FloatAttr.get(element, float(value)))


def complex_constant(type_: ir.Type, elements: str) -> ir.Value:
    """Append a complex constant; the bindings cannot hold its attribute, so it goes by text."""
    op = ir.Operation.parse(f"%0 = stablehlo.constant dense<{elements}> : {type_}")
    ir.InsertionPoint.current.insert(op)
    return op.results[0]


def complex_elements(op: ir.Operation) -> str:
    """Return what stands in ``dense<...>`` of a complex constant."""
    return str(op).partition("dense<")[2].partition(">")[0]


def is_complex(type_: ir.Type) -> bool:
    """Whether the elements of a tensor are complex."""
    return isinstance(type_.element_type, ir.ComplexType)


def identity(kind: str, element: ir.Type) -> Any:
    """Return the value that leaves every other unchanged under reduction ``kind``."""
    dtype = numpy_dtype(element)
    if kind in ("add", "or", "xor"):
        return 0
    if kind == "mul":
        return 1
    if kind == "and":
        return 1 if dtype == np.bool_ else (-1 if dtype.kind == "i" else _limits(dtype)[1])
    low, high = _limits(dtype)
    return low if kind == "max" else high


def _limits(dtype: np.dtype) -> tuple[Any, Any]:
    if dtype == np.bool_:
        return 0, 1
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return int(info.min), int(info.max)
    import ml_dtypes  # noqa: PLC0415

    try:
        integer = ml_dtypes.iinfo(dtype)
    except ValueError:
        wide = np.array(np.inf).astype(dtype)
        if np.isinf(wide.astype(np.float64)):
            return -np.inf, np.inf
        info = ml_dtypes.finfo(dtype)
        return float(info.min), float(info.max)
    return int(integer.min), int(integer.max)


class Emitter:
    """Appends StableHLO operations at the current insertion point.

    Args:
        grid: the devices.

    Attributes:
        gathered: types, before and after, of values that fetching had to gather.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.gathered: list[tuple[ir.Type, ir.Type]] = []
        self._cache: list[dict[Any, ir.Value]] = [{}]
        self._groups: dict[Atoms, ir.Attribute] = {}
        self.routes: dict[tuple[Any, ...], tuple[Any, ...]] = {}  # of `reshard`, by layouts

    def enter_block(self) -> None:
        """Start a block: values of shard numbers are shared within one block only."""
        self._cache.append({})

    def leave_block(self) -> None:
        """End the block."""
        self._cache.pop()

    def op(
        self,
        name: str,
        types: Sequence[ir.Type],
        operands: Sequence[ir.Value],
        attributes: dict[str, ir.Attribute] | None = None,
        regions: int = 0,
    ) -> ir.Operation:
        """Append one operation."""
        return ir.Operation.create(
            name,
            results=list(types),
            operands=list(operands),
            attributes=attributes or {},
            regions=regions,
        )

    def constant(self, type_: ir.Type, value: Any) -> ir.Value:
        """Return a splat constant."""
        key = (str(type_), repr(value))
        cache = self._cache[-1]
        if key not in cache:
            if is_complex(type_):
                cache[key] = complex_constant(type_, f"({float(value)},0.0)")
            else:
                attributes = {"value": splat(type_, value)}
                cache[key] = self.op("stablehlo.constant", [type_], [], attributes).result
        return cache[key]

    def scalar(self, value: int) -> ir.Value:
        """Return an i32 scalar."""
        return self.constant(tensor([], ir.IntegerType.get_signless(32)), value)

    def unary(self, name: str, value: ir.Value, type_: ir.Type | None = None) -> ir.Value:
        """Append a one-operand operation."""
        return self.op(f"stablehlo.{name}", [type_ or value.type], [value]).result

    def binary(self, name: str, left: ir.Value, right: ir.Value) -> ir.Value:
        """Append a two-operand operation on equal types."""
        return self.op(f"stablehlo.{name}", [left.type], [left, right]).result

    def compare(self, left: ir.Value, direction: str, right: ir.Value) -> ir.Value:
        """Compare two integer tensors of equal type."""
        type_ = tensor(left.type.shape, ir.IntegerType.get_signless(1))
        signed = "UNSIGNED" if str(left.type.element_type).startswith("ui") else "SIGNED"
        attributes = {
            "comparison_direction": stablehlo.ComparisonDirectionAttr.get(direction),
            "compare_type": stablehlo.ComparisonTypeAttr.get(signed),
        }
        return self.op("stablehlo.compare", [type_], [left, right], attributes).result

    def select(self, mask: ir.Value, left: ir.Value, right: ir.Value) -> ir.Value:
        """Choose elementwise."""
        return self.op("stablehlo.select", [left.type], [mask, left, right]).result

    def broadcast(self, value: ir.Value, shape: Sequence[int], dims: Sequence[int]) -> ir.Value:
        """Broadcast ``value`` to ``shape``, its dimensions going to ``dims``."""
        type_ = tensor(shape, value.type.element_type)
        if type_ == value.type:
            return value
        attributes = {"broadcast_dimensions": array_attr(dims)}
        return self.op("stablehlo.broadcast_in_dim", [type_], [value], attributes).result

    def shard_index(self, atoms: Atoms) -> ir.Value:
        """Return this device's shard number along ``atoms``, an i32 scalar."""
        cache = self._cache[-1]
        if atoms not in cache:
            cache[atoms] = self._shard_index(atoms)
        return cache[atoms]

    def _shard_index(self, atoms: Atoms) -> ir.Value:
        i32 = tensor([], ir.IntegerType.get_signless(32))
        if "device" not in self._cache[-1]:
            ui32 = tensor([], ir.IntegerType.get_unsigned(32))
            device = self.op("stablehlo.partition_id", [ui32], []).result
            place = self._look_up(device) if self.grid.table else self.unary("convert", device, i32)
            self._cache[-1]["device"] = place
        device = self._cache[-1]["device"]
        total: ir.Value | None = None
        for stride, size in self.grid.runs(atoms):
            part = device
            if stride > 1:
                part = self.binary("divide", part, self.scalar(stride))
            if stride * size < self.grid.num_devices:
                part = self.binary("remainder", part, self.scalar(size))
            if total is None:
                total = part
            else:
                total = self.binary("add", self.binary("multiply", total, self.scalar(size)), part)
        return self.scalar(0) if total is None else total

    def _look_up(self, device: ir.Value) -> ir.Value:
        """Return the place of a device whose number says nothing about it."""
        attr = ir.DenseElementsAttr.get(np.array(self.grid.table, np.int32))
        table = self.op("stablehlo.constant", [attr.type], [], {"value": attr}).result
        row = tensor([1], attr.type.element_type)
        attributes = {"slice_sizes": array_attr([1])}
        entry = self.op("stablehlo.dynamic_slice", [row], [table, device], attributes).result
        return self.unary("reshape", entry, tensor([], row.element_type))

    def offset(self, atoms: Atoms, local: int) -> ir.Value:
        """Return where this device's shard of ``local`` elements begins, an i32 scalar."""
        if not atoms:
            return self.scalar(0)
        return self.binary("multiply", self.shard_index(atoms), self.scalar(local))

    def block(self, value: ir.Value, dim: int, atoms: Atoms) -> ir.Value:
        """Return this device's block of ``value`` along ``dim``, padded with zeros if uneven."""
        shape = list(value.type.shape)
        count = self.grid.count(atoms)
        local = -(-shape[dim] // count)
        value = self.pad_end(value, dim, local * count)
        shape[dim] = local
        starts = [self.scalar(0)] * len(shape)
        starts[dim] = self.offset(atoms, local)
        attributes = {
            "slice_sizes": array_attr(shape),
            BLOCK_DIM: ir.IntegerAttr.get(ir.IntegerType.get_signless(64), dim),
            BLOCK_GROUPS: self.groups(atoms),
        }
        type_ = tensor(shape, value.type.element_type)
        return self.op("stablehlo.dynamic_slice", [type_], [value, *starts], attributes).result

    def pad_end(self, value: ir.Value, dim: int, size: int) -> ir.Value:
        """Pad ``dim`` at its end with zeros up to ``size``."""
        shape = list(value.type.shape)
        if shape[dim] == size:
            return value
        high = [0] * len(shape)
        high[dim] = size - shape[dim]
        shape[dim] = size
        element = value.type.element_type
        zeros = [0] * len(shape)
        attributes = {
            "edge_padding_low": array_attr(zeros),
            "edge_padding_high": array_attr(high),
            "interior_padding": array_attr(zeros),
        }
        fill = self.constant(tensor([], element), 0)
        return self.op("stablehlo.pad", [tensor(shape, element)], [value, fill], attributes).result

    def cut_end(self, value: ir.Value, dim: int, size: int) -> ir.Value:
        """Keep the first ``size`` elements of ``dim``."""
        shape = list(value.type.shape)
        if shape[dim] == size:
            return value
        shape[dim] = size
        attributes = {
            "start_indices": array_attr([0] * len(shape)),
            "limit_indices": array_attr(shape),
            "strides": array_attr([1] * len(shape)),
        }
        type_ = tensor(shape, value.type.element_type)
        return self.op("stablehlo.slice", [type_], [value], attributes).result

    def positions(self, shape: Sequence[int], dim: int, atoms: Atoms) -> ir.Value:
        """Return the global index along ``dim`` of each element of a local shape, as i32."""
        i32 = ir.IntegerType.get_signless(32)
        i64 = ir.IntegerType.get_signless(64)
        attributes = {"iota_dimension": ir.IntegerAttr.get(i64, dim)}
        iota = self.op("stablehlo.iota", [tensor(shape, i32)], [], attributes).result
        start = self.broadcast(self.offset(atoms, shape[dim]), shape, [])
        return self.binary("add", iota, start)

    def mask_tail(
        self, value: ir.Value, dim: int, size: int, atoms: Atoms, fill: ir.Value
    ) -> ir.Value:
        """Replace what lies beyond global ``size`` along ``dim`` with the scalar ``fill``."""
        shape = list(value.type.shape)
        if shape[dim] * self.grid.count(atoms) == size:
            return value
        positions = self.positions(shape, dim, atoms)
        limit = self.constant(positions.type, size)
        mask = self.compare(positions, "LT", limit)
        return self.select(mask, value, self.broadcast(fill, shape, []))

    def reduce(self, value: ir.Value, init: ir.Value, kind: str, dim: int) -> ir.Value:
        """Reduce one dimension by ``kind``."""
        element = value.type.element_type
        sizes = [size for d, size in enumerate(value.type.shape) if d != dim]
        attributes = {"dimensions": array_attr([dim])}
        type_ = tensor(sizes, element)
        op = self.op("stablehlo.reduce", [type_], [value, init], attributes, regions=1)
        add_reduction_body(op, kind, element)
        return op.result

    # Collectives.

    def groups(self, atoms: Atoms) -> ir.Attribute:
        """Return the replica groups of the devices that differ along ``atoms``."""
        if atoms not in self._groups:
            groups = np.array(self.grid.groups(atoms), dtype=np.int64)
            self._groups[atoms] = ir.DenseElementsAttr.get(groups)
        return self._groups[atoms]

    def all_gather(self, value: ir.Value, dim: int, atoms: Atoms) -> ir.Value:
        """Concatenate the shards along ``atoms`` on ``dim``."""
        shape = list(value.type.shape)
        shape[dim] *= self.grid.count(atoms)
        attributes = {
            "all_gather_dim": ir.IntegerAttr.get(ir.IntegerType.get_signless(64), dim),
            **self._group_attributes(atoms, use_global=True),
        }
        type_ = tensor(shape, value.type.element_type)
        return self.op("stablehlo.all_gather", [type_], [value], attributes).result

    def all_reduce(self, values: Sequence[ir.Value], kind: str, atoms: Atoms) -> list[ir.Value]:
        """Combine the partial values over ``atoms``; ``kind`` is a key of REDUCTIONS."""
        if not atoms:
            return list(values)
        return [self._all_reduce(value, kind, atoms) for value in values]

    def _all_reduce(self, value: ir.Value, kind: str, atoms: Atoms) -> ir.Value:
        attributes = self._group_attributes(atoms, use_global=True)
        op = self.op("stablehlo.all_reduce", [value.type], [value], attributes, regions=1)
        add_reduction_body(op, kind, value.type.element_type)
        return op.result

    def all_to_all(self, value: ir.Value, split: int, concat: int, atoms: Atoms) -> ir.Value:
        """Split ``split`` among the devices along ``atoms`` and concatenate on ``concat``."""
        count = self.grid.count(atoms)
        shape = list(value.type.shape)
        shape[split] //= count
        shape[concat] *= count
        i64 = ir.IntegerType.get_signless(64)
        attributes = {
            "split_dimension": ir.IntegerAttr.get(i64, split),
            "concat_dimension": ir.IntegerAttr.get(i64, concat),
            "split_count": ir.IntegerAttr.get(i64, count),
            **self._group_attributes(atoms, use_global=False),
        }
        type_ = tensor(shape, value.type.element_type)
        return self.op("stablehlo.all_to_all", [type_], [value], attributes).result

    def collective_permute(self, value: ir.Value, pairs: Sequence[tuple[int, int]]) -> ir.Value:
        """Send each source device's value to its target."""
        attributes = {
            "source_target_pairs": ir.DenseElementsAttr.get(np.array(pairs, dtype=np.int64)),
            "channel_handle": channel(1),
        }
        return self.op("stablehlo.collective_permute", [value.type], [value], attributes).result

    def _group_attributes(self, atoms: Atoms, *, use_global: bool) -> dict[str, ir.Attribute]:
        out = {"replica_groups": self.groups(atoms), "channel_handle": channel(1)}
        if use_global:
            out["use_global_device_ids"] = ir.UnitAttr.get()
        return out


def channel(handle: int) -> ir.Attribute:
    """Return the channel handle of a collective among devices."""
    return stablehlo.ChannelHandle.get(handle, 1)


def add_reduction_body(op: ir.Operation, kind: str, element: ir.Type) -> None:
    """Give ``op`` the region that combines two scalars by ``kind``."""
    scalar = tensor([], element)
    loc = op.location
    block = op.regions[0].blocks.append(scalar, scalar, arg_locs=[loc, loc])
    with ir.InsertionPoint(block):
        out = ir.Operation.create(
            REDUCTIONS[kind], results=[scalar], operands=list(block.arguments)
        ).result
        ir.Operation.create("stablehlo.return", operands=[out])
