"""The public functions of pai-compile."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai.runtime.executor import LoadedPackage
from pai.runtime.executor import load as load  # noqa: PLC0414

if TYPE_CHECKING:
    from pai.compiler.driver import Compilation
    from pai.compiler.verify import Verification
    from pai.dialects.program import Program
    from pai.passes.strategy.plan import Plan

    Model = str | os.PathLike[str] | Program

__all__ = ["LoadedPackage", "compile", "load", "lower", "plan", "verify"]


def compile(  # noqa: A001
    model: Model,
    output: str | os.PathLike[str],
    *,
    devices: int | None = None,
    shapes: Sequence[str] = (),
    **options: Any,
) -> LoadedPackage:
    """Compile ``model`` into the package ``output`` and load it.

    Args:
        model: path of an ONNX or StableHLO file, or a Program.
        output: path of the package to write.
        devices: number of devices.
        shapes: bindings of open dimensions, as ``--shape`` takes them.
        options: the other fields of ``CompileOptions``.

    Raises:
        PaiError: one of its subclasses, naming what is wrong and where.
    """
    _compilation(model, output, devices=devices, shapes=tuple(shapes), **options)
    return load(Path(output))


def lower(model: Model, *, stop_after: str = "simplify", **options: Any) -> Program:
    """Return the Program of ``model`` after the stage ``stop_after``; writes nothing.

    After ``partition`` and later stages the module is that of one device.
    """
    state = _compilation(model, None, stop_after=stop_after, **options)
    return replace(state.program, module=state.module)


def plan(model: Model, *, devices: int | None = None, cluster: str = "", **options: Any) -> Plan:
    """Return the plan that the search chooses for ``model``, without compiling kernels.

    ``print(plan(...).explain())`` says why. ``objective`` and ``max_latency_s`` choose for serving.
    The plan of a training step may have pipeline stages and microbatches, of which packages cannot
    be made yet; ``runnable=True`` leaves those out, as ``compile`` does.
    """
    options.setdefault("runnable", False)
    state = _compilation(
        model, None, devices=devices, cluster=cluster, stop_after="strategy", **options
    )
    return state.plan


def verify(model: Model, package: str | os.PathLike[str], **options: Any) -> Verification:
    """Run ``package`` against the untouched one-device program of ``model`` on random inputs.

    Raises:
        VerificationFailed: when an output is off by more than its tolerance.
    """
    from pai.compiler.verify import verify_package  # noqa: PLC0415

    state = _compilation(model, None, stop_after="import", **options)
    return verify_package(state.program, state.reference, Path(package))


def _compilation(
    model: Model, output: str | os.PathLike[str] | None, **options: Any
) -> Compilation:
    from pai.compiler.driver import compile_model  # noqa: PLC0415
    from pai.compiler.options import CompileOptions  # noqa: PLC0415

    return compile_model(model, CompileOptions(**options), Path(output) if output else None)
