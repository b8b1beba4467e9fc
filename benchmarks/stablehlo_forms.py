"""Cells of operations that move, contract, reduce and sort: one form each, for every legal type."""

# ruff: noqa: E501  (lines of IR)
from __future__ import annotations

from collections.abc import Iterator

from benchmarks.stablehlo_cells import ALL, COMPLEX, FLOATS, INTS, NUMBERS, Cell, make

_FULL = ("f32", "f64")
# operation: body, inputs (shape, domain) where a type may be fixed, result shape
_MOVES: dict[str, tuple[str, list[tuple[str, tuple[int, ...], str]], tuple[int, ...]]] = {
    "broadcast_in_dim": (
        "%r = stablehlo.broadcast_in_dim %a, dims = [2, 0] : (tensor<4x1x{T}>) -> tensor<3x5x4x{T}>".replace(
            "dims = [2, 0]", "dims = [2, 0]"
        ),
        [("T", (4, 1), "some")],
        (3, 5, 4),
    ),
    "reshape": (
        "%r = stablehlo.reshape %a : (tensor<4x6x{T}>) -> tensor<3x8x{T}>",
        [("T", (4, 6), "some")],
        (3, 8),
    ),
    "transpose": (
        "%r = stablehlo.transpose %a, dims = [1, 2, 0] : (tensor<2x3x5x{T}>) -> tensor<3x5x2x{T}>",
        [("T", (2, 3, 5), "some")],
        (3, 5, 2),
    ),
    "slice": (
        "%r = stablehlo.slice %a [1:8:3, 0:4:2] : (tensor<9x5x{T}>) -> tensor<3x2x{T}>",
        [("T", (9, 5), "some")],
        (3, 2),
    ),
    "pad": (
        "%r = stablehlo.pad %a, %b, low = [1, -1], high = [-2, 3], interior = [1, 0] : (tensor<4x5x{T}>, tensor<{T}>) -> tensor<6x7x{T}>",
        [("T", (4, 5), "some"), ("T", (), "some")],
        (6, 7),
    ),
    "concatenate": (
        "%r = stablehlo.concatenate %a, %b, dim = 1 : (tensor<2x3x{T}>, tensor<2x4x{T}>) -> tensor<2x7x{T}>",
        [("T", (2, 3), "some"), ("T", (2, 4), "some")],
        (2, 7),
    ),
    "reverse": (
        "%r = stablehlo.reverse %a, dims = [0, 1] : tensor<3x4x{T}>",
        [("T", (3, 4), "some")],
        (3, 4),
    ),
    "dynamic_slice": (
        "%r = stablehlo.dynamic_slice %a, %b, %c, sizes = [2, 3] : (tensor<4x6x{T}>, tensor<i32>, tensor<i32>) -> tensor<2x3x{T}>",
        [("T", (4, 6), "some"), ("i32", (), "index"), ("i32", (), "index")],
        (2, 3),
    ),
    "dynamic_update_slice": (
        "%r = stablehlo.dynamic_update_slice %a, %b, %c, %d : (tensor<4x6x{T}>, tensor<2x3x{T}>, tensor<i32>, tensor<i32>) -> tensor<4x6x{T}>",
        [("T", (4, 6), "some"), ("T", (2, 3), "some"), ("i32", (), "index"), ("i32", (), "index")],
        (4, 6),
    ),
    "gather": (
        '%r = "stablehlo.gather"(%a, %b) {dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0, 1], index_vector_dim = 1>, slice_sizes = array<i64: 1, 3>, indices_are_sorted = false} : (tensor<5x6x{T}>, tensor<7x2xi32>) -> tensor<7x3x{T}>',
        [("T", (5, 6), "some"), ("i32", (7, 2), "index")],
        (7, 3),
    ),
    "optimization_barrier": (
        "%r = stablehlo.optimization_barrier %a : tensor<8x{T}>",
        [("T", (8,), "some")],
        (8,),
    ),
}


def moves() -> Iterator[Cell]:
    """Data movement, exact for every type."""
    for op, (body, inputs, shape) in _MOVES.items():
        for t in ALL:
            drawn = [(t if k == "T" else k, s, d) for k, s, d in inputs]
            yield make(op, t, body, drawn, (t, shape))
    for t in ALL:
        one = {"i1": "true"}.get(t, "(1.0, 2.0)" if t in COMPLEX else "1" if t in INTS else "1.0")
        two = {"i1": "false"}.get(t, "(0.5, -1.0)" if t in COMPLEX else "0" if t in INTS else "2.0")
        yield make(
            "constant",
            t,
            f"%r = stablehlo.constant dense<[{one}, {two}, {one}]> : tensor<3x{t}>",
            [],
            (t, (3,)),
        )
        yield make(
            "constant splat",
            t,
            f"%r = stablehlo.constant dense<{two}> : tensor<3x{t}>",
            [],
            (t, (3,)),
        )
    for t in NUMBERS:
        size = 2 if t[-1] == "2" and t in INTS and len(t) < 4 and t.endswith(("i2",)) else 6
        yield make(
            "iota", t, f"%r = stablehlo.iota dim = 1 : tensor<2x{size}x{t}>", [], (t, (2, size))
        )
    for t in ALL:
        yield make(
            "get_dimension_size",
            t,
            "%r = stablehlo.get_dimension_size %a, dim = 1 : (tensor<2x3x{T}>) -> tensor<i32>",
            [(t, (2, 3), "some")],
            ("i32", ()),
        )


