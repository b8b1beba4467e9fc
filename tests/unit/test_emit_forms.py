"""Forms of the operations with many attributes: dimension numbers, windows, flags, algorithms."""

# ruff: noqa: E501, UP031  (lines of IR)
import ml_dtypes
import numpy as np
import pytest

from benchmarks.run_kernel import run_kernel
from pai.compiler.reference import run_reference

rng = np.random.default_rng(0)


def F(*shape):  # noqa: N802
    """Return normal numbers."""
    return rng.standard_normal(shape).astype("f4")


CASES = {}


def case(name, args, res, body, inputs, tol=1e-5):
    a = ", ".join(f"%{n}: tensor<{t}>" for n, t in args)
    if isinstance(res, str):
        res = [res]
    r = ", ".join(f"tensor<{t}>" for t in res)
    CASES[name] = (
        "module { func.func @k(%s) -> (%s) {\n%s\n return %s : %s }}"
        % (a, r, body, ", ".join(f"%r{i}" for i in range(len(res))) if len(res) > 1 else "%r", r),
        inputs,
        tol,
    )


case(
    "dot",
    [("a", "4x5xf32"), ("b", "5x6xf32")],
    "4x6xf32",
    "%r = stablehlo.dot_general %a, %b, contracting_dims=[1] x [0] : (tensor<4x5xf32>, tensor<5x6xf32>) -> tensor<4x6xf32>",
    [F(4, 5), F(5, 6)],
)
case(
    "dotb",
    [("a", "2x3x4x5xf32"), ("b", "5x2x6x3xf32")],
    "2x3x4x6xf32",
    "%r = stablehlo.dot_general %a, %b, batching_dims=[0,1] x [1,3], contracting_dims=[3] x [0] : (tensor<2x3x4x5xf32>, tensor<5x2x6x3xf32>) -> tensor<2x3x4x6xf32>",
    [F(2, 3, 4, 5), F(5, 2, 6, 3)],
)
case(
    "conv",
    [("a", "2x9x8x4xf32"), ("b", "3x3x2x6xf32")],
    "2x5x5x6xf32",
    """%r = stablehlo.convolution(%a,%b) dim_numbers=[b,0,1,f]x[0,1,i,o]->[b,0,1,f], window={stride=[2,1],pad=[[1,2],[-1,0]],lhs_dilate=[1,1],rhs_dilate=[1,1],reverse=[1,0]} {batch_group_count=1:i64,feature_group_count=2:i64} : (tensor<2x9x8x4xf32>,tensor<3x3x2x6xf32>)->tensor<2x5x5x6xf32>""".replace(
        "2x6x5x6", "2x5x5x6"
    ),
    [F(2, 9, 8, 4), F(3, 3, 2, 6)],
)
case(
    "convd",
    [("a", "2x4x5x5xf32"), ("b", "6x4x3x3xf32")],
    "2x6x7x11xf32",
    """%r = stablehlo.convolution(%a,%b) dim_numbers=[b,f,0,1]x[o,i,0,1]->[b,f,0,1], window={stride=[1,1],pad=[[2,2],[2,2]],lhs_dilate=[1,2],rhs_dilate=[1,1]} {batch_group_count=1:i64,feature_group_count=1:i64} : (tensor<2x4x5x5xf32>,tensor<6x4x3x3xf32>)->tensor<2x6x7x11xf32>""",
    [F(2, 4, 5, 5), F(6, 4, 3, 3)],
)
case(
    "convbg",
    [("a", "4x4x5xf32"), ("b", "6x4x3xf32")],
    "2x6x3xf32",
    """%r = stablehlo.convolution(%a,%b) dim_numbers=[b,f,0]x[o,i,0]->[b,f,0], window={} {batch_group_count=2:i64,feature_group_count=1:i64} : (tensor<4x4x5xf32>,tensor<6x4x3xf32>)->tensor<2x6x3xf32>""",
    [F(4, 4, 5), F(6, 4, 3)],
)
case(
    "gather",
    [("a", "5x6x7xf32"), ("i", "2x3x2xi32")],
    "2x3x1x7xf32",
    """%r = "stablehlo.gather"(%a,%i) {dimension_numbers=#stablehlo.gather<offset_dims=[2,3],collapsed_slice_dims=[0],start_index_map=[1,0],index_vector_dim=2>,slice_sizes=array<i64:1,1,7>,indices_are_sorted=false} : (tensor<5x6x7xf32>,tensor<2x3x2xi32>)->tensor<2x3x1x7xf32>""",
    [F(5, 6, 7), rng.integers(-2, 9, (2, 3, 2)).astype("i4")],
)
case(
    "gatherb",
    [("a", "3x6x7xf32"), ("i", "3x2x4xi64")],
    "3x4x7xf32",
    """%r = "stablehlo.gather"(%a,%i) {dimension_numbers=#stablehlo.gather<offset_dims=[2],collapsed_slice_dims=[1],operand_batching_dims=[0],start_indices_batching_dims=[0],start_index_map=[1,2],index_vector_dim=1>,slice_sizes=array<i64:1,1,7>,indices_are_sorted=false} : (tensor<3x6x7xf32>,tensor<3x2x4xi64>)->tensor<3x4x7xf32>""",
    [F(3, 6, 7), rng.integers(-2, 9, (3, 2, 4))],
)
case(
    "scatter",
    [("a", "5x6xf32"), ("i", "4x1xi32"), ("u", "4x6xf32")],
    "5x6xf32",
    """%r = "stablehlo.scatter"(%a,%i,%u) ({ ^bb0(%x: tensor<f32>, %y: tensor<f32>): %z = stablehlo.add %x,%y : tensor<f32>
 stablehlo.return %z : tensor<f32> }) {scatter_dimension_numbers=#stablehlo.scatter<update_window_dims=[1],inserted_window_dims=[0],scatter_dims_to_operand_dims=[0],index_vector_dim=1>,indices_are_sorted=false,unique_indices=false} : (tensor<5x6xf32>,tensor<4x1xi32>,tensor<4x6xf32>)->tensor<5x6xf32>""",
    [F(5, 6), np.array([[1], [7], [1], [-1]], "i4"), F(4, 6)],
)
case(
    "scatterb",
    [("a", "3x6x5xf32"), ("i", "3x2x2xi32"), ("u", "3x2x1x4xf32")],
    "3x6x5xf32",
    """%r = "stablehlo.scatter"(%a,%i,%u) ({ ^bb0(%x: tensor<f32>, %y: tensor<f32>): %w = stablehlo.multiply %x,%y : tensor<f32>
 %z = stablehlo.add %w,%y : tensor<f32>
 stablehlo.return %z : tensor<f32> }) {scatter_dimension_numbers=#stablehlo.scatter<update_window_dims=[2,3],input_batching_dims=[0],scatter_indices_batching_dims=[0],scatter_dims_to_operand_dims=[1,2],index_vector_dim=2>,indices_are_sorted=false,unique_indices=false} : (tensor<3x6x5xf32>,tensor<3x2x2xi32>,tensor<3x2x1x4xf32>)->tensor<3x6x5xf32>""",
    [F(3, 6, 5), rng.integers(0, 3, (3, 2, 2)).astype("i4"), F(3, 2, 1, 4)],
)


