"""annotate: write a plan's mesh and argument shardings into a module; read those it has."""

from __future__ import annotations

from pai.dialects import sdy
from pai.dialects.mlir import ir
from pai.passes.rewrite import walk
from pai.passes.strategy.plan import Plan
from pai.runtime.errors import InvalidSharding, PassFailure
from pai.runtime.mesh import Mesh


def main_function(module: ir.Module) -> ir.OpView:
    """Return ``@main``; raises PassFailure when the module has none."""
    for op in module.body.operations:
        name = op.attributes["sym_name"] if op.operation.name == "func.func" else None
        if name is not None and ir.StringAttr(name).value == "main":
            return op
    raise PassFailure("the module has no function @main")


def argument_names(module: ir.Module) -> tuple[str, ...]:
    """Return the ``pai.name`` of each argument of ``@main``, ``arg<i>`` where it has none."""
    main = main_function(module)
    count = len(main.regions[0].blocks[0].arguments)
    names = [f"arg{i}" for i in range(count)]
    if "arg_attrs" in main.attributes:
        for i, entry in enumerate(ir.ArrayAttr(main.attributes["arg_attrs"])):
            given = ir.DictAttr(entry)
            if "pai.name" in given:
                names[i] = ir.StringAttr(given["pai.name"]).value
    return tuple(names)


def user_shardings(module: ir.Module) -> dict[int, ir.Attribute]:
    """Return the shardings that the model itself brings, by argument number.

    A sharding that leaves every dimension open and unsharded says nothing and is not among them.
    """
    main = main_function(module)
    out = {}
    for index in range(len(main.regions[0].blocks[0].arguments)):
        attr = sdy.argument_sharding(main, index)
        if attr is not None:
            says = any(sdy.sharding_from_attr(attr).dims) or any(
                option.closed for option in sdy.options_from_attr(attr)
            )
            if says:
                out[index] = attr
    return out


def annotate(module: ir.Module, plan: Plan) -> None:
    """Give ``module`` the plan's mesh and, on arguments, the plan's shardings, in place.

    Arguments that the plan does not name keep what they have and follow propagation. A result
    that updates an argument (``pai.updates``) is laid out as it, so that the next step finds its
    state where it was. A plan for one device changes nothing.

    Before::

        func.func @main(%a: tensor<8x4xf32> {pai.name = "x"})

    After, for ``"x" = ["data p0", ""]``::

        sdy.mesh @mesh = <["data"=4]>
        func.func @main(%a: tensor<8x4xf32> {pai.name = "x",
                                             sdy.sharding = #sdy.sharding<@mesh, [{"data"}p0, {}]>})

    Raises:
        InvalidSharding: for an unknown argument, for a layout whose rank is not the argument's,
            and when the module's own shardings are over another mesh.
    """
    if plan.mesh.num_devices == 1:
        return
    name = _prepare_mesh(module, plan.mesh)
    main = main_function(module)
    names = argument_names(module)
    for argument, _ in plan.arguments:
        if argument not in names:
            known = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
            raise InvalidSharding(
                f"the module has no argument '{argument}'", hint=f"pai.name of its own: {known}"
            )
    layouts = plan.layouts(names)
    arguments = main.regions[0].blocks[0].arguments
    updating = _updating(main)
    inputs: dict[int, ir.Attribute | None] = {}
    outputs: dict[int, ir.Attribute | None] = {}
    for index, argument in enumerate(names):
        if argument in layouts:
            layout = layouts[argument]
            rank = ir.RankedTensorType(arguments[index].type).rank
            if len(layout.sharding.dims) != rank:
                raise rank_mismatch(argument, rank, len(layout.sharding.dims))
            attr = sdy.sharding_attr(
                layout.sharding,
                name,
                layout.priorities or None,
                open=bool(layout.kept),
                ctx=module.context,
                replicated=layout.kept,
            )
            inputs[index] = attr
            outputs |= dict.fromkeys(updating.get(argument, ()), attr)
    sdy.set_argument_shardings(main, inputs)
    sdy.set_result_shardings(main, outputs)


def _updating(main: ir.OpView) -> dict[str, list[int]]:
    """Return by argument the results that update it."""
    out: dict[str, list[int]] = {}
    if "res_attrs" in main.attributes:
        for index, entry in enumerate(ir.ArrayAttr(main.attributes["res_attrs"])):
            given = ir.DictAttr(entry)
            if "pai.updates" in given:
                name = ir.StringAttr(given["pai.updates"]).value
                out.setdefault(name, []).append(index)
    return out


def rank_mismatch(argument: str, rank: int, given: int) -> InvalidSharding:
    """Return the error for a layout of ``given`` dimensions on an argument of ``rank``."""
    return InvalidSharding(
        f"the plan gives {given} dimensions but '{argument}' has {rank}",
        argument,
        "give one string for each dimension, '' where it is not sharded",
    )


def _prepare_mesh(module: ir.Module, mesh: Mesh) -> str:
    """Return the symbol of ``mesh`` in the module, which is added when it is not there."""
    for op in sdy.mesh_ops(module):
        if sdy.mesh_from_attr(op.attributes["mesh"]) == mesh:
            return ir.StringAttr(op.attributes["sym_name"]).value
    given = sdy.mesh_from_module(module)
    if given is not None and has_shardings(module):
        raise InvalidSharding(
            f"the model is sharded over the mesh {given} and the plan is for {mesh}",
            hint="use the model's mesh in the plan, or remove the shardings from the model",
        )
    sdy.set_mesh(module, mesh)
    return "mesh"


def has_shardings(module: ir.Module) -> bool:
    """Whether any argument or operation of the module carries a sharding."""
    if user_shardings(module):
        return True
    return any(_carries_sharding(op) for op in walk(module.operation))


def _carries_sharding(op: ir.Operation) -> bool:
    return op.name.startswith("sdy.sharding_constraint") or sdy.SHARDING in op.attributes
