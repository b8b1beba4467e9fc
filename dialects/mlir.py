"""The only import of ``jaxlib.mlir``: contexts, parsing, and pass pipelines."""

from __future__ import annotations

import functools

import jaxlib
from jaxlib.mlir import ir, passmanager
from jaxlib.mlir._mlir_libs import _jax_mlir_ext
from jaxlib.mlir.dialects import chlo, func, sdy, stablehlo

from pai.runtime.errors import InvalidModel, PassFailure

JAXLIB_VERSION = "0.10.2"

__all__ = ["chlo", "context", "func", "ir", "parse", "run_pipeline", "sdy", "stablehlo", "to_text"]


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
    ctx.load_all_available_dialects()
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
        first = str(error).strip().splitlines()
        raise InvalidModel(f"not a valid MLIR module: {' '.join(first[:3])}", where) from error


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
            raise PassFailure(f"pipeline '{pipeline}' failed: {error}") from error
