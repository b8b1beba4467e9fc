"""dot_general and convolution by plain loops: every form and type, no blocking.

Sums of narrow floats are kept in f32 and rounded once; integers wrap around in the result's type.
"""

from __future__ import annotations

from pai.compiler.codegen.cpu.emit import complexmath
from pai.compiler.codegen.cpu.emit.builder import Builder, Index
from pai.compiler.codegen.cpu.emit.convert import constant, convert, wide_type
from pai.compiler.codegen.cpu.emit.dimensions import conv_dimensions, dot_dimensions
from pai.compiler.codegen.cpu.emit.emitter import Indices
from pai.compiler.codegen.cpu.emit.graph import Node
from pai.compiler.codegen.cpu.emit.kernel import StageContext
from pai.compiler.codegen.cpu.emit.stage import stage_rule
from pai.compiler.codegen.cpu.emit.types import ElemType, Scalar


def accumulate(b: Builder, total: Scalar, x: Scalar, y: Scalar) -> Scalar:
    """Return total + x*y in the type of ``total``."""
    kind = total.type
    x, y = convert(b, x, kind), convert(b, y, kind)
    if kind.is_complex:
        re, im = complexmath.multiply(b, (x.re, x.im), (y.re, y.im), kind.reg)
        return Scalar(
            kind, b.bin("addf", total.re, re, kind.reg), b.bin("addf", total.im, im, kind.reg)
        )
    if kind.is_float:
        product = b.bin("mulf", x.re, y.re, kind.reg, "fastmath<contract>")
        return Scalar(
            kind, b.bin("addf", total.re, product, kind.reg, "fastmath<reassoc,contract>")
        )
    if kind.kind == "bool":
        return Scalar(kind, b.bin("ori", total.re, b.bin("andi", x.re, y.re, "i1"), "i1"))
    return Scalar(kind, b.bin("addi", total.re, b.bin("muli", x.re, y.re, kind.reg), kind.reg))


def _zero(b: Builder, kind: ElemType) -> Scalar:
    return constant(b, kind, 0)


def _free(rank: int, *taken: list[int]) -> list[int]:
    used = {d for dims in taken for d in dims}
    return [d for d in range(rank) if d not in used]


@stage_rule("dot_general", rows=lambda node: len(node.results[0].shape))
def dot_general(e: StageContext, node: Node) -> None:
    """Write one loop nest over the result with a loop over the contracted dimensions inside."""
    x, y = node.operands
    (result,) = node.results
    d = dot_dimensions(node)
    x_free = _free(len(x.shape), d.lhs_batch, d.lhs_contract)
    y_free = _free(len(y.shape), d.rhs_batch, d.rhs_contract)
    kind = wide_type(result.type)
    batches = len(d.lhs_batch)

    def point(index: Indices) -> None:
        def step(inner: Indices, total: list[Scalar]) -> list[Scalar]:
            left: list[Index] = [0] * len(x.shape)
            right: list[Index] = [0] * len(y.shape)
            for place, dims in ((left, d.lhs_batch), (right, d.rhs_batch)):
                for at, k in zip(index, dims, strict=False):
                    place[k] = at
            for at, k in zip(index[batches:], x_free, strict=False):
                left[k] = at
            for at, k in zip(index[batches + len(x_free) :], y_free, strict=True):
                right[k] = at
            for at, k, m in zip(inner, d.lhs_contract, d.rhs_contract, strict=True):
                left[k] = right[m] = at
            return [
                accumulate(e.b, total[0], e.element(x, tuple(left)), e.element(y, tuple(right)))
            ]

        extents = [x.shape[k] for k in d.lhs_contract]
        (total,) = e.fold(extents, [_zero(e.b, kind)], step)
        e.write(result, index, convert(e.b, total, result.type))

    e.free_loops(result.shape, point)