def _body(op: str) -> str:
    return f"({{ ^bb0(%x: tensor<{{T}}>, %y: tensor<{{T}}>): %w = stablehlo.{op} %x, %y : tensor<{{T}}>\n stablehlo.return %w : tensor<{{T}}> }})"


def _zero(t: str) -> str:
    value = "false" if t == "i1" else "(0.0, 0.0)" if t in COMPLEX else "0" if t in INTS else "0.0"
    return f"%z = stablehlo.constant dense<{value if t != 'f8E8M0FNU' else '1.0'}> : tensor<{t}>\n"


def reductions() -> Iterator[Cell]:
    """reduce, reduce_window, select_and_scatter, scatter, map, sort, top_k."""
    for t in ALL:
        for op in ("add", "maximum", "multiply", "minimum"):
            if (t in COMPLEX and op in ("maximum", "minimum")) or (t == "i1" and op == "multiply"):
                continue
            loose = 64.0
            body = (
                _zero(t)
                + f'%r = "stablehlo.reduce"(%a, %z) {_body(op)} {{dimensions = array<i64: 0, 2>}} : (tensor<3x4x5x{{T}}>, tensor<{{T}}>) -> tensor<4x{{T}}>'
            )
            yield make(f"reduce {op}", t, body, [(t, (3, 4, 5), "some")], (t, (4,)), loose)
            if op in ("add", "maximum"):
                body = (
                    _zero(t)
                    + f'%r = "stablehlo.reduce"(%a, %z) {_body(op)} {{dimensions = array<i64: 0>}} : (tensor<6x7x{{T}}>, tensor<{{T}}>) -> tensor<7x{{T}}>'
                )
                yield make(
                    f"reduce {op} of columns", t, body, [(t, (6, 7), "some")], (t, (7,)), loose
                )
                body = (
                    _zero(t)
                    + f'%r = "stablehlo.reduce_window"(%a, %z) {_body(op)} {{window_dimensions = array<i64: 2, 3>, window_strides = array<i64: 2, 1>, padding = dense<[[0, 1], [1, 1]]> : tensor<2x2xi64>}} : (tensor<5x6x{{T}}>, tensor<{{T}}>) -> tensor<3x6x{{T}}>'
                )
                yield make(
                    f"reduce_window {op}", t, body, [(t, (5, 6), "some")], (t, (3, 6)), loose
                )
        body = f'%r = "stablehlo.map"(%a, %b) {_body("add")} {{dimensions = array<i64: 0>}} : (tensor<9x{{T}}>, tensor<9x{{T}}>) -> tensor<9x{{T}}>'
        yield make("map", t, body, [(t, (9,), "some")] * 2, (t, (9,)))
        body = f'%r = "stablehlo.scatter"(%a, %b, %c) {_body("add")} {{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>, indices_are_sorted = false, unique_indices = false}} : (tensor<4x3x{{T}}>, tensor<6x1xi32>, tensor<6x3x{{T}}>) -> tensor<4x3x{{T}}>'
        yield make(
            "scatter",
            t,
            body,
            [(t, (4, 3), "some"), ("i32", (6, 1), "index"), (t, (6, 3), "some")],
            (t, (4, 3)),
            64,
        )
        if t in COMPLEX:
            continue
        compare = "({ ^bb0(%x: tensor<{T}>, %y: tensor<{T}>): %w = stablehlo.compare GE, %x, %y : (tensor<{T}>, tensor<{T}>) -> tensor<i1>\n stablehlo.return %w : tensor<i1> }"
        scatter = _body("add")[1:]
        body = (
            _zero(t)
            + f'%r = "stablehlo.select_and_scatter"(%a, %b, %z) {compare}, {scatter} {{window_dimensions = array<i64: 2, 3>, window_strides = array<i64: 2, 2>, padding = dense<[[0, 0], [0, 0]]> : tensor<2x2xi64>}} : (tensor<4x7x{{T}}>, tensor<2x3x{{T}}>, tensor<{{T}}>) -> tensor<4x7x{{T}}>'
        )
        yield make(
            "select_and_scatter",
            t,
            body,
            [(t, (4, 7), "some"), (t, (2, 3), "some")],
            (t, (4, 7)),
            64,
        )
        less = compare.replace("GE", "LT") + ")"
        body = f'%r = "stablehlo.sort"(%a) {less} {{dimension = 0 : i64, is_stable = true}} : (tensor<9x3x{{T}}>) -> tensor<9x3x{{T}}>'
        yield make("sort", t, body, [(t, (9, 3), "some")], (t, (9, 3)))
        if t != "i1":
            body = "%r, %i = chlo.top_k(%a, k = 3) : tensor<2x9x{T}> -> (tensor<2x3x{T}>, tensor<2x3xi32>)"
            yield make("chlo.top_k", t, body, [(t, (2, 9), "some")], (t, (2, 3)))


