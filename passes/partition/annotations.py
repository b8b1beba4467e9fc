"""Read and clear the Shardy annotations of a module."""

from __future__ import annotations

from pai.dialects.mlir import ir, sdy
from pai.dialects.sdy import SHARDING, sharding_from_attr, unreduced_from_attr
from pai.passes.partition.emit import complex_constant, complex_elements, is_complex
from pai.passes.rewrite import walk
from pai.runtime.mesh import Sharding


def plain_constants(module: ir.Module) -> None:
    """Turn sdy.constant back into stablehlo.constant, in every region."""
    for op in [op for op in walk(module.operation) if op.name == "sdy.constant"]:
        with op.location, ir.InsertionPoint(op):
            type_ = op.results[0].type
            if is_complex(type_):
                new = complex_constant(type_, complex_elements(op)).owner
            else:
                new = ir.Operation.create(
                    "stablehlo.constant", [type_], attributes={"value": op.attributes["value"]}
                )
            if SHARDING in op.attributes:
                new.attributes[SHARDING] = op.attributes[SHARDING]
        op.results[0].replace_all_uses_with(new.results[0])
        op.erase()


def unsharded(module: ir.Module) -> tuple[tuple[Sharding, ...], tuple[Sharding, ...]]:
    """Drop the shardings of a module for one device, in place; return those left: none."""
    main = module.operation
    for op in walk(module.operation):
        if SHARDING in op.attributes:
            del op.attributes[SHARDING]
        if op.name == "func.func" and ir.StringAttr(op.attributes["sym_name"]).value == "main":
            main = op
    with module.context:
        for name, attr in without_shardings(main).items():
            main.attributes[name] = attr
    kind = ir.FunctionType(ir.TypeAttr(main.attributes["function_type"]).value)
    return (
        tuple(Sharding.replicated(len(t.shape)) for t in kind.inputs),
        tuple(Sharding.replicated(len(t.shape)) for t in kind.results),
    )


def speaks_shardy(module: ir.Module) -> bool:
    """Whether the module holds sdy operations other than meshes."""
    return any(
        op.name.startswith("sdy.") and op.name != "sdy.mesh" for op in walk(module.operation)
    )


def axis_cuts(module: ir.Module) -> dict[str, frozenset[int]]:
    """Return where the sub-axes of every sharding cut each axis."""
    attrs: set[ir.Attribute] = set()
    for op in walk(module.operation):
        names = SHARDING_ATTRIBUTES.get(op.name, (SHARDING,))
        for name in names:
            if name in op.attributes:
                attrs |= set(shardings_in(op.attributes[name]))
        if op.name == "func.func":
            attrs |= {
                a for kind in ("arg_attrs", "res_attrs") for a in function_attributes(op, kind) if a
            }
    cuts: dict[str, set[int]] = {}
    for attr in attrs:
        for axes in (*sharding_from_attr(attr).dims, unreduced_from_attr(attr)):
            for axis in axes:
                if axis.sub_size is not None:
                    ends = {axis.pre_size, axis.pre_size * axis.sub_size}
                    cuts.setdefault(axis.name, set()).update(ends)
    return {name: frozenset(ends) for name, ends in cuts.items()}


_OUT = ("out_sharding",)
SHARDING_ATTRIBUTES = {
    "sdy.reshard": ("sharding",),
    "sdy.sharding_constraint": ("sharding",),
    "sdy.manual_computation": ("in_shardings", "out_shardings"),
    "sdy.named_computation": ("in_shardings", "out_shardings"),
    **dict.fromkeys(
        (
            "sdy.all_gather",
            "sdy.all_slice",
            "sdy.all_to_all",
            "sdy.collective_permute",
            "sdy.all_reduce",
            "sdy.reduce_scatter",
            "sdy.sharded_to_unreduced",
            "sdy.replicated_to_unreduced",
        ),
        _OUT,
    ),
}


def shardings_in(attr: ir.Attribute) -> list[ir.Attribute]:
    """Return the tensor shardings of an attribute that holds one or one per value."""
    if sdy.TensorShardingPerValueAttr.isinstance(attr):
        return list(sdy.TensorShardingPerValueAttr(attr).shardings)
    return [attr]


def function_attributes(op: ir.Operation, kind: str) -> list[ir.Attribute | None]:
    """Return the sharding, or None, of each argument (``arg_attrs``) or result (``res_attrs``)."""
    if kind not in op.attributes:
        return []
    dicts = [ir.DictAttr(entry) for entry in ir.ArrayAttr(op.attributes[kind])]
    return [e[SHARDING] if SHARDING in e else None for e in dicts]  # noqa: SIM401


def without_shardings(op: ir.Operation) -> dict[str, ir.Attribute]:
    """Return a function's attributes without those of Shardy."""
    out: dict[str, ir.Attribute] = {}
    for named in op.attributes:
        name = getattr(named, "name", named)
        attr = op.attributes[name]
        if name in ("arg_attrs", "res_attrs"):
            dicts = [
                {n.name: n.attr for n in ir.DictAttr(entry) if not n.name.startswith("sdy.")}
                for entry in ir.ArrayAttr(attr)
            ]
            attr = ir.ArrayAttr.get([ir.DictAttr.get(entry) for entry in dicts])
        out[name] = attr
    return out