def window_body(op):
    return (
        """%%z = stablehlo.constant dense<0.0> : tensor<f32>
 %%r = "stablehlo.reduce_window"(%%a,%%z) ({ ^bb0(%%x: tensor<f32>, %%y: tensor<f32>): %%w = stablehlo.%s %%x,%%y : tensor<f32>
 stablehlo.return %%w : tensor<f32> })"""
        % op
    )


case(
    "rw",
    [("a", "2x9x8xf32")],
    "2x6x4xf32",
    window_body("add")
    + """{window_dimensions=array<i64:1,3,2>,window_strides=array<i64:1,2,2>,window_dilations=array<i64:1,1,2>,base_dilations=array<i64:1,1,1>,padding=dense<[[0,0],[1,3],[1,1]]>:tensor<3x2xi64>} : (tensor<2x9x8xf32>,tensor<f32>)->tensor<2x6x4xf32>""",
    [F(2, 9, 8)],
)
case(
    "rwb",
    [("a", "5x4xf32")],
    "8x4xf32",
    window_body("maximum")
    + """{window_dimensions=array<i64:2,1>,base_dilations=array<i64:2,1>,padding=dense<[[0,0],[0,0]]>:tensor<2x2xi64>} : (tensor<5x4xf32>,tensor<f32>)->tensor<8x4xf32>""",
    [F(5, 4)],
)
case(
    "sas",
    [("a", "10x24xf32"), ("s", "4x6xf32")],
    "10x24xf32",
    """%z = stablehlo.constant dense<0.0> : tensor<f32>
 %r = "stablehlo.select_and_scatter"(%a,%s,%z) ({ ^bb0(%x: tensor<f32>, %y: tensor<f32>): %w = stablehlo.compare GE, %x,%y : (tensor<f32>,tensor<f32>)->tensor<i1>
 stablehlo.return %w : tensor<i1> },{ ^bb0(%x: tensor<f32>, %y: tensor<f32>): %w = stablehlo.add %x,%y : tensor<f32>
 stablehlo.return %w : tensor<f32> }) {window_dimensions=array<i64:3,5>,window_strides=array<i64:3,4>,padding=dense<[[1,1],[0,1]]>:tensor<2x2xi64>} : (tensor<10x24xf32>,tensor<4x6xf32>,tensor<f32>)->tensor<10x24xf32>""",
    [F(10, 24), F(4, 6)],
)
case(
    "sort",
    [("a", "3x17x4xf32"), ("b", "3x17x4xi32")],
    ["3x17x4xf32", "3x17x4xi32"],
    """%r0,%r1 = "stablehlo.sort"(%a,%b) ({ ^bb0(%x: tensor<f32>, %y: tensor<f32>, %p: tensor<i32>, %q: tensor<i32>): %w = stablehlo.compare LT, %x,%y : (tensor<f32>,tensor<f32>)->tensor<i1>
 stablehlo.return %w : tensor<i1> }) {dimension=1:i64,is_stable=true} : (tensor<3x17x4xf32>,tensor<3x17x4xi32>)->(tensor<3x17x4xf32>,tensor<3x17x4xi32>)""",
    [np.round(F(3, 17, 4)), rng.integers(0, 99, (3, 17, 4)).astype("i4")],
)
case(
    "topk",
    [("a", "3x17xf32")],
    ["3x5xf32", "3x5xi32"],
    "%r0,%r1 = chlo.top_k(%a, k=5) : tensor<3x17xf32> -> (tensor<3x5xf32>,tensor<3x5xi32>)",
    [np.round(F(3, 17)) + 0.0],
)
for n in (1, 2, 8, 12, 15, 22, 49, 64):
    case(
        f"fft{n}",
        [("a", f"2x{n}xcomplex<f32>")],
        f"2x{n}xcomplex<f32>",
        f"%r = stablehlo.fft %a, type=FFT, length=[{n}] : (tensor<2x{n}xcomplex<f32>>)->tensor<2x{n}xcomplex<f32>>",
        [(F(2, n) + 1j * F(2, n)).astype("c8")],
    )
