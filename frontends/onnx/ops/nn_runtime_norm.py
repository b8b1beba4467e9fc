"""Normalizations that onnxruntime's optimizer writes into the default domain.

ONNX itself does not define them there, so their schemas are registered for the checker to accept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import defs

from pai.frontends.lowering import norm
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.ops.microsoft import MICROSOFT, standard
from pai.frontends.onnx.registry import op

_FLOATS = ["tensor(float)", "tensor(float16)", "tensor(double)", "tensor(bfloat16)"]


def _register(name: str, inputs: dict[str, bool], outputs: dict[str, bool]) -> None:
    """Register version 1 of ``name``; the dictionaries say which values are optional."""
    try:
        defs.get_schema(name, 1)
    except defs.SchemaError:
        schema = defs.OpSchema
        kinds = {True: schema.FormalParameterOption.Optional}

        def values(names: dict[str, bool], prefix: str) -> list[Any]:
            single = schema.FormalParameterOption.Single
            return [
                schema.FormalParameter(n, f"{prefix}{i}", param_option=kinds.get(optional, single))
                for i, (n, optional) in enumerate(names.items())
            ]

        types = [f"I{i}" for i in range(len(inputs))] + [f"O{i}" for i in range(len(outputs))]
        attributes = {
            "axis": schema.AttrType.INT,
            "epsilon": schema.AttrType.FLOAT,
            "stash_type": schema.AttrType.INT,
        }
        defs.register_schema(
            schema(
                name,
                "",
                1,
                inputs=values(inputs, "I"),
                outputs=values(outputs, "O"),
                type_constraints=[(kind, _FLOATS, "") for kind in types],
                attributes=[
                    schema.Attribute(key, kind, required=False) for key, kind in attributes.items()
                ],
            )
        )


_register(
    "SimplifiedLayerNormalization",
    {"X": False, "scale": False},
    {"Y": False, "inv_std_var": True},
)
_register(
    "LayerNormalization",
    {"X": False, "Scale": False, "B": True},
    {"Y": False, "Mean": True, "InvStdDev": True},
)


@op("SimplifiedLayerNormalization", 1)
@op("SimplifiedLayerNormalization", 1, MICROSOFT)
def simplified_layer_norm(node: Node, x: Any, scale: Any) -> Any:
    """SimplifiedLayerNormalization: RMS norm from ``axis`` on, and the inverse deviation."""
    axis = node.attr("axis", -1) % np.ndim(x)
    epsilon = float(node.attr("epsilon", 1e-5))
    y, inverse = norm.rms_norm(x, scale, range(axis, np.ndim(x)), epsilon)
    return y.astype(scale.dtype), inverse


@op("LayerNormalization", 1)
def layer_norm_early(node: Node, x: Any, scale: Any, bias: Any = None) -> Any:
    """LayerNormalization before opset 17."""
    return standard(node, "LayerNormalization", 17, x, scale, bias)
