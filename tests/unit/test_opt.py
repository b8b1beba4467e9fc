# ruff: noqa: E501
"""pai-opt from the inside: exit codes, split input, diagnostics, output."""

import io

import pytest

from pai import opt, opt_diagnostics
from pai.runtime.errors import InvalidModel, PassFailure

GOOD = "func.func @main(%a: tensor<2xf32>) -> tensor<2xf32> {\n  %0 = stablehlo.tanh %a : tensor<2xf32>\n  return %a : tensor<2xf32>\n}\n"
RECURSIVE = "func.func @main(%a: tensor<2xf32>) -> tensor<2xf32> {\n  %0 = call @main(%a) : (tensor<2xf32>) -> tensor<2xf32>\n  return %0 : tensor<2xf32>\n}\n"


def test_standard_input_to_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(GOOD))
    out = tmp_path / "out.mlir"
    assert opt.main(["-p", "pai-dce", "-o", str(out)]) == 0
    assert "stablehlo.tanh" not in out.read_text()
    assert capsys.readouterr().out == ""


def test_exit_codes(tmp_path, monkeypatch, capsys):
    path = tmp_path / "in.mlir"
    path.write_text(GOOD)
    assert opt.main([str(path), "-p", "pai-nothing"]) == PassFailure.exit_code
    assert opt.main([str(tmp_path / "absent")]) == InvalidModel.exit_code
    path.write_text(RECURSIVE)
    assert opt.main([str(path), "-p", "pai-inline"]) == InvalidModel.exit_code
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert all(line.startswith("pai-opt: error: ") for line in errors)
    assert ":2:8 (func.call): @main calls itself" in errors[2]
    assert opt.main([str(path), "-o", str(tmp_path / "no" / "folder")]) == 1


def test_interrupt_and_internal_errors(tmp_path, monkeypatch, capsys):
    path = tmp_path / "in.mlir"
    path.write_text(GOOD)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(opt, "run_passes", stop)
    assert opt.main([str(path)]) == opt.INTERRUPTED
    monkeypatch.setattr(opt, "run_passes", lambda *_: 1 / 0)
    monkeypatch.delenv("PAI_DEBUG", raising=False)
    assert opt.main([str(path)]) == opt.INTERNAL_ERROR
    assert "ZeroDivisionError" in capsys.readouterr().err
    monkeypatch.setenv("PAI_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        opt.main([str(path)])


def test_split_keeps_line_numbers():
    chunks = opt.split("a\nb\n// -----\nc\n// -----\n\n")
    assert [chunk.text.strip() for chunk in chunks] == ["a\nb", "c"]
    assert [chunk.text.splitlines().index("c") for chunk in chunks[1:]] == [3]


def verify(text, pipeline="pai-inline"):
    return opt_diagnostics.verify([opt.Chunk(text, 1)], pipeline, "test")


def test_diagnostics_must_agree(capsys):
    expected = "// expected-error @below {{calls itself}}\n"
    body = RECURSIVE.replace("  %0 = call", expected + "  %0 = call")
    assert verify(body) == 0
    assert verify(RECURSIVE) == 1
    assert "unexpected: line 2: error: @main calls itself" in capsys.readouterr().err
    assert verify(body.replace("calls itself", "calls nobody")) == 1
    assert verify(body.replace("@below", "@+2")) == 1
    assert verify(body.replace("@below", "@unknown")) == 0
    assert verify(body.replace("error @below", "warning @below")) == 1
    assert verify(GOOD) == 0
    assert (
        verify(
            GOOD.replace(
                "  %0 = stablehlo.tanh",
                "// expected-error @below {{undeclared}}\n  %0 = stablehlo.tanh %b //",
            )
        )
        == 1
    )


def test_list_of_passes(capsys):
    assert opt.main(["--list-passes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("pai-dce ") and "unused" in line for line in lines)
