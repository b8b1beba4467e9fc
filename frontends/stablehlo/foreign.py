"""Operations of other dialects that exporters leave among StableHLO: rewritten or refused."""

from __future__ import annotations

import re

from pai.dialects.mlir import ir, run_pipeline
from pai.passes.rewrite import building_before, collect, op_names, replace, walk
from pai.runtime.errors import UnsupportedOp

_KNOWN_DIALECTS = frozenset({"builtin", "func", "stablehlo", "chlo", "sdy", "check", "interpreter"})
_SHAPE_DIALECTS = ("shape.", "tensor.", "arith.")
_TO_CHLO = {
    f"mhlo.{name}": f"chlo.{name}"
    for name in ("acos", "acosh", "asin", "asinh", "atanh", "cosh", "erf", "erf_inv", "sinh")
}
_HINT = "lower the model to StableHLO or CHLO first"


def normalize(module: ir.Module, source: str) -> None:
    """Rewrite what torch-mlir and TensorFlow leave behind, and refuse other dialects.

    ``arith.constant`` tensors and shape arithmetic become StableHLO; ``mhlo`` operations become
    those of the same name.

    Raises:
        UnsupportedOp: for an operation of any other dialect; names file and line.
    """
    names = op_names(module)
    if "arith.constant" in names:
        _rename_constants(module)
    if any(name.startswith("mhlo.") for name in names):
        _rename_mhlo(module)
    if any(name.startswith(_SHAPE_DIALECTS) for name in op_names(module)):
        run_pipeline(module, "func.func(shape-legalize-to-stablehlo)")
    for op in walk(module.operation):
        if op.name.partition(".")[0] not in _KNOWN_DIALECTS:
            raise UnsupportedOp(
                f"'{op.name}' is not a StableHLO operation", _place(op, source), _HINT
            )


def _place(op: ir.Operation, source: str) -> str:
    place = re.search(r":(\d+):(\d+)", str(op.location))
    return f"{source}:{place[1]}:{place[2]}" if place else source


def _recreate(op: ir.Operation, name: str) -> None:
    """Replace ``op`` by one of another name with the same operands and attributes."""
    attributes = {key: op.attributes[key] for key in op.attributes if key != "largest"}
    with building_before(op):
        copy = ir.Operation.create(
            name,
            results=[result.type for result in op.results],
            operands=list(op.operands),
            attributes=attributes,
        )
    replace(op, copy.results)


def _rename_constants(module: ir.Module) -> None:
    for op in collect(module, "arith.constant"):
        if isinstance(op.results[0].type, ir.RankedTensorType):
            _recreate(op, "stablehlo.constant")


def _rename_mhlo(module: ir.Module) -> None:
    names = {name for name in op_names(module) if name.startswith("mhlo.")}
    for op in collect(module, *names):
        plain = not len(op.regions) and not any(
            "#mhlo" in str(op.attributes[key]) for key in op.attributes
        )
        if op.name == "mhlo.topk" and "true" in str(op.attributes["largest"]):
            _recreate(op, "chlo.top_k")
        elif op.name == "mhlo.copy":
            replace(op, op.operands)
        elif op.name in _TO_CHLO:
            _recreate(op, _TO_CHLO[op.name])
        elif plain and op.context.is_registered_operation(_stablehlo(op.name)):
            _recreate(op, _stablehlo(op.name))


def _stablehlo(name: str) -> str:
    return "stablehlo." + name.removeprefix("mhlo.")
