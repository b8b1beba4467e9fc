# ruff: noqa: E501
"""The simplify passes keep what a module computes: before and after, run by XLA, bit for bit."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pai.compiler.reference import run_reference
from pai.dialects.mlir import parse, to_text
from pai.passes.base import run_passes
from pai.passes.rewrite import op_names
from pai.passes.simplify import simplify

RNG = np.random.default_rng(0)
ARGS = "%a: tensor<2x3xf32>, %b: tensor<3x4xf32>, %v: tensor<3xf32>, %i: tensor<2xi32>"
INPUTS = [
    np.array([[1.5, -0.0, 2.25], [np.nan, -np.inf, -3.0]], np.float32),
    RNG.normal(size=(3, 4)).astype(np.float32),
    np.array([0.5, 1.0, 2.0], np.float32),
    np.array([2, -1], np.int32),
]


def module(body: str, *results: str, extra: str = "") -> str:
    """Wrap statements that define %r0, %r1... of the given types as @main."""
    names = ", ".join(f"%r{n}" for n in range(len(results)))
    types = ", ".join(f"tensor<{r}>" for r in results)
    return f"func.func @main({ARGS}) -> ({types}) {{\n{body}\nreturn {names} : {types}\n}}\n{extra}"


def assert_same(before: str, pipeline: str, inputs=None, exact: bool = True) -> str:
    """Run ``pipeline`` and compare; return the text after it."""
    inputs = INPUTS if inputs is None else inputs
    program = parse(before)
    run_passes(program, pipeline)
    assert program.operation.verify()
    after = to_text(program)
    for old, new in zip(run_reference(before, inputs), run_reference(after, inputs), strict=True):
        assert old.dtype == new.dtype
        assert old.shape == new.shape
        if exact:
            same = np.ascontiguousarray(old).view(np.uint8) == np.ascontiguousarray(new).view(
                np.uint8
            )
            nan = np.isnan(old) & np.isnan(new) if old.dtype.kind == "f" else np.zeros(1, bool)
            assert (same.reshape(*old.shape, -1).all(-1) | nan).all(), after
        else:
            # f32 sums of up to four terms in another order
            np.testing.assert_allclose(old, new, rtol=4e-6, atol=1e-6)
    return after


LEGALIZE = {
    "dot": (
        "%r0 = stablehlo.dot %a, %b : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32>",
        ["2x4xf32"],
    ),
    "einsum": (
        '%r0 = "stablehlo.einsum"(%a, %b) {einsum_config = "ab,bc->ca"} '
        ": (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<4x2xf32>",
        ["4x2xf32"],
    ),
    "einsum with a sum": (
        '%r0 = "stablehlo.einsum"(%a, %b) {einsum_config = "ab,bc->b"} '
        ": (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<3xf32>",
        ["3xf32"],
    ),
    "einsum with a batch": (
        '%r0 = "stablehlo.einsum"(%a, %a) {einsum_config = "ab,ab->ba"} '
        ": (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<3x2xf32>",
        ["3x2xf32"],
    ),
    "broadcast": (
        '%r0 = "stablehlo.broadcast"(%v) {broadcast_sizes = array<i64: 5>} '
        ": (tensor<3xf32>) -> tensor<5x3xf32>",
        ["5x3xf32"],
    ),
    "map": (
        """%c = stablehlo.constant dense<2.0> : tensor<f32>
        %r0 = "stablehlo.map"(%a, %a) ({
        ^bb0(%x: tensor<f32>, %y: tensor<f32>):
          %1 = stablehlo.add %x, %c : tensor<f32>
          %k = stablehlo.constant dense<3.0> : tensor<f32>
          %p = stablehlo.compare GT, %1, %k : (tensor<f32>, tensor<f32>) -> tensor<i1>
          %2 = stablehlo.select %p, %k, %y : tensor<i1>, tensor<f32>
          stablehlo.return %2 : tensor<f32>
        }) {dimensions = array<i64: 0, 1>} : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>""",
        ["2x3xf32"],
    ),
    "torch_index_select": (
        '%r0 = "stablehlo.torch_index_select"(%a, %j) {dim = 1 : i64, batch_dims = 0 : i64} '
        ": (tensor<2x3xf32>, tensor<2xi32>) -> tensor<2x2xf32>",
        ["2x2xf32"],
    ),
    "torch_index_select with a batch": (
        """%s = stablehlo.reshape %j : (tensor<2xi32>) -> tensor<2x1xi32>
        %r0 = "stablehlo.torch_index_select"(%a, %s) {dim = 1 : i64, batch_dims = 1 : i64}
          : (tensor<2x3xf32>, tensor<2x1xi32>) -> tensor<2x1xf32>""",
        ["2x1xf32"],
    ),
    "batch_norm_inference": (
        '%r0 = "stablehlo.batch_norm_inference"(%w, %v, %v, %v, %v) '
        "{epsilon = 0.01 : f32, feature_index = 1 : i64} : (tensor<2x3xf32>, tensor<3xf32>, "
        "tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) -> tensor<2x3xf32>",
        ["2x3xf32"],
    ),
    "batch_norm_training": (
        '%r0, %r1, %r2 = "stablehlo.batch_norm_training"(%w, %v, %v) '
        "{epsilon = 0.01 : f32, feature_index = 1 : i64} : (tensor<2x3xf32>, tensor<3xf32>, "
        "tensor<3xf32>) -> (tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>)",
        ["2x3xf32", "3xf32", "3xf32"],
    ),
    "batch_norm_grad": (
        '%r0, %r1, %r2 = "stablehlo.batch_norm_grad"(%w, %v, %v, %v, %w) '
        "{epsilon = 0.01 : f32, feature_index = 1 : i64} : (tensor<2x3xf32>, tensor<3xf32>, "
        "tensor<3xf32>, tensor<3xf32>, tensor<2x3xf32>) "
        "-> (tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>)",
        ["2x3xf32", "3xf32", "3xf32"],
    ),
    "tuple": (
        """%t = stablehlo.tuple %a, %b : tuple<tensor<2x3xf32>, tensor<3x4xf32>>
        %r0 = stablehlo.get_tuple_element %t[1]
          : (tuple<tensor<2x3xf32>, tensor<3x4xf32>>) -> tensor<3x4xf32>""",
        ["3x4xf32"],
    ),
    "chlo broadcast": (
        "%r0 = chlo.broadcast_add %v, %a : (tensor<3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>",
        ["2x3xf32"],
    ),
    "chlo math": (
        """%x = chlo.erf %w : tensor<2x3xf32> -> tensor<2x3xf32>
        %y = chlo.lgamma %x : tensor<2x3xf32> -> tensor<2x3xf32>
        %r0 = chlo.sinh %y : tensor<2x3xf32> -> tensor<2x3xf32>""",
        ["2x3xf32"],
    ),
    "top_k beside other CHLO": (
        """%r0, %x = chlo.top_k(%b, k = 2) : tensor<3x4xf32> -> (tensor<3x2xf32>, tensor<3x2xi32>)
        %r1 = chlo.cosh %b : tensor<3x4xf32> -> tensor<3x4xf32>""",
        ["3x2xf32", "3x4xf32"],
    ),
}


@pytest.mark.parametrize("case", LEGALIZE)
def test_legalize(case):
    body, results = LEGALIZE[case]
    setup = """%j = stablehlo.constant dense<[2, 0]> : tensor<2xi32>
    %w = stablehlo.constant dense<[[0.5, -0.25, 1.0], [0.125, 2.0, -1.5]]> : tensor<2x3xf32>"""
    text = module(f"{setup}\n{body}", *results)
    inputs = [np.nan_to_num(INPUTS[0], neginf=-2.0, nan=0.75), *INPUTS[1:]]
    assert_same(text, "pai-legalize,pai-dce", inputs, exact=False)


def test_legalize_leaves_only_plain_operations():
    body = "\n".join(
        LEGALIZE[case][0].replace("%r", f"%{case[0]}{n}").replace("%c ", f"%c{n} ")
        for n, case in enumerate(("dot", "einsum", "broadcast", "batch_norm_training"))
    ).replace("%w", "%a")
    program = parse(module(body + "\n%r0 = stablehlo.negate %a : tensor<2x3xf32>", "2x3xf32"))
    run_passes(program, "pai-legalize")
    assert op_names(program) <= {
        "builtin.module",
        "func.func",
        "func.return",
        *(
            f"stablehlo.{name}"
            for name in [
                "add",
                "broadcast_in_dim",
                "constant",
                "divide",
                "dot_general",
                "multiply",
                "negate",
                "reduce",
                "return",
                "sqrt",
                "subtract",
                "transpose",
            ]
        ),
    }


def test_unary_einsum():
    """XLA does not know unary_einsum, so NumPy says what is right."""
    for config, type_ in (("ab->b", "3xf32"), ("ab->ba", "3x2xf32"), ("ab->", "f32")):
        text = module(
            f'%r0 = "stablehlo.unary_einsum"(%a) {{einsum_config = "{config}"}} '
            f": (tensor<2x3xf32>) -> tensor<{type_}>",
            type_,
        )
        program = parse(text)
        run_passes(program, "pai-legalize")
        value = np.arange(6, dtype=np.float32).reshape(2, 3)
        (result,) = run_reference(to_text(program), [value, *INPUTS[1:]])
        np.testing.assert_array_equal(result, np.einsum(config, value))


def test_quantized():
    text = """func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
      %0 = stablehlo.uniform_quantize %x : (tensor<4xf32>) -> tensor<4x!quant.uniform<i8:f32, 0.5:3>>
      %1 = stablehlo.add %0, %0 : tensor<4x!quant.uniform<i8:f32, 0.5:3>>
      %2 = stablehlo.uniform_dequantize %1 : (tensor<4x!quant.uniform<i8:f32, 0.5:3>>) -> tensor<4xf32>
      return %2 : tensor<4xf32>
    }"""
    program = parse(text)
    simplify(program)
    value = np.array([0.3, -1.0, 40.0, -100.0], np.float32)
    (result,) = run_reference(to_text(program), [value])
    stored = np.clip(np.rint(value / 0.5 + 3), -128, 127)
    expected = (np.clip(stored + stored - 3, -128, 127) - 3) * 0.5
    np.testing.assert_array_equal(result, expected)


def test_inline():
    text = module(
        """%x = func.call @outer(%a) : (tensor<2x3xf32>) -> tensor<2x3xf32>
        %r0 = func.call @outer(%x) : (tensor<2x3xf32>) -> tensor<2x3xf32>""",
        "2x3xf32",
        extra="""func.func private @outer(%x: tensor<2x3xf32>) -> tensor<2x3xf32> {
          %c = stablehlo.constant dense<0> : tensor<i32>
          %0:2 = stablehlo.while(%k = %c, %y = %x) : tensor<i32>, tensor<2x3xf32>
          cond {
            %n = stablehlo.constant dense<3> : tensor<i32>
            %p = stablehlo.compare LT, %k, %n : (tensor<i32>, tensor<i32>) -> tensor<i1>
            stablehlo.return %p : tensor<i1>
          } do {
            %one = stablehlo.constant dense<1> : tensor<i32>
            %m = stablehlo.add %k, %one : tensor<i32>
            %z = func.call @inner(%y, %x) : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
            stablehlo.return %m, %z : tensor<i32>, tensor<2x3xf32>
          }
          return %0#1 : tensor<2x3xf32>
        }
        func.func private @inner(%x: tensor<2x3xf32>, %y: tensor<2x3xf32>) -> tensor<2x3xf32> {
          %0 = stablehlo.subtract %x, %y : tensor<2x3xf32>
          return %0 : tensor<2x3xf32>
        }""",
    )
    after = assert_same(text, "pai-inline")
    assert "call" not in after


FOLD = {
    "identities keep NaN, infinities and the sign of zero": (
        """%one = stablehlo.constant dense<1.0> : tensor<2x3xf32>
        %zero = stablehlo.constant dense<0.0> : tensor<2x3xf32>
        %minus = stablehlo.constant dense<-0.0> : tensor<2x3xf32>
        %r0 = stablehlo.multiply %a, %one : tensor<2x3xf32>
        %r1 = stablehlo.add %a, %zero : tensor<2x3xf32>
        %r2 = stablehlo.add %a, %minus : tensor<2x3xf32>
        %r3 = stablehlo.subtract %a, %zero : tensor<2x3xf32>
        %r4 = stablehlo.subtract %a, %minus : tensor<2x3xf32>
        %r5 = stablehlo.divide %a, %one : tensor<2x3xf32>
        %r6 = stablehlo.multiply %a, %zero : tensor<2x3xf32>""",
        ["2x3xf32"] * 7,
    ),
    "movement": (
        """%t = stablehlo.transpose %a, dims = [1, 0] : (tensor<2x3xf32>) -> tensor<3x2xf32>
        %r0 = stablehlo.transpose %t, dims = [1, 0] : (tensor<3x2xf32>) -> tensor<2x3xf32>
        %s = stablehlo.reshape %a : (tensor<2x3xf32>) -> tensor<6xf32>
        %r1 = stablehlo.reshape %s : (tensor<6xf32>) -> tensor<3x2xf32>
        %u = stablehlo.broadcast_in_dim %v, dims = [1] : (tensor<3xf32>) -> tensor<2x3xf32>
        %r2 = stablehlo.broadcast_in_dim %u, dims = [2, 0] : (tensor<2x3xf32>) -> tensor<3x5x2xf32>
        %x = stablehlo.slice %a [0:2, 0:3] : (tensor<2x3xf32>) -> tensor<2x3xf32>
        %e = stablehlo.slice %a [0:2, 1:1] : (tensor<2x3xf32>) -> tensor<2x0xf32>
        %r3 = stablehlo.concatenate %e, %x, %e, dim = 1
          : (tensor<2x0xf32>, tensor<2x3xf32>, tensor<2x0xf32>) -> tensor<2x3xf32>
        %n = stablehlo.constant dense<9> : tensor<i32>
        %m = stablehlo.constant dense<-4> : tensor<i32>
        %r4 = stablehlo.dynamic_slice %a, %m, %n, sizes = [1, 2]
          : (tensor<2x3xf32>, tensor<i32>, tensor<i32>) -> tensor<1x2xf32>
        %z = stablehlo.constant dense<1> : tensor<i32>
        %r5 = stablehlo.dynamic_update_slice %x, %r0, %z, %n
          : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<i32>, tensor<i32>) -> tensor<2x3xf32>""",
        ["2x3xf32", "3x2xf32", "3x5x2xf32", "2x3xf32", "1x2xf32", "2x3xf32"],
    ),
    "converts": (
        """%0 = stablehlo.convert %a : (tensor<2x3xf32>) -> tensor<2x3xf64>
        %r0 = stablehlo.convert %0 : (tensor<2x3xf64>) -> tensor<2x3xf32>
        %r1 = stablehlo.convert %0 : (tensor<2x3xf64>) -> tensor<2x3xbf16>
        %1 = stablehlo.convert %a : (tensor<2x3xf32>) -> tensor<2x3xbf16>
        %r2 = stablehlo.convert %1 : (tensor<2x3xbf16>) -> tensor<2x3xf32>
        %2 = stablehlo.convert %i : (tensor<2xi32>) -> tensor<2xi8>
        %r3 = stablehlo.convert %2 : (tensor<2xi8>) -> tensor<2xi64>
        %3 = stablehlo.convert %i : (tensor<2xi32>) -> tensor<2xi64>
        %r4 = stablehlo.convert %3 : (tensor<2xi64>) -> tensor<2xf32>
        %4 = stablehlo.convert %i : (tensor<2xi32>) -> tensor<2xui32>
        %r5 = stablehlo.convert %4 : (tensor<2xui32>) -> tensor<2xi64>""",
        ["2x3xf32", "2x3xbf16", "2x3xf32", "2xi64", "2xf32", "2xi64"],
    ),
    "control flow": (
        """%n = stablehlo.constant dense<7> : tensor<i32>
        %r0 = "stablehlo.case"(%n) ({
          %x = stablehlo.negate %a : tensor<2x3xf32>
          stablehlo.return %x : tensor<2x3xf32>
        }, {
          %x = stablehlo.abs %a : tensor<2x3xf32>
          stablehlo.return %x : tensor<2x3xf32>
        }) : (tensor<i32>) -> tensor<2x3xf32>
        %z = stablehlo.constant dense<0> : tensor<i32>
        %w:2 = stablehlo.while(%k = %z, %y = %v) : tensor<i32>, tensor<3xf32>
        cond {
          %m = stablehlo.constant dense<2> : tensor<i32>
          %p = stablehlo.compare LT, %k, %m : (tensor<i32>, tensor<i32>) -> tensor<i1>
          stablehlo.return %p : tensor<i1>
        } do {
          %one = stablehlo.constant dense<1> : tensor<i32>
          %q = stablehlo.add %k, %one : tensor<i32>
          %y2 = stablehlo.add %y, %y : tensor<3xf32>
          stablehlo.return %q, %y2 : tensor<i32>, tensor<3xf32>
        }
        %r1 = stablehlo.negate %w#1 : tensor<3xf32>""",
        ["2x3xf32", "3xf32"],
    ),
}


