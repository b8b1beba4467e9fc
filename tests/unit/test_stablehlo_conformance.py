"""Self-checking StableHLO modules, compiled and run: forms that went wrong once."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.linalg import solve_triangular

from pai.cli import main as compile_command
from pai.compiler.driver import compile_model
from pai.compiler.options import CompileOptions
from pai.frontends.stablehlo.importer import load as load_text
from pai.run import main as run_command
from pai.runtime.errors import UnsupportedOp
from pai.runtime.executor import load

MODULES = {
    # The bindings have no class for complex elements: each reader of constants has its own way.
    "complex constants": """
  %x = stablehlo.constant dense<[(0.5, -1.0), (2.0, 0.25)]> : tensor<2xcomplex<f32>>
  %y = stablehlo.multiply %x, %x : tensor<2xcomplex<f32>>
  check.expect_eq_const %y, dense<[(-0.75, -1.0), (3.9375, 1.0)]> : tensor<2xcomplex<f32>>
  %n = stablehlo.negate %y : tensor<2xcomplex<f32>>
  check.expect_almost_eq_const %n, dense<[(0.75, 1.0), (-3.9375, -1.0)]> : tensor<2xcomplex<f32>>
""",
    "complex to boolean takes the real part": """
  %x = stablehlo.constant dense<[(0.0, 2.0), (-3.0, 0.0), (0.0, 0.0)]> : tensor<3xcomplex<f64>>
  %y = stablehlo.convert %x : (tensor<3xcomplex<f64>>) -> tensor<3xi1>
  check.expect_eq_const %y, dense<[false, true, false]> : tensor<3xi1>
""",
    "bits of complex f64 as complex f32 and back": """
  %x = stablehlo.constant dense<[(0x3FF0000040000000, 0x4000000080000000)]> : tensor<1xcomplex<f64>>
  %y = stablehlo.bitcast_convert %x : (tensor<1xcomplex<f64>>) -> tensor<1x2xcomplex<f32>>
  check.expect_eq_const %y, dense<[[(2.0, 1.875), (-0.0, 2.0)]]> : tensor<1x2xcomplex<f32>>
  %z = stablehlo.bitcast_convert %y : (tensor<1x2xcomplex<f32>>) -> tensor<1xcomplex<f64>>
  check.expect_eq %z, %x : tensor<1xcomplex<f64>>
""",
    "a check of a shape that is an operand": """
  %s = stablehlo.constant dense<[2, 3]> : tensor<2xi32>
  %x = stablehlo.dynamic_iota %s, dim = 1 : (tensor<2xi32>) -> tensor<?x?xi16>
  %y = stablehlo.constant dense<[[0, 1, 2], [0, 1, 2]]> : tensor<2x3xi16>
  "check.expect_eq"(%x, %y) : (tensor<?x?xi16>, tensor<2x3xi16>) -> ()
""",
    "a scan from the end": """
  %x = stablehlo.constant dense<[[1, 10], [2, 20], [4, 40]]> : tensor<3x2xi32>
  %i = stablehlo.constant dense<[5, 0]> : tensor<2xi32>
  %y:2 = chlo.scan(%x) inits(%i) dimension=0 attributes {is_reverse = true} {
  ^bb0(%a: tensor<2xi32>, %b: tensor<2xi32>):
    %c = stablehlo.subtract %a, %b : tensor<2xi32>
    stablehlo.return %c, %c : tensor<2xi32>, tensor<2xi32>
  } : (tensor<3x2xi32>, tensor<2xi32>) -> (tensor<3x2xi32>, tensor<2xi32>)
  check.expect_eq_const %y#0, dense<[[-2, 30], [3, -20], [-1, 40]]> : tensor<3x2xi32>
  check.expect_eq_const %y#1, dense<[-2, 30]> : tensor<2xi32>
""",
    "tokens": """
  %t = stablehlo.after_all : !stablehlo.token
  %x = stablehlo.constant dense<[7, 8]> : tensor<2xi16>
  %b:2 = stablehlo.optimization_barrier %t, %x : !stablehlo.token, tensor<2xi16>
  %y = stablehlo.add %b#1, %x : tensor<2xi16>
  check.expect_eq_const %y, dense<[14, 16]> : tensor<2xi16>
