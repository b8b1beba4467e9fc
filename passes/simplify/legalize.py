"""pai-legalize: rewrite high-level, dynamic and deprecated operations to plain StableHLO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pai.dialects.mlir import ir, run_pipeline, stablehlo
from pai.dialects.types import shape_of
from pai.passes.base import Pass
from pai.passes.rewrite import building_before, collect, functions, replace, walk, where
from pai.passes.simplify import (  # noqa: F401
    expand_deprecated,
    expand_devices,
    expand_dynamic,
    expand_norm,
)
from pai.passes.simplify.build import i64s, like
from pai.passes.simplify.expand_dynamic import check_assertions
from pai.passes.simplify.expansions import EXPANSIONS
from pai.passes.simplify.inline import Inline
from pai.passes.simplify.quantized import use_signed_storage
from pai.runtime.errors import InvalidShape, UnsupportedOp

_KEPT_CHLO = ("chlo.erf", "chlo.top_k")
_HELD = "pai.held."
_DIMENSIONS = "broadcast_dimensions"
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
        seen = _survey(module)
        if "stablehlo.composite" in seen.names:
            run_pipeline(module, "func.func(stablehlo-legalize-composite-to-call)")
            Inline().run(module)
            seen = _survey(module)
        if any(_is_quantized(type_) for type_ in seen.types):
            use_signed_storage(module)
            run_pipeline(module, "func.func(stablehlo-legalize-quant-to-math)")
            seen = _survey(module)
        if any(_is_high_level(name) for name in seen.names):
            _legalize_chlo(module)
        _expand(module)
        seen = _survey(module)
        if seen.names & _DYNAMIC or any(_is_dynamic(type_) for type_ in seen.types):
            _make_static(module)
            seen = _survey(module)
        if seen.names & _DEPRECATED:
            run_pipeline(module, "func.func(stablehlo-legalize-deprecated-ops)")
        if "stablehlo.custom_call" in seen.names:
            check_assertions(module.operation)
        _check(module, seen)


@dataclass(frozen=True)
class _Survey:
    """The operations and value types that occur in a module, each once."""

    names: frozenset[str]
    types: frozenset[ir.Type]


def _survey(module: ir.Module) -> _Survey:
    names: set[str] = set()
    types: set[ir.Type] = set()

    def visit(op: ir.Operation) -> ir.WalkResult:
        names.add(op.name)
        for result in op.results:
            types.add(result.type)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    for func in functions(module).values():
        types.update(func.type.inputs)
    return _Survey(frozenset(names), frozenset(types))


def _is_high_level(name: str) -> bool:
    return name.startswith("chlo.") and name not in _KEPT_CHLO


def _is_quantized(type_: ir.Type) -> bool:
    return "!quant" in str(type_)


def _is_dynamic(type_: ir.Type) -> bool:
    return isinstance(type_, ir.ShapedType) and not (type_.has_rank and type_.has_static_shape)


def _expand(module: ir.Module) -> None:
    """Apply the table of expansions, inner operations before outer ones' users see them."""
    for op in collect(module, *EXPANSIONS):
        with building_before(op):
            values = EXPANSIONS[op.name](op)
        if values is not None:
            replace(op, values)


def _legalize_chlo(module: ir.Module) -> None:
    """Run the upstream legalization with the operations that are to stay hidden from it."""
    _turn_scans(module)
    _broadcast_operands(module)
    _rename(module, {name: _HELD + name for name in _KEPT_CHLO})
    run_pipeline(module, "func.func(chlo-legalize-to-stablehlo)")
    _rename(module, {_HELD + name: name for name in _KEPT_CHLO})


def _broadcast_operands(module: ir.Module) -> None:
    """Write ``broadcast_dimensions`` out: upstream legalizes only those that align at the end."""
    names = {op.name for op in walk(module.operation) if op.name.startswith("chlo.broadcast_")}
    for op in collect(module, *names):
        types = [op.results[0].type, *(operand.type for operand in op.operands)]
        if _DIMENSIONS not in op.attributes or any(map(_is_dynamic, types)):
            continue
        dims, shape = op.attributes[_DIMENSIONS], shape_of(op.results[0].type)
        with building_before(op):
            for index, operand in enumerate(op.operands):
                if operand.type.rank < len(shape):
                    wide = like(operand, shape)
                    op.operands[index] = stablehlo.BroadcastInDimOp(wide, operand, dims).result
        del op.attributes[_DIMENSIONS]


def _turn_scans(module: ir.Module) -> None:
    """Write a reverse scan as one over reversed inputs: the upstream legalization goes forward."""
    for op in collect(module, "chlo.scan"):
        if "is_reverse" not in op.attributes or not ir.BoolAttr(op.attributes["is_reverse"]).value:
            continue
        op.attributes["is_reverse"] = ir.BoolAttr.get(False, op.context)
        with op.context:
            dims = i64s([ir.IntegerAttr(op.attributes["dimension"]).value])
        inputs = ir.DenseI32ArrayAttr(op.attributes["operandSegmentSizes"])[0]
        outputs = ir.DenseI32ArrayAttr(op.attributes["resultSegmentSizes"])[0]
        with building_before(op):
            for index in range(inputs):
                op.operands[index] = stablehlo.ReverseOp(op.operands[index], dims).result
        with op.context, op.location, ir.InsertionPoint.after(op):
            for scanned in op.results[:outputs]:
                back = stablehlo.ReverseOp(scanned, dims)
                scanned.replace_all_uses_except(back.result, back.operation)


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


def _check(module: ir.Module, seen: _Survey) -> None:
    """Refuse what is not plain StableHLO on static shapes, if ``seen`` has any of it."""
    bad_types = {type_ for type_ in seen.types if _is_dynamic(type_) or _is_quantized(type_)}
    if not bad_types and not any(_is_high_level(n) or n in _DYNAMIC for n in seen.names):
        return
    for op in walk(module.operation):
        if _is_high_level(op.name):
            raise UnsupportedOp(f"{op.name} has no StableHLO form here", where(op))
        if op.name in _DYNAMIC:
            raise InvalidShape(
                f"{op.name} depends on the data, so shapes would too",
                where(op),
                "export the model with static shapes",
            )
        for result in op.results:
            if result.type in bad_types:
                raise InvalidShape(
                    f"the result of type {result.type} is not static",
                    where(op),
                    "give the shapes of the arguments with --shape",
                )
