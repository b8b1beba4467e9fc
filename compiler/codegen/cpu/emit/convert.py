"""Between element types: convert, bits, rounding to storage precision, memory."""

from __future__ import annotations

from pai.compiler.codegen.cpu.emit import small_floats
from pai.compiler.codegen.cpu.emit.builder import Builder, Index
from pai.compiler.codegen.cpu.emit.types import ElemType, Scalar, elem_type


def constant(b: Builder, kind: ElemType, value: complex | float | int | bool) -> Scalar:
    """Return a constant element; ``value`` is one of the type's own values."""
    if kind.is_complex:
        number = complex(value)
        return Scalar(kind, b.const(number.real, kind.reg), b.const(number.imag, kind.reg))
    return Scalar(kind, b.const(value, kind.reg))  # type: ignore[arg-type]


def rounded(b: Builder, kind: ElemType, value: str) -> Scalar:
    """Return the real register ``value`` as an element, rounded when ``kind`` is narrow."""
    if kind.format is not None:
        value = small_floats.round_to(b, value, kind)
    return Scalar(kind, value)


def convert(b: Builder, x: Scalar, to: ElemType) -> Scalar:
    """Return ``x`` as ``to``, by StableHLO's rules of convert."""
    if x.type == to:
        return x
    if to.is_complex:
        if x.type.is_complex:
            cast = "extf" if to.bits > x.type.bits else "truncf"
            parts = [b.cast(cast, p, x.type.reg, to.reg) for p in x.parts]
            return Scalar(to, parts[0], parts[1])
        return Scalar(to, convert(b, x, to.part).re, b.const(0.0, to.reg))
    if x.type.is_complex:
        return convert(b, Scalar(x.type.part, x.re), to)
    if to.kind == "bool":
        return Scalar(to, _not_zero(b, x))
    if to.is_float:
        return _to_float(b, x, to)
    if x.type.is_float:
        return Scalar(to, _float_to_int(b, x, to))
    return Scalar(to, _resize(b, x.re, x.type, to.reg))


def _not_zero(b: Builder, x: Scalar) -> str:
    zero = b.const(0, x.type.reg)
    if x.type.is_int:
        return b.cmp("ne", x.re, zero, x.type.reg)
    return b.cmp("une", x.re, zero, x.type.reg)


def _resize(b: Builder, value: str, source: ElemType, reg: str) -> str:
    have, want = source.bits, int(reg[1:])
    if want < have:
        return b.cast("trunci", value, source.reg, reg)
    return b.cast("extsi" if source.signed else "extui", value, source.reg, reg)


def _to_float(b: Builder, x: Scalar, to: ElemType) -> Scalar:
    if x.type.is_float:
        value = x.re
        if x.type.reg == "f64" and to.reg == "f32":
            exact = to.format is None
            value = (
                b.cast("truncf", value, "f64", "f32")
                if exact
                else small_floats.narrow_f64(b, value)
            )
        elif x.type.reg == "f32" and to.reg == "f64":
            value = b.cast("extf", value, "f32", "f64")
        return rounded(b, to, value)
    name = "sitofp" if x.type.signed else "uitofp"
    if to.format is not None and x.type.bits > 24:
        wide = b.cast(name, x.re, x.type.reg, "f64")
        return rounded(b, to, small_floats.narrow_f64(b, wide))
    return rounded(b, to, b.cast(name, x.re, x.type.reg, to.reg))


def _float_to_int(b: Builder, x: Scalar, to: ElemType) -> str:
    """Truncate toward zero; out of range saturates and NaN is 0."""
    kind, bits = x.type.reg, to.bits
    low = float(-(1 << (bits - 1))) if to.signed else 0.0
    high = float(1 << (bits - 1 if to.signed else bits))
    least, most = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if to.signed else (0, (1 << bits) - 1)
    whole = b.un("math.trunc", x.re, kind)
    over = b.cmp("oge", whole, b.const(high, kind), kind)
    inside = b.all_of(
        [
            b.cmp("oge", whole, b.const(low, kind), kind),
            b.cmp("olt", whole, b.const(high, kind), kind),
        ]
    )
    safe = b.select(inside, whole, b.const(0.0, kind), kind)
    reg = to.reg if bits >= 32 else "i32"
    value = b.cast("fptosi" if to.signed or bits < 32 else "fptoui", safe, kind, reg)
    value = b.cast("trunci", value, reg, to.reg)
    value = b.select(over, b.const(most, to.reg), value, to.reg)
    under = b.cmp("olt", whole, b.const(low, kind), kind)
    return b.select(under, b.const(least, to.reg), value, to.reg)


def to_bits(b: Builder, x: Scalar) -> str:
    """Return the element's code as an integer of ``type.bits`` bits."""
    kind = x.type
    if kind.format is not None:
        code = small_floats.encode(b, x.re, kind)
        return b.cast("trunci", code, kind.mem, f"i{kind.bits}")
    if kind.is_float:
        return b.op(f"arith.bitcast {x.re} : {kind.reg} to i{kind.bits}")
    return x.re


def from_bits(b: Builder, code: str, kind: ElemType) -> Scalar:
    """Return the element whose code is the integer ``code`` of ``kind.bits`` bits."""
    if kind.format is not None:
        wide = b.cast("extui", code, f"i{kind.bits}", kind.mem)
        return Scalar(kind, small_floats.load_decode(b, wide, kind))
    if kind.is_float:
        return Scalar(kind, b.op(f"arith.bitcast {code} : i{kind.bits} to {kind.reg}"))
    return Scalar(kind, code)


def wide_type(kind: ElemType) -> ElemType:
    """Return the type sums of ``kind`` are kept in: f32 for narrower floats."""
    return elem_type("f32") if kind.format is not None else kind


def load(b: Builder, pointer: str, position: Index, kind: ElemType) -> Scalar:
    """Load the element at a row-major position."""
    if kind.is_complex:
        first = b.mul(position, 2)
        return Scalar(kind, *(b.load(pointer, b.add(first, i), kind.mem) for i in (0, 1)))
    value = b.load(pointer, position, kind.mem)
    if kind.format is not None:
        return Scalar(kind, small_floats.load_decode(b, value, kind))
    if kind.kind == "bool":
        return Scalar(kind, b.cmp("ne", value, b.const(0, "i8"), "i8"))
    return Scalar(
        kind, value if kind.mem == kind.reg else b.cast("trunci", value, kind.mem, kind.reg)
    )


def store(b: Builder, x: Scalar, pointer: str, position: Index) -> None:
    """Store an element at a row-major position."""
    kind = x.type
    if kind.is_complex:
        first = b.mul(position, 2)
        for i, part in enumerate(x.parts):
            b.store(part, pointer, b.add(first, i), kind.mem)
        return
    value = x.re
    if kind.format is not None:
        value = small_floats.encode(b, value, kind)
    elif kind.mem != kind.reg:
        value = b.cast("extsi" if kind.signed else "extui", value, kind.reg, kind.mem)
    b.store(value, pointer, position, kind.mem)
