"""pai-propagate: spread the shardings of the arguments over the whole program with Shardy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pai.dialects.mlir import ir
from pai.passes.base import Pass
from pai.passes.partition.handlers.custom_calls import CUSTOM_CALLS, tell_shardy
from pai.passes.partition.isolation import run_isolated
from pai.passes.rewrite import walk

# sdy-reshard-to-collectives is left out: it takes dimensions to be divisible, and the localizer
# chooses collectives from a reshard's two shardings itself. So is
# sdy-update-non-divisible-input-output-shardings: uneven arguments stay sharded, padded.
PASSES = (
    "symbol-dce",
    "sdy-import-pipeline",
    "sdy-apply-sharding-constraints",
    "sdy-sharding-group-import",
    "sdy-user-priority-propagate{keep-sharding-rules=true}",
    "func.func(sdy-constant-or-scalar-merger)",
    "func.func(sdy-sink-data-flow-edges)",
    "sdy-remove-sharding-groups",
    "func.func(sdy-sharding-constraint-to-reshard)",
    "sdy-remove-sub-axes-in-input-output-shardings",
    "sdy-close-shardings",
    "func.func(sdy-insert-explicit-reshards{enable-full-version=true})",
    "canonicalize{enable-patterns={sdy-reshard} region-simplify=aggressive top-down=false}",
    "func.func(sdy-drop-sharding-rules)",
)


@dataclass(frozen=True)
class Propagate(Pass):
    """Give every value a sharding and put reshards where two do not agree.

    Before::

        sdy.mesh @mesh = <["x"=2]>
        func.func @main(%a: tensor<4x8xf32> {sdy.sharding = <@mesh, [{"x"}, {}]>}) {
          %0 = stablehlo.tanh %a : tensor<4x8xf32>

    After::

          %0 = stablehlo.tanh %a {sdy.sharding = <[<@mesh, [{"x"}, {}]>]>} : tensor<4x8xf32>

    Args:
        dump_dir: where the module goes when Shardy fails ("" for a temporary folder).
        time_limit: seconds.
    """

    name: ClassVar[str] = "pai-propagate"
    dump_dir: str = ""
    time_limit: float = 600.0

    def run(self, module: ir.Module) -> None:
        """Rewrite ``module`` in place; raises PassFailure when Shardy fails or takes too long."""
        if CUSTOM_CALLS:
            tell_shardy(list(walk(module.operation)))
        new = run_isolated(
            module, PASSES, dump_dir=self.dump_dir or None, time_limit=self.time_limit
        )
        replace_body(module, new)


def replace_body(module: ir.Module, new: ir.Module) -> None:
    """Move the operations and attributes of ``new`` into ``module``."""
    for op in list(module.body.operations):
        op.operation.erase()
    for op in list(new.body.operations):
        module.body.append(op)
    for named in list(module.operation.attributes):
        name = getattr(named, "name", named)
        if name != "sym_name":
            del module.operation.attributes[name]
    for name in new.operation.attributes:
        key = getattr(name, "name", name)
        module.operation.attributes[key] = new.operation.attributes[key]
