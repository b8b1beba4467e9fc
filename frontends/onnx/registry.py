"""The table from (domain, operator, since_version) to the function that evaluates a node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# A handler takes the node and its input values (None where an optional input is absent) and
# returns one value, or a tuple with one value per output. A value is a NumPy array when it is
# concrete and a JAX tracer when it is not.
Handler = Callable[..., Any]

_TABLE: dict[tuple[str, str], list[tuple[int, Handler]]] = {}
_STAGED: set[Handler] = set()


def op(
    name: str, since: int = 1, domain: str = "", *, folds: bool = True
) -> Callable[[Handler], Handler]:
    """Register a handler for operator ``name`` from opset version ``since`` on.

    The handler is called as ``handler(node, *inputs)``. A later registration with a higher
    ``since`` takes over from that version. When every input is concrete, the handler is run at
    once and its results become NumPy arrays; ``folds=False`` turns this off for handlers that
    decide themselves (control flow, random numbers, results far larger than the inputs).
    """

    def register(handler: Handler) -> Handler:
        versions = _TABLE.setdefault((domain, name), [])
        versions.append((since, handler))
        versions.sort(key=lambda entry: entry[0])
        if not folds:
            _STAGED.add(handler)
        return handler

    return register


def lookup(domain: str, name: str, version: int) -> Handler | None:
    """Return the handler for the operator at opset ``version``, or None."""
    found = None
    for since, handler in _TABLE.get((domain, name), []):
        if since <= version:
            found = handler
    return found


def folds(handler: Handler) -> bool:
    """Return whether the handler may be run at once on concrete inputs."""
    return handler not in _STAGED


def registered() -> dict[tuple[str, str], list[int]]:
    """Return (domain, operator) to the since_versions that have a handler."""
    return {key: [since for since, _ in versions] for key, versions in _TABLE.items()}
