"""Typed Mesh and Sharding from and to Shardy's attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pai.dialects.mlir import ir, run_pipeline, sdy
from pai.runtime.errors import InvalidSharding
from pai.runtime.mesh import AxisRef, Mesh, Sharding

SHARDING = "sdy.sharding"


@dataclass(frozen=True)
class DimOptions:
    """What a dimension of an sdy sharding says besides its axes.

    Args:
        priority: order in which propagation applies it (0 first), or None.
        closed: whether propagation may not shard the dimension further.
    """

    priority: int | None = None
    closed: bool = True


def mesh_ops(module: ir.Module) -> Iterator[ir.OpView]:
    """Yield the ``sdy.mesh`` operations of a module."""
    for op in module.body.operations:
        if op.operation.name == "sdy.mesh":
            yield op


def mesh_from_attr(attr: ir.Attribute) -> Mesh:
    """Return the mesh of an ``sdy.mesh`` attribute, with its order of devices."""
    mesh_attr = sdy.MeshAttr(attr)
    axes = tuple((a.name, a.size) for a in map(sdy.MeshAxisAttr, mesh_attr.axes))
    return Mesh(axes, tuple(mesh_attr.device_ids) if axes else ())


def mesh_from_module(module: ir.Module) -> Mesh | None:
    """Return the mesh the module's shardings refer to, or None when it has none.

    Empty meshes (replicated or one-device values) do not count.

    Raises:
        InvalidSharding: when the module holds two different meshes.
    """
    found: dict[Mesh, str] = {}
    for op in mesh_ops(module):
        mesh = mesh_from_attr(op.attributes["mesh"])
        if mesh.axes:
            found[mesh] = ir.StringAttr(op.attributes["sym_name"]).value
    if len(found) > 1:
        raise InvalidSharding(
            f"the module has {len(found)} different meshes: {', '.join(found.values())}",
            hint="use one mesh for the whole program",
        )
    return next(iter(found), None)


def mesh_attr(mesh: Mesh, ctx: ir.Context | None = None) -> ir.Attribute:
    """Return ``#sdy.mesh<["x"=2, ...]>`` for a mesh."""
    axes = [sdy.MeshAxisAttr.get(name, size, context=ctx) for name, size in mesh.axes]
    return sdy.MeshAttr.get(axes, list(mesh.device_ids), context=ctx)


def lift_meshes(module: ir.Module) -> None:
    """Give meshes that stand inside shardings a name, and equal meshes one, in place."""
    run_pipeline(module, "sdy-lift-inlined-meshes")
    for op in mesh_ops(module):
        if "stablehlo.mesh" in op.attributes:  # a copy of the mesh that nothing here reads
            del op.attributes["stablehlo.mesh"]


def set_mesh(module: ir.Module, mesh: Mesh, name: str = "mesh") -> None:
    """Make ``mesh``, called ``name``, the module's only mesh with axes."""
    for op in list(mesh_ops(module)):
        old = ir.StringAttr(op.attributes["sym_name"]).value
        if old == name or mesh_from_attr(op.attributes["mesh"]).axes:
            op.operation.erase()
    ctx = module.context
    with ctx, ir.Location.unknown(ctx), ir.InsertionPoint.at_block_begin(module.body):
        sdy.MeshOp(name, mesh_attr(mesh, ctx))


def axis_from_attr(attr: ir.Attribute) -> AxisRef:
    """Return the axis, or sub-axis, that an ``sdy.axis_ref`` names."""
    ref = sdy.AxisRefAttr(attr)
    if ref.sub_axis_info is None:
        return AxisRef(ref.name)
    info = sdy.SubAxisInfoAttr(ref.sub_axis_info)
    return AxisRef(ref.name, info.pre_size, info.size)


def axis_attr(axis: AxisRef, ctx: ir.Context | None = None) -> ir.Attribute:
    """Return the ``sdy.axis_ref`` attribute of an axis or sub-axis."""
    info = None
    if axis.sub_size is not None:
        info = sdy.SubAxisInfoAttr.get(axis.pre_size, axis.sub_size, context=ctx)
    return sdy.AxisRefAttr.get(axis.name, info, context=ctx)


def _dimensions(attr: ir.Attribute) -> list[ir.Attribute]:
    dims = sdy.TensorShardingAttr(attr).dimension_shardings
    return [sdy.DimensionShardingAttr(dim) for dim in dims]


def sharding_from_attr(attr: ir.Attribute) -> Sharding:
    """Return the axes of each dimension; `options_from_attr` has priorities and openness."""
    return Sharding(tuple(tuple(map(axis_from_attr, dim.axes)) for dim in _dimensions(attr)))


def unreduced_from_attr(attr: ir.Attribute) -> tuple[AxisRef, ...]:
    """Return the axes over which devices hold addends of the value instead of the value."""
    return tuple(map(axis_from_attr, sdy.TensorShardingAttr(attr).unreduced_axes))


def options_from_attr(attr: ir.Attribute) -> tuple[DimOptions, ...]:
    """Return priority and openness of each dimension of an ``sdy.sharding``."""
    return tuple(DimOptions(dim.priority, dim.is_closed) for dim in _dimensions(attr))


