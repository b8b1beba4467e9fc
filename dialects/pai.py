"""Our own attributes: their names, and a verifier for the modules that carry them.

There is no ``pai`` dialect in C++; an outlined function and a few attributes say what we need:

    pai.name   on arguments and results of @main: the user's name
    pai.role   on arguments of @main: input, parameter or state; on results: check, if one
    pai.updates on results of @main: the state argument that the result replaces
    pai.kernel on a private function: it is a kernel, of this kind
    pai.key    on a kernel: the hash of its structure; functions with one key have one object
    pai.alias  on a kernel: array<i64: r0, o0, r1, o1, ...>; result r starts out as operand o
"""

from __future__ import annotations

from collections.abc import Iterator

from pai.dialects.mlir import ir
from pai.dialects.program import Role
from pai.dialects.types import is_static_tensor
from pai.runtime.errors import PassFailure

NAME = "pai.name"
ROLE = "pai.role"
UPDATES = "pai.updates"
KERNEL = "pai.kernel"
KEY = "pai.key"
ALIAS = "pai.alias"

COLLECTIVES = frozenset(
    f"stablehlo.{name}"
    for name in (
        "all_gather",
        "all_reduce",
        "all_to_all",
        "collective_broadcast",
        "collective_permute",
        "partition_id",
        "reduce_scatter",
        "replica_id",
    )
)


def verify(module: ir.Module) -> None:
    """Check every ``pai.*`` attribute of a module.

    Raises:
        PassFailure: naming the function and the attribute that is wrong.
    """
    keys: dict[str, ir.OpView] = {}
    for op in module.body.operations:
        if op.operation.name != "func.func":
            continue
        _verify_values(op)
        if KERNEL in op.attributes:
            _verify_kernel(op, keys)
        elif KEY in op.attributes or ALIAS in op.attributes:
            raise _failure(op, f"{KEY} and {ALIAS} are for functions with {KERNEL}")


def kernels(module: ir.Module) -> dict[str, ir.OpView]:
    """Return the kernel functions of a module by name."""
    return {
        op.name.value: op
        for op in module.body.operations
        if op.operation.name == "func.func" and KERNEL in op.attributes
    }


def alias_pairs(func: ir.OpView) -> list[tuple[int, int]]:
    """Return the (result, operand) pairs of ``pai.alias``; empty when there is none."""
    if ALIAS not in func.attributes:
        return []
    flat = list(ir.DenseI64ArrayAttr(func.attributes[ALIAS]))
    return list(zip(flat[::2], flat[1::2], strict=True))


def _failure(func: ir.OpView, what: str) -> PassFailure:
    place = str(func.location).removeprefix("loc(").removesuffix(")").replace('"', "")
    return PassFailure(f"function @{func.name.value}: {what}", place)


def _verify_values(func: ir.OpView) -> None:
    """Check names and roles of arguments and results."""
    roles = [role.value for role in Role if role not in {Role.OUTPUT, Role.CHECK}]
    names = []
    for entry in _entries(func, "arg_attrs"):
        names += _texts(func, entry, NAME)
        for role in _texts(func, entry, ROLE):
            if role not in roles:
                raise _failure(func, f"{ROLE} is '{role}', not one of {', '.join(roles)}")
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise _failure(func, f"two arguments have the {NAME} '{min(repeated)}'")
    for entry in _entries(func, "res_attrs"):
        _texts(func, entry, NAME)
        for name in _texts(func, entry, UPDATES):
            if name not in names:
                raise _failure(func, f"{UPDATES} names '{name}', which is no argument")


def _entries(func: ir.OpView, kind: str) -> Iterator[ir.DictAttr]:
    if kind in func.attributes:
        yield from map(ir.DictAttr, ir.ArrayAttr(func.attributes[kind]))


def _texts(func: ir.OpView, entry: ir.DictAttr, name: str) -> list[str]:
    """Return the text of a string attribute in a list, or an empty list."""
    if name not in entry:
        return []
    if not isinstance(entry[name], ir.StringAttr):
        raise _failure(func, f"{name} is {entry[name]}, not a string")
    return [entry[name].value]


def _verify_kernel(func: ir.OpView, keys: dict[str, ir.OpView]) -> None:
    for name in (KERNEL, KEY):
        value = func.attributes.get(name)
        if not isinstance(value, ir.StringAttr) or not value.value:
            raise _failure(func, f"{name} must be a string that is not empty")
    visibility = func.attributes.get("sym_visibility", None)
    if visibility is None or visibility.value != "private":
        raise _failure(func, "a kernel must be private")
    twin = keys.setdefault(func.attributes[KEY].value, func)
    if twin is not func:
        raise _failure(func, f"has the {KEY} of @{twin.name.value}; call that instead")
    for type_ in [*func.type.inputs, *func.type.results]:
        if not is_static_tensor(type_):
            raise _failure(func, f"{type_} is not a tensor of static shape")
    _verify_body(func)
    _verify_alias(func)


def _verify_body(func: ir.OpView) -> None:
    found: list[str] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op.name in COLLECTIVES or op.name == "func.call":
            found.append(op.name)
        return ir.WalkResult.ADVANCE

    func.operation.walk(visit)
    if found:
        raise _failure(func, f"{found[0]} inside a kernel")


def _verify_alias(func: ir.OpView) -> None:
    if ALIAS not in func.attributes:
        return
    attr = func.attributes[ALIAS]
    if not isinstance(attr, ir.DenseI64ArrayAttr) or len(attr) % 2:
        raise _failure(func, f"{ALIAS} must be array<i64: result, operand, ...>")
    pairs = alias_pairs(func)
    if len({result for result, _ in pairs}) != len(pairs):
        raise _failure(func, f"{ALIAS} names a result twice")
    inputs, results = list(func.type.inputs), list(func.type.results)
    for result, operand in pairs:
        if not (0 <= result < len(results) and 0 <= operand < len(inputs)):
            raise _failure(func, f"{ALIAS} pairs result {result} with operand {operand}")
        if results[result] != inputs[operand]:
            raise _failure(
                func,
                f"{ALIAS} pairs result {result} of type {results[result]} with operand "
                f"{operand} of type {inputs[operand]}",
            )
