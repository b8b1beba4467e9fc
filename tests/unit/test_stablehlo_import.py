# ruff: noqa: E501
"""StableHLO as JAX, torch-mlir, TensorFlow and StableHLO's own tests write it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pai import frontends
from pai.compiler.reference import run_reference
from pai.dialects.mlir import to_text
from pai.dialects.program import Role
from pai.dialects.sdy import argument_sharding, mesh_from_module, sharding_from_attr
from pai.frontends.stablehlo.importer import load
from pai.passes.rewrite import functions, main_function, op_names
from pai.passes.simplify import simplify
from pai.runtime.errors import InvalidModel, InvalidShape, PaiError, UnsupportedOp
from pai.runtime.mesh import AxisRef, Mesh, Sharding

RNG = np.random.default_rng(0)


def run(program, *inputs):
    simplify(program.module)
    return run_reference(to_text(program.module), list(inputs))


def model(x, p):
    h = jax.jit(lambda a: jax.nn.gelu(a, approximate=False))(x @ p["w"])
    carry, ys = jax.lax.scan(lambda c, t: (c + t, c * 2), h[0], h)
    values, indices = jax.lax.top_k(ys, 2)
    return {"out": values, "index": indices, "carry": carry}


X = RNG.normal(size=(4, 8)).astype(np.float32)
W = RNG.normal(size=(8, 4)).astype(np.float32)


@pytest.mark.parametrize("debug_info", [False, True])
def test_jax_text(tmp_path, debug_info):
    """Calls, a scan (while), chlo.erf and chlo.top_k, result and argument names."""
    text = jax.jit(model).lower(X, {"w": W}).as_text(debug_info=debug_info)
    path = tmp_path / "net.mlir"
    path.write_text(text)
    program = frontends.load(path)
    names = ["x", "p['w']"] if debug_info else ["arg0", "arg1"]
    assert [v.name for v in program.signature.arguments] == names
    assert [(v.dtype, v.shape, v.role) for v in program.signature.arguments] == [
        ("f32", (4, 8), Role.INPUT),
        ("f32", (8, 4), Role.INPUT),
    ]
    assert [v.name for v in program.signature.results] == [
        "result['carry']",
        "result['index']",
        "result['out']",
    ]
    assert program.name == "net"
    carry, index, out = run(program, X, W)
    assert list(functions(program.module)) == ["main"]
    wanted = model(X, {"w": W})
    # f32: a product of eight terms, then at most four sums
    np.testing.assert_allclose(carry, wanted["carry"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(out, wanted["out"], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(index, wanted["index"])


def test_jax_export_keeps_shardings(tmp_path):
    mesh = AbstractMesh((2, 4), ("x", "y"))

    def fn(a, b):
        y = jax.lax.with_sharding_constraint(a @ b, NamedSharding(mesh, P("x", None)))
        return jnp.tanh(y)

    shardings = (NamedSharding(mesh, P("x", "y")), NamedSharding(mesh, P("y", None)))
    exported = jax.export.export(jax.jit(fn, in_shardings=shardings))(
        jax.ShapeDtypeStruct((8, 16), jnp.float32), jax.ShapeDtypeStruct((16, 4), jnp.float32)
    )
    path = tmp_path / "net.bin"
    path.write_bytes(exported.mlir_module_serialized)
    for source in (exported.mlir_module(), path):
        program = frontends.load(path) if source is path else load(source)
        simplify(program.module)
        assert mesh_from_module(program.module) == Mesh((("x", 2), ("y", 4)))
        main = main_function(program.module)
        assert sharding_from_attr(argument_sharding(main, 0)) == Sharding(
            ((AxisRef("x"),), (AxisRef("y"),))
        )
        assert "sdy.sharding_constraint" in op_names(program.module)
        assert [v.name for v in program.signature.arguments] == ["a", "b"]


def test_shard_map_is_kept():
    mesh = AbstractMesh((4,), ("x",))
    fn = jax.shard_map(
        lambda a: jax.lax.psum(a.sum(), "x"), mesh=mesh, in_specs=P("x"), out_specs=P()
    )
    exported = jax.export.export(jax.jit(fn))(jax.ShapeDtypeStruct((8,), jnp.float32))
    program = load(exported.mlir_module())
    simplify(program.module)
    assert "sdy.manual_computation" in op_names(program.module)


def polymorphic():
    shape = jax.export.symbolic_shape("b, 3")
    exported = jax.export.export(
        jax.jit(lambda x: (jnp.sum(x, axis=1) * 2, x.reshape(-1), jnp.concatenate([x, x])))
    )(jax.ShapeDtypeStruct(shape, jnp.float32))
    return exported.mlir_module()


def test_open_dimensions_are_bound():
    program = load(polymorphic(), ["arg0:5,3"])
    assert [v.shape for v in program.signature.arguments] == [(5, 3)]
    assert [v.shape for v in program.signature.results] == [(5,), (15,), (10, 3)]
    value = RNG.normal(size=(5, 3)).astype(np.float32)
    total, flat, twice = run(program, value)
    np.testing.assert_allclose(total, value.sum(1) * 2, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(flat, value.reshape(-1))
    np.testing.assert_array_equal(twice, np.concatenate([value, value]))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([], "open dimensions in the arguments arg0: tensor<?x3xf32>.*--shape arg0:8,3"),
        (["arg0:5,4"], "cannot be"),
        (["arg0:5"], "cannot be"),
        (["nothing:5,3"], "there is no argument 'nothing'; it has arg0"),
        (["b=5"], "not of the form ARGUMENT:8,3"),
    ],
)
def test_wrong_shapes(shapes, message):
    with pytest.raises(InvalidShape, match=message.replace("?", r"\?")):
        load(polymorphic(), shapes)


def test_shape_assertions_are_checked():
    """JAX asserts b >= 1 itself."""
    program = load(polymorphic(), ["arg0:0,3"])
    with pytest.raises(InvalidShape, match="Expected value >= 1 for dimension variable 'b'"):
        simplify(program.module)


TORCH_MLIR = """module {
  func.func @forward(%arg0: tensor<2x3xf32>) -> tensor<2x3xf32> {
    %cst = stablehlo.constant dense_resource<torch_tensor_3_torch.float32> : tensor<3xf32>
    %cst_0 = arith.constant dense<2> : tensor<1xi64>
    %0 = stablehlo.broadcast_in_dim %cst, dims = [1] : (tensor<3xf32>) -> tensor<2x3xf32>
    %1 = stablehlo.add %arg0, %0 : tensor<2x3xf32>
    %2 = stablehlo.convert %cst_0 : (tensor<1xi64>) -> tensor<1xf32>
    %3 = stablehlo.reshape %2 : (tensor<1xf32>) -> tensor<f32>
    %4 = stablehlo.broadcast_in_dim %3, dims = [] : (tensor<f32>) -> tensor<2x3xf32>
    %5 = stablehlo.multiply %1, %4 : tensor<2x3xf32>
    return %5 : tensor<2x3xf32>
  }
}

