"""Normalizations, losses, spectra, sequences, random numbers and optimizer steps."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_single import check, evaluate, feeds_of, integers, random, shape_of, single

from pai.frontends.onnx.importer import load
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.registry import lookup
from pai.runtime.errors import UnsupportedOp

TRAINING = "ai.onnx.preview.training"


def against_reference(folder, model, inputs, tolerance=1e-5):
    feeds = feeds_of(model, inputs)
    want = ReferenceEvaluator(model).run(None, feeds)
    for value, array in zip(model.graph.output, want, strict=True):
        value.type.tensor_type.shape.CopyFrom(shape_of(array))
    got = evaluate(model, feeds, folder)
    for ours, theirs in zip(got, want, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    return got


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
def test_batch_norm(tmp_path, opset):
    inputs = [random(2, 3, 5, 4), *(random(3, seed=i) for i in range(3)), np.abs(random(3, seed=9))]
    check(tmp_path, "BatchNormalization", inputs, opset=opset, epsilon=1e-3)


def test_batch_norm_training(tmp_path):
    inputs = [random(4, 3, 5), *(random(3, seed=i) for i in range(3)), np.abs(random(3, seed=9))]
    check(
        tmp_path,
        "BatchNormalization",
        inputs,
        opset=15,
        outputs=3,
        training_mode=1,
        momentum=0.7,
    )


def test_instance_and_response_norm(tmp_path):
    check(tmp_path, "InstanceNormalization", [random(2, 3, 5, 4), random(3), random(3, seed=1)])
    for size in (3, 5):
        check(tmp_path, "LRN", [random(2, 7, 3, 4)], size=size, alpha=0.3, beta=0.6, bias=1.5)


@pytest.mark.parametrize("axis", [-1, 1])
def test_layer_norm(tmp_path, axis):
    shape = (4,) if axis == -1 else (3, 4)
    inputs = [random(2, 3, 4), random(*shape), random(*shape, seed=1)]
    check(tmp_path, "LayerNormalization", inputs, axis=axis, outputs=3)


def test_half_layer_norm_has_float_statistics(tmp_path):
    inputs = [random(2, 3, 64, dtype=np.float16) * np.float16(90), *(np.ones(64, np.float16),) * 2]
    check(tmp_path, "LayerNormalization", inputs, outputs=3, types=[10, 1, 1], tolerance=2e-3)


@pytest.mark.parametrize("axis", [-1, 1])
def test_rms_norm(tmp_path, axis):
    shape = (4,) if axis == -1 else (3, 4)
    inputs = [random(2, 3, 4), random(*shape)]
    model = single("RMSNormalization", inputs, opset=23, axis=axis)
    against_reference(tmp_path, model, inputs)


@pytest.mark.parametrize("opset", [18, 21])
def test_group_norm(opset):
    """By the handler itself: the checker refuses opset 18, whose scale is per group."""
    count = 2 if opset == 18 else 6
    x, scale, bias = random(2, 6, 5), random(count), random(count, seed=1)
    node = Node("it", "GroupNormalization", "", opset, {"num_groups": 2}, ["y"], lambda: ())
    got = lookup("", "GroupNormalization", opset)(node, x, scale, bias)
    wide = x.astype(np.float64).reshape(2, 2, 3, 5)
    y = (wide - wide.mean((2, 3), keepdims=True)) / np.sqrt(wide.var((2, 3), keepdims=True) + 1e-5)
    scale, bias = (np.repeat(v, 6 // count)[:, None] for v in (scale, bias))
    np.testing.assert_allclose(got, y.reshape(2, 6, 5) * scale + bias, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("p", [1, 2])
def test_lp_norm(tmp_path, p):
    check(tmp_path, "LpNormalization", [random(3, 4, 5)], axis=1, p=p)
    check(tmp_path, "MeanVarianceNormalization", [random(3, 4, 5, 6)], tolerance=1e-4)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("ignored", [None, -7])
@pytest.mark.parametrize("name", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
def test_losses(tmp_path, reduction, weighted, ignored, name):
    target = integers(0, 5, 3, 4, dtype=np.int64)
    if ignored is not None:
        target[1, 2] = ignored
    inputs = [random(3, 5, 4), target]
    if weighted:
        inputs.append(np.abs(random(5)) + np.float32(0.1))
    extra = {} if ignored is None else {"ignore_index": ignored}
    outputs = 2 if name.startswith("Soft") else 1
    model = single(name, inputs, opset=13, outputs=outputs, reduction=reduction, **extra)
    against_reference(tmp_path, model, inputs)


@pytest.mark.parametrize(("opset", "length"), [(17, None), (20, 5), (20, 600)])
@pytest.mark.parametrize(
    ("width", "inverse", "onesided"), [(1, 0, 0), (1, 0, 1), (2, 0, 0), (2, 1, 0), (2, 1, 1)]
)
def test_dft(tmp_path, opset, length, width, inverse, onesided):
    size = None if length is None else np.array(length, np.int64)
    inputs = [random(2, 9, 3, width), size]
    attributes = {"inverse": inverse, "onesided": onesided}
    if opset == 17:
        attributes["axis"] = 1
    else:
        inputs.append(np.array(1, np.int64))
    model = single("DFT", inputs, opset=opset, stored=(1, 2), **attributes)
    against_reference(tmp_path, model, inputs, tolerance=1e-4)


@pytest.mark.parametrize("frame", [8, 600])
def test_stft(tmp_path, frame):
    inputs = [
        random(2, 3 * frame + 5, 1),
        np.array(frame // 2, np.int64),
        np.abs(random(frame)),
        np.array(frame, np.int64),
    ]
    model = single("STFT", inputs, stored=(1, 3), onesided=1)
    against_reference(tmp_path, model, inputs, tolerance=1e-3)


@pytest.mark.parametrize("name", ["HannWindow", "HammingWindow", "BlackmanWindow"])
@pytest.mark.parametrize("periodic", [0, 1])
def test_windows(tmp_path, name, periodic):
    size = [np.array(11, np.int64)]
    check(tmp_path, name, size, stored=(0,), periodic=periodic, tolerance=1e-6)


def test_mel_weight_matrix(tmp_path):
    inputs = [np.int64(8), np.int64(64), np.int64(8000), np.float32(10), np.float32(4000)]
    check(tmp_path, "MelWeightMatrix", inputs, stored=range(5))


@pytest.mark.parametrize("step", [0, 3])
@pytest.mark.parametrize(
    ("name", "states", "attributes"),
    [
        ("Adagrad", 1, {"decay_factor": 0.1, "epsilon": 1e-4, "norm_coefficient": 0.01}),
        ("Adam", 2, {"alpha": 0.8, "beta": 0.95, "epsilon": 1e-4, "norm_coefficient_post": 0.02}),
        ("Momentum", 1, {"alpha": 0.8, "beta": 0.9, "norm_coefficient": 0.01, "mode": "nesterov"}),
        ("Momentum", 1, {"alpha": 0.8, "beta": 0.9, "norm_coefficient": 0.01, "mode": "standard"}),
    ],
)
def test_optimizers(tmp_path, name, states, attributes, step):
    tensors = [
        np.abs(random(*shape, seed=i)) for i in range(2 + states) for shape in ((3, 4), (5,))
    ]
    inputs = [np.float32(0.1), np.int64(step), *tensors]
    model = single(name, inputs, domain=TRAINING, outputs=2 + 2 * states, **attributes)
    against_reference(tmp_path, model, inputs)


def graph_of(folder, nodes, inputs, outputs, opset=18):
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.save(model, folder / "graph.onnx")
    return model, folder / "graph.onnx"


def info(name, *shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def test_sequences(tmp_path):
    node = helper.make_node
    nodes = [
        node("Constant", [], ["one"], value_int=1),
        node("Constant", [], ["back"], value_int=-2),
        node("SplitToSequence", ["x"], ["s"], axis=0, keepdims=0),
        node("SequenceErase", ["s", "one"], ["s2"]),
        node("SequenceInsert", ["s2", "y", "back"], ["s3"]),
        node("SequenceAt", ["s3", "one"], ["picked"]),
        node("ConcatFromSequence", ["s3"], ["joined"], axis=0, new_axis=1),
        node("SequenceLength", ["s3"], ["count"]),
        node("Optional", ["picked"], ["maybe"]),
        node("OptionalHasElement", ["maybe"], ["has"]),
        node("OptionalGetElement", ["maybe"], ["got"]),
    ]
    outputs = [
        info("joined", 4, 3),
        info("count", kind=TensorProto.INT64),
        info("got", 3),
        info("has", kind=TensorProto.BOOL),
    ]
    model, _ = graph_of(tmp_path, nodes, [info("x", 4, 3), info("y", 3)], outputs)
    feeds = {"x": random(4, 3), "y": random(3)}
    got = evaluate(model, feeds, tmp_path)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for ours, theirs in zip(got, session.run(None, feeds), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert got[1] == 4


def test_dropout(tmp_path):
    x, ratio, on = random(40, 50), np.float32(0.25), np.array(True)
    y, kept = dropout(tmp_path, [x, ratio, on], seed=3)
    assert 0.7 < kept.mean() < 0.8
    np.testing.assert_allclose(y, np.where(kept, x / np.float32(0.75), 0), rtol=1e-6)
    other, _ = dropout(tmp_path, [x, ratio, on], seed=4)
    assert (y != other).any()
    same, kept = dropout(tmp_path, [x, ratio, np.array(False)])
    np.testing.assert_array_equal(same, x)
    assert kept.all()


def dropout(folder, inputs, **attributes):
    model = single(
        "Dropout", inputs, opset=13, outputs=2, types=[1, 9], stored=(1, 2), **attributes
    )
    for value in model.graph.output:
        value.type.tensor_type.shape.CopyFrom(shape_of(inputs[0]))
    return evaluate(model, feeds_of(model, inputs), folder)


@pytest.mark.parametrize(
    ("name", "attributes", "mean", "deviation"),
    [
        ("RandomNormalLike", {"mean": 2.0, "scale": 3.0}, 2.0, 3.0),
        ("RandomUniformLike", {"low": -1.0, "high": 3.0}, 1.0, 4 / 12**0.5),
        ("Bernoulli", {}, 0.3, 0.21**0.5),
    ],
)
def test_random_moments(tmp_path, name, attributes, mean, deviation):
    x = np.full((200, 100), 0.3, np.float32)
    model = single(name, [x], opset=15, seed=1.5, **attributes)
    model.graph.output[0].type.tensor_type.shape.CopyFrom(shape_of(x))
    (y,) = evaluate(model, feeds_of(model, [x]), tmp_path)
    assert abs(y.mean() - mean) < 0.05
    assert abs(y.std() - deviation) < 0.05


def test_multinomial(tmp_path):
    x = np.log(np.array([[0.2, 0.5, 0.3]], np.float32))
    model = single("Multinomial", [x], types=[6], sample_size=4000, seed=2.0)
    model.graph.output[0].type.tensor_type.shape.CopyFrom(shape_of(np.empty((1, 4000))))
    (y,) = evaluate(model, feeds_of(model, [x]), tmp_path)
    np.testing.assert_allclose(np.bincount(y[0]) / 4000, [0.2, 0.5, 0.3], atol=0.04)


def test_data_dependent_shapes_are_refused(tmp_path):
    nodes = [helper.make_node("NonMaxSuppression", ["b", "s"], ["y"], name="nms")]
    inputs = [info("b", 1, 6, 4), info("s", 1, 2, 6)]
    _, path = graph_of(tmp_path, nodes, inputs, [info("y", 3, 3, kind=TensorProto.INT64)])
    with pytest.raises(UnsupportedOp, match="nms"):
        load(path)
