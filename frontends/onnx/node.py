"""One ONNX node as its handler sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pai.runtime.errors import UnsupportedOp


@dataclass(frozen=True)
class Origin:
    """Where a traced value comes from: an input of the model, or a tensor stored in it.

    Args:
        name: the user's name of it.
        load: reads a stored tensor; None for an input.
    """

    name: str
    load: Callable[[], np.ndarray] | None = None


def _unknown(_value: Any) -> Origin | None:
    return None


@dataclass(frozen=True)
class Node:
    """A node: its names, attributes (already Python values), and the graph around it.

    Args:
        name: the node's name, or its first output's name when it has none.
        op_type: operator name.
        domain: operator domain, "" for the default one.
        version: opset version of that domain in this model.
        attributes: name to int, float, str, bytes, list, ndarray (tensors), or GraphProto.
        outputs: names of the outputs; "" for one that is not wanted.
        run_graph: evaluates a subgraph attribute: (graph, inputs) to its outputs; values of the
            enclosing scope are visible inside it.
        output_types: per output, the (dtype, shape) the model itself states, or None; open
            dimensions are -1.
        origin: a traced value to where it comes from, when it is an argument of the program.
    """

    name: str
    op_type: str
    domain: str
    version: int
    attributes: Mapping[str, Any]
    outputs: Sequence[str]
    run_graph: Callable[..., tuple[Any, ...]]
    output_types: Sequence[tuple[np.dtype, tuple[int, ...]] | None] = ()
    origin: Callable[[Any], Origin | None] = _unknown

    def attr(self, key: str, default: Any = None) -> Any:
        """Return attribute ``key`` or ``default``."""
        return self.attributes.get(key, default)

    def refuse(self, why: str, hint: str = "") -> UnsupportedOp:
        """Return (to be raised) the error that says why this node cannot be compiled."""
        domain = f"{self.domain}." if self.domain else ""
        return UnsupportedOp(why, f"node '{self.name}' ({domain}{self.op_type})", hint)

    def concrete(self, value: Any, what: str) -> np.ndarray:
        """Return ``value`` as a NumPy array, reading it from the model where it is stored.

        Raises:
            UnsupportedOp: when it is only known at run time.
        """
        if isinstance(value, (np.ndarray, np.generic, int, float, bool)):
            return np.asarray(value)
        origin = self.origin(value)
        if origin is not None and origin.load is not None:
            return origin.load()
        which, hint = "", "export the model with this value as a constant"
        if origin is not None:
            which = f" (input '{origin.name}')"
            hint = f"fix the input's value with --shape '{origin.name}:=VALUE'"
        raise self.refuse(f"its {what}{which} depends on the data, so shapes would too", hint)
