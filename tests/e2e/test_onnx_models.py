"""Real ONNX models of installed packages: the lowered program against onnxruntime."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from pai.compiler.reference import run_reference
from pai.dialects.mlir import to_text
from pai.dialects.program import Role
from pai.frontends.onnx.importer import load
from pai.runtime.errors import UnsupportedOp

# Largest error over largest value; f32 sums in another order, exp and tanh of another library.
TOLERANCE = 1e-4
# int8 models round activations: an error of 1e-7 before a rounding can move a whole step, and a
# recurrent layer feeds it back.
QUANTIZED = 2e-2

SILERO = "silero_vad/data/silero_vad"
OCR = "rapidocr_onnxruntime/models/ch_"
TASHKEEL = "text2tashkeel/models/"
CASES = [
    ("magika/models/standard_v3_3/model.onnx", "unk__214=2", TOLERANCE),
    (f"{SILERO}.onnx", "input:1,576;state:2,1,128;sr:=16000", TOLERANCE),
    (f"{SILERO}.onnx", "input:3,288;state:2,3,128;sr:=8000", TOLERANCE),
    (f"{SILERO}_16k_op15.onnx", "input:1,576;state:2,1,128", TOLERANCE),
    (f"{SILERO}_16k_sequence.onnx", "sequence_length=7", TOLERANCE),
    (f"{SILERO}_half.onnx", "batch=2,sequence=576", TOLERANCE),
    (f"{SILERO}_op18_ifless.onnx", "batch=1,sequence=576", TOLERANCE),
    (f"{TASHKEEL}bilstm.int8.onnx", "batch=2,seq_len=24", QUANTIZED),
    (f"{TASHKEEL}rawi.int8.onnx", "batch_size=2,sequence=24", QUANTIZED),
    (f"{TASHKEEL}rawi_v2.int8.onnx", "batch=2,seq=24", QUANTIZED),
    (f"{TASHKEEL}rawi_v3.int8.onnx", "batch=2,seq=24", QUANTIZED),
    (f"{OCR}PP-OCRv4_det_infer.onnx", "x:1,3,640,640", TOLERANCE),
    (f"{OCR}PP-OCRv4_rec_infer.onnx", "x:1,3,48,320", TOLERANCE),
    (f"{OCR}ppocr_mobile_v2.0_cls_infer.onnx", "x:1,3,48,192", TOLERANCE),
]


def installed(file: str) -> Path:
    package, _, rest = file.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    return Path(spec.submodule_search_locations[0]) / rest


def inputs_of(session, values, rate):
    """Random inputs; integers are token ids below 20, ``sr`` the sample rate."""
    rng = np.random.default_rng(3)
    known = {value.name: value for value in values}
    feed = {}
    for entry in session.get_inputs():
        if entry.name == "sr":
            feed["sr"] = np.array(rate, np.int64)
            continue
        shape = known[entry.name].shape
        if "int" in entry.type:
            kind = np.int32 if "32" in entry.type else np.int64
            feed[entry.name] = rng.integers(1, 20, shape).astype(kind)
        else:
            feed[entry.name] = rng.standard_normal(shape).astype(np.float32)
    return feed


@pytest.mark.parametrize(("file", "shape", "tolerance"), CASES, ids=[c[0] for c in CASES])
def test_against_onnxruntime(file, shape, tolerance):
    path = installed(file)
    program = load(path, [shape])
    session = onnxruntime.InferenceSession(str(path))
    rate = 8000 if "8000" in shape else 16000
    feed = inputs_of(session, program.signature.arguments, rate)
    arguments = [
        feed[value.name] if value.role is Role.INPUT else program.weights.load(value.name)
        for value in program.signature.arguments
    ]
    results = run_reference(to_text(program.module), arguments)
    expected = session.run(None, feed)
    assert len(results) == len(expected)
    for result, want in zip(results, expected, strict=True):
        assert result.shape == want.shape
        assert result.dtype == want.dtype
        assert np.abs(want).max() > 0
        error = np.abs(result.astype(np.float64) - want).max() / np.abs(want).max()
        assert error <= tolerance


def test_branch_that_does_not_fit_is_named():
    path = installed(f"{SILERO}.onnx")
    with pytest.raises(UnsupportedOp, match=r"If_0.*else_branch.*INPUT:=VALUE"):
        load(path, ["input:1,576;state:2,1,128"])
