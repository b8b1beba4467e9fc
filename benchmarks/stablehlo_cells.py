"""The cells of the operation × element-type table: small modules with inputs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np

from pai.compiler.codegen.cpu.emit.types import elem_type
from pai.runtime.dtypes import DTYPES

FLOATS = [n for n in DTYPES if n.startswith(("f", "bf"))]
COMPLEX = [n for n in DTYPES if n.startswith("complex")]
SIGNED = [n for n in DTYPES if n.startswith("i") and n != "i1"]
UNSIGNED = [n for n in DTYPES if n.startswith("ui")]
INTS = SIGNED + UNSIGNED
ALL = list(DTYPES)
NUMBERS = INTS + FLOATS + COMPLEX


@dataclass(frozen=True)
class Cell:
    """One entry.

    Args:
        op: row of the table.
        type: column of the table.
        text: module whose one function is ``@k``.
        inputs: how each input is drawn: (element type, shape, domain).
        loose: factor on the tolerance.
        check: ``reference``, or ``random`` where only the distribution can be checked.
    """

    op: str
    type: str
    text: str
    inputs: tuple[tuple[str, tuple[int, ...], str], ...] = field(default=())
    loose: float = 1.0
    check: str = "reference"


def draw(kind: str, shape: tuple[int, ...], domain: str, seed: int) -> np.ndarray:
    """Return an input array; the same every time.

    Args:
        kind: element type.
        shape: extents.
        domain: ``any`` (special values, all codes of narrow types), ``some`` (moderate values),
            ``index`` (small integers) or ``definite`` (a well-conditioned matrix).
        seed: of the generator.
    """
    rng = np.random.default_rng(seed)
    dtype = DTYPES[kind]
    size = int(np.prod(shape))
    if kind == "i1":
        return rng.integers(0, 2, shape).astype(bool)
    if kind.startswith("complex"):
        part = kind[8:-1]
        re, im = (draw(part, shape, domain, seed + i) for i in (0, 1))
        if domain == "any":  # finite only: the reference itself is wrong at infinities
            re, im = (np.where(np.isfinite(x) & (abs(x) < 1e3), x, 1.5) for x in (re, im))
        if domain == "definite":
            im = np.zeros_like(im)
        return (re + 1j * im).astype(dtype)
    if domain == "definite":
        x = rng.standard_normal(shape)
        return (x @ np.swapaxes(x, -1, -2) + 4 * np.eye(shape[-1])).astype(dtype)
    if "int" in dtype.name:
        info = ml_dtypes.iinfo(dtype)
        low, high = int(info.min), int(info.max)
        if domain == "index":
            low, high = max(low, -1), min(high, 4)
        if domain == "some":
            low, high = max(low, -9), min(high, 9)
        values = [
            int(v)
            for v in rng.integers(
                low, high, size, dtype=np.int64 if high < 2**63 else np.uint64, endpoint=True
            )
        ]
        edges = [0, 1, low, high, max(low, -1), high - 1] if domain == "any" else []
        values[: len(edges)] = edges[:size]
        return np.array(values[:size]).astype(dtype).reshape(shape)
    if domain == "any" and kind == "f8E8M0FNU":  # XLA flushes 2^-127 to zero, which it has not
        codes = rng.integers(87, 168, size).astype(np.uint8)
        codes[::50] = 255
        return codes.view(dtype).reshape(shape)
    if domain == "any" and dtype.itemsize == 1:
        codes = np.resize(np.arange(1 << ml_dtypes.finfo(dtype).bits, dtype=np.uint8), size)
        return rng.permutation(codes).view(dtype).reshape(shape)
    x = (rng.standard_normal(size) * 3).astype(np.float64)
    if domain == "any":
        edges_f = [
            0.0,
            -0.0,
            1,
            -1,
            0.5,
            2.5,
            -3.5,
            1e-3,
            np.inf,
            -np.inf,
            np.nan,
            20,
            -20,
            100.7,
            1e4,
        ]
        x[: len(edges_f)] = edges_f[:size]
    if kind == "f8E8M0FNU" and domain != "any":
        x = 2.0 ** rng.integers(-2, 3, size)
    return x.astype(dtype).reshape(shape)


_BUILDERS: list[Callable[[], Iterator[Cell]]] = []


def _family(function: Callable[[], Iterator[Cell]]) -> Callable[[], Iterator[Cell]]:
    _BUILDERS.append(function)
    return function


def all_cells() -> list[Cell]:
    """Return every legal cell."""
    return [cell for build in _BUILDERS for cell in build()]


def seed_of(cell: Cell) -> int:
    """Return the seed of a cell's inputs."""
    return zlib.crc32(f"{cell.op} {cell.type}".encode())


