"""The only import of ``jaxlib.mlir``: contexts, parsing, and pass pipelines."""

from __future__ import annotations

import functools
import re

import jaxlib
from jaxlib.mlir import ir, passmanager
from jaxlib.mlir._mlir_libs import _jax_mlir_ext
from jaxlib.mlir.dialects import chlo, func, mhlo, sdy, stablehlo

from pai.runtime.errors import InvalidModel, PassFailure

JAXLIB_VERSION = "0.10.2"

__all__ = [
    "chlo",
    "context",
    "first_diagnostic",
    "func",
    "ir",
    "parse",
    "run_pipeline",
    "sdy",
    "stablehlo",
    "to_text",
]


@functools.cache
def _register_passes() -> None:
    stablehlo.register_stablehlo_passes()


def context() -> ir.Context:
    """Return a new context with StableHLO, CHLO and Shardy loaded and ``pai.*`` names allowed.

    Raises:
        PassFailure: when jaxlib is not the pinned version.
    """
    if jaxlib.__version__ != JAXLIB_VERSION:
        raise PassFailure(
            f"jaxlib {jaxlib.__version__} is installed but {JAXLIB_VERSION} is needed",
            hint=f"pip install jaxlib=={JAXLIB_VERSION} jax=={JAXLIB_VERSION}",
        )
    _register_passes()
    ctx = ir.Context()
    ctx.enable_multithreading(False)
    ctx.allow_unregistered_dialects = True
    registry = ir.DialectRegistry()
    _jax_mlir_ext.register_dialects(registry)
    ctx.append_dialect_registry(registry)
    stablehlo.register_dialect(ctx)
    chlo.register_dialect(ctx)
    sdy.register_dialect(ctx)
    mhlo.register_mhlo_dialect(ctx)  # read only: importers rewrite it
    ctx.load_all_available_dialects()
    # The bindings offer no way to register the quant dialect; this pass loads it.
    with ctx, ir.Location.unknown(ctx):
        empty = ir.Module.create()
        passmanager.PassManager.parse("builtin.module(vhlo-legalize-to-stablehlo)").run(
            empty.operation
        )
    return ctx


def parse(text: str | bytes, where: str = "module", ctx: ir.Context | None = None) -> ir.Module:
    """Parse MLIR text or bytecode.

    Raises:
        InvalidModel: when it does not parse; ``where`` names the source.
    """
    ctx = ctx or context()
    try:
        with ctx, ir.Location.unknown(ctx):
            return ir.Module.parse(text, ctx)
    except (ir.MLIRError, ValueError) as error:
        message, place = first_diagnostic(error)
        line = re.search(r":(\d+):(\d+)$", place)
        file = f"{where}:{line[1]}:{line[2]}" if line else where
        raise InvalidModel(f"not a valid MLIR module: {message}", file) from error


def first_diagnostic(error: Exception) -> tuple[str, str]:
    """Return the first message of an MLIR error on one line, and its location without loc()."""
    diagnostics = getattr(error, "error_diagnostics", [])
    if not diagnostics:
        return " ".join(str(error).split()), ""
    place = str(diagnostics[0].location).removeprefix("loc(").removesuffix(")").replace('"', "")
    return " ".join(diagnostics[0].message.split()), "" if place == "unknown" else place


def to_text(module: ir.Module, *, locations: bool = False) -> str:
    """Print a module; large constants are kept whole so that the text parses back."""
    return module.operation.get_asm(enable_debug_info=locations)


def run_pipeline(module: ir.Module, pipeline: str) -> None:
    """Run upstream passes, given as the inside of ``builtin.module(...)``, in place.

    Raises:
        PassFailure: when the pipeline does not parse or a pass fails.
    """
    with module.context:
        try:
            manager = passmanager.PassManager.parse(f"builtin.module({pipeline})")
            manager.run(module.operation)
        except (ir.MLIRError, ValueError) as error:
            message, place = first_diagnostic(error)
            raise PassFailure(f"pipeline '{pipeline}' failed: {message}", place) from error
