"""Element types of kernels: how each looks in memory and in a register."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

Kind = Literal["bool", "int", "uint", "float", "complex"]


@dataclass(frozen=True)
class Format:
    """A binary floating-point format narrower than f32.

    Args:
        exponent: bits of the exponent.
        mantissa: stored bits of the mantissa.
        bias: of the exponent.
        special: what the largest codes mean. ``ieee``: infinity and NaNs; ``fn``: one NaN (all
            ones), no infinity; ``fnuz``: NaN is the code of -0, no infinity; ``finite``: neither;
            ``e8m0``: powers of two only, no sign, no zero, NaN is all ones.
    """

    exponent: int
    mantissa: int
    bias: int
    special: Literal["ieee", "fn", "fnuz", "finite", "e8m0"]

    @property
    def width(self) -> int:
        """Bits of the whole code."""
        return self.exponent + self.mantissa + (self.special != "e8m0")

    @property
    def max_code(self) -> int:
        """The code of the largest finite value."""
        top = (1 << (self.exponent + self.mantissa)) - 1
        if self.special == "ieee":
            return top - (1 << self.mantissa)
        return top - 1 if self.special in ("fn", "e8m0") else top


FORMATS: dict[str, Format] = {
    "f4E2M1FN": Format(2, 1, 1, "finite"),
    "f6E2M3FN": Format(2, 3, 1, "finite"),
    "f6E3M2FN": Format(3, 2, 3, "finite"),
    "f8E3M4": Format(3, 4, 3, "ieee"),
    "f8E4M3": Format(4, 3, 7, "ieee"),
    "f8E4M3FN": Format(4, 3, 7, "fn"),
    "f8E4M3FNUZ": Format(4, 3, 8, "fnuz"),
    "f8E4M3B11FNUZ": Format(4, 3, 11, "fnuz"),
    "f8E5M2": Format(5, 2, 15, "ieee"),
    "f8E5M2FNUZ": Format(5, 2, 16, "fnuz"),
    "f8E8M0FNU": Format(8, 0, 127, "e8m0"),
    "bf16": Format(8, 7, 127, "ieee"),
    "f16": Format(5, 10, 15, "ieee"),
}


@dataclass(frozen=True)
class ElemType:
    """One element type.

    Args:
        name: StableHLO's spelling (``f32``, ``ui4``, ``complex<f64>``).
        kind: its family.
        bits: significant bits (of one part, when complex).
        reg: the signless MLIR type of a value, or of one part of a complex one, in a register.
        mem: the MLIR type that is loaded and stored.
        bytes: bytes one element takes in memory.
    """

    name: str
    kind: Kind
    bits: int
    reg: str
    mem: str
    bytes: int

    @property
    def is_float(self) -> bool:
        """True for every real floating-point type."""
        return self.kind == "float"

    @property
    def is_complex(self) -> bool:
        """True for complex types."""
        return self.kind == "complex"

    @property
    def is_int(self) -> bool:
        """True for integers with or without sign, not for i1."""
        return self.kind in ("int", "uint")

    @property
    def signed(self) -> bool:
        """False for unsigned integers and i1."""
        return self.kind not in ("uint", "bool")

    @property
    def format(self) -> Format | None:
        """The format of a float narrower than f32, else None."""
        return FORMATS.get(self.name)

    @property
    def part(self) -> ElemType:
        """The type of the real and imaginary parts; the type itself when it is not complex."""
        return elem_type(self.name[8:-1]) if self.is_complex else self


@functools.cache
def elem_type(name: str) -> ElemType:
    """Return the element type that StableHLO spells ``name``.

    Raises:
        ValueError: for a type kernels do not have.
    """
    if name == "i1":
        return ElemType(name, "bool", 1, "i1", "i8", 1)
    if name in ("f32", "f64"):
        bits = int(name[1:])
        return ElemType(name, "float", bits, name, name, bits // 8)
    if name in FORMATS:
        mem = "i16" if name in ("bf16", "f16") else "i8"
        return ElemType(name, "float", FORMATS[name].width, "f32", mem, int(mem[1:]) // 8)
    if name.startswith("complex<"):
        part = elem_type(name[8:-1])
        return ElemType(name, "complex", part.bits, part.reg, part.mem, 2 * part.bytes)
    digits = name.removeprefix("ui").removeprefix("i")
    if digits not in ("2", "4", "8", "16", "32", "64"):
        raise ValueError(f"element type {name}")
    bits = int(digits)
    store = max(bits, 8)
    kind: Kind = "uint" if name.startswith("ui") else "int"
    return ElemType(name, kind, bits, f"i{bits}", f"i{store}", store // 8)


@dataclass(frozen=True)
class Scalar:
    """One element in registers.

    Args:
        type: its element type.
        re: SSA name of the value, or of its real part.
        im: SSA name of the imaginary part; "" when not complex.
    """

    type: ElemType
    re: str
    im: str = ""

    @property
    def parts(self) -> list[str]:
        """The SSA names that carry it."""
        return [self.re, self.im] if self.im else [self.re]


def reg_types(kind: ElemType) -> list[str]:
    """Return the register types that carry one element."""
    return [kind.reg, kind.reg] if kind.is_complex else [kind.reg]


def from_parts(kind: ElemType, parts: list[str]) -> Scalar:
    """Return the element that ``parts`` carry."""
    return Scalar(kind, *parts)