""",
    "the only replica": """
  %r = stablehlo.replica_id : tensor<ui32>
  check.expect_eq_const %r, dense<0> : tensor<ui32>
""",
    "a group of one device": """
  %x = stablehlo.constant dense<[7, 8]> : tensor<2xi16>
  %y = "stablehlo.all_gather"(%x) {all_gather_dim = 0 : i64,
    replica_groups = dense<[[0]]> : tensor<1x1xi64>} : (tensor<2xi16>) -> tensor<2xi16>
  check.expect_eq %y, %x : tensor<2xi16>
""",
    "unsigned quantized storage": """
  %x = stablehlo.constant dense<[-3.0, 0.5, 60.0, 99.0]> : tensor<4xf32>
  %q = stablehlo.uniform_quantize %x
    : (tensor<4xf32>) -> tensor<4x!quant.uniform<u8:f32, 0.5:120>>
  %s = stablehlo.add %q, %q : tensor<4x!quant.uniform<u8:f32, 0.5:120>>
  %y = stablehlo.uniform_dequantize %s
    : (tensor<4x!quant.uniform<u8:f32, 0.5:120>>) -> tensor<4xf32>
  check.expect_eq_const %y, dense<[-6.0, 1.0, 67.5, 67.5]> : tensor<4xf32>
""",
    "unsigned quantized storage by channel": """
  %x = stablehlo.constant dense<[[-3.0, 9.0], [20.0, 900.0]]> : tensor<2x2xf32>
  %q = stablehlo.uniform_quantize %x
    : (tensor<2x2xf32>) -> tensor<2x2x!quant.uniform<u8<1:255>:f32:0, {0.5:5, 2.0:1}>>
  %y = stablehlo.uniform_dequantize %q
    : (tensor<2x2x!quant.uniform<u8<1:255>:f32:0, {0.5:5, 2.0:1}>>) -> tensor<2x2xf32>
  check.expect_eq_const %y, dense<[[-2.0, 9.0], [20.0, 508.0]]> : tensor<2x2xf32>
""",
}

REFUSED = {
    "host program": (
        """
  %t = stablehlo.after_all : !stablehlo.token
  %r:2 = "stablehlo.infeed"(%t) : (!stablehlo.token) -> (tensor<2xi64>, !stablehlo.token)
  check.expect_eq_const %r#0, dense<[1, 2]> : tensor<2xi64>
""",
        "stablehlo.infeed talks to a host program",
    ),
    "other devices": (
        """
  %x = stablehlo.constant dense<[7, 8]> : tensor<2xi16>
  %y = "stablehlo.all_gather"(%x) {all_gather_dim = 0 : i64,
    replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>} : (tensor<2xi16>) -> tensor<4xi16>
  check.expect_eq %y, %y : tensor<4xi16>
""",
        "stablehlo.all_gather asks for other devices, and this program runs for one",
    ),
    "foreign code": (
        """
  %x = stablehlo.constant dense<2.0> : tensor<3xf32>
  %y = stablehlo.custom_call @their_kernel(%x) : (tensor<3xf32>) -> tensor<3xf32>
  check.expect_eq %x, %y : tensor<3xf32>
""",
        "the custom call 'their_kernel' runs code that is not in the model",
    ),
    "stored bits": (
        """
  %x = stablehlo.constant dense<[1.0]> : tensor<1xf32>
  %q = stablehlo.uniform_quantize %x : (tensor<1xf32>) -> tensor<1x!quant.uniform<u8:f32, 0.5:3>>
  %y = stablehlo.bitcast_convert %q : (tensor<1x!quant.uniform<u8:f32, 0.5:3>>) -> tensor<1xi8>
  check.expect_eq_const %y, dense<5> : tensor<1xi8>