case(
    "ifft",
    [("a", "2x4x6xcomplex<f64>")],
    "2x4x6xcomplex<f64>",
    "%r = stablehlo.fft %a, type=IFFT, length=[4,6] : (tensor<2x4x6xcomplex<f64>>)->tensor<2x4x6xcomplex<f64>>",
    [(F(2, 4, 6) + 1j * F(2, 4, 6)).astype("c16")],
)
case(
    "rfft",
    [("a", "2x4x6xf32")],
    "2x4x4xcomplex<f32>",
    "%r = stablehlo.fft %a, type=RFFT, length=[4,6] : (tensor<2x4x6xf32>)->tensor<2x4x4xcomplex<f32>>",
    [F(2, 4, 6)],
)
case(
    "irfft",
    [("a", "2x4x4xcomplex<f32>")],
    "2x4x6xf32",
    "%r = stablehlo.fft %a, type=IRFFT, length=[4,6] : (tensor<2x4x4xcomplex<f32>>)->tensor<2x4x6xf32>",
    [np.fft.rfft2(F(2, 4, 6)).astype("c8")],
)
case(
    "irfft1",
    [("a", "2x4xcomplex<f32>")],
    "2x7xf32",
    "%r = stablehlo.fft %a, type=IRFFT, length=[7] : (tensor<2x4xcomplex<f32>>)->tensor<2x7xf32>",
    [np.fft.rfft(F(2, 7)).astype("c8")],
)
A = F(2, 5, 5)
P = A @ A.transpose(0, 2, 1) + 5 * np.eye(5, dtype="f4")
C = F(5, 5) + 1j * F(5, 5)
H = (C @ C.conj().T + 5 * np.eye(5)).astype("c8")
for lo in ("true", "false"):
    case(
        "chol" + lo,
        [("a", "2x5x5xf32")],
        "2x5x5xf32",
        f"%r = stablehlo.cholesky %a, lower = {lo} : tensor<2x5x5xf32>",
        [P],
    )
    case(
        "cholc" + lo,
        [("a", "5x5xcomplex<f32>")],
        "5x5xcomplex<f32>",
        f"%r = stablehlo.cholesky %a, lower = {lo} : tensor<5x5xcomplex<f32>>",
        [H],
    )
    for tr in ("NO_TRANSPOSE", "TRANSPOSE", "ADJOINT"):
        for ls in ("true", "false"):
            for un in ("true", "false"):
                bs = "2x5x3" if ls == "true" else "2x3x5"
                case(
                    f"ts {lo} {tr} {ls} {un}",
                    [("a", "2x5x5xf32"), ("b", bs + "xf32")],
                    bs + "xf32",
                    f'%r = "stablehlo.triangular_solve"(%a,%b) {{left_side={ls},lower={lo},unit_diagonal={un},transpose_a=#stablehlo<transpose {tr}>}} : (tensor<2x5x5xf32>,tensor<{bs}xf32>)->tensor<{bs}xf32>',
                    [A + 4 * np.eye(5, dtype="f4"), F(*map(int, bs.split("x")))],
                    1e-3,
                )
