"""pai-legalize: rewrite high-level, dynamic and deprecated operations to plain StableHLO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pai.dialects.mlir import ir, run_pipeline
from pai.passes.base import Pass
from pai.passes.rewrite import building_before, collect, functions, op_names, replace, walk, where
from pai.passes.simplify import expand_deprecated, expand_dynamic, expand_norm  # noqa: F401
from pai.passes.simplify.expand_dynamic import check_assertions
from pai.passes.simplify.expansions import EXPANSIONS
from pai.passes.simplify.inline import Inline
from pai.runtime.errors import InvalidShape, UnsupportedOp

_KEPT_CHLO = ("chlo.erf", "chlo.top_k")
_HELD = "pai.held."
_DEPRECATED = {
    "stablehlo.dot",
    "stablehlo.broadcast",
    "stablehlo.create_token",
    "stablehlo.cross-replica-sum",
}
_DYNAMIC = {
    "stablehlo.dynamic_broadcast_in_dim",
    "stablehlo.dynamic_conv",
    "stablehlo.dynamic_gather",
    "stablehlo.dynamic_iota",
    "stablehlo.dynamic_pad",
    "stablehlo.dynamic_reshape",
    "stablehlo.get_dimension_size",
    "stablehlo.real_dynamic_slice",
    "stablehlo.set_dimension_size",
}


@dataclass(frozen=True)
class Legalize(Pass):
    """Rewrite composites, quantized types, CHLO, dynamic and deprecated operations.

    ``chlo.erf`` and ``chlo.top_k`` stay, since they have direct lowerings. Composites become
    their decompositions. What has no plain form is an UnsupportedOp error; a dimension that stays
    dynamic is an InvalidShape error.

    Before::

        %0 = chlo.broadcast_add %a, %b : (tensor<4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
        %1 = stablehlo.dot %0, %c : (tensor<2x4xf32>, tensor<4x3xf32>) -> tensor<2x3xf32>

    After::

        %0 = stablehlo.broadcast_in_dim %a, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
        %1 = stablehlo.add %0, %b : tensor<2x4xf32>
        %2 = stablehlo.dot_general %1, %c, contracting_dims = [1] x [0]
               : (tensor<2x4xf32>, tensor<4x3xf32>) -> tensor<2x3xf32>
    """

    name: ClassVar[str] = "pai-legalize"

    def run(self, module: ir.Module) -> None:
        """Rewrite ``module`` in place."""
        names = op_names(module)
        if "stablehlo.composite" in names:
            run_pipeline(module, "func.func(stablehlo-legalize-composite-to-call)")
            Inline().run(module)
            names = op_names(module)
        if _has_quantized_types(module):
            run_pipeline(module, "func.func(stablehlo-legalize-quant-to-math)")
            names = op_names(module)
        if any(name.startswith("chlo.") and name not in _KEPT_CHLO for name in names):
            _legalize_chlo(module)
        _expand(module)
        names = op_names(module)
        if names & _DYNAMIC or _has_dynamic_types(module):
            _make_static(module)
            names = op_names(module)
        if names & _DEPRECATED:
            run_pipeline(module, "func.func(stablehlo-legalize-deprecated-ops)")
        if "stablehlo.custom_call" in names:
            check_assertions(module.operation)
        _check(module)


def _expand(module: ir.Module) -> None:
    """Apply the table of expansions, inner operations before outer ones' users see them."""
    for op in collect(module, *EXPANSIONS):
        with building_before(op):
            values = EXPANSIONS[op.name](op)
        if values is not None:
            replace(op, values)


def _legalize_chlo(module: ir.Module) -> None:
    """Run the upstream legalization with the operations that are to stay hidden from it."""
    _rename(module, {name: _HELD + name for name in _KEPT_CHLO})
    run_pipeline(module, "func.func(chlo-legalize-to-stablehlo)")
    _rename(module, {_HELD + name: name for name in _KEPT_CHLO})


def _rename(module: ir.Module, names: dict[str, str]) -> None:
    for op in collect(module, *names):
        with building_before(op):
            copy = ir.Operation.create(
                names[op.name],
                results=[result.type for result in op.results],
                operands=list(op.operands),
                attributes={name: op.attributes[name] for name in op.attributes},
            )
        replace(op, copy.results)


def _make_static(module: ir.Module) -> None:
    if len(functions(module)) == 1:
        run_pipeline(module, "stablehlo-refine-shapes")
    run_pipeline(module, "func.func(stablehlo-canonicalize-dynamism)")
    _expand(module)


def _has_quantized_types(module: ir.Module) -> bool:
    return any("!quant" in str(type_) for type_ in _distinct_types(module))


def _has_dynamic_types(module: ir.Module) -> bool:
    return any(_is_dynamic(type_) for type_ in _distinct_types(module))


def _is_dynamic(type_: ir.Type) -> bool:
    return isinstance(type_, ir.ShapedType) and not (type_.has_rank and type_.has_static_shape)


def _distinct_types(module: ir.Module) -> set[ir.Type]:
    """Return the types of all values, each once."""
    types: set[ir.Type] = set()

    def visit(op: ir.Operation) -> ir.WalkResult:
        types.update(result.type for result in op.results)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    for func in functions(module).values():
        types.update(func.type.inputs)
    return types


def _check(module: ir.Module) -> None:
    """Refuse what is not plain StableHLO on static shapes."""
    suspects = _distinct_types(module)
    bad_types = {type_ for type_ in suspects if _is_dynamic(type_) or "!quant" in str(type_)}

    for op in walk(module.operation):
        if op.name.startswith("chlo.") and op.name not in _KEPT_CHLO:
            raise UnsupportedOp(f"{op.name} has no StableHLO form here", where(op))
        if op.name in _DYNAMIC:
            raise InvalidShape(
                f"{op.name} depends on the data, so shapes would too",
                where(op),
                "export the model with static shapes",
            )
        for result in op.results if bad_types else ():
            if result.type in bad_types:
                raise InvalidShape(
                    f"the result of type {result.type} is not static",
                    where(op),
                    "give the shapes of the arguments with --shape",
                )
