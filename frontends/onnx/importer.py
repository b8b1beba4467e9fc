"""ONNX models to StableHLO: the graph is evaluated once while JAX traces it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pai.dialects.mlir import context, ir, parse
from pai.dialects.program import Program, Role, Signature, Value, Weights
from pai.frontends.onnx import ops
from pai.frontends.onnx.interpreter import Interpreter, as_array, is_parameter
from pai.frontends.onnx.model import Model, read_model
from pai.frontends.onnx.node import Origin
from pai.frontends.onnx.shapes import Input, bind, declared, fixed_values, parse_sizes
from pai.frontends.onnx.tensors import Tensor
from pai.runtime.errors import InvalidShape, UnsupportedOp

_LOADED = ops.__all__  # the handlers register themselves when they are imported


@dataclass(frozen=True)
class OnnxFunction:
    """A model as a JAX function of its inputs and its stored tensors.

    Args:
        name: the model's file name without its ending.
        call: ``call(inputs, parameters) -> outputs``, all lists in the order below; to be traced
            under ``jax.enable_x64(True)``.
        inputs: name, dtype and shape of each input.
        parameters: the stored tensors that are arguments.
        outputs: names of the outputs; one that is a sequence comes as a list.
        source: the file.
        fixed: inputs whose value is part of the function.
    """

    name: str
    call: Callable[[Sequence[Any], Sequence[Any]], list[Any]]
    inputs: Mapping[str, jax.ShapeDtypeStruct]
    parameters: Sequence[Tensor]
    outputs: Sequence[str]
    source: str
    fixed: Mapping[str, np.ndarray] = field(default_factory=dict)


def load(
    path: str | Path,
    shapes: Sequence[str] = (),
    constants: Mapping[str, np.ndarray] | None = None,
) -> Program:
    """Import an ONNX model.

    Args:
        path: the .onnx file.
        shapes: sizes of open dimensions: ``batch=8,seq=128`` or ``INPUT:1,3,224,224``; or
            ``INPUT:=16000`` to fix the value of an input. The elements of a sequence are
            ``INPUT.0``, ``INPUT.1``, …, in results too.
        constants: inputs whose value is fixed now (a Reshape's target, say); they are no longer
            arguments of the program.

    Returns:
        The program: inputs first, then the stored tensors that it uses, one argument each.

    Raises:
        InvalidModel: missing, damaged or not a valid graph.
        InvalidShape: open dimensions, or sizes that do not fit.
        UnsupportedOp: names the node that cannot be compiled and why.
    """
    return lower(function(path, shapes, constants))


def function(
    path: str | Path,
    shapes: Sequence[str] = (),
    constants: Mapping[str, np.ndarray] | None = None,
) -> OnnxFunction:
    """Return the model as a JAX function; arguments and errors are those of ``load``."""
    model = read_model(path)
    entries = _declared(model, shapes)
    fixed = fixed_values(entries, shapes) | dict(constants or {})
    inputs = _inputs(entries, shapes, fixed, str(path))
    tensors = [tensor for tensor in model.tensors.values() if is_parameter(tensor)]

    def call(values: Sequence[Any], parameters: Sequence[Any]) -> list[Any]:
        arguments = dict(zip((tensor.name for tensor in tensors), parameters, strict=True))
        by_name = dict(zip(inputs, values, strict=True))
        origins = {id(value): (value, Origin(name)) for name, value in by_name.items()}
        for tensor, value in zip(tensors, parameters, strict=True):
            origins[id(value)] = (value, Origin(tensor.name, tensor.load))
        given = _grouped(entries, by_name | fixed)
        results = Interpreter(model, arguments, origins).run(given)
        return [
            _output(value, output.name)
            for value, output in zip(results, model.graph.output, strict=True)
        ]

    names = [output.name for output in model.graph.output]
    return OnnxFunction(model.path.stem, call, inputs, tensors, names, str(path), fixed)


def _output(value: Any, name: str) -> Any:
    try:
        return [as_array(item) for item in value] if isinstance(value, list) else as_array(value)
    except UnsupportedOp as error:
        raise UnsupportedOp(error.what, f"output '{name}'") from error


def _declared(model: Model, shapes: Sequence[str]) -> list[Input]:
    """Return the inputs of the main graph that are not stored tensors."""
    stored = {tensor.name for tensor in model.graph.initializer}
    sizes = parse_sizes(shapes)
    inputs = [value for value in model.graph.input if value.name not in stored]
    return [entry for value in inputs for entry in declared(value, sizes, str(model.path))]


def _grouped(entries: Sequence[Input], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the graph's inputs by name, the elements of a sequence as a list."""
    given: dict[str, Any] = {}
    for entry in entries:
        if entry.sequence:
            given.setdefault(entry.sequence, []).append(values[entry.name])
        else:
            given[entry.name] = values[entry.name]
    return given


def _inputs(
    every: Sequence[Input], shapes: Sequence[str], fixed: Mapping[str, np.ndarray], where: str
) -> dict[str, jax.ShapeDtypeStruct]:
    unknown = sorted(set(fixed) - {entry.name for entry in every})
    if unknown:
        raise InvalidShape(f"there is no input '{unknown[0]}' to fix", where)
    entries = [entry for entry in every if entry.name not in fixed]
    bound = bind(entries, shapes, where)
    return {
        entry.name: jax.ShapeDtypeStruct(shape, entry.dtype)
        for entry, shape in zip(entries, bound, strict=True)
    }


def lower(traced: OnnxFunction) -> Program:
    """Trace and lower a model to a StableHLO program without allocating a weight."""
    parameters = [jax.ShapeDtypeStruct(t.shape, t.dtype) for t in traced.parameters]
    with jax.enable_x64(True), _plain_locations():
        lowered = (
            jax.jit(traced.call, keep_unused=True)
            .trace(list(traced.inputs.values()), parameters)
            .lower(lowering_platforms=("cpu",))
        )
    buffer = io.BytesIO()
    lowered.compiler_ir("stablehlo").operation.write_bytecode(buffer)
    module = parse(buffer.getvalue(), traced.source, context())
    roles = [(name, Role.INPUT) for name in traced.inputs]
    roles += [(tensor.name, Role.PARAMETER) for tensor in traced.parameters]
    outputs = [
        name if len(leaves) == 1 and leaves[0] is entry else f"{name}.{index}"
        for name, entry in zip(traced.outputs, lowered.out_info, strict=True)
        for leaves in [jax.tree.leaves(entry)]
        for index in range(len(leaves))
    ]
    signature = sign_main(module, traced.name, roles, outputs)
    used = {value.name for value in signature.arguments}
    loaders = {t.name: t.load for t in traced.parameters if t.name in used}
    return Program(traced.name, module, signature, Weights(loaders), traced.source, traced.fixed)


@contextlib.contextmanager
def _plain_locations() -> Iterator[None]:
    """Keep our own source lines out of the locations, which are for the model's names."""
    option = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, option)
    jax.config.update(option, 0)
    try:
        yield
    finally:
        jax.config.update(option, before)


