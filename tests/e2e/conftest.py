from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def _load(name, known_as):
    spec = importlib.util.spec_from_file_location(known_as, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[known_as] = module
    spec.loader.exec_module(module)
    return module


e2e_models = _load("models", "e2e_models")


@pytest.fixture
def mlp(tmp_path):
    return e2e_models.mlp(tmp_path / "mlp.onnx")


@pytest.fixture(scope="session")
def mlp_package(tmp_path_factory):
    from pai.cli import main

    folder = tmp_path_factory.mktemp("package")
    model = e2e_models.mlp(folder / "mlp.onnx")
    out = folder / "mlp.pai"
    assert main([str(model), "--shape", "batch=8", "--devices", "2", "-o", str(out)]) == 0
    return out
