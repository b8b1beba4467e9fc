"""Join the self-checking modules that a test file separates by ``// -----``."""

from __future__ import annotations

from collections.abc import Callable

from pai.dialects.mlir import ir
from pai.frontends.stablehlo import checks
from pai.frontends.stablehlo.entry import choose_main, rename
from pai.passes.rewrite import functions, main_function

SEPARATOR = "\n// -----"


def join(text: str, source: str, parse: Callable[[str], ir.Module]) -> ir.Module | None:
    """Return one module with the functions of every part, or None when one does not check itself.

    The entry of part N becomes the public function ``main.N``; line numbers stay those of the file.

    Args:
        text: the file.
        source: its name, for messages.
        parse: reads one part; all into the same context.
    """
    modules, line = [], 0
    for part in text.split(SEPARATOR):
        if any(row.strip() and not row.lstrip().startswith("//") for row in part.splitlines()):
            modules.append(parse("\n" * line + part))
        line += part.count("\n") + 1
    joined = parse("module {\n}")
    for number, module in enumerate(modules):
        if any(op.operation.name != "func.func" for op in module.body.operations):
            return None
        if not checks.has_checks(module):
            return None
        choose_main(module, source)
        if main_function(module).type.inputs:
            return None
        for name, function in functions(module).items():
            rename(module, function, f"{name}.{number}")
        with ir.InsertionPoint(joined.body):
            for op in module.body.operations:
                op.operation.clone()
    return joined
