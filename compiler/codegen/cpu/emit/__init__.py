"""Kernel functions to MLIR text: ``emit_kernel``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pai.compiler.codegen.cpu.emit import (
    contraction,
    fourier,
    indexing,
    linear_algebra,
    random,
    reduction,
    sorting,
    structural,
    window,
)
from pai.compiler.codegen.cpu.emit.graph import Graph, read_function
from pai.compiler.codegen.cpu.emit.kernel import KernelSource, emit_plan
from pai.compiler.codegen.cpu.emit.plan import make_grid, make_plan
from pai.compiler.codegen.cpu.target import CpuTarget

__all__ = ["KERNELS", "KernelSource", "emit_kernel", "register_kernel"]

Special = Callable[[Any, Graph, CpuTarget], KernelSource | None]
# By ``pai.kernel``: emitters that know a whole kernel better than the elemental way does.
KERNELS: dict[str, Special] = {}
_FAMILIES = (
    contraction,
    fourier,
    indexing,
    linear_algebra,
    random,
    reduction,
    sorting,
    structural,
    window,
)


def register_kernel(kind: str, emitter: Special) -> None:
    """Register a special emitter for kernels of a kind.

    Args:
        kind: value of ``pai.kernel``.
        emitter: called with the ``func.func``, its graph and the target; returns None to leave the
            kernel to the elemental emitter.
    """
    KERNELS[kind] = emitter


def emit_kernel(func: Any, target: CpuTarget) -> KernelSource:
    """Return the MLIR text of a kernel function.

    Args:
        func: a ``func.func`` of StableHLO and CHLO operations on static shapes.
        target: the processor to make code for.

    Raises:
        UnsupportedOp: for an operation without a rule; names it and its location.
    """
    graph = read_function(func)
    attributes = func.operation.attributes
    kind = str(attributes["pai.kernel"]).strip('"') if "pai.kernel" in attributes else ""
    if kind in KERNELS:
        special = KERNELS[kind](func, graph, target)
        if special is not None:
            return special
    plan = make_plan(graph)
    key = str(attributes["pai.key"]).strip('"') if "pai.key" in attributes else graph.name
    symbol = "pai_" + "".join(c if c.isalnum() else "_" for c in key)
    return emit_plan(graph, plan, make_grid(plan), symbol, frozenset(target.features))
