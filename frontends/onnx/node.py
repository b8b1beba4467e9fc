"""One ONNX node as its handler sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pai.runtime.errors import UnsupportedOp


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
        output_types: per output, the (dtype, shape) the model itself states, or None.
    """

    name: str
    op_type: str
    domain: str
    version: int
    attributes: Mapping[str, Any]
    outputs: Sequence[str]
    run_graph: Callable[..., tuple[Any, ...]]
    output_types: Sequence[tuple[np.dtype, tuple[int, ...]] | None] = ()

    def attr(self, key: str, default: Any = None) -> Any:
        """Return attribute ``key`` or ``default``."""
        return self.attributes.get(key, default)

    def refuse(self, why: str, hint: str = "") -> UnsupportedOp:
        """Return (to be raised) the error that says why this node cannot be compiled."""
        domain = f"{self.domain}." if self.domain else ""
        return UnsupportedOp(why, f"node '{self.name}' ({domain}{self.op_type})", hint)

    def concrete(self, value: Any, what: str) -> np.ndarray:
        """Return ``value`` as a NumPy array; raises UnsupportedOp when it is only known at run time."""
        if isinstance(value, (np.ndarray, np.generic, int, float, bool)):
            return np.asarray(value)
        raise self.refuse(
            f"its {what} depends on the data, so shapes would too",
            "export the model with this value as a constant",
        )