@stage_rule("convolution", rows=lambda node: len(node.results[0].shape))
def convolution(e: StageContext, node: Node) -> None:
    """Write one loop nest over the result with loops over the window and the features inside."""
    (result,) = node.results
    kind = wide_type(result.type)
    d = conv_dimensions(node)
    kernel = node.operands[1]
    extents = [*(kernel.shape[k] for k in d.kernel_spatial), kernel.shape[d.kernel_input]]

    def point(index: Indices) -> None:
        def step(inner: Indices, total: list[Scalar]) -> list[Scalar]:
            return [_tap(e, node, index, inner, total[0])]

        (total,) = e.fold(extents, [_zero(e.b, kind)], step)
        e.write(result, index, convert(e.b, total, result.type))

    e.free_loops(result.shape, point)


def _tap(e: StageContext, node: Node, index: Indices, inner: Indices, total: Scalar) -> Scalar:
    """Return the sum with one window element and one input feature added, if it lies inside."""
    b = e.b
    x, kernel = node.operands
    d = conv_dimensions(node)
    spatial = len(d.input_spatial)
    strides = node.ints("window_strides", [1] * spatial)
    padding = node.ints("padding", [0] * (2 * spatial))
    dilate_x = node.ints("lhs_dilation", [1] * spatial)
    dilate_k = node.ints("rhs_dilation", [1] * spatial)
    reverse = node.ints("window_reversal", [0] * spatial)
    groups, batch_groups = node.int("feature_group_count"), node.int("batch_group_count")
    left: list[Index] = [0] * len(x.shape)
    right: list[Index] = [0] * len(kernel.shape)
    tests: list[str] = []
    for i in range(spatial):
        extent, window = x.shape[d.input_spatial[i]], kernel.shape[d.kernel_spatial[i]]
        place = b.add(b.mul(index[d.output_spatial[i]], strides[i]), b.mul(inner[i], dilate_k[i]))
        place = b.sub(place, padding[2 * i])
        span = (extent - 1) * dilate_x[i] + 1
        if isinstance(place, int) or not _inside(node, i, span):
            tests.append(b.cmp("ult", b.index(place), b.index(max(0, span)), "i64"))
        if dilate_x[i] > 1:
            safe = b.clamp(place, 0, max(0, span - 1))
            tests.append(b.icmp("eq", b.rem(safe, dilate_x[i]), 0))
            place = b.div(safe, dilate_x[i])
        left[d.input_spatial[i]] = place
        right[d.kernel_spatial[i]] = b.sub(window - 1, inner[i]) if reverse[i] else inner[i]
    out_feature = index[d.output_feature]
    features = kernel.shape[d.kernel_output]
    group = b.div(out_feature, features // groups) if groups > 1 else 0
    left[d.input_feature] = b.add(b.mul(group, kernel.shape[d.kernel_input]), inner[-1])
    left[d.input_batch] = index[d.output_batch]
    if batch_groups > 1:
        part = b.div(out_feature, features // batch_groups)
        size = x.shape[d.input_batch] // batch_groups
        left[d.input_batch] = b.add(b.mul(part, size), index[d.output_batch])
    right[d.kernel_input], right[d.kernel_output] = inner[-1], out_feature

    def inside() -> Scalar:
        return accumulate(b, total, e.element(x, tuple(left)), e.element(kernel, tuple(right)))

    if not tests:
        return inside()
    return e.choose(total.type, b.all_of(tests), inside, lambda: total)


def _inside(node: Node, i: int, span: int) -> bool:
    """Return whether no window reaches beyond the input along spatial dimension ``i``."""
    d = conv_dimensions(node)
    spatial = len(d.input_spatial)
    low = node.ints("padding", [0] * (2 * spatial))[2 * i]
    stride = node.ints("window_strides", [1] * spatial)[i]
    dilation = node.ints("rhs_dilation", [1] * spatial)[i]
    out = node.results[0].shape[d.output_spatial[i]]
    window = node.operands[1].shape[d.kernel_spatial[i]]
    last = (out - 1) * stride + (window - 1) * dilation - low
    return low <= 0 and last < span
