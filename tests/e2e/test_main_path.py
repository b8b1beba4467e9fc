"""The main job: a model in, a verified package out, on any number of devices."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import helper

import pai
from pai.cli import main as pai_compile
from pai.run import main as pai_run
from pai.runtime.errors import VerificationFailed

models = sys.modules["e2e_models"]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("devices", [1, 2, 4, 8, 64])
def test_mlp_on_any_number_of_devices_equals_onnxruntime(tmp_path, mlp, devices):
    package = pai.compile(mlp, tmp_path / "out.pai", devices=devices, shapes=["batch=8"])
    assert package.num_devices == devices
    x = np.random.default_rng(1).standard_normal((8, 16)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(mlp), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    np.testing.assert_allclose(package.run(x=x)["y"], expected, rtol=1e-4, atol=1e-6)


def test_same_input_gives_the_same_bytes(tmp_path, mlp):
    for name in ("a", "b"):
        out = str(tmp_path / f"{name}.pai")
        arguments = [str(mlp), "--shape", "batch=8", "--devices", "4", "--no-cache", "-o", out]
        assert pai_compile(arguments) == 0
    assert files(tmp_path / "a.pai") == files(tmp_path / "b.pai")


def test_zip_package_runs_like_the_folder(tmp_path, mlp):
    x = np.random.default_rng(2).standard_normal((4, 16)).astype(np.float32)
    results = []
    for name in ("out.pai", "out.pai.zip"):
        out = tmp_path / name
        results.append(pai.compile(mlp, out, devices=2, shapes=["batch=4"]).run(x=x)["y"])
    assert (tmp_path / "out.pai.zip").is_file()
    np.testing.assert_array_equal(results[0], results[1])


def test_json_summary_has_what_the_page_promises(tmp_path, mlp, capsys):
    out = tmp_path / "out.pai"
    arguments = [str(mlp), "--shape", "batch=8", "--devices", "4", "--verify", "--json"]
    assert pai_compile([*arguments, "-o", str(out)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["devices"] == 4
    assert set(facts["seconds"]) >= {"import", "simplify", "strategy", "partition", "fuse"}
    assert facts["kernels"]["made"] >= 1
    assert facts["memory_per_device"]["parameters"] > 0
    assert {o["oracle"] for o in facts["verification"]["outputs"]} == {"xla", "onnxruntime"}
    assert all(o["max_rel"] <= o["tolerance"] for o in facts["verification"]["outputs"])


@pytest.mark.parametrize("stage", ["import", "simplify", "strategy", "partition", "fuse"])
def test_stop_after_dumps_every_stage_so_far(tmp_path, mlp, stage):
    dumps = tmp_path / "ir"
    arguments = [str(mlp), "--shape", "batch=8", "--devices", "2", "--stop-after", stage]
    assert pai_compile([*arguments, "--dump-dir", str(dumps)]) == 0
    assert any(path.name.endswith(f"{stage}.mlir") for path in dumps.iterdir())
    assert not list(tmp_path.glob("*.pai"))


def test_lower_keeps_the_users_names_in_locations(mlp):
    program = pai.lower(mlp, stop_after="import", shapes=("batch=2",))
    text = program.module.operation.get_asm(enable_debug_info=True)
    assert "fc1" in text
    assert "fc2" in text
    assert {value.name for value in program.signature.arguments} == {"x", "w1", "b1", "w2", "b2"}


def test_plan_file_overrides_the_search(tmp_path, mlp):
    plan = tmp_path / "plan.toml"
    plan.write_text('[mesh]\nmodel = 4\n\n[patterns]\n"w1" = ["", "model"]\n"w2" = ["model", ""]\n')
    out = tmp_path / "out.pai"
    arguments = [str(mlp), "--shape", "batch=8", "--devices", "4", "--plan", str(plan), "--verify"]
    assert pai_compile([*arguments, "-o", str(out)]) == 0
    code = json.loads((out / "programs" / "main.json").read_text())
    assert "all_reduce" in json.dumps(code)


def test_plan_written_by_the_compiler_is_accepted_back(tmp_path, mlp):
    first, second = tmp_path / "first.pai", tmp_path / "second.pai"
    arguments = [str(mlp), "--shape", "batch=8", "--devices", "4"]
    assert pai_compile([*arguments, "-o", str(first)]) == 0
    replay = ["--plan", str(first / "plan.toml")]
    assert pai_compile([*arguments, *replay, "-o", str(second)]) == 0
    assert files(first / "programs") == files(second / "programs")


def test_verification_notices_a_wrong_weight(tmp_path, mlp):
    out = tmp_path / "out.pai"
    pai.compile(mlp, out, devices=2, shapes=["batch=8"])
    other = models.mlp(tmp_path / "other.onnx", seed=7)
    with pytest.raises(VerificationFailed, match="'y'"):
        pai.verify(other, out, shapes=("batch=8",))


def test_run_writes_outputs_and_trace(tmp_path, mlp_package, capsys):
    out, trace = tmp_path / "y.npz", tmp_path / "t.json"
    arguments = ["--random", "3", "--output", str(out), "--trace", str(trace), "--repeat", "3"]
    assert pai_run([str(mlp_package), *arguments]) == 0
    y = np.load(out)["y"]
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-5)
    events = json.loads(trace.read_text())["traceEvents"]
    assert any(event.get("ph") == "X" for event in events)
    assert "y" in capsys.readouterr().out


def test_running_needs_neither_compiler_nor_its_stack(tmp_path, mlp_package):
    script = (
        "import sys\n"
        "for name in ('jax', 'jaxlib', 'torch_mlir', 'torch', 'onnx'): sys.modules[name] = None\n"
        "from pai.run import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(mlp_package), "--random", "0"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_example_of_a_jax_function(tmp_path):
    script = Path(__file__).resolve().parents[2] / "examples" / "jax_function.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path / "attention.pai"],
        capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "4 devices" in done.stdout


def test_tensors_without_elements(tmp_path):
    node = helper.make_node("Reshape", ["x", "s"], ["y"], allowzero=1)
    model = models.save(
        tmp_path / "empty.onnx",
        [node],
        [models.tensor("x", [0, 3, 4])],
        [models.tensor("y", [3, 4, 0])],
        {"s": np.array([3, 4, 0])},
    )
    out = tmp_path / "empty.pai"
    assert pai_compile([str(model), "--devices", "2", "--verify", "-o", str(out)]) == 0
    assert pai.load(out).run(x=np.zeros((0, 3, 4), np.float32))["y"].shape == (3, 4, 0)
