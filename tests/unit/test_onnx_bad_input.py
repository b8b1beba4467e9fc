"""Damaged and unsupported ONNX files: one clear line each, never a traceback or a crash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pai.frontends.onnx.importer import load
from pai.runtime.errors import InvalidModel, InvalidShape, PaiError, UnsupportedOp


def tensor(name, shape=(2,), kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, inputs=("x",), outputs=("y",), opset=17, initializers=(), domains=(), shape=(2,)):
    graph = helper.make_graph(
        nodes,
        "g",
        [tensor(n, shape) for n in inputs],
        [tensor(n, shape) for n in outputs],
        list(initializers),
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def relu():
    return model([helper.make_node("Relu", ["x"], ["y"], name="act")])


def refused(path: Path, kind: type[PaiError], *words: str, shapes=()) -> PaiError:
    with pytest.raises(kind) as caught:
        load(path, shapes)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text
    return caught.value


def write(folder: Path, content: bytes | onnx.ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_never_crash(tmp_path, seed):
    """Flip, cut, drop or insert bytes of a good model: it loads, or the error is one of ours."""
    rng = np.random.default_rng(seed)
    weight = numpy_helper.from_array(np.ones((4, 2), np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="mm"),
        helper.make_node("Softmax", ["a"], ["y"], name="soft", axis=-1),
    ]
    good = model(nodes, initializers=[weight], shape=("batch", 4)).SerializeToString()
    for _ in range(5):
        at = int(rng.integers(len(good)))
        noise = rng.bytes(int(rng.integers(1, 5)))
        bad = [
            good[:at] + noise + good[at + len(noise) :],
            good[:at],
            good[:at] + good[at + len(noise) :],
            good[:at] + noise + good[at:],
        ][int(rng.integers(4))]
        try:
            load(write(tmp_path, bad), ["batch=2"])
        except PaiError as error:
            assert "\n" not in str(error)


def test_good_model_loads(tmp_path):
    assert load(write(tmp_path, relu())).signature.results[0].name == "y"


def test_missing_file(tmp_path):
    refused(tmp_path / "none.onnx", InvalidModel, "none.onnx", "no such file")


def test_directory(tmp_path):
    refused(tmp_path, InvalidModel, "directory")


def test_empty_file(tmp_path):
    refused(write(tmp_path, b""), InvalidModel, "empty")


@pytest.mark.parametrize("content", [b"hello world, this is text\n", b"\x89PNG\r\n" + b"\0" * 64])
def test_not_onnx(tmp_path, content):
    refused(write(tmp_path, content), InvalidModel, "not an ONNX file")


def test_truncated_file(tmp_path):
    weight = numpy_helper.from_array(np.ones((64, 2), np.float32), "w")
    whole = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], initializers=[weight], shape=(2, 64)
    ).SerializeToString()
    for size in (1, len(whole) // 3, len(whole) - 7):
        refused(write(tmp_path, whole[:size]), InvalidModel, "model.onnx")


def test_unknown_operator(tmp_path):
    path = write(tmp_path, model([helper.make_node("Frobnicate", ["x"], ["y"], name="bad")]))
    refused(path, UnsupportedOp, "bad", "Frobnicate")


def test_unknown_domain(tmp_path):
    node = helper.make_node("Magic", ["x"], ["y"], name="bad", domain="my.ops")
    path = write(tmp_path, model([node], domains=["my.ops"]))
    refused(path, UnsupportedOp, "bad", "my.ops.Magic")


def test_cycle(tmp_path):
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], name="one"),
        helper.make_node("Relu", ["a"], ["b"], name="two"),
        helper.make_node("Relu", ["b"], ["y"], name="three"),
    ]
    refused(write(tmp_path, model(nodes)), InvalidModel, "cycle", "one")


def test_undefined_value(tmp_path):
    path = write(tmp_path, model([helper.make_node("Relu", ["nothing"], ["y"], name="act")]))
    refused(path, InvalidModel, "nothing")


def test_invalid_attribute(tmp_path):
    path = write(tmp_path, model([helper.make_node("Relu", ["x"], ["y"], wrong=1)]))
    refused(path, InvalidModel, "wrong")


def test_no_opset(tmp_path):
    broken = relu()
    del broken.opset_import[:]
    refused(write(tmp_path, broken), InvalidModel, "opset")


def test_future_opset(tmp_path):
    future = model([helper.make_node("Relu", ["x"], ["y"])], opset=999)
    refused(write(tmp_path, future), UnsupportedOp, "999")


def test_damaged_tensor(tmp_path):
    weight = numpy_helper.from_array(np.ones(2, np.float32), "w")
    weight.raw_data = weight.raw_data[:5]
    node = helper.make_node("Add", ["x", "w"], ["y"])
    refused(write(tmp_path, model([node], initializers=[weight])), InvalidModel, "w")


def external(location: str, length: int | None = None, offset: int | None = None):
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    weight.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "length": length, "offset": offset}
    for key, value in entries.items():
        if value is not None:
            weight.external_data.add(key=key, value=str(value))
    return model([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[weight])


def test_missing_external_data(tmp_path):
    refused(write(tmp_path, external("w.bin")), InvalidModel, "w.bin", "missing")


def test_short_external_data(tmp_path):
    (tmp_path / "w.bin").write_bytes(b"1234")
    refused(write(tmp_path, external("w.bin")), InvalidModel, "w.bin", "too short")


def test_external_data_past_the_end(tmp_path):
    (tmp_path / "w.bin").write_bytes(b"12345678")
    refused(write(tmp_path, external("w.bin", 8, 4)), InvalidModel, "too short")


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname"])
def test_external_data_outside(tmp_path, location):
    (tmp_path / "w.bin").write_bytes(b"12345678")
    inside = tmp_path / "inside"
    inside.mkdir()
    refused(write(inside, external(location)), InvalidModel, "outside")


def test_open_dimensions_are_listed(tmp_path):
    path = write(tmp_path, model([helper.make_node("Relu", ["x"], ["y"])], shape=("batch", 3)))
    refused(path, InvalidShape, "x[batch,3]", "--shape batch=1")


def test_unnamed_dimensions_are_listed(tmp_path):
    path = write(tmp_path, model([helper.make_node("Relu", ["x"], ["y"])], shape=(None, 3)))
    refused(path, InvalidShape, "x[?,3]", "--shape x:1,3")


@pytest.mark.parametrize(
    ("shape", "word"),
    [
        ("sequence=4", "no dimension 'sequence'"),
        ("z:4,3", "no input 'z'"),
        ("x:4,4", "the model has 3"),
        ("x:4", "2 dimensions"),
        ("batch=2;x:4,3", "both"),
        ("batch=two", "cannot read"),
        ("batch=2;batch=3", "two sizes"),
        ("z:=3", "no input 'z'"),
        ("x:=3", "3"),
        ("x:=a", "cannot read"),
    ],
)
def test_wrong_shapes(tmp_path, shape, word):
    path = write(tmp_path, model([helper.make_node("Relu", ["x"], ["y"])], shape=("batch", 3)))
    refused(path, InvalidShape, word, shapes=[shape])


def test_shape_that_depends_on_data(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("NonZero", ["x"], ["y"], name="find")],
        "g",
        [tensor("x")],
        [tensor("y", (1, None), TensorProto.INT64)],
    )
    path = write(tmp_path, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    refused(path, UnsupportedOp, "find", "NonZero", "input 'x'", "depends on the data")


def test_string_input(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [tensor("x", kind=TensorProto.STRING)],
        [tensor("y", kind=TensorProto.STRING)],
    )
    path = write(tmp_path, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    refused(path, UnsupportedOp, "x", "strings")


def test_shapes_that_do_not_fit_name_the_node(tmp_path):
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    node = helper.make_node("Add", ["x", "w"], ["y"], name="sum")
    path = write(tmp_path, model([node], initializers=[weight], shape=("batch",)))
    refused(path, UnsupportedOp, "sum", "Add", shapes=["batch=2"])
