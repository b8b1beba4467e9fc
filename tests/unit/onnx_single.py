"""Single-node ONNX models: run through the importer and XLA, and through onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import onnxruntime
from onnx import helper

from pai.frontends.onnx.importer import function


def single(
    op_type: str,
    inputs: Sequence[Any],
    *,
    opset: int = 17,
    domain: str = "",
    outputs: int | Sequence[bool] = 1,
    stored: Sequence[int] = (),
    types: Sequence[int] | None = None,
    **attributes: Any,
) -> onnx.ModelProto:
    """Return a model of one node; inputs that are None are left out.

    ``outputs`` is how many, or which, outputs there are; ``stored`` inputs are initializers.
    """
    wanted = [True] * outputs if isinstance(outputs, int) else list(outputs)
    names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
    results = [f"y{i}" if want else "" for i, want in enumerate(wanted)]
    node = helper.make_node(op_type, names, results, name="it", domain=domain, **attributes)
    infos, initializers = [], []
    for i, value in enumerate(inputs):
        if value is None:
            continue
        if i in stored:
            initializers.append(onnx.numpy_helper.from_array(np.asarray(value), names[i]))
        else:
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            infos.append(helper.make_tensor_value_info(names[i], kind, value.shape))
    kinds = list(types or [1] * len(results))
    values = [
        helper.make_tensor_value_info(name, kind, None)
        for name, kind in zip(results, kinds, strict=True)
        if name
    ]
    graph = helper.make_graph([node], "g", infos, values, initializers)
    imports = [helper.make_opsetid("", opset)]
    if domain:
        imports.append(helper.make_opsetid(domain, 1))
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def feeds_of(model: onnx.ModelProto, inputs: Sequence[Any]) -> dict[str, np.ndarray]:
    """Return the values of the model's inputs by name."""
    return {v.name: np.asarray(inputs[int(v.name[1:])]) for v in model.graph.input}


def evaluate(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], folder: Path
) -> list[np.ndarray]:
    """Run a model through our interpreter, compiled by XLA."""
    path = folder / "model.onnx"
    onnx.save(model, path)
    traced = function(path)
    with jax.enable_x64(True):
        values = [feeds[name] for name in traced.inputs]
        parameters = [tensor.load() for tensor in traced.parameters]
        lowered = jax.jit(traced.call).lower(values, parameters)
        compiled = lowered.compile({"xla_backend_optimization_level": 0})
        return [np.asarray(v) for v in compiled(values, parameters)]


def shape_of(array: np.ndarray) -> onnx.TensorShapeProto:
    """Return the shape of an array as a message."""
    dims = [onnx.TensorShapeProto.Dimension(dim_value=n) for n in array.shape]
    return onnx.TensorShapeProto(dim=dims)


def reference(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Run a model through onnxruntime without its graph optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, dict(feeds))


def check(
    folder: Path,
    op_type: str,
    inputs: Sequence[Any],
    *,
    tolerance: float = 1e-5,
    steps: int = 0,
    only: Sequence[int] | None = None,
    **options: Any,
) -> list[np.ndarray]:
    """Compare one node with onnxruntime; returns our outputs.

    Args:
        folder: where the model may be written.
        op_type: operator.
        inputs: arrays, or None.
        tolerance: relative and absolute, of floating results.
        steps: how many quantization steps integer results may be off.
        only: which outputs to compare, default all.
        options: of ``single``.
    """
    model = single(op_type, inputs, **options)
    return compare(folder, model, inputs, tolerance=tolerance, steps=steps, only=only)


def compare(
    folder: Path,
    model: onnx.ModelProto,
    inputs: Sequence[Any],
    *,
    tolerance: float = 1e-5,
    steps: int = 0,
    only: Sequence[int] | None = None,
) -> list[np.ndarray]:
    """Compare a model of ``single`` with onnxruntime; see ``check``."""
    feeds = feeds_of(model, inputs)
    want = reference(model, feeds)
    for value, array in zip(model.graph.output, want, strict=True):
        value.type.tensor_type.shape.CopyFrom(shape_of(array))
    got = evaluate(model, feeds, folder)
    assert len(got) == len(want)
    for i in only if only is not None else range(len(got)):
        assert got[i].dtype == want[i].dtype
        assert got[i].shape == want[i].shape
        assert want[i].size and np.isfinite(want[i].astype(np.float64)).all()
        if want[i].dtype.kind == "f":
            np.testing.assert_allclose(got[i], want[i], rtol=tolerance, atol=tolerance)
        else:
            difference = np.abs(got[i].astype(np.int64) - want[i].astype(np.int64))
            assert difference.max() <= steps
    return got


def random(*shape: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    """Return normal values of a shape."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def integers(low: int, high: int, *shape: int, dtype: Any, seed: int = 0) -> np.ndarray:
    """Return uniform integers in [low, high)."""
    return np.random.default_rng([seed, *shape]).integers(low, high, shape).astype(dtype)
