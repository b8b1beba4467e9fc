"""Operations that move elements: each maps an index of the result to one of the operand."""

from __future__ import annotations

from pai.compiler.codegen.cpu.emit.builder import Index
from pai.compiler.codegen.cpu.emit.constants import constant_element
from pai.compiler.codegen.cpu.emit.convert import convert, from_bits, to_bits
from pai.compiler.codegen.cpu.emit.emitter import Emitter, Indices, element_rule
from pai.compiler.codegen.cpu.emit.graph import Node, Value
from pai.compiler.codegen.cpu.emit.types import ElemType, Scalar, elem_type


@element_rule("broadcast_in_dim")
def broadcast_in_dim(e: Emitter, node: Node, number: int, index: Indices) -> Scalar:
    """Operand dimension i is result dimension ``broadcast_dimensions[i]``; extent 1 repeats."""
    (x,) = node.operands
    dims = node.ints("broadcast_dimensions")
    return e.element(
        x, tuple(0 if n == 1 else index[d] for d, n in zip(dims, x.shape, strict=True))
    )


@element_rule("reshape")
def reshape(e: Emitter, node: Node, number: int, index: Indices) -> Scalar:
    """The same row-major order; groups of dimensions are only mixed where they must be."""
    (x,) = node.operands
    return e.element(x, reshape_index(e, index, node.results[0].shape, x.shape))


def reshape_index(
    e: Emitter, index: Indices, have: tuple[int, ...], want: tuple[int, ...]
) -> Indices:
    """Return where the element at ``index`` of shape ``have`` is in shape ``want``."""
    if 0 in have:  # nothing is ever read; sizes cannot be matched
        return (0,) * len(want)
    result: list[Index] = []
    i = j = 0
    while i < len(have) or j < len(want):
        start_i, start_j = i, j
        size_i = have[i] if i < len(have) else 1
        size_j = want[j] if j < len(want) else 1
        i, j = min(i + 1, len(have)), min(j + 1, len(want))
        while size_i != size_j:
            if size_i < size_j:
                size_i *= have[i]
                i += 1
            else:
                size_j *= want[j]
                j += 1
        part = index[start_i:i]
        position = e.b.linear(part, have[start_i:i])
        result.extend(e.b.delinear(position, want[start_j:j]))
    return tuple(result)


@element_rule("transpose")
def transpose(e: Emitter, node: Node, number: int, index: Indices) -> Scalar:
    """Result dimension i is operand dimension ``permutation[i]``."""
    source: list[Index] = [0] * len(index)
    for i, d in zip(index, node.ints("permutation"), strict=True):
        source[d] = i
    return e.element(node.operands[0], tuple(source))


@element_rule("reverse")
def reverse(e: Emitter, node: Node, number: int, index: Indices) -> Scalar:
    """Count the given dimensions from the end."""
    (x,) = node.operands
    dims = node.ints("dimensions")
    return e.element(
        x,
        tuple(
            e.b.sub(n - 1, i) if d in dims else i
            for d, (i, n) in enumerate(zip(index, x.shape, strict=True))
        ),
    )


@element_rule("slice")
def slice_(e: Emitter, node: Node, number: int, index: Indices) -> Scalar:
    """Operand index start + i * stride."""
    starts, strides = node.ints("start_indices"), node.ints("strides")
    b = e.b
    return e.element(
        node.operands[0],
        tuple(b.add(b.mul(i, t), s) for i, s, t in zip(index, starts, strides, strict=True)),
    )


@element_rule("pad")
def pad(e: Emitter, node: Node, number: int, index: Indices) -> Scalar:
    """The operand where the index falls on it, the padding value elsewhere."""
    x, fill = node.operands
    b = e.b
    low, inner = node.ints("edge_padding_low"), node.ints("interior_padding")
    high = node.ints("edge_padding_high")
    source: list[Index] = []
    tests: list[str] = []
    outside = False
    for i, n, before, between, after in zip(index, x.shape, low, inner, high, strict=True):
        place = b.sub(i, before)
        span = (n - 1) * (between + 1)
        outside |= b.decide("sge", place, 0) is False or b.decide("sle", place, span) is False
        if between:
            tests += [b.icmp("sge", place, 0)]
            safe = b.clamp(place, 0, max(0, (n - 1) * (between + 1)))
            tests += [b.icmp("eq", b.rem(safe, between + 1), 0), b.icmp("eq", safe, place)]
            place = b.div(safe, between + 1)
        else:
            if before > 0 and not b.decide("sge", place, 0):
                tests.append(b.icmp("sge", place, 0))
            if after > 0 and not b.decide("slt", place, n):
                tests.append(b.icmp("slt", place, n))
        source.append(place)
    if x.size == 0 or outside:
        return e.element(fill, ())
    if not tests:
        return e.element(x, tuple(source))
    return e.choose(
        x.type, b.all_of(tests), lambda: e.element(x, tuple(source)), lambda: e.element(fill, ())
    )


@element_rule("concatenate")
def concatenate(e: Emitter, node: Node, number: int, index: Indices) -> Scalar:
    """The operand in whose range the index falls."""
    d = node.int("dimension")
    parts = [(v, v.shape[d]) for v in node.operands if v.shape[d]]
    return _concatenate(e, parts, d, index, 0)


def _concatenate(
    e: Emitter, parts: list[tuple[Value, int]], d: int, index: Indices, start: int
) -> Scalar:
    """Choose by halves, so that many operands nest only logarithmically deep."""
    b = e.b
    if len(parts) == 1:
        moved = b.sub(index[d], start)
        return e.element(parts[0][0], (*index[:d], moved, *index[d + 1 :]))
    half = len(parts) // 2
    middle = start + sum(n for _, n in parts[:half])
    position = index[d]
    low = b.decide("slt", position, middle)
    if low is not None:
        return _concatenate(
            e, parts[:half] if low else parts[half:], d, index, start if low else middle
        )
    return e.choose(
        parts[0][0].type,
        b.icmp("slt", position, middle),
        lambda: _concatenate(e, parts[:half], d, index, start),
        lambda: _concatenate(e, parts[half:], d, index, middle),
    )