def sharding_attr(
    sharding: Sharding,
    mesh_name: str = "mesh",
    priorities: Sequence[int | None] | None = None,
    open: bool | Sequence[bool] = False,  # noqa: A002
    ctx: ir.Context | None = None,
    replicated: Sequence[AxisRef] = (),
) -> ir.Attribute:
    """Return ``#sdy.sharding<@mesh, [...]>``.

    Args:
        sharding: the axes of each dimension.
        mesh_name: symbol of the mesh.
        priorities: per dimension, its propagation priority or None. Shardy refuses one on a
            closed dimension without axes, so it is left out there.
        open: whether propagation may add axes, for all dimensions or for each.
        ctx: the MLIR context; the current one when None.
        replicated: axes that propagation may add to no dimension.
    """
    rank = len(sharding.dims)
    opens = [open] * rank if isinstance(open, bool) else list(open)
    wanted = list(priorities) if priorities is not None else [None] * rank
    dims = [
        sdy.DimensionShardingAttr.get(
            [axis_attr(axis, ctx) for axis in axes],
            not is_open,
            priority if axes or is_open else None,
            context=ctx,
        )
        for axes, is_open, priority in zip(sharding.dims, opens, wanted, strict=True)
    ]
    kept = [axis_attr(axis, ctx) for axis in replicated]
    return sdy.TensorShardingAttr.get(mesh_name, dims, kept, context=ctx)


def sharding_list_attr(
    shardings: Sequence[ir.Attribute], ctx: ir.Context | None = None
) -> ir.Attribute:
    """Return ``#sdy.sharding_per_value<[...]>``, the form operations with results carry."""
    return sdy.TensorShardingPerValueAttr.get(list(shardings), context=ctx)


def shardings_of_op(op: ir.Operation) -> list[Sharding] | None:
    """Return the sharding of each result of an operation, or None when it has none."""
    if SHARDING not in op.attributes:
        return None
    attr = op.attributes[SHARDING]
    if sdy.TensorShardingPerValueAttr.isinstance(attr):
        return [sharding_from_attr(s) for s in sdy.TensorShardingPerValueAttr(attr).shardings]
    return [sharding_from_attr(attr)]


def set_op_shardings(op: ir.Operation, shardings: Sequence[ir.Attribute]) -> None:
    """Set the sharding of each result of an operation."""
    op.attributes[SHARDING] = sharding_list_attr(shardings, op.context)


def argument_sharding(func: ir.OpView, index: int) -> ir.Attribute | None:
    """Return the ``sdy.sharding`` of an argument, or None."""
    return _value_attr(func, "arg_attrs", index)


def result_sharding(func: ir.OpView, index: int) -> ir.Attribute | None:
    """Return the ``sdy.sharding`` of a result, or None."""
    return _value_attr(func, "res_attrs", index)


def set_argument_sharding(func: ir.OpView, index: int, attr: ir.Attribute | None) -> None:
    """Set (or, with None, remove) the ``sdy.sharding`` of an argument of ``func``."""
    set_argument_shardings(func, {index: attr})


def set_result_sharding(func: ir.OpView, index: int, attr: ir.Attribute | None) -> None:
    """Set (or, with None, remove) the ``sdy.sharding`` of a result of ``func``."""
    set_result_shardings(func, {index: attr})


def set_argument_shardings(func: ir.OpView, attrs: Mapping[int, ir.Attribute | None]) -> None:
    """Set (or, with None, remove) the shardings of some arguments, by number, at once."""
    if attrs:
        _set_value_attrs(func, "arg_attrs", attrs)


def set_result_shardings(func: ir.OpView, attrs: Mapping[int, ir.Attribute | None]) -> None:
    """Set (or, with None, remove) the shardings of some results, by number, at once."""
    if attrs:
        _set_value_attrs(func, "res_attrs", attrs)


def _value_attr(func: ir.OpView, kind: str, index: int) -> ir.Attribute | None:
    if kind not in func.attributes:
        return None
    entry = ir.DictAttr(ir.ArrayAttr(func.attributes[kind])[index])
    return entry[SHARDING] if SHARDING in entry else None  # noqa: SIM401


def _set_value_attrs(func: ir.OpView, kind: str, attrs: Mapping[int, ir.Attribute | None]) -> None:
    signature = ir.FunctionType(ir.TypeAttr(func.attributes["function_type"]).value)
    count = len(signature.inputs if kind == "arg_attrs" else signature.results)
    ctx = func.operation.context
    if kind in func.attributes:
        dicts = [ir.DictAttr(entry) for entry in ir.ArrayAttr(func.attributes[kind])]
    else:
        dicts = [ir.DictAttr.get({}, context=ctx)] * count
    for index, attr in attrs.items():
        entry = {named.name: named.attr for named in dicts[index] if named.name != SHARDING}
        if attr is not None:
            entry[SHARDING] = attr
        dicts[index] = ir.DictAttr.get(entry, context=ctx)
    func.attributes[kind] = ir.ArrayAttr.get(dicts, context=ctx)