@pytest.mark.parametrize("case", FOLD)
def test_fold_constants(case):
    body, results = FOLD[case]
    assert_same(module(body, *results), "pai-fold-constants,pai-dce")


INTEGER_OPS = ("add", "subtract", "multiply", "divide", "remainder", "maximum", "minimum", "and",
               "or", "xor", "power")  # fmt: skip
FLOAT_OPS = ("add", "subtract", "multiply", "divide", "maximum", "minimum")
UNARY = {"i32": ("negate", "abs", "not", "sign"), "f32": ("negate", "abs", "floor", "ceil", "sqrt",
         "round_nearest_even")}  # fmt: skip


@st.composite
def programs(draw):
    """A random program over two constants and an argument of one type, as text."""
    dtype = draw(st.sampled_from(["i32", "f32"]))
    numbers = st.integers(-4, 4) if dtype == "i32" else st.sampled_from(
        [0.0, -0.0, 1.0, -1.0, 0.5, 3.0, 1e30, -2.75]
    )  # fmt: skip
    splat = draw(st.booleans())
    lines = []
    for index in range(2):
        values = draw(st.lists(numbers, min_size=3, max_size=3))
        shown = [f"{value:e}" if dtype == "f32" else str(value) for value in values]
        data = shown[0] if splat else f"[{', '.join(shown)}]"
        lines.append(f"%{index} = stablehlo.constant dense<{data}> : tensor<3x{dtype}>")
    names = ["%0", "%1", "%x"]
    for index in range(2, draw(st.integers(3, 9))):
        kind = draw(st.sampled_from(["binary", "binary", "unary", "select", "reverse"]))
        lhs, rhs = (draw(st.sampled_from(names)) for _ in range(2))
        type_ = f"tensor<3x{dtype}>"
        if kind == "binary":
            op = draw(st.sampled_from(INTEGER_OPS if dtype == "i32" else FLOAT_OPS))
            lines.append(f"%{index} = stablehlo.{op} {lhs}, {rhs} : {type_}")
        elif kind == "unary":
            op = draw(st.sampled_from(UNARY[dtype]))
            lines.append(f"%{index} = stablehlo.{op} {lhs} : {type_}")
        elif kind == "reverse":
            lines.append(f"%{index} = stablehlo.reverse {lhs}, dims = [0] : {type_}")
        else:
            direction = draw(st.sampled_from(["EQ", "NE", "LT", "GE"]))
            lines.append(
                f"%p{index} = stablehlo.compare {direction}, {lhs}, {rhs} "
                f": ({type_}, {type_}) -> tensor<3xi1>"
            )
            lines.append(
                f"%{index} = stablehlo.select %p{index}, {lhs}, {rhs} : tensor<3xi1>, {type_}"
            )
        names.append(f"%{index}")
    results = names[-3:]
    types = ", ".join([f"tensor<3x{dtype}>"] * 3)
    body = "\n".join(lines)
    text = f"func.func @main(%x: tensor<3x{dtype}>) -> ({types}) {{\n{body}\n"
    return dtype, text + f"return {', '.join(results)} : {types}\n}}"


