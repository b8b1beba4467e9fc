"""pai-auto-shard: choose a plan for the module and write it in."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import ClassVar

from pai.dialects.mlir import ir
from pai.dialects.program import Role, Signature, Value
from pai.passes.base import Pass
from pai.passes.strategy.annotate import annotate, argument_names, main_function
from pai.passes.strategy.search import choose_plan
from pai.runtime.topology import load_cluster


@dataclass(frozen=True)
class AutoShard(Pass):
    """Choose the layout of the arguments and write it as Shardy shardings.

    Before::

        func.func @main(%x: tensor<4096x64xf32> {pai.role = "input"},
                        %w: tensor<64x64xf32> {pai.role = "parameter"})

    After, with ``{cluster=cpu devices=4}``::

        sdy.mesh @mesh = <["data"=4]>
        func.func @main(%x: ... {sdy.sharding = #sdy.sharding<@mesh, [{"data"}p0, {}]>}, %w: ...)

    Args:
        cluster: profile name or path of a cluster file.
        devices: number of devices; 0 takes the cluster's own.
    """

    name: ClassVar[str] = "pai-auto-shard"
    cluster: str = "cpu"
    devices: int = 0

    def run(self, module: ir.Module) -> None:
        """Rewrite ``module`` in place; raises InfeasiblePlan, InvalidCluster or InvalidSharding."""
        cluster = load_cluster(self.cluster, self.devices or None)
        annotate(module, choose_plan(module, signature_of(module), cluster))


def signature_of(module: ir.Module) -> Signature:
    """Return the signature that the attributes of ``@main`` spell; a missing role is an input."""
    main = main_function(module)
    function = ir.FunctionType(ir.TypeAttr(main.attributes["function_type"]).value)
    names, roles = argument_names(module), [Role.INPUT] * len(function.inputs)
    if "arg_attrs" in main.attributes:
        for i, entry in enumerate(ir.ArrayAttr(main.attributes["arg_attrs"])):
            with contextlib.suppress(KeyError):
                roles[i] = Role(ir.StringAttr(ir.DictAttr(entry)["pai.role"]).value)
    arguments = tuple(
        _value(name, role, type_)
        for name, role, type_ in zip(names, roles, function.inputs, strict=True)
    )
    results = tuple(_value(f"out{i}", Role.OUTPUT, t) for i, t in enumerate(function.results))
    return Signature(arguments, results)


def _value(name: str, role: Role, type_: ir.Type) -> Value:
    tensor = ir.RankedTensorType(type_)
    return Value(name, role, str(tensor.element_type), tuple(tensor.shape))