""",
        "the stored bits of",
    ),
}

WRONG = """
func.func @test() -> tensor<2xf32> {
  %a = stablehlo.constant dense<[1.0, 2.0]> : tensor<2xf32>
  %b = stablehlo.add %a, %a : tensor<2xf32>
  check.expect_eq_const %b, dense<[2.0, 4.0]> : tensor<2xf32>
  check.expect_eq_const %b, dense<[2.0, 5.0]> : tensor<2xf32>
  return %b : tensor<2xf32>
}
"""


def _write(folder: Path, body: str) -> Path:
    path = folder / "m.mlir"
    path.write_text(f"func.func @test() {{{body}  func.return\n}}\n")
    return path


@pytest.mark.parametrize("name", MODULES)
def test_checks_hold(name, tmp_path):
    package = tmp_path / "m.pai"
    compile_model(_write(tmp_path, MODULES[name]), CompileOptions(jobs=1), package)
    checks = load(package).run()
    assert checks and set(checks) == {f"check_{i}" for i in range(len(checks))}
    assert all(checks.values()), checks


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_reason(name, tmp_path):
    body, reason = REFUSED[name]
    with pytest.raises(UnsupportedOp, match=reason):
        compile_model(_write(tmp_path, body), CompileOptions(stop_after="simplify"))


def test_a_false_check_fails_both_commands(tmp_path, capsys):
    path, package = tmp_path / "wrong.mlir", str(tmp_path / "wrong.pai")
    path.write_text(WRONG)
    assert compile_command([str(path), "-o", package, "--verify"]) == 13
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "false in this self-checking module: check_1;" in message
    assert run_command([package]) == 13
    message = capsys.readouterr().err.strip()
    assert message.startswith("pai-run: error: 1 of 2 checks are false: check_1")
    assert "\n" not in message
    assert [spec.role for spec in load(Path(package)).outputs] == ["output", "check", "check"]


def test_verify_when_xla_does_not_read_the_module(tmp_path, capsys):
    """A quantized program with an output besides its check: XLA gets it simplified."""
    path, package = tmp_path / "q.mlir", tmp_path / "q.pai"
    body = MODULES["unsigned quantized storage"]
    path.write_text(
        f"func.func @test() -> tensor<4xf32> {{{body}  func.return %y : tensor<4xf32>\n}}\n"
    )
    assert compile_command([str(path), "-o", str(package), "--verify"]) == 0
    assert "xla (simplified)" in capsys.readouterr().out
    np.testing.assert_array_equal(load(package).run()["result0"], [-6, 1, 67.5, 67.5])


def test_parts_with_the_same_names_are_joined(tmp_path):
    """Test files hold modules separated by ``// -----``, each with functions of any name."""
    part = """module {{
  func.func private @twice(%a: tensor<i32>) -> tensor<i32> {{
    %0 = stablehlo.add %a, %a : tensor<i32>
    return %0 : tensor<i32>
  }}
  func.func @main() {{
    %0 = stablehlo.constant dense<{}> : tensor<i32>
    %1 = call @twice(%0) : (tensor<i32>) -> tensor<i32>
    check.expect_eq_const %1, dense<10> : tensor<i32>
    return
  }}
}}
"""
    path = tmp_path / "parts.mlir"
    path.write_text("// RUN\n" + "\n// -----\n\n".join(part.format(n) for n in (4, 5)))
    compile_model(path, CompileOptions(jobs=1), tmp_path / "parts.pai")
    assert {k: bool(v) for k, v in load(tmp_path / "parts.pai").run().items()} == {
        "check_0": False,
        "check_1": True,
    }


def test_lapack_calls_of_jax(tmp_path):
    """JAX for CPUs exports these as calls of LAPACK."""

    def solve(a, b):
        return jnp.linalg.cholesky(a), solve_triangular(a, b, trans=1, lower=True)

    matrix = np.array([[4, 2, 0], [2, 5, 1], [0, 1, 3]], np.float32)
    right = np.array([[1], [2], [3]], np.float32)
    text = jax.jit(solve).lower(matrix, right).as_text()
    assert "lapack_spotrf_ffi" in text and "lapack_strsm_ffi" in text
    compile_model(load_text(text), CompileOptions(jobs=1), tmp_path / "m.pai")
    run = load(tmp_path / "m.pai").run
    for argument in (matrix, -matrix):  # -matrix has no factor: all of it is NaN
        got = list(run(arg0=argument, arg1=right).values())
        factor, solution = solve(argument, right)
        np.testing.assert_allclose(got[0], factor, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(got[1], solution, rtol=1e-6, atol=1e-7)