# The same programs every time: on a few quotients of the least integer XLA ends the process.
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(programs())
def test_fold_constants_on_random_programs(program):
    dtype, text = program
    value = [2, -3, 0] if dtype == "i32" else [0.5, -0.0, -7.25]
    assert_same(text, "pai-fold-constants,pai-cse,pai-dce", [np.array(value, DTYPES[dtype])])


DTYPES = {"i32": np.int32, "f32": np.float32}


def test_dtype_cleanup():
    """Overflow, rounding ties and NaN come out the same in 32 bits."""
    x = np.array([1 + 2**-23, 16777217.0, 3.4e38, np.nan, 1e-30, -0.0], np.float32)
    y = np.array([2**-24, 0.5, 3.4e38, 1.0, -1e-30, 0.0], np.float32)
    i = np.array([2**31 - 1, -(2**31), -1, 7, 0, 5], np.int32)
    text = """func.func @main(%x: tensor<6xf32>, %y: tensor<6xf32>, %i: tensor<6xi32>)
        -> (tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xi32>, tensor<6xi1>, tensor<6xi1>) {
      %a = stablehlo.convert %x : (tensor<6xf32>) -> tensor<6xf64>
      %b = stablehlo.convert %y : (tensor<6xf32>) -> tensor<6xf64>
      %0 = stablehlo.add %a, %b : tensor<6xf64>
      %r0 = stablehlo.convert %0 : (tensor<6xf64>) -> tensor<6xf32>
      %1 = stablehlo.multiply %a, %b : tensor<6xf64>
      %2 = stablehlo.negate %1 : tensor<6xf64>
      %r1 = stablehlo.convert %2 : (tensor<6xf64>) -> tensor<6xf32>
      %3 = stablehlo.multiply %a, %b : tensor<6xf64>
      %4 = stablehlo.add %3, %b : tensor<6xf64>
      %r2 = stablehlo.convert %4 : (tensor<6xf64>) -> tensor<6xf32>
      %j = stablehlo.convert %i : (tensor<6xi32>) -> tensor<6xi64>
      %c = stablehlo.constant dense<[1, 4294967297, -9, 3000000000, 2, 7]> : tensor<6xi64>
      %5 = stablehlo.multiply %j, %c : tensor<6xi64>
      %6 = stablehlo.add %5, %j : tensor<6xi64>
      %r3 = stablehlo.convert %6 : (tensor<6xi64>) -> tensor<6xi32>
      %r4 = stablehlo.compare LT, %a, %b, FLOAT : (tensor<6xf64>, tensor<6xf64>) -> tensor<6xi1>
      %r5 = stablehlo.compare LT, %j, %c, SIGNED : (tensor<6xi64>, tensor<6xi64>) -> tensor<6xi1>
      return %r0, %r1, %r2, %r3, %r4, %r5 : tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xi32>, tensor<6xi1>, tensor<6xi1>
    }"""
    after = assert_same(text, "pai-dtype-cleanup,pai-dce", [x, y, i])
    assert "stablehlo.add %arg0, %arg1 : tensor<6xf32>" in after
    assert "tensor<6xi64>, tensor<6xi64>) -> tensor<6xi1>" in after


def test_whole_stage_on_a_random_number_program():
    """CSE and DCE keep random numbers apart and side effects in place."""
    text = """func.func @main(%s: tensor<2xui64>) -> (tensor<4xui32>, tensor<4xui32>) {
      %0, %1 = stablehlo.rng_bit_generator %s, algorithm = THREE_FRY : (tensor<2xui64>) -> (tensor<2xui64>, tensor<4xui32>)
      %2, %3 = stablehlo.rng_bit_generator %0, algorithm = THREE_FRY : (tensor<2xui64>) -> (tensor<2xui64>, tensor<4xui32>)
      return %1, %3 : tensor<4xui32>, tensor<4xui32>
    }"""
    assert_same(text, "pai-inline,pai-legalize,pai-fold-constants,pai-cse,pai-dce",
                [np.array([1, 2], np.uint64)])  # fmt: skip
