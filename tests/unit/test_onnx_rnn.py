"""LSTM, GRU and RNN against onnxruntime."""

import numpy as np
import pytest
from onnx_single import check, evaluate, feeds_of, random, shape_of, single

from pai.runtime.errors import UnsupportedOp

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
TIME, BATCH, WIDTH, HIDDEN = 5, 3, 4, 6


def weights(name, count, *, bias=True):
    gates = GATES[name] * HIDDEN
    found = [
        random(TIME, BATCH, WIDTH),
        random(count, gates, WIDTH) * np.float32(0.5),
        random(count, gates, HIDDEN) * np.float32(0.5),
    ]
    return [*found, random(count, 2 * gates) if bias else None]


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("lengths", "opset"), [(True, 7), (False, 22)])
def test_directions(tmp_path, name, direction, lengths, opset):
    count = 2 if direction == "bidirectional" else 1
    inputs = weights(name, count)
    inputs.append(np.array([3, 5, 1], np.int32) if lengths else None)
    inputs.append(random(count, BATCH, HIDDEN))
    outputs = 2
    if name == "LSTM":
        inputs.append(random(count, BATCH, HIDDEN, seed=1))
        inputs.append(random(count, 3 * HIDDEN))
        outputs = 3
    check(
        tmp_path,
        name,
        inputs,
        opset=opset,
        outputs=outputs,
        hidden_size=HIDDEN,
        direction=direction,
    )


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_no_bias_no_state(tmp_path, name):
    check(tmp_path, name, weights(name, 1, bias=False), hidden_size=HIDDEN, outputs=2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("LSTM", {"clip": 0.4}),
        ("LSTM", {"input_forget": 1}),
        ("LSTM", {"activations": ["HardSigmoid", "ScaledTanh", "Affine"]}),
        ("GRU", {"linear_before_reset": 1}),
        ("GRU", {"linear_before_reset": 1, "clip": 0.5}),
        ("GRU", {"activations": ["Sigmoid", "Softsign"]}),
        ("RNN", {"clip": 0.3}),
        ("RNN", {"activations": ["Relu"]}),
        ("RNN", {"activations": ["LeakyRelu"], "activation_alpha": [0.3]}),
        ("RNN", {"activations": ["Elu"], "activation_alpha": [0.7]}),
        ("RNN", {"activations": ["ThresholdedRelu"], "activation_alpha": [0.2]}),
        ("RNN", {"activations": ["Softplus"]}),
    ],
)
def test_options(tmp_path, name, options):
    if options.get("activations") == ["HardSigmoid", "ScaledTanh", "Affine"]:
        options = {
            **options,
            "activation_alpha": [0.3, 0.8, 0.9],
            "activation_beta": [0.4, 1.1, 0.1],
        }
    check(tmp_path, name, weights(name, 1), hidden_size=HIDDEN, outputs=2, **options)


def test_batch_first_is_the_transpose(tmp_path):
    """onnxruntime has no layout 1: the same network, transposed by hand."""
    direction, count = "bidirectional", 2
    inputs = [*weights("GRU", count), None, random(count, BATCH, HIDDEN)]
    options = {"hidden_size": HIDDEN, "direction": direction, "outputs": 2}
    y, last = check(tmp_path, "GRU", inputs, opset=14, **options)
    inputs[0], inputs[5] = inputs[0].swapaxes(0, 1), inputs[5].swapaxes(0, 1)
    model = single("GRU", inputs, opset=14, layout=1, **options)
    wanted = [y.transpose(2, 0, 1, 3), last.swapaxes(0, 1)]
    for value, array in zip(model.graph.output, wanted, strict=True):
        value.type.tensor_type.shape.CopyFrom(shape_of(array))
    got = evaluate(model, feeds_of(model, inputs), tmp_path)
    for ours, want in zip(got, wanted, strict=True):
        np.testing.assert_allclose(ours, want, rtol=1e-5, atol=1e-6)


def test_unknown_activation_is_refused(tmp_path):
    from onnx_single import evaluate, feeds_of, shape_of, single

    inputs = weights("RNN", 1)
    model = single("RNN", inputs, hidden_size=HIDDEN, activations=["Wobble"])
    model.graph.output[0].type.tensor_type.shape.CopyFrom(shape_of(np.empty((TIME, 1, BATCH, 6))))
    with pytest.raises(UnsupportedOp, match="wobble"):
        evaluate(model, feeds_of(model, inputs), tmp_path)