def sign_main(
    module: ir.Module, name: str, roles: Sequence[tuple[str, Role]], outputs: Sequence[str]
) -> Signature:
    """Write names and roles on ``@main``, drop its unused parameters, and return its signature.

    Args:
        module: as JAX lowered it; changed in place.
        name: name to give it.
        roles: name and role of each argument of ``@main``.
        outputs: name of each result.
    """
    with module.context, ir.Location.unknown():
        for attribute in ("mhlo.num_partitions", "mhlo.num_replicas"):
            if attribute in module.operation.attributes:
                del module.operation.attributes[attribute]
        module.operation.attributes["sym_name"] = ir.StringAttr.get(name)
        main = _main(module)
        kept = _drop_unused(main, roles)
        results = list(ir.FunctionType(main.type).results)
        types = [argument.type for argument in main.regions[0].blocks[0].arguments]
        main.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types, results))
        main.attributes["arg_attrs"] = ir.ArrayAttr.get([_named(n, r) for n, r in kept])
        main.attributes["res_attrs"] = ir.ArrayAttr.get([_named(n) for n in outputs])
        if not module.operation.verify():
            raise UnsupportedOp("the lowered module does not verify", name)
        arguments = [_value(n, r, t) for (n, r), t in zip(kept, types, strict=True)]
        returned = [_value(n, Role.OUTPUT, t) for n, t in zip(outputs, results, strict=True)]
    return Signature(tuple(arguments), tuple(returned))


def _main(module: ir.Module) -> Any:
    functions = {ir.StringAttr(op.attributes["sym_name"]).value: op for op in module.body}
    return functions["main"]


def _drop_unused(main: Any, roles: Sequence[tuple[str, Role]]) -> list[tuple[str, Role]]:
    """Erase the parameters that nothing uses; return the name and role of what is left."""
    block = main.regions[0].blocks[0]
    kept: list[tuple[str, Role]] = []
    for index in reversed(range(len(roles))):
        unused = not any(True for _ in block.arguments[index].uses)
        if roles[index][1] is Role.PARAMETER and unused:
            block.erase_argument(index)
        else:
            kept.insert(0, roles[index])
    return kept


def _named(name: str, role: Role | None = None) -> ir.DictAttr:
    entries = {"pai.name": ir.StringAttr.get(name)}
    if role is not None:
        entries["pai.role"] = ir.StringAttr.get(str(role))
    return ir.DictAttr.get(entries)


def _value(name: str, role: Role, kind: ir.Type) -> Value:
    tensor = ir.RankedTensorType(kind)
    return Value(name, role, str(tensor.element_type), tuple(tensor.shape))
