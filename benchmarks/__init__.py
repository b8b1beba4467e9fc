"""One command per table: ``python -m benchmarks.<name>``; results are kept in RESULTS.md.

``python -m`` puts the checkout first on the import path, where the folder ``pai/`` (only the public
face) would hide the installed package; this takes the checkout off the path again.
"""

from __future__ import annotations

import sys
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _CHECKOUT]
