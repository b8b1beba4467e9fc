"""Transformers as torch.onnx.export writes them, with open dimensions, against onnxruntime."""

from __future__ import annotations

import warnings

import numpy as np
import onnxruntime
import pytest

from pai.compiler.reference import run_reference
from pai.dialects.mlir import to_text
from pai.dialects.program import Role
from pai.frontends.onnx.importer import load

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
TEXT = {"ids": {0: "batch", 1: "seq"}, "mask": {0: "batch", 1: "seq"}}
# f32: largest error over largest value.
TOLERANCE = 1e-5


class Only(torch.nn.Module):
    """A model that returns one of its outputs as a tensor."""

    def __init__(self, model, key):
        super().__init__()
        self.model, self.key = model, key

    def forward(self, *args):
        return getattr(self.model(*args, return_dict=True), self.key)


def bert():
    config = transformers.BertConfig(**SIZES, vocab_size=100)
    return Only(transformers.BertModel(config), "last_hidden_state"), TEXT


def llama():
    config = transformers.LlamaConfig(
        **SIZES, vocab_size=100, num_key_value_heads=2, use_cache=False
    )
    return Only(transformers.LlamaForCausalLM(config), "logits"), TEXT


def vit():
    config = transformers.ViTConfig(**SIZES, image_size=32, patch_size=8)
    return Only(transformers.ViTModel(config), "last_hidden_state"), {"image": {0: "batch"}}


def export(build, path):
    torch.manual_seed(0)
    model, axes = build()
    samples = {
        "ids": torch.randint(0, 99, (2, 9)),
        "mask": torch.ones(2, 9, dtype=torch.int64),
        "image": torch.randn(2, 3, 32, 32),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            tuple(samples[name] for name in axes),
            str(path),
            input_names=list(axes),
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )


def feed_for(program):
    rng = np.random.default_rng(1)
    feed = {}
    for value in program.signature.arguments:
        if value.role is not Role.INPUT:
            continue
        if value.name == "mask":
            feed["mask"] = (np.arange(value.shape[1]) < value.shape[1] - 2) * np.ones(value.shape)
            feed["mask"] = feed["mask"].astype(np.int64)
        elif value.dtype == "i64":
            feed[value.name] = rng.integers(0, 99, value.shape)
        else:
            feed[value.name] = rng.standard_normal(value.shape).astype(np.float32)
    return feed


@pytest.mark.parametrize(("build", "seq"), [(bert, 5), (llama, 11), (vit, 0)])
def test_exported_transformer(tmp_path, build, seq):
    path = tmp_path / f"{build.__name__}.onnx"
    export(build, path)
    program = load(path, ["batch=3" if build is vit else f"batch=3,seq={seq}"])
    text = to_text(program.module)
    assert "f64" not in text
    feed = feed_for(program)
    arguments = [
        feed[value.name] if value.role is Role.INPUT else program.weights.load(value.name)
        for value in program.signature.arguments
    ]
    (result,) = run_reference(text, arguments)
    (expected,) = onnxruntime.InferenceSession(str(path)).run(None, feed)
    assert result.shape == expected.shape
    assert np.ptp(expected) > 0
    assert np.abs(result - expected).max() / np.abs(expected).max() <= TOLERANCE
