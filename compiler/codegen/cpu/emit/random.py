"""rng_bit_generator and rng: counter-based generators, a function of state and index.

Threefry-2x32 (20 rounds) and Philox-4x32 (10 rounds) as in J. Salmon et al., "Parallel Random
Numbers: As Easy as 1, 2, 3" (2011). Which counter gives which element follows XLA, bit for bit.
"""

from __future__ import annotations

import math

from pai.compiler.codegen.cpu.emit import math64
from pai.compiler.codegen.cpu.emit.builder import Builder, Index
from pai.compiler.codegen.cpu.emit.convert import convert, from_bits
from pai.compiler.codegen.cpu.emit.emitter import Emitter, Indices, element_rule
from pai.compiler.codegen.cpu.emit.graph import Node
from pai.compiler.codegen.cpu.emit.types import Scalar, elem_type

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_W = "i32"


def threefry(b: Builder, counter: tuple[str, str], key: tuple[str, str]) -> tuple[str, str]:
    """Return two random words."""
    parity = b.bin("xori", b.bin("xori", key[0], key[1], _W), b.const(0x1BD11BDA, _W), _W)
    schedule = (key[0], key[1], parity)
    x, y = (b.bin("addi", c, k, _W) for c, k in zip(counter, key, strict=True))
    for i in range(5):
        for distance in _ROTATIONS[i % 2]:
            x = b.bin("addi", x, y, _W)
            left = b.bin("shli", y, b.const(distance, _W), _W)
            right = b.bin("shrui", y, b.const(32 - distance, _W), _W)
            y = b.bin("xori", b.bin("ori", left, right, _W), x, _W)
        x = b.bin("addi", x, schedule[(i + 1) % 3], _W)
        y = b.bin("addi", y, schedule[(i + 2) % 3], _W)
        y = b.bin("addi", y, b.const(i + 1, _W), _W)
    return x, y


def philox(b: Builder, counter: list[str], key: list[str]) -> list[str]:
    """Return four random words."""
    c, k = list(counter), list(key)
    for i in range(10):
        if i:
            k = [
                b.bin("addi", v, b.const(w, _W), _W)
                for v, w in zip(k, (0x9E3779B9, 0xBB67AE85), strict=True)
            ]
        low0, high0 = _wide_product(b, c[0], 0xD2511F53)
        low1, high1 = _wide_product(b, c[2], 0xCD9E8D57)
        first = b.bin("xori", b.bin("xori", high1, c[1], _W), k[0], _W)
        third = b.bin("xori", b.bin("xori", high0, c[3], _W), k[1], _W)
        c = [first, low1, third, low0]
    return c


def _wide_product(b: Builder, x: str, factor: int) -> tuple[str, str]:
    product = b.bin("muli", b.cast("extui", x, _W, "i64"), b.const(factor, "i64"), "i64")
    return _words(b, product)


def _words(b: Builder, x: str) -> tuple[str, str]:
    """Return the low and the high half of an i64."""
    high = b.bin("shrui", x, b.const(32, "i64"), "i64")
    return b.cast("trunci", x, "i64", _W), b.cast("trunci", high, "i64", _W)


def _is_philox(node: Node) -> bool:
    return node.text("rng_algorithm") in ("PHILOX", "DEFAULT")


def split_dimension(shape: tuple[int, ...]) -> int:
    """Return the dimension whose neighbours share a Threefry counter: first even, or largest."""
    even = [d for d, n in enumerate(shape) if n % 2 == 0]
    return even[0] if even else shape.index(max(shape))


@element_rule("rng_bit_generator")
def rng_bit_generator(e: Emitter, node: Node, number: int, index: Indices) -> Scalar:
    """The new state, or the bits of one element."""
    b = e.b
    (state,) = node.operands
    bits = node.results[1]
    word = [e.element(state, (i,)).re for i in range(state.shape[0])]
    if number == 0:
        return _new_state(e, node, index, word)
    wide = bits.type.bits == 64
    if _is_philox(node):
        code = _philox_bits(b, word, b.linear(index, bits.shape), wide)
    else:
        code = _threefry_bits(b, word, index, bits.shape, wide)
    reg = "i64" if wide else _W
    return from_bits(b, b.cast("trunci", code, reg, f"i{bits.type.bits}"), bits.type)


def _join(b: Builder, low: str, high: str) -> str:
    top = b.bin("shli", b.cast("extui", high, _W, "i64"), b.const(32, "i64"), "i64")
    return b.bin("ori", b.cast("extui", low, _W, "i64"), top, "i64")


def _philox_bits(b: Builder, word: list[str], position: Index, wide: bool) -> str:
    """Element i is word i mod 4 of block i/4 (64-bit elements take two words)."""
    per_block = 2 if wide else 4
    block, lane = b.index(b.div(position, per_block)), b.index(b.rem(position, per_block))
    low = b.bin("addi", word[1], block, "i64")
    if len(word) == 3:
        carry = b.cast("extui", b.cmp("ult", low, block, "i64"), "i1", "i64")
        high = b.bin("addi", word[2], carry, "i64")
    else:
        carry = b.cast("extui", b.cmp("ult", low, block, "i64"), "i1", "i64")
        high = b.bin("addi", word[0], carry, "i64")
    out = philox(b, [*_words(b, low), *_words(b, high)], list(_words(b, word[0])))
    parts = [_join(b, out[0], out[1]), _join(b, out[2], out[3])] if wide else out
    reg = "i64" if wide else _W
    result = parts[-1]
    for i in reversed(range(per_block - 1)):
        result = b.select(b.icmp("eq", lane, i), parts[i], result, reg)
    return result


