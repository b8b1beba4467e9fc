"""Bad input: one line that says what, where and what next; a non-zero exit; no debris."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pai.cli import main as pai_compile
from pai.run import main as pai_run

models = sys.modules["e2e_models"]


def refuse(capsys, command, arguments, *words, code=None):
    """Run a command that must fail with one line holding all of ``words``."""
    result = command([str(a) for a in arguments])
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if "error:" in line]
    assert result not in (0, 70), captured.err
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    for word in words:
        assert word in lines[0], lines[0]
    if code is not None:
        assert result == code
    return lines[0]


def compile_refused(capsys, tmp_path, arguments, *words, code=None):
    out = tmp_path / "out.pai"
    before = set(tmp_path.iterdir())
    refuse(capsys, pai_compile, [*arguments, "-o", out], *words, code=code)
    assert set(tmp_path.iterdir()) == before


def test_missing_file(capsys, tmp_path):
    compile_refused(capsys, tmp_path, [tmp_path / "absent.onnx"], "absent.onnx", code=3)


def test_directory(capsys, tmp_path):
    (tmp_path / "folder").mkdir()
    compile_refused(capsys, tmp_path, [tmp_path / "folder"], "folder", code=3)


@pytest.mark.parametrize("content", [b"", b"hello world", bytes(range(256)) * 8])
def test_not_a_model(capsys, tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    compile_refused(capsys, tmp_path, [path], "model.onnx", code=3)


def test_truncated_protobuf(capsys, tmp_path, mlp):
    mlp.write_bytes(mlp.read_bytes()[:-700])
    compile_refused(capsys, tmp_path, [mlp], "mlp.onnx", code=3)


def test_unknown_operator(capsys, tmp_path):
    node = helper.make_node("Frobnicate", ["x"], ["y"], name="frob1")
    path = models.save(
        tmp_path / "m.onnx", [node], [models.tensor("x", [2])], [models.tensor("y", [2])]
    )
    compile_refused(capsys, tmp_path, [path], "Frobnicate", "frob1")


def test_unknown_domain(capsys, tmp_path):
    node = helper.make_node("Add", ["x", "x"], ["y"], name="odd", domain="org.example")
    path = models.save(
        tmp_path / "m.onnx",
        [node],
        [models.tensor("x", [2])],
        [models.tensor("y", [2])],
        domains=["org.example"],
    )
    compile_refused(capsys, tmp_path, [path], "org.example", "odd")


def test_cyclic_graph(capsys, tmp_path):
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], name="first"),
        helper.make_node("Add", ["a", "x"], ["b"], name="second"),
    ]
    path = models.save(
        tmp_path / "m.onnx", nodes, [models.tensor("x", [2])], [models.tensor("b", [2])]
    )
    compile_refused(capsys, tmp_path, [path], "m.onnx", code=3)


def test_node_input_that_nobody_makes(capsys, tmp_path):
    node = helper.make_node("Add", ["x", "ghost"], ["y"], name="lonely")
    path = models.save(
        tmp_path / "m.onnx", [node], [models.tensor("x", [2])], [models.tensor("y", [2])]
    )
    compile_refused(capsys, tmp_path, [path], "ghost", code=3)


def test_missing_external_data(capsys, tmp_path, mlp):
    model = onnx.load(mlp)
    big = tmp_path / "big.onnx"
    onnx.save(model, big, save_as_external_data=True, location="big.data", size_threshold=0)
    (tmp_path / "big.data").unlink()
    compile_refused(capsys, tmp_path, [big, "--shape", "batch=2"], "big.data", code=3)


def test_open_dimension_shows_the_flag_to_type(capsys, tmp_path, mlp):
    compile_refused(capsys, tmp_path, [mlp], "x", "batch", "--shape batch=", code=5)


def test_unnamed_open_dimension(capsys, tmp_path):
    node = helper.make_node("Relu", ["x"], ["y"])
    path = models.save(
        tmp_path / "m.onnx",
        [node],
        [models.tensor("x", [None, 3])],
        [models.tensor("y", [None, 3])],
    )
    compile_refused(capsys, tmp_path, [path], "--shape x:", code=5)


@pytest.mark.parametrize("shape", ["batch", "batch=-1", "nosuch=3", "x:2,17", "x:2"])
def test_wrong_shape_binding(capsys, tmp_path, mlp, shape):
    compile_refused(capsys, tmp_path, [mlp, "--shape", shape], code=5)


@pytest.mark.parametrize("devices", ["0", "-4"])
def test_no_devices(capsys, tmp_path, mlp, devices):
    compile_refused(
        capsys, tmp_path, [mlp, "--shape", "batch=2", "--devices", devices], "--devices"
    )


def test_unknown_cluster_lists_the_known_ones(capsys, tmp_path, mlp):
    arguments = [mlp, "--shape", "batch=2", "--cluster", "h900"]
    compile_refused(capsys, tmp_path, arguments, "h900", "h100-sxm", code=7)


def test_broken_cluster_file(capsys, tmp_path, mlp):
    path = tmp_path / "cluster.toml"
    path.write_text("hosts = [\n")
    compile_refused(capsys, tmp_path, [mlp, "--shape", "batch=2", "--cluster", path], code=7)


def test_broken_plan_file(capsys, tmp_path, mlp):
    path = tmp_path / "plan.toml"
    path.write_text("mesh = \n")
    compile_refused(capsys, tmp_path, [mlp, "--shape", "batch=2", "--plan", path], "plan.toml")


@pytest.mark.parametrize("target", ["tpu", "cpu:x86-64-v9", "cpu:"])
def test_unknown_target(capsys, tmp_path, mlp, target):
    compile_refused(capsys, tmp_path, [mlp, "--shape", "batch=2", "--target", target])


def test_unknown_stage(capsys, tmp_path, mlp):
    compile_refused(capsys, tmp_path, [mlp, "--stop-after", "lunch"], "lunch", "simplify")


def test_output_below_a_file(capsys, tmp_path, mlp):
    out = mlp / "out.pai"
    refuse(capsys, pai_compile, [mlp, "--shape", "batch=2", "-o", out], "out.pai", code=10)


def test_output_is_something_else(capsys, tmp_path, mlp):
    out = tmp_path / "precious"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    refuse(capsys, pai_compile, [mlp, "--shape", "batch=2", "-o", out], "precious", code=10)
    assert (out / "thesis.txt").read_text() == "mine"


def test_disk_full(tmp_path, mlp):
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from pai.cli import main; import pai.compiler.package;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500)); sys.exit(main(sys.argv[1:]))"
    )
    out = tmp_path / "out.pai"
    arguments = [str(mlp), "--shape", "batch=2", "--no-cache", "-o", str(out)]
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode != 0
    assert done.returncode != 70, done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["mlp.onnx"]


def test_run_missing_package(capsys, tmp_path):
    refuse(capsys, pai_run, [tmp_path / "absent.pai", "--random", "0"], "absent.pai", code=10)


def test_run_foreign_file(capsys, tmp_path):
    path = tmp_path / "x.pai"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refuse(capsys, pai_run, [path, "--random", "0"], "x.pai", code=10)


def damaged(mlp_package: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mlp_package, tmp_path / "copy.pai"))


def test_run_corrupt_kernel(capsys, tmp_path, mlp_package):
    package = damaged(mlp_package, tmp_path)
    kernel = next((package / "kernels").iterdir())
    data = bytearray(kernel.read_bytes())
    data[len(data) // 2] ^= 0xFF
    kernel.write_bytes(bytes(data))
    refuse(capsys, pai_run, [package, "--random", "0"], kernel.name, code=10)


def test_run_truncated_weights(capsys, tmp_path, mlp_package):
    package = damaged(mlp_package, tmp_path)
    weights = next((package / "weights").iterdir())
    weights.write_bytes(weights.read_bytes()[:-64])
    refuse(capsys, pai_run, [package, "--random", "0"], weights.name, code=10)


def test_run_missing_file(capsys, tmp_path, mlp_package):
    package = damaged(mlp_package, tmp_path)
    next((package / "kernels").iterdir()).unlink()
    refuse(capsys, pai_run, [package, "--random", "0"], code=10)


def test_run_package_for_another_cpu(capsys, tmp_path, mlp_package):
    package = damaged(mlp_package, tmp_path)
    path = package / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["target"]["features"] = [*manifest["target"]["features"], "amx-from-the-future"]
    path.write_text(json.dumps(manifest))
    refuse(capsys, pai_run, [package, "--random", "0"], "amx-from-the-future", code=10)


def test_run_newer_format(capsys, tmp_path, mlp_package):
    package = damaged(mlp_package, tmp_path)
    path = package / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["version"] = 999
    path.write_text(json.dumps(manifest))
    refuse(capsys, pai_run, [package, "--random", "0"], "999", code=10)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("z", np.zeros((8, 16), np.float32), ("z", "x")),
        ("x", np.zeros((8, 15), np.float32), ("[8, 15]", "[8, 16]")),
        ("x", np.zeros((8, 16), np.int32), ("i32", "f32")),
    ],
)
def test_run_wrong_input(capsys, tmp_path, mlp_package, name, array, words):
    np.save(tmp_path / "a.npy", array)
    arguments = [mlp_package, "--input", f"{name}={tmp_path / 'a.npy'}"]
    refuse(capsys, pai_run, arguments, *words, code=11)


def test_run_input_left_out(capsys, mlp_package):
    refuse(capsys, pai_run, [mlp_package], "x", code=11)


def test_run_input_file_missing(capsys, tmp_path, mlp_package):
    arguments = [mlp_package, "--input", f"x={tmp_path / 'nope.npy'}"]
    refuse(capsys, pai_run, arguments, "nope.npy")


def test_nan_inputs_run(tmp_path, mlp_package):
    x = np.zeros((8, 16), np.float32)
    x[3] = np.nan
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "y.npz"
    assert (
        pai_run([str(mlp_package), "--input", f"x={tmp_path / 'x.npy'}", "--output", str(out)]) == 0
    )
    y = np.load(out)["y"]
    assert np.isnan(y[3]).all()
    assert np.isfinite(np.delete(y, 3, axis=0)).all()


@pytest.mark.parametrize("devices", [3, 5, 64])
def test_shapes_that_the_devices_do_not_divide_run(tmp_path, mlp, devices):
    out = tmp_path / "out.pai"
    arguments = [str(mlp), "--shape", "batch=7", "--devices", str(devices), "--verify"]
    assert pai_compile([*arguments, "-o", str(out)]) == 0


def test_interrupt_while_writing_is_clean(tmp_path, mlp):
    script = (
        "import os, signal, sys, time\n"
        "from pai.cli import main\n"
        "from pai.compiler import package\n"
        # A shell that starts the tests in the background lets them ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def interrupt(*arguments):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(30)\n"
        "package._write_weights = interrupt\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = [str(mlp), "--shape", "batch=2", "-o", str(tmp_path / "out.pai")]
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["mlp.onnx"]


def test_unsupported_scalar_type_is_named(capsys, tmp_path):
    node = helper.make_node("Identity", ["x"], ["y"], name="words")
    path = models.save(
        tmp_path / "m.onnx",
        [node],
        [models.tensor("x", [2], TensorProto.STRING)],
        [models.tensor("y", [2], TensorProto.STRING)],
    )
    compile_refused(capsys, tmp_path, [path], "string")
