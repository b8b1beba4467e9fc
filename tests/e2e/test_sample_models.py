"""Real models that come inside packages, verified against XLA and onnxruntime."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from pai.cli import main as pai_compile

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("sample_models", ROOT / "examples" / "models.py")
sample_models = importlib.util.module_from_spec(spec)
sys.modules["sample_models"] = sample_models
spec.loader.exec_module(sample_models)

QUICK = [("magika", 8), ("silero-vad", 2), ("rapidocr-cls", 4)]
EVERY = [(name, n) for name in sample_models.SAMPLE_MODELS for n in (1, 2, 4, 8, 64)]


def verify(capsys, tmp_path, name, devices):
    model = sample_models.SAMPLE_MODELS[name]
    shapes = [flag for shape in model.shapes for flag in ("--shape", shape)]
    arguments = [str(model.path()), *shapes, "--devices", str(devices), "--verify", "--json"]
    assert pai_compile([*arguments, "-o", str(tmp_path / "out.pai")]) == 0, capsys.readouterr().err
    facts = json.loads(capsys.readouterr().out)
    assert facts["devices"] == devices
    assert {o["oracle"] for o in facts["verification"]["outputs"]} == {"xla", "onnxruntime"}


@pytest.mark.parametrize(("name", "devices"), QUICK)
def test_model(capsys, tmp_path, name, devices):
    verify(capsys, tmp_path, name, devices)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "devices"), EVERY)
def test_every_model_on_every_device_count(capsys, tmp_path, name, devices):
    verify(capsys, tmp_path, name, devices)