def _threefry_bits(
    b: Builder, word: list[str], index: Indices, shape: tuple[int, ...], wide: bool
) -> str:
    if wide or not shape:
        count = b.index(b.linear(index, shape))
        x, y = threefry(b, _words(b, b.bin("addi", word[1], count, "i64")), _words(b, word[0]))
        return _join(b, x, y) if wide else x
    d = split_dimension(shape)
    half = (*shape[:d], (shape[d] + 1) // 2, *shape[d + 1 :])
    place = (*index[:d], b.div(index[d], 2), *index[d + 1 :])
    count = b.index(b.linear(place, half))
    x, y = threefry(b, _words(b, b.bin("addi", word[1], count, "i64")), _words(b, word[0]))
    return b.select(b.icmp("eq", b.rem(index[d], 2), 0), x, y, _W)


def _new_state(e: Emitter, node: Node, index: Indices, word: list[str]) -> Scalar:
    """The counter advanced by the number of blocks used."""
    b = e.b
    state, bits = node.results
    shape = bits.shape
    wide = bits.type.bits == 64
    if _is_philox(node):
        blocks = -(-bits.size // (2 if wide else 4))
    elif wide or not shape:
        blocks = bits.size
    else:
        d = split_dimension(shape)
        blocks = math.prod((*shape[:d], (shape[d] + 1) // 2, *shape[d + 1 :]))
    low = b.bin("addi", word[1], b.const(blocks, "i64"), "i64")
    values = [word[0], low]
    if len(word) == 3:
        carry = b.cast("extui", b.cmp("ult", low, word[1], "i64"), "i1", "i64")
        values.append(b.bin("addi", word[2], carry, "i64"))
    result = values[-1]
    for i in reversed(range(len(values) - 1)):
        result = b.select(b.icmp("eq", index[0], i), values[i], result, "i64")
    return Scalar(state.type, result)


@element_rule("rng")
def rng(e: Emitter, node: Node, number: int, index: Indices) -> Scalar:
    """Uniform on [a, b), or normal with mean a and deviation b.

    The generator's key is a hash of the place in the program, so that a run can be repeated.
    """
    b = e.b
    low, high, _ = node.operands
    (result,) = node.results
    kind = result.type
    position = b.index(b.linear(index, result.shape))
    seed = sum(ord(c) * 31**i for i, c in enumerate(node.where)) % 2**63
    words = philox(
        b,
        [*_words(b, position), b.const(0, _W), b.const(0, _W)],
        list(_words(b, b.const(seed, "i64"))),
    )
    a, z = e.element(low, ()), e.element(high, ())
    if kind.is_float:
        double = elem_type("f64")
        u = [_unit(b, w) for w in (words[0], words[2])]
        first, last = (convert(b, x, double).re for x in (a, z))
        if node.text("rng_distribution") == "NORMAL":
            value = b.mul_add(_normal(b, u[0], u[1]), last, first, "f64")
        else:
            value = b.mul_add(u[0], b.bin("subf", last, first, "f64"), first, "f64")
        x = convert(b, Scalar(double, value), kind)
        at_end = b.cmp("oge", x.re, z.re, kind.reg)
        uniform = node.text("rng_distribution") != "NORMAL"
        return Scalar(kind, b.select(at_end, a.re, x.re, kind.reg)) if uniform else x
    if kind.kind == "bool":
        return Scalar(kind, b.select(b.cast("trunci", words[0], _W, "i1"), z.re, a.re, "i1"))
    span = b.bin("subi", z.re, a.re, kind.reg)
    wide = b.cast("extui", span, kind.reg, "i64")
    safe = b.select(b.icmp("eq", wide, 0), b.const(1, "i64"), wide, "i64")
    rest = b.bin("remui", _join(b, words[0], words[1]), safe, "i64")
    return Scalar(kind, b.bin("addi", a.re, b.cast("trunci", rest, "i64", kind.reg), kind.reg))


def _unit(b: Builder, word: str) -> str:
    """Return a number in (0, 1) from 32 bits."""
    value = b.op(f"arith.uitofp {word} : i32 to f64")
    return b.mul_add(value, b.const(2.0**-32, "f64"), b.const(2.0**-33, "f64"), "f64")


def _normal(b: Builder, u: str, v: str) -> str:
    """Return a standard normal number (Box and Muller)."""
    radius = math64.call(b, "log", u, "f64")
    radius = math64.sqrt(b, b.bin("mulf", radius, b.const(-2.0, "f64"), "f64"), "f64")
    angle = b.bin("mulf", v, b.const(2 * math.pi, "f64"), "f64")
    return b.bin("mulf", radius, math64.call(b, "cos", angle, "f64"), "f64")
