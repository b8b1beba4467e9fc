"""What a cell of the table should compute: XLA CPU, or NumPy with ml_dtypes where XLA cannot."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import ml_dtypes
import numpy as np

from benchmarks.stablehlo_cells import FLOATS, Cell
from pai.compiler.codegen.cpu.emit.types import elem_type
from pai.compiler.reference import run_reference
from pai.runtime.dtypes import DTYPES, NAMES

_WIDE = {n: "f32" for n in FLOATS if n not in ("f16", "bf16", "f32", "f64")}
_WIDE |= {"i2": "i32", "i4": "i32", "ui2": "ui32", "ui4": "ui32"}


def reference(cell: Cell, inputs: Sequence[np.ndarray], result: np.dtype) -> tuple[np.ndarray, str]:
    """Return the expected array and where it comes from.

    Raises:
        Exception: whatever XLA says when it refuses the module.
    """
    own = _by_numpy(cell, inputs, result)
    if own is not None:
        return own, "NumPy"
    text = cell.text.replace("@k(", "@main(")
    narrow = [t for t in _WIDE if re.search(rf"(?<=[x<]){t}(?=>)", text)]
    if not narrow:
        out = run_reference(text, inputs)[0]
        # XLA calls the integers of rng_bit_generator unsigned.
        return out.view(result) if cell.op.startswith("rng_bit") else out, "XLA"
    return _widened(text, narrow, inputs, result), "XLA in a wider type"


def _widened(
    text: str, narrow: list[str], inputs: Sequence[np.ndarray], result: np.dtype
) -> np.ndarray:
    """Compute narrow types in a wider one and round once."""
    for t in narrow:
        text = re.sub(rf"(?<=[x<]){t}(?=>)", _WIDE[t], text)
    wide = [x.astype(DTYPES[_WIDE.get(NAMES[x.dtype], NAMES[x.dtype])]) for x in inputs]
    out = run_reference(text, wide)[0]
    return wrap(out, result)


def wrap(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert; integers modulo their width."""
    name = NAMES[dtype]
    if name in ("i2", "i4", "ui2", "ui4"):
        bits = int(name.strip("ui"))
        code = x.astype(np.int64) & ((1 << bits) - 1)
        if not name.startswith("u"):
            code = np.where(code >> (bits - 1), code - (1 << bits), code)
        return code.astype(dtype)
    with np.errstate(all="ignore"):
        return x.astype(dtype)


def _by_numpy(cell: Cell, inputs: Sequence[np.ndarray], result: np.dtype) -> np.ndarray | None:
    op = cell.op
    if op.startswith("convert"):
        return convert(inputs[0], result)
    if op.startswith("bitcast"):
        return _bitcast(inputs[0], result)
    if op == "cbrt" and elem_type(cell.type).is_complex:  # XLA has none
        return np.power(inputs[0].astype(np.complex128), 1 / 3).astype(result)
    if op == "log_plus_one" and cell.type == "f64":  # XLA loses 5 bits near -0.4
        with np.errstate(all="ignore"):
            return np.log1p(inputs[0])
    if op == "chlo.erf":
        wide = inputs[0].astype(np.float64)
        return np.vectorize(math.erf)(wide).astype(result)
    if op == "chlo.top_k":
        x = inputs[0]
        key = x.astype(np.float64) if NAMES[x.dtype] in FLOATS else x.astype(object)
        return np.take_along_axis(x, np.argsort(-key, axis=-1, kind="stable")[:, :3], -1)
    bits = elem_type(cell.type).bits
    if op == "power" and elem_type(cell.type).is_int:  # XLA is wrong beyond small exponents
        return _integer_power(inputs, bits, result)
    if cell.type in ("i2", "i4", "ui2", "ui4"):
        code = [x.astype(np.int64) & ((1 << bits) - 1) for x in inputs]
        if op == "popcnt":
            return wrap(np.vectorize(lambda v: int(v).bit_count())(code[0]), result)
        if op == "count_leading_zeros":
            return wrap(np.vectorize(lambda v: bits - int(v).bit_length())(code[0]), result)
        if op == "shift_right_logical":
            return wrap(np.where(code[1] < bits, code[0] >> np.minimum(code[1], 63), 0), result)
        if op == "shift_left":
            return wrap(np.where(code[1] < bits, code[0] << np.minimum(code[1], 8), 0), result)
        if op == "shift_right_arithmetic":
            signed = inputs[0].astype(np.int64)
            if cell.type.startswith("u"):
                signed = np.where(signed >> (bits - 1), signed - (1 << bits), signed)
            return wrap(signed >> np.minimum(code[1], 8), result)
        if op.startswith("rng_bit_generator"):
            text = re.sub(rf"x{cell.type}>", "xui32>", cell.text.replace("@k(", "@main("))
            return wrap(run_reference(text, inputs)[0], result)
    return None


def _integer_power(inputs: Sequence[np.ndarray], bits: int, result: np.dtype) -> np.ndarray:
    values = []
    pairs = zip(*(v.astype(object) for v in inputs), strict=True)
    for x, y in [(int(p), int(q)) for p, q in pairs]:
        negative = 1 if x == 1 else (-1) ** (y % 2) if x == -1 else 0
        value = (pow(x, y, 1 << bits) if y >= 0 else negative) & ((1 << bits) - 1)
        signed = value >= 1 << (bits - 1) and not NAMES[result].startswith("u")
        values.append(value - (1 << bits) if signed else value)
    return (
        np.array(values, object)
        .astype(np.uint64 if max(values) >= 1 << 63 else np.int64)
        .astype(result)
    )


def convert(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """StableHLO's convert: to integers truncated and saturated, NaN to 0."""
    source, target = elem_type(NAMES[x.dtype]), elem_type(NAMES[dtype])
    if target.kind == "bool":
        return x != np.zeros((), x.dtype)
    if source.is_complex and not target.is_complex:
        x, source = x.real, source.part
    with np.errstate(all="ignore"):
        if source.is_float and target.is_int:
            info = ml_dtypes.iinfo(dtype)
            whole = np.trunc(np.nan_to_num(x.astype(np.float64), posinf=np.inf, neginf=-np.inf))
            exact = [
                min(
                    max(
                        int(v) if math.isfinite(v) else (10**30 if v > 0 else -(10**30)),
                        int(info.min),
                    ),
                    int(info.max),
                )
                for v in whole.ravel()
            ]
            return (
                np.array(exact, dtype=object)
                .astype(np.uint64 if info.min == 0 else np.int64)
                .astype(dtype)
                .reshape(x.shape)
            )
        if target.is_int:
            return wrap(x, dtype)
        if source.is_complex or target.is_complex:
            return x.astype(np.complex128 if source.is_complex else np.float64).astype(dtype)
        if source.is_int or source.kind == "bool":
            return (
                x.astype(np.float64).astype(dtype)
                if target.bits < 64 and source.bits <= 32
                else x.astype(dtype)
            )
        if source.format is not None:
            x = x.astype(np.float32)
        return x.astype(dtype)


def _bitcast(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    source, target = elem_type(NAMES[x.dtype]), elem_type(NAMES[dtype])
    if source.bits == target.bits and source.bits < 8:
        code = x.view(np.uint8) & ((1 << source.bits) - 1)
        return wrap(code, dtype) if target.is_int else code.view(dtype)
    if source.bits == target.bits:
        return x.view(dtype)
    if source.bits > target.bits:
        return x[:, None].view(dtype)
    return np.ascontiguousarray(x).view(dtype)[:, 0]
