"""Small helpers that passes share: walking, replacing, naming the place of an operation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack

from pai.dialects.mlir import ir
from pai.runtime.errors import InvalidModel

FILE_LOC_LIMIT = 160


def walk(root: ir.Operation | ir.OpView) -> Iterator[ir.Operation]:
    """Yield every operation inside ``root``, outer ones first.

    A block is read before its operations are yielded, so the operation at hand may be erased
    (its regions are then not visited if it is erased before the iterator goes on).
    """
    for region in root.regions:
        for block in region.blocks:
            for op in list(block.operations):
                inner = op.operation
                has_regions = len(inner.regions) > 0
                yield inner
                if has_regions:
                    yield from walk(inner)


def collect(root: ir.Module | ir.Operation | ir.OpView, *names: str) -> list[ir.Operation]:
    """Return the operations inside ``root`` that have one of the names, outer ones first."""
    wanted = set(names)
    found: list[ir.Operation] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op.name in wanted:
            found.append(op)
        return ir.WalkResult.ADVANCE

    root.operation.walk(visit, ir.WalkOrder.PRE_ORDER)
    return found


def op_names(module: ir.Module) -> set[str]:
    """Return the names of all operations in a module."""
    names: set[str] = set()

    def visit(op: ir.Operation) -> ir.WalkResult:
        names.add(op.name)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return names


def functions(module: ir.Module) -> dict[str, ir.OpView]:
    """Return the functions of a module by name, in order."""
    return {op.name.value: op for op in module.body.operations if op.operation.name == "func.func"}


def main_function(module: ir.Module) -> ir.OpView:
    """Return ``@main``; raises InvalidModel when the module has none."""
    main = functions(module).get("main")
    if main is None:
        raise InvalidModel("the module has no function @main")
    return main


def is_private(func: ir.OpView) -> bool:
    """Whether a function is private to its module."""
    attributes = func.attributes
    return "sym_visibility" in attributes and attributes["sym_visibility"].value == "private"


def constant_operand(value: ir.Value) -> ir.Operation | None:
    """Return the ``stablehlo.constant`` that defines a value, or None."""
    owner = value.owner
    if isinstance(owner, ir.Block):
        return None
    return owner.operation if owner.operation.name == "stablehlo.constant" else None


def replace(op: ir.Operation, values: Sequence[ir.Value]) -> None:
    """Replace the results of ``op`` by ``values`` and erase it."""
    for old, new in zip(op.results, values, strict=True):
        old.replace_all_uses_with(new)
    op.erase()


def is_unused(op: ir.Operation) -> bool:
    """Whether no result of ``op`` has a use."""
    return all(next(iter(result.uses), None) is None for result in op.results)


def building_before(op: ir.Operation) -> AbstractContextManager[object]:
    """Enter a context in which new operations go before ``op`` and take its location."""
    stack = ExitStack()
    stack.enter_context(op.context)
    stack.enter_context(op.location)
    stack.enter_context(ir.InsertionPoint(op))
    return stack


def where(op: ir.Operation) -> str:
    """Return the user's place of an operation: its location without ``loc(...)``, and its name."""
    text = str(op.location)
    text = text.removeprefix("loc(").removesuffix(")").replace('"', "")
    if len(text) > FILE_LOC_LIMIT:
        text = text[:FILE_LOC_LIMIT] + "…"
    return f"{text} ({op.name})"
