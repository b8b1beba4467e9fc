"""Names, roles and types of the arguments and results of ``@main``."""

from __future__ import annotations

from collections.abc import Sequence

from pai.dialects.mlir import ir
from pai.dialects.pai import NAME, ROLE, UPDATES
from pai.dialects.program import Role, Signature, Value
from pai.dialects.types import dtype_name, is_static_tensor, shape_of
from pai.passes.rewrite import main_function
from pai.runtime.errors import InvalidModel, InvalidShape, UnsupportedOp

_RESULT_ROLES = frozenset({Role.OUTPUT, Role.CHECK})

# What other runtimes say about buffers and GSPMD; no part of what the program computes.
_DROPPED = frozenset(
    {
        "jax.buffer_donor",
        "tf.aliasing_output",
        "mhlo.layout_mode",
        "mhlo.memory_kind",
        "mhlo.sharding",
    }
)


def argument_names(main: ir.OpView) -> list[str]:
    """Return the arguments' names: ``pai.name``, else the name in the location, else argN."""
    arguments = main.regions[0].blocks[0].arguments
    attrs = _dicts(main, "arg_attrs", len(arguments))
    names = []
    for index, (argument, entry) in enumerate(zip(arguments, attrs, strict=True)):
        location = argument.location
        name = _text(entry, NAME) or (location.name_str if isinstance(location, ir.NameLoc) else "")
        names.append(name or f"arg{index}")
    return _unique(names)


def result_names(main: ir.OpView) -> list[str]:
    """Return the results' names: ``pai.name``, else ``jax.result_info``, else resultN."""
    count = len(main.type.results)
    attrs = _dicts(main, "res_attrs", count)
    given = [_text(entry, NAME) or _text(entry, "jax.result_info") for entry in attrs]
    if count == 1 and not given[0]:
        return ["result"]
    return _unique([name or f"result{index}" for index, name in enumerate(given)])


def name_values(module: ir.Module) -> None:
    """Write ``pai.name`` and ``pai.role`` on every argument, and ``pai.name`` on every result."""
    main = main_function(module)
    ctx = module.context
    _add(main, "arg_attrs", NAME, argument_names(main), ctx)
    roles = [
        _text(entry, ROLE) or Role.INPUT.value
        for entry in _dicts(main, "arg_attrs", len(main.type.inputs))
    ]
    _add(main, "arg_attrs", ROLE, roles, ctx)
    _add(main, "res_attrs", NAME, result_names(main), ctx)


def read_signature(module: ir.Module, source: str) -> Signature:
    """Return the signature of ``@main`` as its attributes state it.

    Raises:
        InvalidModel: for an unknown role.
        InvalidShape: for a result whose shape is open.
        UnsupportedOp: for an argument or result that is not a tensor of a known element type.
    """
    main = main_function(module)
    inputs, results = main.type.inputs, main.type.results
    arguments = [
        _value(type_, _text(entry, NAME), _role(entry, source), source)
        for type_, entry in zip(inputs, _dicts(main, "arg_attrs", len(inputs)), strict=True)
    ]
    outputs = [
        _value(type_, _text(entry, NAME), _result_role(entry), source, _text(entry, UPDATES))
        for type_, entry in zip(results, _dicts(main, "res_attrs", len(results)), strict=True)
    ]
    return Signature(tuple(arguments), tuple(outputs))


def _role(entry: ir.DictAttr, source: str) -> Role:
    text = _text(entry, ROLE)
    known = [role.value for role in Role if role not in _RESULT_ROLES]
    if text not in known:
        raise InvalidModel(f"unknown {ROLE} '{text}'", source, f"one of {', '.join(known)}")
    return Role(text)


def _result_role(entry: ir.DictAttr) -> Role:
    return Role.CHECK if _text(entry, ROLE) == Role.CHECK else Role.OUTPUT


def _value(type_: ir.Type, name: str, role: Role, source: str, updates: str = "") -> Value:
    place = f"{source}, {'result' if role in _RESULT_ROLES else 'argument'} '{name}'"
    if not isinstance(type_, ir.RankedTensorType):
        raise UnsupportedOp(f"{type_} is not a ranked tensor", place)
    if not is_static_tensor(type_):
        raise InvalidShape(f"{type_} has open dimensions", place, "bind them with --shape")
    try:
        dtype = dtype_name(type_)
    except UnsupportedOp as error:
        raise UnsupportedOp(error.what, place) from error
    return Value(name, role, dtype, shape_of(type_), updates)


def _dicts(main: ir.OpView, kind: str, count: int) -> list[ir.DictAttr]:
    if kind not in main.attributes:
        return [ir.DictAttr.get({}, main.operation.context)] * count
    return [ir.DictAttr(entry) for entry in ir.ArrayAttr(main.attributes[kind])]


def _text(entry: ir.DictAttr, name: str) -> str:
    return str(ir.StringAttr(entry[name]).value) if name in entry else ""


def _add(main: ir.OpView, kind: str, key: str, texts: Sequence[str], ctx: ir.Context) -> None:
    entries = []
    for entry, text in zip(_dicts(main, kind, len(texts)), texts, strict=True):
        pairs = {named.name: named.attr for named in entry if named.name not in _DROPPED}
        entries.append(ir.DictAttr.get({**pairs, key: ir.StringAttr.get(text, ctx)}, ctx))
    main.attributes[kind] = ir.ArrayAttr.get(entries, ctx)


def _unique(names: list[str]) -> list[str]:
    """Make repeated names distinct by a number at the end."""
    taken: set[str] = set()
    out = []
    for name in names:
        candidate, number = name, 1
        while candidate in taken:
            candidate = f"{name}_{number}"
            number += 1
        taken.add(candidate)
        out.append(candidate)
    return out