@element_rule("iota")
def iota(e: Emitter, node: Node, number: int, index: Indices) -> Scalar:
    """The index along one dimension."""
    kind = node.results[0].type
    place = e.b.index(index[node.int("iota_dimension")])
    if kind.bits < 32 and kind.is_int:
        return Scalar(kind, e.b.cast("trunci", place, "i64", kind.reg))
    return convert(e.b, Scalar(elem_type("i64"), place), kind)


@element_rule("constant")
def constant(e: Emitter, node: Node, number: int, index: Indices) -> Scalar:
    """An element of a literal."""
    return constant_element(e, node, index)


@element_rule("dynamic_slice")
def dynamic_slice(e: Emitter, node: Node, number: int, index: Indices) -> Scalar:
    """Start indices are clamped so that the slice lies inside."""
    x, *starts = node.operands
    sizes = node.ints("slice_sizes")
    first = [
        e.b.clamp(e.position(s, ()), 0, n - k)
        for s, n, k in zip(starts, x.shape, sizes, strict=True)
    ]
    return e.element(x, tuple(e.b.add(i, s) for i, s in zip(index, first, strict=True)))


@element_rule("dynamic_update_slice")
def dynamic_update_slice(e: Emitter, node: Node, number: int, index: Indices) -> Scalar:
    """The update where the index falls into it, the operand elsewhere."""
    x, update, *starts = node.operands
    b = e.b
    if update.size == 0:
        return e.element(x, index)
    moved: list[Index] = []
    tests: list[str] = []
    for i, s, n, k in zip(index, starts, x.shape, update.shape, strict=True):
        place = i if n == k else b.sub(i, b.clamp(e.position(s, ()), 0, n - k))
        if n != k:
            tests += [b.icmp("sge", place, 0), b.icmp("slt", place, k)]
        moved.append(place)
    if not tests:
        return e.element(update, tuple(moved))
    return e.choose(
        x.type,
        b.all_of(tests),
        lambda: e.element(update, tuple(moved)),
        lambda: e.element(x, index),
    )


@element_rule("bitcast_convert")
def bitcast_convert(e: Emitter, node: Node, number: int, index: Indices) -> Scalar:
    """Read the bits as another type; the first of several narrow parts is the lowest."""
    (x,) = node.operands
    kind, b = node.results[0].type, e.b
    if x.type.is_complex and x.type != kind:
        return _recombine(e, x, kind, index)
    if x.type.is_complex or x.type.bits == kind.bits:
        element = e.element(x, index)
        return element if kind == x.type else from_bits(b, to_bits(b, element), kind)
    if x.type.bits > kind.bits:
        wide, narrow = f"i{x.type.bits}", f"i{kind.bits}"
        code = to_bits(b, e.element(x, index[:-1]))
        amount = b.index(b.mul(index[-1], kind.bits))
        amount = b.cast("trunci", amount, "i64", wide)
        return from_bits(
            b, b.cast("trunci", b.bin("shrui", code, amount, wide), wide, narrow), kind
        )
    wide = f"i{kind.bits}"
    total = b.const(0, wide)
    for i in range(kind.bits // x.type.bits):
        code = b.cast("extui", to_bits(b, e.element(x, (*index, i))), f"i{x.type.bits}", wide)
        total = b.bin("ori", total, b.bin("shli", code, b.const(i * x.type.bits, wide), wide), wide)
    return from_bits(b, total, kind)


def _recombine(e: Emitter, x: Value, kind: ElemType, index: Indices) -> Scalar:
    """Cut the parts of complex f64 into complex f32, or join two complex f32 into one."""
    b = e.b
    if x.type.bits > kind.bits:
        whole = e.element(x, index[:-1])
        second = b.cmp("ne", b.index(index[-1]), b.index(0), "i64")
        number = b.select(second, whole.im, whole.re, x.type.reg)
        low = to_bits(b, Scalar(x.type.part, number))
        high = b.bin("shrui", low, b.const(32, "i64"), "i64")
        halves = (b.cast("trunci", half, "i64", "i32") for half in (low, high))
        return Scalar(kind, *(from_bits(b, half, kind.part).re for half in halves))
    joined = []
    for i in range(2):
        low, high = (
            b.cast("extui", to_bits(b, Scalar(x.type.part, p)), "i32", "i64")
            for p in e.element(x, (*index, i)).parts
        )
        high = b.bin("shli", high, b.const(32, "i64"), "i64")
        joined.append(from_bits(b, b.bin("ori", low, high, "i64"), kind.part).re)
    return Scalar(kind, *joined)


@element_rule("map")
def map_(e: Emitter, node: Node, number: int, index: Indices) -> Scalar:
    """Apply a region to the operands' elements."""
    return e.apply(node.regions[0], [e.element(v, index) for v in node.operands])[number]


@element_rule("optimization_barrier")
def optimization_barrier(e: Emitter, node: Node, number: int, index: Indices) -> Scalar:
    """The operand itself."""
    return e.element(node.operands[number], index)


@element_rule("get_dimension_size")
def get_dimension_size(e: Emitter, node: Node, number: int, index: Indices) -> Scalar:
    """A static extent."""
    kind = node.results[0].type
    return Scalar(kind, e.b.const(node.operands[0].shape[node.int("dimension")], kind.reg))
