"""Small ONNX models made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save(path: Path, nodes, inputs, outputs, initializers=(), opset=21, domains=()) -> Path:
    """Write a model; ``initializers`` maps names to arrays."""
    graph = helper.make_graph(
        nodes,
        "graph",
        inputs,
        outputs,
        [numpy_helper.from_array(array, name) for name, array in dict(initializers).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.save(model, str(path))
    return path


def tensor(name: str, shape, kind: int = TensorProto.FLOAT):
    """Return the value info of a tensor."""
    return helper.make_tensor_value_info(name, kind, shape)


def mlp(path: Path, hidden: int = 32, seed: int = 0) -> Path:
    """Write y = softmax(relu(x @ w1 + b1) @ w2 + b2), x of shape (batch, 16)."""
    generator = np.random.default_rng(seed)
    weights = {
        "w1": generator.standard_normal((16, hidden)).astype(np.float32),
        "b1": generator.standard_normal(hidden).astype(np.float32),
        "w2": generator.standard_normal((hidden, 10)).astype(np.float32),
        "b2": generator.standard_normal(10).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="fc1"),
        helper.make_node("Relu", ["h"], ["r"], name="act"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["z"], name="fc2"),
        helper.make_node("Softmax", ["z"], ["y"], name="probabilities", axis=-1),
    ]
    return save(path, nodes, [tensor("x", ["batch", 16])], [tensor("y", ["batch", 10])], weights)
