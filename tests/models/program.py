"""Training steps as the compiler takes them: StableHLO with names and roles, and a Signature."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from pai.dialects.mlir import ir
from pai.dialects.program import Role, Signature, Value
from pai.passes.strategy.annotate import main_function

from . import layouts
from .common import identity
from .step import arguments, names

_ROLES = {"params": Role.PARAMETER, "batch": Role.INPUT}


def step_text(model: str, config: Any, size: int, *, train: bool = True) -> str:
    """Return the StableHLO of a training step or forward pass; nothing is allocated."""
    module = layouts.load(model)
    given = arguments(module, config, size, train=train, only_shapes=True)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), given)
    function = layouts.build(module, config, identity, train=train)
    traced = jax.jit(function, keep_unused=True).trace(*shapes)
    return str(traced.lower(lowering_platforms=("cpu",)).as_text())


def sign(module: ir.Module, model: str, config: Any, *, train: bool = True) -> Signature:
    """Name the arguments and results of ``step_text``'s module, in place; return its signature."""
    labels = names(layouts.load(model), config, train=train)
    main = main_function(module)
    block: ir.Block = main.regions[0].blocks[0]
    taken = [
        _value(name, _ROLES.get(name.partition("/")[0], Role.STATE), argument.type)
        for name, argument in zip(labels, block.arguments, strict=True)
    ]
    kept = [value.name for value in taken if value.role is not Role.INPUT] if train else []
    returned = list(block.operations)[-1].operation.operands
    updates = ["", *kept] if train else [""] * len(returned)
    given = [
        _value(f"new/{name}" if name else f"out{i}", Role.OUTPUT, value.type, name)
        for i, (name, value) in enumerate(zip(updates, returned, strict=True))
    ]
    with module.context:
        for kind, values in (("arg_attrs", taken), ("res_attrs", given)):
            entries = []
            for value in values:
                entry = {"pai.name": ir.StringAttr.get(value.name)}
                entry["pai.role"] = ir.StringAttr.get(value.role.value)
                if value.updates:
                    entry["pai.updates"] = ir.StringAttr.get(value.updates)
                entries.append(ir.DictAttr.get(entry))
            main.attributes[kind] = ir.ArrayAttr.get(entries)
    return Signature(tuple(taken), tuple(given))


def _value(name: str, role: Role, type_: ir.Type, updates: str = "") -> Value:
    return Value(name, role, str(type_.element_type), tuple(type_.shape), updates)