case(
    "tsc",
    [("a", "5x5xcomplex<f32>"), ("b", "5x3xcomplex<f32>")],
    "5x3xcomplex<f32>",
    '%r = "stablehlo.triangular_solve"(%a,%b) {left_side=true,lower=true,unit_diagonal=false,transpose_a=#stablehlo<transpose ADJOINT>} : (tensor<5x5xcomplex<f32>>,tensor<5x3xcomplex<f32>>)->tensor<5x3xcomplex<f32>>',
    [H, C[:, :3].astype("c8")],
)
for alg in ("PHILOX", "THREE_FRY", "DEFAULT"):
    for k in (2, 3):
        if alg == "THREE_FRY" and k == 3:
            continue
        for sh in (
            "7xui32",
            "3x4xui32",
            "4x3xui32",
            "3x5xui64",
            "3x5xui16",
            "5x4xui8",
            "2x4xui32",
            "ui32",
        ):
            case(
                f"rbg {alg} {k} {sh}",
                [("s", f"{k}xui64")],
                [f"{k}xui64", sh],
                f"%r0,%r1 = stablehlo.rng_bit_generator %s, algorithm = {alg} : (tensor<{k}xui64>)->(tensor<{k}xui64>,tensor<{sh}>)",
                [np.array([0x123456789ABCDEF0, 0xFFFFFFFFFFFFFFFE, 9][:k], np.uint64)],
            )
