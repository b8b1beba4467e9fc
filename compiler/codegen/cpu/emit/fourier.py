"""fft: FFT, IFFT, RFFT and IRFFT of any length.

One self-sorting (Stockham) pass per factor of the length, radix 4 first; a prime factor p costs
p operations an element. Roots of unity come from a table in the precision of the data.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from pai.compiler.codegen.cpu.emit import complexmath
from pai.compiler.codegen.cpu.emit.builder import Builder, Index
from pai.compiler.codegen.cpu.emit.convert import convert, load, store
from pai.compiler.codegen.cpu.emit.emitter import Buffer, Indices
from pai.compiler.codegen.cpu.emit.graph import Node
from pai.compiler.codegen.cpu.emit.kernel import StageContext
from pai.compiler.codegen.cpu.emit.stage import stage_rule
from pai.compiler.codegen.cpu.emit.types import ElemType, Scalar, elem_type

_UNROLLED = 5


def factors(n: int) -> list[int]:
    """Return the radices of the passes: fours, then the prime factors."""
    found = []
    for p in (4, 2, 3, 5, 7):
        while n % p == 0:
            found.append(p)
            n //= p
    p = 11
    while n > 1:
        if p * p > n:
            p = n
        while n % p == 0:
            found.append(p)
            n //= p
        p += 2
    return found


def _rows(node: Node) -> int:
    return len(node.results[0].shape) - len(node.ints("fft_length"))


@stage_rule("fft", rows=_rows)
def fft(e: StageContext, node: Node) -> None:
    """Transform the last dimensions one after the other in a complex copy."""
    (x,) = node.operands
    (result,) = node.results
    lengths = node.ints("fft_length")
    form = node.text("fft_type")
    rank = len(lengths)
    part = (x if form == "RFFT" else result).type.part.name if form != "IRFFT" else result.type.name
    kind = elem_type(f"complex<{part}>")
    inverse = form in ("IFFT", "IRFFT")
    half = x.shape[-1]
    data = e.scratch(kind, tuple(lengths))
    lines = [e.scratch(kind, (max(lengths),)) for _ in range(2)]
    b = e.b

    def one(batch: Indices) -> None:
        def read(at: Indices) -> Sequence[str]:
            with e.layer():
                e.put(data, at, convert(b, e.element(x, (*batch, *at)), kind))
            return ()

        shape = [*lengths[:-1], half] if form == "IRFFT" else lengths
        b.loops(shape, read)
        for d in range(rank - 1):
            _transform(e, data, shape, d, lines, inverse)
        if form == "IRFFT":
            _extend(e, data, half)
        _transform(e, data, lengths, rank - 1, lines, inverse)
        scale = 1.0 / math.prod(lengths) if inverse else 1.0

        def write(at: Indices) -> Sequence[str]:
            value = load(b, data.pointer, b.linear(at, data.shape), kind)
            parts = (
                [b.bin("mulf", p, b.const(scale, kind.reg), kind.reg) for p in value.parts]
                if inverse
                else value.parts
            )
            e.write(result, (*batch, *at), convert(b, Scalar(kind, *parts), result.type))
            return ()

        b.loops(result.shape[len(batch) :], write)

    if result.size:
        e.free_loops(result.shape[: len(result.shape) - rank], one, last=False)


def _extend(e: StageContext, data: Buffer, half: int) -> None:
    """Fill the second half of the last dimension: conjugates of the first, reversed.

    The imaginary parts that a real signal cannot have are ignored by the transform's result.
    """
    b = e.b
    n = data.shape[-1]

    def line(outer: Indices) -> Sequence[str]:
        def one(k: Index) -> Sequence[str]:
            x = load(b, data.pointer, b.linear((*outer, b.sub(n, k)), data.shape), data.type)
            e.put(data, (*outer, k), Scalar(x.type, x.re, complexmath.neg(b, x.im, x.type.reg)))
            return ()

        b.loop(half, n, one)
        return ()

    b.loops(data.shape[:-1], line)


def _transform(
    e: StageContext, data: Buffer, shape: Sequence[int], d: int, lines: list[Buffer], inverse: bool
) -> None:
    """Transform every line of ``data`` along dimension ``d``."""
    b = e.b
    n = shape[d]

    def line(at: Indices) -> Sequence[str]:
        def place(i: Index) -> Index:
            return b.linear((*at[:d], i, *at[d + 1 :]), data.shape)

        def read(i: Index) -> Sequence[str]:
            e.put(lines[0], (i,), load(b, data.pointer, place(i), data.type))
            return ()

        b.loop(0, n, read)
        source, target = lines
        stride, rest = 1, n
        for p in factors(n):
            _pass(e, source, target, n, (p, stride, rest), inverse)
            source, target = target, source
            stride, rest = stride * p, rest // p

        def write(i: Index) -> Sequence[str]:
            store(b, load(b, source.pointer, i, data.type), data.pointer, place(i))
            return ()

        b.loop(0, n, write)
        return ()

    b.loops([1 if k == d else extent for k, extent in enumerate(shape)], line)


def _root(n: int, k: int, inverse: bool) -> tuple[float, float]:
    """Return exp(-2 pi i k / n), exact at multiples of an eighth turn."""
    k %= n
    turns = 8 * k / n
    if turns == int(turns):
        h = math.sqrt(0.5)
        re, im = [(1, 0), (h, -h), (0, -1), (-h, -h), (-1, 0), (-h, h), (0, 1), (h, h)][int(turns)]
    else:
        angle = -2 * math.pi * k / n
        re, im = math.cos(angle), math.sin(angle)
    return float(re), float(-im if inverse else im)


def _table(b: Builder, n: int, kind: ElemType, inverse: bool) -> str:
    letter, integer = ("f", "i") if kind.reg == "f32" else ("d", "q")
    values = [v for k in range(n) for v in _root(n, k, inverse)]
    bits = struct.unpack(
        f"<{len(values)}{integer}", struct.pack(f"<{len(values)}{letter}", *values)
    )
    return b.table(bits, f"i{kind.reg[1:]}")


def _pass(
    e: StageContext,
    source: Buffer,
    target: Buffer,
    n: int,
    numbers: tuple[int, int, int],
    inverse: bool,
) -> None:
    """Write y[k + s(pq + r)] = w_rest^(qr) sum_t x[k + s(q + mt)] w_p^(rt)."""
    b = e.b
    p, s, rest = numbers
    m = rest // p
    kind = source.type
    table = _table(b, n, kind, inverse)

    def twiddle(q: Index, r: Index, x: Scalar) -> Scalar:
        position = b.mul(b.mul(q, r), s)
        if position == 0:
            return x
        return _times(b, x, load(b, table, b.rem(position, n), kind))

    def butterfly(at: Indices) -> Sequence[str]:
        q, k = at

        def input_(t: Index) -> Scalar:
            return load(b, source.pointer, b.add(k, b.mul(b.add(q, b.mul(t, m)), s)), kind)

        def output(r: Index, x: Scalar) -> None:
            store(b, twiddle(q, r, x), target.pointer, b.add(k, b.mul(b.add(b.mul(q, p), r), s)))

        if p <= _UNROLLED:
            inputs = [input_(t) for t in range(p)]
            for r in range(p):
                output(r, _small_sum(b, inputs, r, inverse))
            return ()

        def each(r: Index) -> Sequence[str]:
            def add(t: Index, re: str, im: str) -> Sequence[str]:
                root = load(b, table, b.mul(b.rem(b.mul(r, t), p), n // p), kind)
                return _plus(b, Scalar(kind, re, im), _times(b, input_(t), root)).parts

            zero = b.const(0.0, kind.reg)
            output(r, Scalar(kind, *b.loop(0, p, add, [zero, zero], [kind.reg] * 2)))
            return ()

        b.loop(0, p, each)
        return ()

    b.loops((m, s), butterfly)


def _small_sum(b: Builder, inputs: list[Scalar], r: int, inverse: bool) -> Scalar:
    p = len(inputs)
    total = inputs[0]
    for t in range(1, p):
        total = _plus(b, total, _times_root(b, inputs[t], _root(p, r * t, inverse)))
    return total


def _times_root(b: Builder, x: Scalar, root: tuple[float, float]) -> Scalar:
    reg = x.type.reg
    re, im = root
    if root == (1.0, 0.0):
        return x
    if im == 0.0:
        return Scalar(x.type, complexmath.neg(b, x.re, reg), complexmath.neg(b, x.im, reg))
    if re == 0.0:
        if im > 0:
            return Scalar(x.type, complexmath.neg(b, x.im, reg), x.re)
        return Scalar(x.type, x.im, complexmath.neg(b, x.re, reg))
    return _times(b, x, Scalar(x.type, b.const(re, reg), b.const(im, reg)))


def _times(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    return Scalar(x.type, *complexmath.multiply(b, (x.re, x.im), (y.re, y.im), x.type.reg))


def _plus(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    return Scalar(
        x.type, *(b.bin("addf", p, q, x.type.reg) for p, q in zip(x.parts, y.parts, strict=True))
    )