def contractions() -> Iterator[Cell]:
    """dot_general, convolution, fft, cholesky, triangular_solve."""
    for t in ALL:
        body = "%r = stablehlo.dot_general %a, %b, batching_dims = [0] x [2], contracting_dims = [2] x [0] : (tensor<2x3x4x{T}>, tensor<4x5x2x{T}>) -> tensor<2x3x5x{T}>"
        yield make(
            "dot_general",
            t,
            body,
            [(t, (2, 3, 4), "some"), (t, (4, 5, 2), "some")],
            (t, (2, 3, 5)),
            64,
        )
        body = "%r = stablehlo.convolution(%a, %b) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {stride = [2, 1], pad = [[1, 1], [0, -1]], rhs_dilate = [1, 2]} {batch_group_count = 1 : i64, feature_group_count = 2 : i64} : (tensor<1x5x6x4x{T}>, tensor<2x2x2x4x{T}>) -> tensor<1x3x3x4x{T}>"
        yield make(
            "convolution",
            t,
            body,
            [(t, (1, 5, 6, 4), "some"), (t, (2, 2, 2, 4), "some")],
            (t, (1, 3, 3, 4)),
            64,
        )
    for t in COMPLEX:
        for form in ("FFT", "IFFT"):
            body = f"%r = stablehlo.fft %a, type = {form}, length = [6] : (tensor<2x6x{{T}}>) -> tensor<2x6x{{T}}>"
            yield make(f"fft {form}", t, body, [(t, (2, 6), "some")], (t, (2, 6)), 64)
        real = t[8:-1]
        body = f"%r = stablehlo.fft %a, type = IRFFT, length = [6] : (tensor<2x4x{{T}}>) -> tensor<2x6x{real}>"
        yield make("fft IRFFT", t, body, [(t, (2, 4), "some")], (real, (2, 6)), 64)
        body = f"%r = stablehlo.fft %a, type = RFFT, length = [6] : (tensor<2x6x{real}>) -> tensor<2x4x{t}>"
        yield make("fft RFFT", real, body, [(real, (2, 6), "some")], (t, (2, 4)), 64)
    for t in [*FLOATS, *COMPLEX]:
        if t in ("f32", "f64", *COMPLEX):
            yield make(
                "cholesky",
                t,
                "%r = stablehlo.cholesky %a, lower = true : tensor<2x4x4x{T}>",
                [(t, (2, 4, 4), "definite")],
                (t, (2, 4, 4)),
                64,
            )
            body = '%r = "stablehlo.triangular_solve"(%a, %b) {left_side = true, lower = true, unit_diagonal = false, transpose_a = #stablehlo<transpose NO_TRANSPOSE>} : (tensor<4x4x{T}>, tensor<4x2x{T}>) -> tensor<4x2x{T}>'
            yield make(
                "triangular_solve",
                t,
                body,
                [(t, (4, 4), "definite"), (t, (4, 2), "some")],
                (t, (4, 2)),
                256,
            )


def randoms() -> Iterator[Cell]:
    """Random numbers: rng and rng_bit_generator."""
    for t in [*INTS, *FLOATS]:
        for algorithm in ("THREE_FRY", "PHILOX"):
            body = f"%s, %r = stablehlo.rng_bit_generator %a, algorithm = {algorithm} : (tensor<2xui64>) -> (tensor<2xui64>, tensor<5x6x{{T}}>)"
            if t.startswith(("i", "ui")):
                yield make(
                    f"rng_bit_generator {algorithm}", t, body, [("ui64", (2,), "any")], (t, (5, 6))
                )
        if t in ("f8E8M0FNU", "f4E2M1FN"):
            continue
        zero, one = ("0", "1") if t in INTS else ("0.0", "1.0")
        for form in ("UNIFORM", "NORMAL") if t in FLOATS else ("UNIFORM",):
            body = f"%x = stablehlo.constant dense<{zero}> : tensor<{t}>\n%y = stablehlo.constant dense<{one}> : tensor<{t}>\n%n = stablehlo.constant dense<[64, 64]> : tensor<2xi64>\n%r = stablehlo.rng %x, %y, %n, distribution = {form} : (tensor<{t}>, tensor<{t}>, tensor<2xi64>) -> tensor<64x64x{t}>"
            yield make(f"rng {form}", t, body, [], (t, (64, 64)), check="random")


def form_cells() -> list[Cell]:
    """Return all cells of this file."""
    return [c for f in (moves, reductions, contractions, randoms) for c in f()]