def _tensor(kind: str, shape: tuple[int, ...]) -> str:
    return "tensor<" + "".join(f"{n}x" for n in shape) + kind + ">"


def make(
    op: str,
    kind: str,
    body: str,
    inputs: list[tuple[str, tuple[int, ...], str]],
    result: tuple[str, tuple[int, ...]],
    loose: float = 1.0,
    check: str = "reference",
) -> Cell:
    """Return a cell; ``body`` defines ``%r`` from ``%a``, ``%b``, …; ``{T}`` is the type."""
    names = [f"%{'abcdefgh'[i]}: {_tensor(k, s)}" for i, (k, s, _) in enumerate(inputs)]
    ret = _tensor(*result)
    text = (
        f"module {{ func.func @k({', '.join(names)}) -> {ret} {{\n"
        f"{body.replace('{T}', kind)}\nreturn %r : {ret} }} }}"
    )
    if kind.startswith("complex") and loose > 1:
        loose = max(loose, 512)  # XLA's own formulas lose some digits
    return Cell(op, kind, text, tuple(inputs), max(loose, 16) if kind == "f64" else loose, check)


_N = (256,)


def _simple(
    op: str,
    kind: str,
    count: int,
    domain: str = "any",
    result: str = "",
    loose: float = 1,
    attrs: str = "",
) -> Cell:
    t, r = _tensor(kind, _N), _tensor(result or kind, _N)
    names = ", ".join("%" + "abc"[i] for i in range(count))
    signature = f"({', '.join([t] * count)}) -> {r}"
    full = op if "." in op else f"stablehlo.{op}"
    body = f'%r = "{full}"({names}) {{{attrs}}} : {signature}'
    return make(op, kind, body, [(kind, _N, domain)] * count, (result or kind, _N), loose)


@_family
def unary() -> Iterator[Cell]:
    """Elementwise operations of one operand."""
    for op in ("ceil", "floor", "round_nearest_afz", "round_nearest_even", "tan", "cbrt"):
        yield from (_simple(op, t, 1, loose=2) for t in FLOATS)
    for op in (
        "cosine",
        "exponential",
        "exponential_minus_one",
        "log",
        "log_plus_one",
        "logistic",
        "negate",
        "rsqrt",
        "sign",
        "sine",
        "sqrt",
        "tanh",
    ):
        yield from (_simple(op, t, 1, loose=4) for t in FLOATS + COMPLEX)
    yield from (_simple("chlo.erf", t, 1, loose=4) for t in ("bf16", "f16", "f32", "f64"))
    yield from (_simple(op, t, 1, "some", loose=8) for op in ("tan", "cbrt") for t in COMPLEX)
    yield from (_simple("abs", t, 1) for t in SIGNED + FLOATS)
    yield from (_simple("abs", t, 1, result=t[8:-1], loose=2) for t in COMPLEX)
    yield from (_simple("negate", t, 1) for t in INTS)
    yield from (_simple("sign", t, 1) for t in SIGNED)
    yield from (_simple(op, t, 1) for op in ("not", "popcnt", "count_leading_zeros") for t in INTS)
    yield _simple("not", "i1", 1)
    yield from (_simple("is_finite", t, 1, result="i1") for t in FLOATS)
    for op in ("real", "imag"):
        yield from (
            _simple(op, t, 1, result=t.removeprefix("complex<").rstrip(">"))
            for t in FLOATS[-2:] + COMPLEX
        )
    for e, m in ((5, 2), (8, 7), (3, 1), (11, 20)):
        attrs = f"exponent_bits = {e} : i32, mantissa_bits = {m} : i32"
        for t in ("bf16", "f16", "f32", "f64"):
            cell = _simple("reduce_precision", t, 1, attrs=attrs)
            yield Cell(f"reduce_precision e{e}m{m}", t, cell.text, cell.inputs)


