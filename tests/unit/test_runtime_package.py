"""Packages: what is written is read back; damaged, foreign and impossible ones are errors."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hand_made import Builder, Target, kernel

from pai.dialects.program import Role
from pai.runtime import safetensors
from pai.runtime.errors import InvalidInput, PackageError
from pai.runtime.executor import load
from pai.runtime.package import open_package

ADD_ONE = kernel(
    "add_one", "float *x = b[0], *y = b[1]; for (int i = 0; i < 8; i++) y[i] = x[i] + 1;"
)


def builder() -> Builder:
    """y = x + 1, and the weights as they are, on 4 devices."""
    build = Builder(devices=4)
    x = build.argument("x", "f32", (8,))
    y = build.result("y", "f32", (8,))
    build.code.append(build.call(ADD_ONE, x, y))
    for name, dtype, value, shard in (
        ("w.even", "f32", np.arange(24, dtype=np.float32).reshape(8, 3), 0),
        ("w.uneven", "bf16", np.arange(30).reshape(5, 6).astype(ml_dtypes.bfloat16), 0),
        ("w.few", "i64", np.arange(2), 0),
        ("w.whole", "i4", np.arange(-8, 8).astype(ml_dtypes.int4), None),
        ("w.flag", "i1", np.array([True, False, True]), 0),
        ("w.scalar", "f64", np.array(2.5), None),
    ):
        number = build.argument(name, dtype, value.shape, shard, role=Role.PARAMETER)
        build.weights[name] = value
        build.result(f"out {name}", dtype, value.shape, shard, buffer=number)
    constant = build.constant("constant.0", "f32", np.linspace(0, 1, 300, dtype=np.float32))
    build.result("c", "f32", (300,), buffer=constant)
    return build


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builder().write(tmp_path_factory.mktemp("package") / "a.pai")


@pytest.mark.parametrize("zipped", [False, True])
def test_round_trip(tmp_path: Path, zipped: bool) -> None:
    build = builder()
    build.write(tmp_path / "a", zip=zipped)
    package = load(tmp_path / "a")
    out = package.run(x=np.zeros(8, np.float32))
    np.testing.assert_array_equal(out["y"], np.ones(8))
    np.testing.assert_array_equal(out["c"], np.linspace(0, 1, 300, dtype=np.float32))
    for name, value in build.weights.items():
        assert out[f"out {name}"].dtype == value.dtype
        np.testing.assert_array_equal(out[f"out {name}"], value)
    assert [spec.name for spec in package.inputs] == ["x"]
    assert package.num_devices == 4


def test_weights_are_aligned_and_not_copied(tmp_path: Path) -> None:
    for zipped in (False, True):
        package = open_package(builder().write(tmp_path / f"a{zipped}", zip=zipped))
        assert len(package.tensors) == 3 * 4 + 1 + 4 + 1 + 1
        for data in package.tensors.values():
            assert data.ctypes.data % 64 == 0 and not data.flags.owndata


def test_safetensors_itself_reads_the_weights(whole: Path) -> None:
    from safetensors.numpy import load_file

    (file,) = sorted(whole.glob("weights/0*.safetensors"))
    got = load_file(file)
    np.testing.assert_array_equal(got["w.even#1"], np.arange(6, 12).reshape(2, 3))
    np.testing.assert_array_equal(got["w.scalar#0"], 2.5)
    np.testing.assert_array_equal(got["w.few#2"], [0])


def test_same_program_same_bytes(tmp_path: Path) -> None:
    for zipped in (False, True):
        first = builder().write(tmp_path / "a", zip=zipped)
        second = builder().write(tmp_path / "b", zip=zipped)
        if zipped:
            assert first.read_bytes() == second.read_bytes()
            with zipfile.ZipFile(first) as archive:
                assert archive.testzip() is None
        else:
            names = sorted(f.relative_to(first) for f in first.rglob("*") if f.is_file())
            assert len(names) == 7
            for name in names:
                assert (first / name).read_bytes() == (second / name).read_bytes()


def test_weights_are_split_over_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pai.compiler import package as writer

    monkeypatch.setattr(writer, "FILE_LIMIT", 64)
    out = builder().write(tmp_path / "a")
    assert len(list(out.glob("weights/0*.safetensors"))) > 3
    np.testing.assert_array_equal(
        load(out).run(x=np.zeros(8, np.float32))["out w.uneven"].astype(int).ravel(), np.arange(30)
    )


def files_of(package: Path) -> list[str]:
    return sorted(f.relative_to(package).as_posix() for f in package.rglob("*") if f.is_file())


def test_every_changed_byte_is_noticed(whole: Path, tmp_path: Path) -> None:
    for name in files_of(whole):
        copy = shutil.copytree(whole, tmp_path / name.replace("/", "_"))
        data = bytearray((copy / name).read_bytes())
        if not data:
            continue
        data[len(data) // 2] ^= 0x55
        (copy / name).write_bytes(data)
        if name != "manifest.json":
            with pytest.raises(PackageError, match="checksum"):
                load(copy)


def test_missing_and_truncated_files_are_errors(whole: Path, tmp_path: Path) -> None:
    for name in files_of(whole):
        for keep in (None, 0.0, 0.5, 0.97):
            copy = shutil.copytree(whole, tmp_path / "copy")
            data = (copy / name).read_bytes()
            if keep is None:
                (copy / name).unlink()
            else:
                (copy / name).write_bytes(data[: int(len(data) * keep)])
            if data or keep is None:
                with pytest.raises(PackageError):
                    load(copy)
            if data and not name.startswith(("plan", "report")):
                with pytest.raises(PackageError):
                    load(copy, verify=False)
            shutil.rmtree(copy)


def test_damaged_json_never_crashes(whole: Path, tmp_path: Path) -> None:
    """Random damage to the manifest and the program, with checksums off: an error or a package."""
    copy = shutil.copytree(whole, tmp_path / "copy")
    rng = np.random.default_rng(0)
    for name in ("manifest.json", "programs/main.json"):
        text = (whole / name).read_bytes()
        for _ in range(150):
            data = bytearray(text)
            for at in rng.integers(0, len(data), 2):
                data[at] = rng.choice(list(b'0123456789-"[]{},:ax'))
            (copy / name).write_bytes(data)
            with contextlib.suppress(PackageError):
                load(copy, verify=False)
        (copy / name).write_bytes(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a pai-compile package"),
        ({"version": 99}, "format 99"),
        ({"target": {"arch": "aarch64", "level": "v8", "features": []}}, "compiled for aarch64"),
        (
            {"target": {"arch": "x86_64", "level": "x86-64-v9", "features": ["sse2", "avx9"]}},
            "needs avx9",
        ),
    ],
)
def test_foreign_packages(whole: Path, tmp_path: Path, change: dict, message: str) -> None:
    copy = shutil.copytree(whole, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(PackageError, match=message):
        load(copy)


def test_what_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    (tmp_path / "empty").mkdir()
    for name, message in (("file", "not a"), ("empty", "not a"), ("none", "no such package")):
        with pytest.raises(PackageError, match=message):
            load(tmp_path / name)


def test_writing_refuses_to_replace_other_things(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "manifest.json").write_text("{}")
    for name in ("notes", "web"):
        with pytest.raises(PackageError, match="not a package"):
            builder().write(tmp_path / name)
    assert (tmp_path / "notes").read_text() == "mine"
    assert files_of(tmp_path / "web") == ["manifest.json"]


def test_writing_replaces_a_package_whole(tmp_path: Path) -> None:
    out = builder().write(tmp_path / "a")
    (out / "stale").write_text("old")
    builder().write(out)
    assert "stale" not in files_of(out)
    builder().write(out, zip=True)
    assert out.is_file()
    builder().write(out)
    assert out.is_dir()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_failed_write_leaves_the_old_package(tmp_path: Path) -> None:
    out = builder().write(tmp_path / "a")
    before = {name: (out / name).read_bytes() for name in files_of(out)}
    build = builder()
    build.weights["w.even"] = np.zeros((1, 1), np.float32)
    for zipped in (False, True):
        with pytest.raises(PackageError, match=r"w\.even"):
            build.write(out, zip=zipped)
    assert {name: (out / name).read_bytes() for name in files_of(out)} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("zipped", [False, True])
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, zipped: bool) -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))
            try:
                builder().write(tmp_path / "a", zip=zipped)
            except PackageError as error:
                code = 0 if "cannot be written" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert list(tmp_path.iterdir()) == []


def test_inputs_are_checked(whole: Path) -> None:
    package = load(whole)
    good = np.zeros(8, np.float32)
    for inputs, message in (
        ({}, r"'x' is missing; expected x: f32\[8\]"),
        ({"x": good, "z": good}, "no input 'z'"),
        ({"x": good.astype(np.float64)}, r"is f64\[8\], expected f32\[8\]"),
        ({"x": good[:7]}, r"is f32\[7\]"),
        ({"x": [[1], [2, 3]]}, "not an array"),
        ({"x": good.astype(">f4")}, "expected f32"),
        ({"w.even": good, "x": good}, "no input 'w.even'"),
    ):
        with pytest.raises(InvalidInput, match=message):
            package.run(inputs)
    strided = np.arange(16, dtype=np.float32)[::2]
    np.testing.assert_array_equal(package.run(x=strided)["y"], strided + 1)


def test_padding_tensors_are_hidden() -> None:
    entries = [safetensors.Entry("a", "f32", (3,)), safetensors.Entry("b", "i4", (65,))]
    head, size = safetensors.header(entries)
    assert len(head) % 64 == 0 and size == 64 + 128
    tensors = safetensors.read(np.frombuffer(head + bytes(size), np.uint8), "file")
    assert {name: data.size for name, data in tensors.items()} == {"a": 12, "b": 65}


def test_running_needs_no_compiler(whole: Path) -> None:
    code = (
        "import sys; from pai.run import main; code = main(sys.argv[1:]);"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('jax', 'jaxlib', 'torch', 'onnx',"
        " 'torch_mlir') or m.startswith(('pai.compiler', 'pai.passes', 'pai.dialects'))];"
        "print(bad); sys.exit(code)"
    )
    command = [sys.executable, "-P", "-c", code, str(whole), "--random", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *report, modules = done.stdout.strip().splitlines()
    assert modules == "[]"
    assert json.loads("\n".join(report))["outputs"]["y"]["shape"] == [8]


def test_target_features_are_recorded(whole: Path) -> None:
    manifest = open_package(whole).manifest
    assert (manifest.arch, manifest.features) == (Target().arch, Target().features)