case(
    "pad",
    [("a", "3x4xf32"), ("v", "f32")],
    "8x6xf32",
    "%r = stablehlo.pad %a, %v, low=[1,-1], high=[2,3], interior=[1,0] : (tensor<3x4xf32>,tensor<f32>)->tensor<8x6xf32>",
    [F(3, 4), F()],
)
case(
    "padneg",
    [("a", "8x4xf32"), ("v", "f32")],
    "4x7xf32",
    "%r = stablehlo.pad %a, %v, low=[-2,0], high=[-2,0], interior=[0,1] : (tensor<8x4xf32>,tensor<f32>)->tensor<4x7xf32>",
    [F(8, 4), F()],
)
case(
    "concat",
    [("a", "3x4xf32"), ("b", "3x2xf32"), ("c", "3x5xf32")],
    "3x11xf32",
    "%r = stablehlo.concatenate %a,%b,%c, dim=1 : (tensor<3x4xf32>,tensor<3x2xf32>,tensor<3x5xf32>)->tensor<3x11xf32>",
    [F(3, 4), F(3, 2), F(3, 5)],
)
case(
    "misc",
    [("a", "4x6x5xf32")],
    "5x3x4xf32",
    """%x = stablehlo.reverse %a, dims=[0,2] : tensor<4x6x5xf32>
 %y = stablehlo.slice %x [0:4,1:6:2,0:5] : (tensor<4x6x5xf32>)->tensor<4x3x5xf32>
 %t = stablehlo.reshape %y : (tensor<4x3x5xf32>)->tensor<2x6x5xf32>
 %u = stablehlo.reshape %t : (tensor<2x6x5xf32>)->tensor<4x3x5xf32>
 %r = stablehlo.transpose %u, dims=[2,1,0] : (tensor<4x3x5xf32>)->tensor<5x3x4xf32>""",
    [F(4, 6, 5)],
)
case(
    "ds",
    [("a", "4x6xf32"), ("i", "i32"), ("j", "i32")],
    "2x3xf32",
    "%r = stablehlo.dynamic_slice %a,%i,%j, sizes=[2,3] : (tensor<4x6xf32>,tensor<i32>,tensor<i32>)->tensor<2x3xf32>",
    [F(4, 6), np.int32(9), np.int32(-4)],
)
case(
    "dus",
    [("a", "4x6xf32"), ("u", "2x3xf32"), ("i", "i32"), ("j", "i32")],
    "4x6xf32",
    "%r = stablehlo.dynamic_update_slice %a,%u,%i,%j : (tensor<4x6xf32>,tensor<2x3xf32>,tensor<i32>,tensor<i32>)->tensor<4x6xf32>",
    [F(4, 6), F(2, 3), np.int32(1), np.int32(2)],
)
case(
    "dusx",
    [("a", "4x6xf32"), ("u", "2x3xf32"), ("i", "i32"), ("j", "i32")],
    "4x6xf32",
    "%q = stablehlo.dynamic_update_slice %a,%u,%i,%j : (tensor<4x6xf32>,tensor<2x3xf32>,tensor<i32>,tensor<i32>)->tensor<4x6xf32>\n%r = stablehlo.add %q,%a : tensor<4x6xf32>",
    [F(4, 6), F(2, 3), np.int32(1), np.int32(2)],
)
case(
    "argmax",
    [("a", "4x6xf32")],
    ["4xf32", "4xi32"],
    """%i = stablehlo.iota dim=1 : tensor<4x6xi32>
 %z = stablehlo.constant dense<0xFF800000> : tensor<f32>
 %c = stablehlo.constant dense<0> : tensor<i32>
 %r0,%r1 = stablehlo.reduce(%a init: %z),(%i init: %c) across dimensions=[1] : (tensor<4x6xf32>,tensor<4x6xi32>,tensor<f32>,tensor<i32>)->(tensor<4xf32>,tensor<4xi32>)
  reducer(%x: tensor<f32>, %y: tensor<f32>) (%p: tensor<i32>, %q: tensor<i32>) {
   %g = stablehlo.compare GT,%x,%y : (tensor<f32>,tensor<f32>)->tensor<i1>
   %m = stablehlo.select %g,%x,%y : tensor<i1>,tensor<f32>
   %n = stablehlo.select %g,%p,%q : tensor<i1>,tensor<i32>
   stablehlo.return %m,%n : tensor<f32>,tensor<i32> }""",
    [F(4, 6)],
)
case(
    "reduce0",
    [("a", "4x6x8xf32")],
    ["6xf32", "4x8xf32", "f32"],
    """%z = stablehlo.constant dense<0.0> : tensor<f32>
 %r0 = stablehlo.reduce(%a init: %z) applies stablehlo.add across dimensions=[0,2] : (tensor<4x6x8xf32>,tensor<f32>)->tensor<6xf32>
 %r1 = stablehlo.reduce(%a init: %z) applies stablehlo.maximum across dimensions=[1] : (tensor<4x6x8xf32>,tensor<f32>)->tensor<4x8xf32>
 %r2 = stablehlo.reduce(%a init: %z) applies stablehlo.add across dimensions=[0,1,2] : (tensor<4x6x8xf32>,tensor<f32>)->tensor<f32>""",
    [F(4, 6, 8)],
)
case(
    "const",
    [("a", "3xf32")],
    "3xf32",
    "%c = stablehlo.constant dense<[1.0,2.0,-3.0]> : tensor<3xf32>\n%r = stablehlo.add %a,%c : tensor<3xf32>",
    [F(3)],
)
case(
    "constc",
    [("a", "3xcomplex<f32>")],
    "3xcomplex<f32>",
    "%c = stablehlo.constant dense<[(1.0,2.0),(-3.0,1.0),(0.0,0.5)]> : tensor<3xcomplex<f32>>\n%r = stablehlo.multiply %a,%c : tensor<3xcomplex<f32>>",
    [(F(3) + 1j * F(3)).astype("c8")],
)
case(
    "constb",
    [("a", "3xbf16")],
    "3xbf16",
    "%c = stablehlo.constant dense<[1.0,2.0,-3.0]> : tensor<3xbf16>\n%r = stablehlo.add %a,%c : tensor<3xbf16>",
    [F(3).astype(ml_dtypes.bfloat16)],
)


@pytest.mark.parametrize("name", CASES)
def test_form(name):
    text, inputs, tolerance = CASES[name]
    if "top_k" in text:
        order = np.argsort(-inputs[0], axis=-1, kind="stable")[:, :5]
        want = [np.take_along_axis(inputs[0], order, -1), order]
    else:
        want = run_reference(text.replace("@k(", "@main("), inputs)
    for got, expected in zip(run_kernel(text, inputs), want, strict=True):
        if got.dtype.kind in "iub":
            np.testing.assert_array_equal(got, expected)
        else:
            wide = np.complex128 if got.dtype.kind == "c" else np.float64
            np.testing.assert_allclose(
                got.astype(wide), np.asarray(expected).astype(wide), rtol=tolerance, atol=tolerance
            )