{-#
  dialect_resources: {
    builtin: {
      torch_tensor_3_torch.float32: "0x040000000000803F0000004000004040"
    }
  }
#-}
"""


def test_torch_mlir_text():
    """Weights in the resource section, arith.constant, and a main function of another name."""
    program = load(TORCH_MLIR)
    value = RNG.normal(size=(2, 3)).astype(np.float32)
    (result,) = run(program, value)
    np.testing.assert_array_equal(result, (value + np.float32([1, 2, 3])) * 2)
    assert [v.name for v in program.signature.results] == ["result"]


def test_tensorflow_leftovers():
    program = load(
        """module @a_inference_fn attributes {mhlo.num_partitions = 1 : i32, tf.versions = {producer = 1 : i32}} {
  func.func @main(%arg0: tensor<2x3xf32> {tf._user_specified_name = "x", mhlo.sharding = "{replicated}", tf.aliasing_output = 0 : i32, jax.buffer_donor = true}) -> tensor<2x3xf32> {
    %0 = mhlo.erf %arg0 : tensor<2x3xf32>
    %1 = mhlo.copy %0 : tensor<2x3xf32>
    %2 = mhlo.add %1, %arg0 : tensor<2x3xf32>
    %3 = stablehlo.custom_call @Sharding(%2) {mhlo.sharding = "{replicated}"} : (tensor<2x3xf32>) -> tensor<2x3xf32>
    return %3 : tensor<2x3xf32>
  }
}
"""
    )
    value = RNG.normal(size=(2, 3)).astype(np.float32)
    (result,) = run(program, value)
    np.testing.assert_allclose(result, jax.lax.erf(value) + value, rtol=1e-6)
    assert not any(name.startswith("mhlo") for name in op_names(program.module))


def test_parameters_stand_beside_the_model(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "net.mlir"
    path.write_text("""func.func @main(%x: tensor<3xf32> {pai.name = "x"},
        %w: tensor<3xf32> {pai.name = "w", pai.role = "parameter"}) -> tensor<3xf32> {
      %0 = stablehlo.add %x, %w : tensor<3xf32>
      return %0 : tensor<3xf32>
    }""")
    with pytest.raises(InvalidModel, match=r"'w' is a parameter but there is no net.safetensors"):
        frontends.load(path).weights.require()
    safetensors.save_file({"v": np.zeros(3, np.float32)}, tmp_path / "net.safetensors")
    with pytest.raises(InvalidModel, match="has no tensor 'w'"):
        frontends.load(path)
    safetensors.save_file({"w": np.float32([1, 2, 3])}, tmp_path / "net.safetensors")
    program = frontends.load(path)
    np.testing.assert_array_equal(program.weights.load("w"), np.float32([1, 2, 3]))
    assert program.signature.arguments[1].role is Role.PARAMETER


CHECKS = """
func.func @main() -> tensor<3xf32> {
  %0:2 = call @inputs() : () -> (tensor<3xf32>, tensor<3xi32>)
  %1 = call @expected() : () -> tensor<3xf32>
  %2 = stablehlo.exponential %0#0 : tensor<3xf32>
  check.expect_close %2, %1, max_ulp_difference = 3, min_ulp_difference = 0 : tensor<3xf32>, tensor<3xf32>
  check.expect_almost_eq %2, %1, tolerance = 0.001 : tensor<3xf32>
  check.expect_almost_eq_const %2, dense<[1.0, 2.71828, 7.38905]> : tensor<3xf32>, tolerance = 0.0001
  check.expect_eq_const %0#1, dense<[1,
     2, 3]> : tensor<3xi32>
  check.expect_eq %0#1, %0#1 : tensor<3xi32> // the same value
  check.expect_eq_const %2, dense<0.0> : tensor<3xf32>
  stablehlo.custom_call @check.expect_close(%2, %1) {has_side_effect = true} : (tensor<3xf32>, tensor<3xf32>) -> ()
  "stablehlo.custom_call"(%0#1, %0#1) <{call_target_name = "check.expect_eq", has_side_effect = true}> : (tensor<3xi32>, tensor<3xi32>) -> ()
  return %2 : tensor<3xf32>
}
func.func private @inputs() -> (tensor<3xf32>, tensor<3xi32>) {
  %0 = stablehlo.constant dense<[0.0, 1.0, 2.0]> : tensor<3xf32>
  %1 = stablehlo.constant dense<[1, 2, 3]> : tensor<3xi32>
  return %0, %1 : tensor<3xf32>, tensor<3xi32>
}
func.func private @expected() -> tensor<3xf32> {
  %0 = stablehlo.constant dense<[1.0, 2.7182817, 7.389056]> : tensor<3xf32>
  return %0 : tensor<3xf32>
}
"""


def test_self_checking_module():
    program = load(CHECKS)
    assert [v.name for v in program.signature.results] == [
        "result0",
        *(f"check_{n}" for n in range(8)),
    ]
    value, *flags = run(program)
    np.testing.assert_allclose(value, np.exp([0, 1, 2]), rtol=1e-6)
    assert [bool(flag) for flag in flags] == [True] * 5 + [False] + [True] * 2
    assert "stablehlo.exponential" in op_names(program.module)  # it is not folded away


def check_one(statement, dtype, lhs, rhs):
    """Return what a check says of two constants."""
    program = load(
        f"""func.func @test() {{
          %0 = stablehlo.constant dense<{lhs}> : tensor<{dtype}>
          %1 = stablehlo.constant dense<{rhs}> : tensor<{dtype}>
          {statement.replace("TYPE", f"tensor<{dtype}>")}
          return
        }}"""
    )
    (flag,) = run(program)
    return bool(flag)


@pytest.mark.parametrize(
    ("kind", "dtype", "lhs", "rhs", "holds"),
    [
        ("eq", "2xf32", "[0x7FC00000, 1.0]", "[0x7FC00000, 1.0]", True),
        ("eq", "2xf32", "[0x7FC00000, 1.0]", "[1.0, 1.0]", False),
        ("eq", "2xi8", "[1, -1]", "[1, -1]", True),
        ("eq", "2xi1", "[true, false]", "[true, true]", False),
        (
            "eq",
            "2xcomplex<f32>",
            "[(1.0, 2.0), (0.0, 0x7FC00000)]",
            "[(1.0, 2.0), (0.0, 0x7FC00000)]",
            True,
        ),
        ("eq", "2xcomplex<f32>", "[(1.0, 2.0), (0.0, 0.0)]", "[(1.0, 2.5), (0.0, 0.0)]", False),
        ("almost_eq", "2xf32", "[0x7F800000, 1.0]", "[0x7F800000, 1.00005]", True),
        ("almost_eq", "2xf32", "[0x7F800000, 1.0]", "[0xFF800000, 1.0]", False),
        ("almost_eq", "2xf32", "[0.0, 1.0]", "[0.0, 1.0002]", False),
        ("almost_eq", "f64", "1.0", "1.0002", False),
        ("close", "f32", "0x3F800000", "0x3F800001", True),
        ("close", "f32", "0x3F800000", "0x3F800002", False),
        ("close", "f32", "0x80000000", "0x00000000", True),  # -0 and 0: no value between
        ("close", "f32", "0x80000001", "0x00000000", True),
        ("close", "f32", "0x80000001", "0x00000001", False),  # two steps
        ("close", "f32", "0x7FC00000", "0x7FC00001", True),
        ("close", "f32", "0x7F800000", "0x7F7FFFFF", False),
        ("close", "bf16", "0x3F80", "0x3F81", True),
        ("close", "f64", "0x3FF0000000000000", "0x3FF0000000000002", False),
        ("close", "complex<f32>", "(1.0, 2.0)", "(1.0, 2.0)", True),
    ],
)
def test_what_checks_mean(kind, dtype, lhs, rhs, holds):
    if kind == "close":
        statement = "check.expect_close %0, %1, max_ulp_difference = 1 : TYPE, TYPE"
    else:
        statement = f"check.expect_{kind} %0, %1 : TYPE"
    assert check_one(statement, dtype, lhs, rhs) is holds


def test_lower_bound_of_ulps():
    statement = (
        "check.expect_close %0, %1, max_ulp_difference = 5, min_ulp_difference = 5 : TYPE, TYPE"
    )
    assert check_one(statement, "f32", "0x3F800000", "0x3F800005")
    assert not check_one(statement, "f32", "0x3F800000", "0x3F800004")


def test_written_forms_of_checks():
    program = load("""func.func @test() {
      %0 = stablehlo.constant dense<5.0> : tensor<f64>
      %1 = stablehlo.constant dense<5.05> : tensor<f64>
      check.expect_almost_eq%0, %1, tolerance = 0.1 : tensor<f64>
      check.expect_almost_eq_const %0, dense<5.05> : tensor<f64> {tolerance = 0.1 : f64}
      check.expect_almost_eq_const %0, dense<5.0001> : tensor<f64>
      check.expect_close %0, %1, max_ulp_difference = 18446744073709551615, min_ulp_difference = 9 : tensor<f64>, tensor<f64>
      "check.expect_eq"(%0, %1) : (tensor<f64>, tensor<f64>) -> ()
      func.return
    }""")
    assert [bool(flag) for flag in run(program)] == [True, True, True, True, False]


def test_several_self_checking_functions():
    text = "\n// -----\n\n".join(
        f"""func.func @test_{n}() {{
          %0 = stablehlo.constant dense<{n}> : tensor<2xi32>
          check.expect_eq_const %0, dense<1> : tensor<2xi32>
          return
        }}"""
        for n in range(3)
    )
    program = load(text)
    assert [v.name for v in program.signature.results] == ["check_0", "check_1", "check_2"]
    assert [bool(flag) for flag in run(program)] == [False, True, False]


def test_check_eq_gives_its_flag():
    program = load("""func.func @main() -> tensor<i1> {
      %0 = stablehlo.constant dense<1.0> : tensor<2xf32>
      %1 = stablehlo.constant dense<1.00001> : tensor<2xf32>
      %2 = stablehlo.custom_call @check.eq(%0, %1) : (tensor<2xf32>, tensor<2xf32>) -> tensor<i1>
      return %2 : tensor<i1>
    }""")
    assert [bool(flag) for flag in run(program)] == [True, True]


BAD = {
    "text that is not MLIR": ("hello\nworld", InvalidModel, r"module:1:1: not a valid MLIR"),
    "an undeclared value": (
        "func.func @a(%a: tensor<2xf32>) -> tensor<2xf32> {\n  return %b : tensor<2xf32>\n}",
        InvalidModel,
        "module:2:10: .*undeclared",
    ),
    "types that do not fit": (
        'func.func @a(%a: tensor<2xf32>, %b: tensor<3xf32>) -> tensor<2xf32> {\n  %0 = "stablehlo.add"(%a, %b) : (tensor<2xf32>, tensor<3xf32>) -> tensor<2xf32>\n  return %0 : tensor<2xf32>\n}',
        InvalidModel,
        "module:2:8",
    ),
    "another dialect": (
        "func.func @a(%a: tensor<2xf32>) -> tensor<2xf32> {\n  %0 = tosa.abs %a : tensor<2xf32>\n  return %0 : tensor<2xf32>\n}",
        UnsupportedOp,
        "module:2:8: 'tosa.abs' is of the dialect 'tosa'",
    ),
    "another dialect in generic form": (
        'func.func @a(%a: tensor<2xf32>) -> tensor<2xf32> {\n  %0 = "tosa.abs"(%a) : (tensor<2xf32>) -> tensor<2xf32>\n  return %0 : tensor<2xf32>\n}',
        UnsupportedOp,
        "module:2:8: 'tosa.abs' is not a StableHLO operation",
    ),
    "an operation of a later StableHLO": (
        "func.func @a(%a: tensor<2xf32>) -> tensor<2xf32> {\n  %0 = stablehlo.frob %a : tensor<2xf32>\n  return %0 : tensor<2xf32>\n}",
        UnsupportedOp,
        "module:2:8: there is no operation 'stablehlo.frob'",
    ),
    "several public functions": (
        "func.func @a(%a: tensor<2xf32>) {\n  return\n}\nfunc.func @b() {\n  return\n}",
        InvalidModel,
        "not clear: a, b",
    ),
    "no function": ("module {\n}", InvalidModel, "no public function"),
    "several modules": ("module {\n}\n// -----\nmodule {\n}", InvalidModel, "several modules"),
    "several modules of one name": (
        "func.func @a() {\n  return\n}\n// -----\nfunc.func @a() {\n  return\n}",
        InvalidModel,
        "several modules",
    ),
    "a later portable artifact": (
        b"ML\xefR\rStableHLO_v9.99.0\x00\x01'",
        InvalidModel,
        "StableHLO 9.99.0, and this build reads up to",
    ),
    "truncated bytecode": (b"ML\xefR\rMLIR22.0git\x00abc", InvalidModel, "may be truncated"),
    "bytes": (b"\xff\xfe\x00", InvalidModel, "neither MLIR text nor MLIR bytecode"),
    "nothing": (b"", InvalidModel, "empty"),
    "a probe": (
        'func.func @main() {\n  %0 = stablehlo.constant dense<1> : tensor<i32>\n  %1 = "interpreter.probe"(%0) {probe_id = "p"} : (tensor<i32>) -> tensor<i32>\n  check.expect_eq %1, %1 : tensor<i32>\n  return\n}',
        UnsupportedOp,
        "interpreter.probe drives the StableHLO interpreter",
    ),
    "the interpreter's own syntax": (
        "func.func @main() {\n  %0 = stablehlo.constant dense<1> : tensor<i32>\n  interpreter.print %0 : tensor<i32>\n  return\n}",
        UnsupportedOp,
        "module:3:3: 'interpreter.print' drives the StableHLO interpreter",
    ),
    "a check that does not read": (
        "func.func @main() {\n  check.expect_eq 3\n  return\n}",
        InvalidModel,
        "module:2: cannot read this check.expect_eq",
    ),
    "a check without an end": (
        "func.func @main() {\n  check.expect_eq_const %0, dense<[1, 2",
        InvalidModel,
        "module:2",
    ),
    "a tuple result": (
        "func.func @main(%a: tensor<2xf32>) -> tuple<tensor<2xf32>> {\n  %0 = stablehlo.tuple %a : tuple<tensor<2xf32>>\n  return %0 : tuple<tensor<2xf32>>\n}",
        UnsupportedOp,
        "not a ranked tensor",
    ),
    "a role that is none": (
        'func.func @main(%a: tensor<2xf32> {pai.role = "weight"}) -> tensor<2xf32> {\n  return %a : tensor<2xf32>\n}',
        InvalidModel,
        "unknown pai.role 'weight'; one of input",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_modules(case):
    source, error, message = BAD[case]
    with pytest.raises(error, match=message):
        load(source)


def test_damaged_portable_artifact(capfd):
    exported = jax.export.export(jax.jit(jnp.tanh))(jax.ShapeDtypeStruct((2,), jnp.float32))
    data = exported.mlir_module_serialized
    load(data)
    for size in range(20, len(data), 97):
        with pytest.raises(InvalidModel):
            load(data[:size])
    assert capfd.readouterr().err == ""  # MLIR writes nothing of its own


def test_files_of_other_kinds(tmp_path):
    def message(path):
        with pytest.raises(PaiError) as info:
            frontends.load(path)
        return str(info.value)

    assert "there is no such file" in message(tmp_path / "absent")
    assert "is a directory" in message(tmp_path)
    (tmp_path / "empty").write_bytes(b"")
    assert "is empty" in message(tmp_path / "empty")
    (tmp_path / "archive").write_bytes(b"PK\x03\x04 something")
    assert "zip archive" in message(tmp_path / "archive")
    (tmp_path / "elf").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(100))
    assert "neither an ONNX model nor StableHLO" in message(tmp_path / "elf")
