"""Conversion between f32 and the narrower formats, by integer arithmetic on the bits.

Rounding is to nearest, ties to even. What does not fit becomes infinity, NaN or the largest
value, as the format has it. No branches, so that loops around it vectorize.
"""

from __future__ import annotations

from pai.compiler.codegen.cpu.emit.builder import Builder
from pai.compiler.codegen.cpu.emit.types import FORMATS, ElemType, Format

_INF = 0x7F800000


def bits_of(b: Builder, x: str) -> str:
    """Return the bits of an f32."""
    return b.op(f"arith.bitcast {x} : f32 to i32")


def float_of(b: Builder, bits: str) -> str:
    """Return the f32 with these bits."""
    return b.op(f"arith.bitcast {bits} : i32 to f32")


def round_to(b: Builder, x: str, kind: ElemType) -> str:
    """Return the f32 ``x`` rounded to a value of ``kind``."""
    if kind.name == "f16" and "f16c" in b.features:
        half = b.op(f"arith.truncf {x} : f32 to f16")
        return b.op(f"arith.extf {half} : f16 to f32")
    if kind.name == "bf16":
        high = b.bin("andi", _round_bf16(b, x), b.const(0xFFFF0000, "i32"), "i32")
        return float_of(b, high)
    return decode(b, encode_bits(b, x, kind), kind)


def encode(b: Builder, x: str, kind: ElemType) -> str:
    """Return the code of the f32 ``x`` as an integer of type ``kind.mem``."""
    if kind.name == "f16" and "f16c" in b.features:
        half = b.op(f"arith.truncf {x} : f32 to f16")
        return b.op(f"arith.bitcast {half} : f16 to i16")
    return b.cast("trunci", encode_bits(b, x, kind), "i32", kind.mem)


def load_decode(b: Builder, code: str, kind: ElemType) -> str:
    """Return the f32 value of a code of type ``kind.mem``."""
    if kind.name == "f16" and "f16c" in b.features:
        half = b.op(f"arith.bitcast {code} : i16 to f16")
        return b.op(f"arith.extf {half} : f16 to f32")
    return decode(b, b.cast("extui", code, kind.mem, "i32"), kind)


def _round_bf16(b: Builder, x: str) -> str:
    """Return the bits of ``x`` with its upper half rounded to bf16; NaN stays NaN."""
    bits = bits_of(b, x)
    odd = b.bin("andi", b.bin("shrui", bits, b.const(16, "i32"), "i32"), b.const(1, "i32"), "i32")
    bias = b.bin("addi", odd, b.const(0x7FFF, "i32"), "i32")
    rounded = b.bin("addi", bits, bias, "i32")
    nan = b.bin("ori", bits, b.const(0x400000, "i32"), "i32")
    return b.select(b.cmp("uno", x, x, "f32"), nan, rounded, "i32")


def encode_bits(b: Builder, x: str, kind: ElemType) -> str:
    """Return the code of the f32 ``x`` in the low bits of an i32."""
    if kind.name == "bf16":
        return b.bin("shrui", _round_bf16(b, x), b.const(16, "i32"), "i32")
    form = FORMATS[kind.name]
    bits = bits_of(b, x)
    if form.special == "e8m0":
        return _encode_e8m0(b, bits)
    magnitude = b.bin("andi", bits, b.const(0x7FFFFFFF, "i32"), "i32")
    code = _round_magnitude(b, magnitude, form)
    nan = b.cmp("ugt", magnitude, b.const(_INF, "i32"), "i32")
    code = _overflow(b, code, nan, form)
    sign = b.bin("shrui", bits, b.const(31, "i32"), "i32")
    sign = b.bin("shli", sign, b.const(form.width - 1, "i32"), "i32")
    if form.special == "fnuz":
        # -0 is the NaN: neither zero nor NaN takes a sign.
        zero = b.cmp("eq", code, b.const(0, "i32"), "i32")
        plain = b.bin(
            "ori", zero, b.cmp("uge", code, b.const(1 << (form.width - 1), "i32"), "i32"), "i1"
        )
        sign = b.select(plain, b.const(0, "i32"), sign, "i32")
    if form.special == "finite":
        # NaN becomes -0.
        sign = b.select(nan, b.const(1 << (form.width - 1), "i32"), sign, "i32")
    return b.bin("ori", code, sign, "i32")


def _round_magnitude(b: Builder, magnitude: str, form: Format) -> str:
    """Return the rounded code of a non-negative f32, without regard to overflow."""
    shift = 23 - form.mantissa
    odd = b.bin(
        "andi", b.bin("shrui", magnitude, b.const(shift, "i32"), "i32"), b.const(1, "i32"), "i32"
    )
    half = b.bin("addi", odd, b.const((1 << (shift - 1)) - 1, "i32"), "i32")
    normal = b.bin("shrui", b.bin("addi", magnitude, half, "i32"), b.const(shift, "i32"), "i32")
    rebias = b.const((127 - form.bias) << form.mantissa, "i32")
    normal = b.bin("subi", normal, rebias, "i32")
    # Below the smallest normal: adding 2^(23 + e) leaves multiples of 2^e in the low bits.
    magic = (1 - form.bias - form.mantissa + 23 + 127) << 23
    added = b.bin("addf", float_of(b, magnitude), float_of(b, b.const(magic, "i32")), "f32")
    small = b.bin("subi", bits_of(b, added), b.const(magic, "i32"), "i32")
    is_small = b.cmp("ult", magnitude, b.const((128 - form.bias) << 23, "i32"), "i32")
    return b.select(is_small, small, normal, "i32")


