"""``pai-run``: its output, its files, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hand_made import Builder, kernel

from pai.run import describe, main

SCALE = kernel("scale", "for (int i = 0; i < 4; i++) ((float*)b[1])[i] = ((float*)b[0])[i] * 2;")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> str:
    build = Builder()
    x = build.argument("layer/x", "f32", (4,))
    h = build.argument("h", "bf16", (2,))
    y = build.result("y", "f32", (4,))
    build.result("h_out", "bf16", (2,), buffer=h)
    build.code.append(build.call(SCALE, x, y))
    return str(build.write(tmp_path_factory.mktemp("run") / "p.pai"))


def test_files_in_and_out(package: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    np.save(tmp_path / "x.npy", np.array([1, 2, np.nan, 4], np.float32))
    np.savez(tmp_path / "in.npz", h=np.array([1.5, -2], ml_dtypes.bfloat16))
    code = main([
        package, "--input", f"layer/x={tmp_path / 'x.npy'}", "--inputs", str(tmp_path / "in.npz"),
        "--output", str(tmp_path / "y.npz"), "--repeat", "3", "--json",
        "--trace", str(tmp_path / "t.json"),
    ])  # fmt: skip
    assert code == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["outputs"]["y"] == {
        "dtype": "f32", "shape": [4], "nan": 1, "min": 2, "max": 8, "mean": pytest.approx(14 / 3),
    }  # fmt: skip
    assert facts["outputs"]["h_out"]["min"] == -2
    assert facts["seconds"]["runs"] == 3 and facts["devices"] == 1
    saved = np.load(tmp_path / "y.npz")
    np.testing.assert_array_equal(saved["y"], [2, 4, np.nan, 8])
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]


def test_random_inputs_repeat(package: str, capsys: pytest.CaptureFixture) -> None:
    texts = []
    for _ in range(2):
        assert main([package, "--random", "7"]) == 0
        texts.append(capsys.readouterr().out.splitlines())
    assert texts[0][:3] == texts[1][:3]
    assert texts[0][0].split() == ["output", "type", "min", "max", "mean", "NaN"]
    assert "ms median of 1" in texts[0][-1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 11, "input 'layer/x' is missing; expected layer/x: f32[4], h: bf16[2]"),
        (["--input", "x"], 11, "is not name=file.npy"),
        (["--input", "x=none.npy"], 11, "none.npy: cannot be read (No such file or directory)"),
        (["--inputs", __file__], 11, "cannot be read (not a NumPy file)"),
        (["--random", "1", "--output", "/nowhere/y.npz"], 11, "cannot be written"),
        (["--random", "1", "--trace", "/nowhere/t.json"], 10, "cannot be written"),
    ],
)
def test_errors_are_one_line(
    package: str, arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main([package, *arguments]) == code
    error = capsys.readouterr().err
    assert error.startswith("pai-run: error: ") and message in error
    assert error.count("\n") == 1


def test_a_missing_package(capsys: pytest.CaptureFixture) -> None:
    assert main(["none.pai"]) == 10
    assert capsys.readouterr().err == "pai-run: error: none.pai: there is no such package\n"


def test_wrong_usage() -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["p.pai", "--repeat", "0"])
    assert stopped.value.code == 2


def test_description_of_odd_arrays() -> None:
    assert describe(np.zeros((0, 3), np.float32)) == {"dtype": "f32", "shape": [0, 3], "nan": 0}
    assert describe(np.full(2, np.nan))["nan"] == 2
    assert describe(np.array([3 + 4j]))["max"] == 5
    assert describe(np.array([True, False]))["mean"] == 0.5
