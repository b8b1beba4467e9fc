"""The importer: arguments, weights, folding, functions, control flow, against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pai.compiler.reference import run_reference
from pai.dialects.mlir import to_text
from pai.dialects.program import Role
from pai.frontends.onnx.importer import function, load
from pai.runtime.errors import UnsupportedOp

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
RNG = np.random.default_rng(7)


def info(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def build(folder: Path, nodes, inputs, outputs, stored=None, functions=(), opset=17) -> Path:
    initializers = [
        value if isinstance(value, TensorProto) else numpy_helper.from_array(value, name)
        for name, value in (stored or {}).items()
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def check(path: Path, feed: dict[str, np.ndarray], shapes=(), *, peer=True, want=None):
    """Hold the lowered program against onnxruntime; returns the program."""
    program = load(path, shapes)
    arguments = [
        feed[value.name] if value.role is Role.INPUT else program.weights.load(value.name)
        for value in program.signature.arguments
    ]
    results = run_reference(to_text(program.module), arguments)
    if want is None and peer:
        want = onnxruntime.InferenceSession(str(path)).run(None, feed)
    assert len(results) == len(want)
    for result, expected in zip(results, want, strict=True):
        assert result.dtype == expected.dtype
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    return program


def weight(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def names(program, role):
    return [value.name for value in program.signature.arguments if value.role is role]


def test_weights_are_arguments_and_not_in_the_module(tmp_path):
    w = weight(64, 32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="layer/0/proj")]
    path = build(tmp_path, nodes, [info("x", (2, 64))], [info("y", (2, 32))], {"w": w})
    program = check(path, {"x": weight(2, 64)})
    assert names(program, Role.INPUT) == ["x"]
    assert names(program, Role.PARAMETER) == ["w"]
    np.testing.assert_array_equal(program.weights.load("w"), w)
    text = to_text(program.module, locations=True)
    assert "dense<" not in text
    assert "layer.0.proj" in text
    assert 'pai.name = "w"' in text
    assert 'pai.role = "parameter"' in text


def test_unused_weights_are_not_arguments(tmp_path):
    stored = {"w": weight(4, 4), "unused": weight(4, 4)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    program = check(
        build(tmp_path, nodes, [info("x", (2, 4))], [info("y", (2, 4))], stored),
        {"x": weight(2, 4)},
    )
    assert names(program, Role.PARAMETER) == ["w"]


def test_tied_weights_are_one_argument(tmp_path):
    nodes = [
        helper.make_node("Identity", ["w"], ["w2"]),
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["a", "w2"], ["y"]),
    ]
    path = build(tmp_path, nodes, [info("x", (2, 8))], [info("y", (2, 8))], {"w": weight(8, 8)})
    assert names(check(path, {"x": weight(2, 8)}), Role.PARAMETER) == ["w"]


def test_external_data_is_mapped(tmp_path):
    w = weight(8, 4)
    (tmp_path / "w.bin").write_bytes(b"\0" * 12 + w.tobytes())
    stored = TensorProto(name="w", data_type=FLOAT, dims=[8, 4])
    stored.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.bin"), ("offset", "12"), ("length", str(w.nbytes))):
        stored.external_data.add(key=key, value=value)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = build(tmp_path, nodes, [info("x", (2, 8))], [info("y", (2, 4))], {"w": stored})
    program = check(path, {"x": weight(2, 8)})
    loaded = program.weights.load("w")
    np.testing.assert_array_equal(loaded, w)
    assert not loaded.flags.owndata


def test_shape_arithmetic_folds(tmp_path):
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["batch"]),
        helper.make_node("Mul", ["batch", "two"], ["doubled"]),
        helper.make_node("Concat", ["doubled", "minus"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    stored = {"zero": np.array([0]), "two": np.array([2]), "minus": np.array([-1])}
    path = build(tmp_path, nodes, [info("x", ("batch", 6))], [info("y", (None, None))], stored)
    program = check(path, {"x": weight(3, 6)}, ["batch=3"])
    text = to_text(program.module)
    assert "stablehlo.reshape" in text
    assert "i64" not in text
    assert program.signature.results[0].shape == (6, 3)


def test_outputs_of_every_kind(tmp_path):
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Shape", ["x"], ["dims"]),
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
    ]
    outputs = [
        info("same", (2, 3)),
        info("dims", (2,), INT64),
        info("w", (2, 3)),
        info("a", (2, 3)),
        info("b", (2, 3)),
    ]
    path = build(tmp_path, nodes, [info("x", (2, 3))], outputs, {"w": weight(2, 3)})
    check(path, {"x": weight(2, 3)})


def test_fixed_input(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "target"], ["y"])]
    inputs = [info("x", (2, 6)), info("target", (2,), INT64)]
    path = build(tmp_path, nodes, inputs, [info("y", (None, None))])
    with pytest.raises(UnsupportedOp, match="target:=VALUE"):
        load(path)
    x = weight(2, 6)
    program = check(path, {"x": x}, ["target:=3,4"], want=[x.reshape(3, 4)])
    assert names(program, Role.INPUT) == ["x"]


def test_model_functions_are_inlined(tmp_path):
    body = [
        helper.make_node("Constant", [], ["c"], value_float=0.5),
        helper.make_node("Mul", ["a", "c"], ["m"]),
        helper.make_node("LeakyRelu", ["m"], ["r"]),
    ]
    alpha = onnx.AttributeProto(name="alpha", type=onnx.AttributeProto.FLOAT)
    alpha.ref_attr_name = "slope"
    body[2].attribute.append(alpha)
    function = helper.make_function(
        "own", "Half", ["a"], ["r"], body, [helper.make_opsetid("", 17)], ["slope"]
    )
    nodes = [helper.make_node("Half", ["x"], ["y"], domain="own", slope=0.3)]
    path = build(tmp_path, nodes, [info("x", (4,))], [info("y", (4,))], functions=[function])
    check(path, {"x": np.array([-2, -1, 1, 2], np.float32)})


def branch(name, op, stored):
    node = helper.make_node(op, ["x", f"{name}_w"], [f"{name}_y"])
    tensors = [numpy_helper.from_array(stored, f"{name}_w")]
    return helper.make_graph([node], name, [], [info(f"{name}_y", (2, 3))], tensors)


@pytest.mark.parametrize("taken", [True, False])
def test_if_on_data_hoists_weights(tmp_path, taken):
    node = helper.make_node(
        "If",
        ["cond"],
        ["y"],
        then_branch=branch("yes", "Add", weight(2, 3)),
        else_branch=branch("no", "Mul", weight(2, 3)),
    )
    inputs = [info("x", (2, 3)), info("cond", (), BOOL)]
    path = build(tmp_path, [node], inputs, [info("y", (2, 3))])
    program = check(path, {"x": weight(2, 3), "cond": np.array(taken)})
    assert sorted(names(program, Role.PARAMETER)) == ["no_w", "yes_w"]
    assert "stablehlo.case" in to_text(program.module)


def test_if_on_a_constant_takes_one_branch(tmp_path):
    node = helper.make_node(
        "If",
        ["cond"],
        ["y"],
        then_branch=branch("yes", "Add", weight(2, 3)),
        else_branch=branch("no", "Mul", weight(2, 3)),
    )
    path = build(
        tmp_path, [node], [info("x", (2, 3))], [info("y", (2, 3))], {"cond": np.array(True)}
    )
    program = check(path, {"x": weight(2, 3)})
    assert names(program, Role.PARAMETER) == ["yes_w"]


def loop_body(condition_nodes, extra=(), scans=()):
    nodes = [helper.make_node("Add", ["v", "step"], ["v_out"]), *condition_nodes, *extra]
    return helper.make_graph(
        nodes,
        "body",
        [info("i", (), INT64), info("c", (), BOOL), info("v", (2,))],
        [info("c_out", (), BOOL), info("v_out", (2,)), *scans],
        [numpy_helper.from_array(np.array([0.5, 2], np.float32), "step")],
    )


def test_counted_loop_is_a_scan_with_stacked_outputs(tmp_path):
    body = loop_body(
        [helper.make_node("Identity", ["c"], ["c_out"])],
        [helper.make_node("Mul", ["v_out", "v_out"], ["square"])],
        [info("square", (2,))],
    )
    node = helper.make_node("Loop", ["trips", ""], ["y", "s"], body=body)
    outputs = [info("y", (2,)), info("s", (None, 2))]
    inputs = [info("x", (2,))]
    node.input.append("x")
    path = build(tmp_path, [node], inputs, outputs, {"trips": np.array(5)})
    program = check(path, {"x": weight(2)})
    assert "stablehlo.while" in to_text(program.module)
    assert program.signature.results[1].shape == (5, 2)


def test_loop_until_the_data_says_stop(tmp_path):
    condition = [
        helper.make_node("ReduceSum", ["v_out"], ["total"], keepdims=0),
        helper.make_node("Less", ["total", "limit"], ["c_out"]),
    ]
    node = helper.make_node("Loop", ["", "go", "x"], ["y"], body=loop_body(condition))
    stored = {"limit": np.array(20, np.float32), "go": np.array(True)}
    path = build(tmp_path, [node], [info("x", (2,))], [info("y", (2,))], stored)
    check(path, {"x": np.array([1, 2], np.float32)})


def test_loop_whose_carried_shape_grows_is_written_out(tmp_path):
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["c"], ["c_out"]),
            helper.make_node("Concat", ["v", "v"], ["v_out"], axis=0),
        ],
        "body",
        [info("i", (), INT64), info("c", (), BOOL), info("v", (None,))],
        [info("c_out", (), BOOL), info("v_out", (None,))],
    )
    node = helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body)
    path = build(tmp_path, [node], [info("x", (2,))], [info("y", (None,))], {"trips": np.array(3)})
    assert check(path, {"x": weight(2)}).signature.results[0].shape == (16,)


def test_scan_backward_along_another_axis(tmp_path):
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", "row"], ["new"]),
            helper.make_node("Identity", ["new"], ["out"]),
        ],
        "body",
        [info("state", (3,)), info("row", (3,))],
        [info("new", (3,)), info("out", (3,))],
    )
    node = helper.make_node(
        "Scan",
        ["s0", "x"],
        ["end", "y"],
        body=body,
        num_scan_inputs=1,
        scan_input_axes=[1],
        scan_input_directions=[1],
        scan_output_axes=[1],
        scan_output_directions=[1],
    )
    inputs = [info("s0", (3,)), info("x", (3, 4))]
    path = build(tmp_path, [node], inputs, [info("end", (3,)), info("y", (3, 4))])
    check(path, {"s0": weight(3), "x": weight(3, 4)})


def test_integer_division_truncates(tmp_path):
    path = build(
        tmp_path,
        [helper.make_node("Div", ["x", "d"], ["y"])],
        [info("x", (6,), INT64), info("d", (6,), INT64)],
        [info("y", (6,), INT64)],
    )
    feed = {"x": np.array([7, -7, 7, -7, 1, -1]), "d": np.array([2, 2, -2, -2, 3, 3])}
    check(path, feed)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Pow"])
def test_broadcast_attributes_of_old_opsets(tmp_path, op):
    node = helper.make_node(op, ["x", "b"], ["y"], axis=1, broadcast=1)
    stored = {"b": np.abs(weight(3)) + 1}
    inputs = [info("x", (2, 3, 4)), info("b", (3,))]
    path = build(tmp_path, [node], inputs, [info("y", (2, 3, 4))], stored, opset=6)
    x = np.abs(weight(2, 3, 4)) + 1
    ufunc = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
    want = ufunc.get(op, np.power)(x, stored["b"][:, None])
    check(path, {"x": x}, want=[want])


def test_reshape_of_opset_one(tmp_path):
    node = helper.make_node("Reshape", ["x"], ["y"], shape=[0, -1])
    path = build(tmp_path, [node], [info("x", (2, 3, 4))], [info("y", (2, 12))], opset=4)
    x = weight(2, 3, 4)
    check(path, {"x": x}, want=[x.reshape(2, 12)])


def test_gradients_reach_every_weight(tmp_path):
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["a"], transB=1),
        helper.make_node("Clip", ["a", "low", "high"], ["c"]),
        helper.make_node("Reshape", ["c", "dims"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["m"]),
        helper.make_node("LogSoftmax", ["m"], ["y"], axis=-1),
    ]
    stored = {
        "w1": weight(6, 4),
        "b1": weight(6),
        "w2": weight(3, 5),
        "low": np.array(-0.5, np.float32),
        "high": np.array(0.7, np.float32),
        "dims": np.array([-1, 3]),
    }
    path = build(tmp_path, nodes, [info("x", (2, 4))], [info("y", (4, 5))], stored)
    model = function(path)
    x, along = weight(2, 4), weight(4, 5)
    start = [tensor.load().astype(np.float64) for tensor in model.parameters]
    assert [tensor.name for tensor in model.parameters] == ["w1", "b1", "w2"]

    def loss(parameters):
        (y,) = model.call([x], [np.float32(1) * p for p in parameters])
        return (y * along).sum()

    with jax.enable_x64(True):
        gradients = jax.grad(loss)([jax.numpy.asarray(p, np.float32) for p in start])
        for index, gradient in enumerate(gradients):
            direction = weight(*gradient.shape)
            moved = []
            for sign in (1, -1):
                at = [jax.numpy.asarray(p, np.float32) for p in start]
                at[index] = at[index] + sign * 1e-2 * direction
                moved.append(float(loss(at)))
            slope = (moved[0] - moved[1]) / 2e-2
            np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=2e-2, atol=2e-2)
