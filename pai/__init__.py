"""pai-compile: turn a model into a distributed program, and run it.

The compiler's modules are imported when first used, so that loading and running a package needs
neither jaxlib nor torch-mlir.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pai.runtime.version import VERSION

if TYPE_CHECKING:
    from pai.api import compile, load, lower, plan, verify  # noqa: A004

__all__ = ["compile", "load", "lower", "plan", "verify"]
__version__ = VERSION


def __getattr__(name: str) -> Any:
    """Import the public functions on first use."""
    if name in __all__:
        return getattr(importlib.import_module("pai.api"), name)
    raise AttributeError(f"module 'pai' has no attribute '{name}'")
