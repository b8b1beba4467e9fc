"""Choose the function that the program starts with, and call it ``@main``."""

from __future__ import annotations

from pai.dialects.mlir import ir
from pai.frontends.stablehlo import checks
from pai.passes.rewrite import functions, is_private
from pai.runtime.errors import InvalidModel


def choose_main(module: ir.Module, source: str) -> None:
    """Leave one public function, ``@main``; the others become private.

    A module whose public functions all check themselves gets an ``@main`` that calls each.

    Raises:
        InvalidModel: when there is no function, or no way to tell which one is meant.
    """
    table = functions(module)
    public = {n: f for n, f in table.items() if not is_private(f) and not f.is_external}
    if not public:
        raise InvalidModel("the module has no public function", source)
    if "main" not in public and len(public) > 1:
        if any(len(f.type.inputs) for f in public.values()) or not checks.has_checks(module):
            raise InvalidModel(
                f"which function to start with is not clear: {', '.join(public)}",
                source,
                "call one of them @main, or make the others private",
            )
        _make_main(module, list(public.values()))
    elif "main" not in public:
        _rename(module, table, next(iter(public)))
    ctx = module.context
    for name, func in functions(module).items():
        if name == "main":
            func.attributes["sym_visibility"] = ir.StringAttr.get("public", ctx)
        else:
            func.attributes["sym_visibility"] = ir.StringAttr.get("private", ctx)


def _rename(module: ir.Module, table: dict[str, ir.OpView], name: str) -> None:
    """Call the function ``name`` main, and a private one of that name something else."""
    if "main" in table:
        rename(module, table["main"], "main_1")
    rename(module, table[name], "main")


def rename(module: ir.Module, func: ir.OpView, name: str) -> None:
    """Call ``func`` and every use of it ``name``."""
    ctx = module.context
    old = func.name.value
    ir.SymbolTable.replace_all_symbol_uses(old, name, module.operation)
    func.attributes["sym_name"] = ir.StringAttr.get(name, ctx)


def _make_main(module: ir.Module, tests: list[ir.OpView]) -> None:
    ctx = module.context
    with ctx, ir.Location.unknown(ctx), ir.InsertionPoint(module.body):
        main = ir.Operation.create(
            "func.func",
            attributes={
                "sym_name": ir.StringAttr.get("main"),
                "function_type": ir.TypeAttr.get(ir.FunctionType.get([], [])),
            },
            regions=1,
        )
        block = main.regions[0].blocks.append()
        with ir.InsertionPoint(block):
            for test in tests:
                ir.Operation.create(
                    "func.call",
                    results=list(test.type.results),
                    attributes={"callee": ir.FlatSymbolRefAttr.get(test.name.value)},
                )
            ir.Operation.create("func.return")