@_family
def binary() -> Iterator[Cell]:
    """Elementwise operations of two and three operands."""
    for op in ("add", "subtract", "multiply", "divide"):
        yield from (_simple(op, t, 2, loose=2) for t in NUMBERS)
    yield from (_simple("remainder", t, 2) for t in INTS + FLOATS)
    yield from (_simple(op, t, 2) for op in ("maximum", "minimum") for t in INTS + FLOATS)
    yield from (
        _simple(op, "i1", 2) for op in ("add", "multiply", "maximum", "minimum", "and", "or", "xor")
    )
    for op in ("and", "or", "xor", "shift_left", "shift_right_arithmetic", "shift_right_logical"):
        yield from (_simple(op, t, 2) for t in INTS)
    yield from (_simple("atan2", t, 2, loose=4) for t in FLOATS)
    yield from (_simple("power", t, 2, "some" if t in COMPLEX else "any", loose=8) for t in NUMBERS)
    yield from (_simple("atan2", t, 2, "some", loose=64) for t in COMPLEX)
    yield from (_simple("complex", t, 2, result=f"complex<{t}>") for t in ("f32", "f64"))
    yield from (_simple("clamp", t, 3, "some") for t in INTS + FLOATS)
    for t in ALL:
        body = "%r = stablehlo.select %a, %b, %c : tensor<256xi1>, tensor<256x{T}>"
        yield make("select", t, body, [("i1", _N, "any"), (t, _N, "any"), (t, _N, "any")], (t, _N))
    for t in ALL:
        for d in ("EQ", "NE") if t in COMPLEX else ("EQ", "NE", "LT", "LE", "GT", "GE"):
            attrs = f"comparison_direction = #stablehlo<comparison_direction {d}>"
            cell = _simple(
                "compare", t, 2, "some" if t not in FLOATS else "any", result="i1", attrs=attrs
            )
            yield Cell(f"compare {d}", t, cell.text, cell.inputs)
    for t in FLOATS:
        attrs = (
            "comparison_direction = #stablehlo<comparison_direction LT>, "
            "compare_type = #stablehlo<comparison_type TOTALORDER>"
        )
        cell = _simple("compare", t, 2, result="i1", attrs=attrs)
        yield Cell("compare TOTALORDER", t, cell.text, cell.inputs)


@_family
def converts() -> Iterator[Cell]:
    """Every convert between all pairs, bitcast_convert to integers and back."""
    for t in ALL:
        for u in ALL:
            cell = _simple("convert", t, 1, result=u)
            yield Cell(f"convert to {u}", t, cell.text, cell.inputs)
    for t in INTS + FLOATS:
        bits = elem_type(t).bits
        if bits == 6:
            continue
        whole = {2: "ui2", 4: "ui4", 8: "ui8", 16: "ui16", 32: "ui32", 64: "ui64"}[bits]
        yield Cell("bitcast to integer", t, *_bitcast(t, whole, (16,), (16,)))
        yield Cell("bitcast from integer", t, *_bitcast(whole, t, (16,), (16,)))
        if bits >= 16:
            yield Cell("bitcast to bytes", t, *_bitcast(t, "i8", (16,), (16, bits // 8)))
            yield Cell("bitcast from bytes", t, *_bitcast("i8", t, (16, bits // 8), (16,)))


def _bitcast(
    t: str, u: str, shape: tuple[int, ...], out: tuple[int, ...]
) -> tuple[str, tuple[tuple[str, tuple[int, ...], str], ...]]:
    body = f"%r = stablehlo.bitcast_convert %a : ({_tensor(t, shape)}) -> {_tensor(u, out)}"
    cell = make("bitcast", t, body, [(t, shape, "some")], (u, out))
    return cell.text, cell.inputs