def _overflow(b: Builder, code: str, nan: str, form: Format) -> str:
    """Replace codes beyond the largest finite one, and NaN."""
    top = form.max_code
    over = b.cmp("sgt", code, b.const(top, "i32"), "i32")
    sign_bit = 1 << (form.width - 1)
    if form.special == "ieee":
        quiet = top + 1 + (1 << (form.mantissa - 1))
        code = b.select(over, b.const(top + 1, "i32"), code, "i32")
        return b.select(nan, b.const(quiet, "i32"), code, "i32")
    if form.special == "finite":
        code = b.select(over, b.const(top, "i32"), code, "i32")
        return b.select(nan, b.const(0, "i32"), code, "i32")
    bad = sign_bit if form.special == "fnuz" else top + 1
    return b.select(b.bin("ori", over, nan, "i1"), b.const(bad, "i32"), code, "i32")


def _encode_e8m0(b: Builder, bits: str) -> str:
    """Return the exponent of the nearest power of two; zero, negative and too large are NaN."""
    # Ties go up, as the only significand bit is odd; 2^-127 itself is an f32 denormal.
    tiny = b.cmp("ult", bits, b.const(0x800000, "i32"), "i32")
    half = b.select(tiny, b.const(0x3FFFFF, "i32"), b.const(0x400000, "i32"), "i32")
    raised = b.bin("addi", bits, half, "i32")
    code = b.bin("shrui", raised, b.const(23, "i32"), "i32")
    over = b.cmp("uge", code, b.const(255, "i32"), "i32")
    bad = b.bin("ori", over, b.cmp("sle", bits, b.const(0, "i32"), "i32"), "i1")
    return b.select(bad, b.const(255, "i32"), code, "i32")


def decode(b: Builder, code: str, kind: ElemType) -> str:
    """Return the f32 value of a code in the low bits of an i32."""
    if kind.name == "bf16":
        return float_of(b, b.bin("shli", code, b.const(16, "i32"), "i32"))
    form = FORMATS[kind.name]
    nan_bits = b.const(0x7FC00000, "i32")
    if form.special == "e8m0":
        bits = b.bin("shli", code, b.const(23, "i32"), "i32")
        bits = b.select(
            b.cmp("eq", code, b.const(0, "i32"), "i32"), b.const(1 << 22, "i32"), bits, "i32"
        )
        bits = b.select(b.cmp("eq", code, b.const(255, "i32"), "i32"), nan_bits, bits, "i32")
        return float_of(b, bits)
    sign_bit = 1 << (form.width - 1)
    magnitude = b.bin("andi", code, b.const(sign_bit - 1, "i32"), "i32")
    shifted = b.bin("shli", magnitude, b.const(23 - form.mantissa, "i32"), "i32")
    scale = b.const(2.0 ** (127 - form.bias), "f32")
    bits = bits_of(b, b.bin("mulf", float_of(b, shifted), scale, "f32"))
    top = form.max_code
    if form.special == "ieee":
        is_inf = b.cmp("eq", magnitude, b.const(top + 1, "i32"), "i32")
        bits = b.select(is_inf, b.const(_INF, "i32"), bits, "i32")
    if form.special in ("ieee", "fn"):
        last = top + 1 if form.special == "ieee" else top
        is_nan = b.cmp("ugt", magnitude, b.const(last, "i32"), "i32")
        bits = b.select(is_nan, nan_bits, bits, "i32")
    sign = b.bin("andi", code, b.const(sign_bit, "i32"), "i32")
    sign = b.bin("shli", sign, b.const(32 - form.width, "i32"), "i32")
    bits = b.bin("ori", bits, sign, "i32")
    if form.special == "fnuz":
        is_nan = b.cmp("eq", code, b.const(sign_bit, "i32"), "i32")
        bits = b.select(is_nan, b.const(0xFFC00000, "i32"), bits, "i32")
    return float_of(b, bits)


def narrow_f64(b: Builder, x: str) -> str:
    """Return an f64 as f32 rounded to odd: only a second rounding then counts."""
    near = b.op(f"arith.truncf {x} : f64 to f32")
    back = b.op(f"arith.extf {near} : f32 to f64")
    bits = bits_of(b, near)
    magnitude = b.un("math.absf", x, "f64")
    beyond = b.cmp("ogt", b.un("math.absf", back, "f64"), magnitude, "f64")
    down = b.bin("subi", bits, b.cast("extui", beyond, "i1", "i32"), "i32")
    odd = b.bin("ori", down, b.const(1, "i32"), "i32")
    inexact = b.cmp("one", x, back, "f64")
    return float_of(b, b.select(inexact, odd, bits, "i32"))
