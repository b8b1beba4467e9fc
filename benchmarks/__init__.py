"""One command per table: ``python -m benchmarks.<name>``; results are kept in RESULTS.md.

``python -m`` puts the checkout first on the import path, where the folder ``pai/`` (only the public
face) would hide the installed package; this takes the checkout off the path again.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _CHECKOUT]


def load_package(folder: str, known_as: str) -> ModuleType:
    """Import a package of the checkout, by a name that hides no other module."""
    if known_as not in sys.modules:
        path = _CHECKOUT / folder
        spec = importlib.util.spec_from_file_location(
            known_as, path / "__init__.py", submodule_search_locations=[str(path)]
        )
        if spec is None or spec.loader is None:
            raise ImportError(folder)
        sys.modules[known_as] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[known_as])
    return sys.modules[known_as]
