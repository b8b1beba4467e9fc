"""Convolutions with register tiles: kernels of kind ``conv``.

Channels-first results (NCHW) are products C[o, (y, x)] = W[o, (c, i, j)] P[(c, i, j), (y, x)] per
image and group, channels-last ones (NHWC) are C[(n, y, x), o] = P[(n, y, x), (i, j, c)] W[(i, j,
c), o] per group, where P holds the shifted, strided, zero-padded input. P is never made as a
whole: only the panel or the rows that a part of the grid works on are copied to scratch
(``product.py`` does the rest). A 1x1 convolution without stride or padding reads the input in
place. Depthwise convolutions have kernels of their own (``depthwise.py``).

Left to the elemental emitter: three and more spatial dimensions, other orders of dimensions of
input and result, batch groups, types other than f32 and f64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pai.compiler.codegen.cpu.conv_shape import Conv, inside, read_conv
from pai.compiler.codegen.cpu.depthwise import emit_depthwise
from pai.compiler.codegen.cpu.emit import register_kernel
from pai.compiler.codegen.cpu.emit.builder import Index
from pai.compiler.codegen.cpu.emit.graph import Graph
from pai.compiler.codegen.cpu.emit.kernel import KernelSource
from pai.compiler.codegen.cpu.epilogue import Kernel, make_kernel
from pai.compiler.codegen.cpu.problem import Group, Problem
from pai.compiler.codegen.cpu.product import Product
from pai.compiler.codegen.cpu.target import CpuTarget
from pai.compiler.codegen.cpu.tile import Vec, vec_of

_UNROLLED_TAPS = 8  # windows up to this width are written out tap by tap


def emit_conv(func: Any, graph: Graph, target: CpuTarget) -> KernelSource | None:
    """Return the kernel of a convolution, or None when only the elemental emitter covers it."""
    kernel = make_kernel(func, graph, target, "convolution")
    conv = read_conv(kernel.node) if kernel is not None else None
    if kernel is None or conv is None or 0 in (*kernel.root.shape, conv.inputs * conv.taps):
        return None
    vec = vec_of(target, kernel.type.name)
    source = emit_depthwise(kernel, conv, vec)
    if source is not None:
        return source
    if conv.channels_first:
        return ColumnsConv(kernel, conv, vec, target).emit()
    if conv.channels_last:
        return RowsConv(kernel, conv, vec, target).emit()
    return None


class ColumnsConv(Product):
    """Channels first: rows are output channels, columns are positions."""

    def __init__(self, kernel: Kernel, conv: Conv, vec: Vec, target: CpuTarget) -> None:
        self.conv = conv
        y, x = conv.y, conv.x
        images = (conv.batch, conv.groups)
        problem = Problem(
            batch_a=Group(images, (0, conv.outputs * conv.weight_output)),
            batch_b=Group(images, (conv.input_batch, conv.inputs * conv.input_channel)),
            m=Group((conv.outputs,), (conv.weight_output,)),
            n=Group((y.out, x.out), (y.stride * y.input, x.stride * x.input)),
            k_a=Group((conv.inputs, y.taps, x.taps), (conv.weight_input, y.weight, x.weight)),
            k_b=Group(
                (conv.inputs, y.taps, x.taps),
                (conv.input_channel, y.dilation * y.input, x.dilation * x.input),
            ),
        )
        weights, data = kernel.node.operands[1], kernel.node.operands[0]
        start = kernel.context.b.address(kernel.pointer(weights), conv.weight_start, vec.elem)
        super().__init__(
            kernel,
            problem,
            vec,
            target,
            start,
            kernel.pointer(data),
            shifted_b=not conv.in_place,
            k_unit=conv.taps,
        )

    def _pack_b(self, bp: str, k: Index, count: Index, n: Index, width: int) -> None:
        """Copy the shifted input of positions n.. for a range of channels and all taps."""
        if self.conv.in_place:
            super()._pack_b(bp, k, count, n, width)
            return
        b, c = self.b, self.conv
        x, y = c.x, c.y
        row = self.panel_row(width)
        first_channel, channels = b.div(k, c.taps), b.div(count, c.taps)

        def line(out_y: Index) -> Sequence[str]:
            at = b.sub(b.mul(out_y, x.out), n)  # of the line's first position, in the panel
            low = b.clamp(b.sub(0, at), 0, x.out)
            high = b.clamp(b.sub(width, at), 0, x.out)

            def tap(i: Index, j: Index) -> Sequence[str]:
                in_y = b.sub(b.add(b.mul(out_y, y.stride), b.mul(i, y.dilation)), y.low)
                there = inside(b, in_y, y)
                in_y = b.div(in_y, y.hole) if y.hole > 1 else in_y

                def channel(number: Index) -> Sequence[str]:
                    channel_at = b.mul(b.add(first_channel, number), c.input_channel)
                    source = b.add(channel_at, b.mul(in_y, y.input))
                    tap_row = b.add(b.mul(number, c.taps), b.add(b.mul(i, x.taps), j))
                    self._line(bp, source, b.add(b.mul(tap_row, row), at), j, low, high, there)
                    return ()

                b.loop(0, channels, channel)
                return ()

            def taps(i: Index) -> Sequence[str]:
                if x.taps > _UNROLLED_TAPS:
                    b.loop(0, x.taps, lambda j: tap(i, j))
                else:
                    for j in range(x.taps):
                        tap(i, j)
                return ()

            b.loop(0, y.taps, taps)
            return ()

        last = b.div(b.add(n, width - 1), x.out)
        b.loop(b.div(n, x.out), b.add(last, 1), line)

    def _line(
        self, bp: str, source: Index, target: Index, j: Index, low: Index, high: Index, there: str
    ) -> None:
        """Copy outputs [low, high) of one line for tap j of the x axis."""
        b, x, elem = self.b, self.conv.x, self.vec.elem
        zero = b.const(0.0, elem)

        def clear(at: Index) -> Sequence[str]:
            b.store(zero, self.packed_b, b.add(target, at), elem)
            return ()

        if x.hole > 1:
            self._line_with_holes(bp, source, target, j, low, high, there)
            return
        first, end = x.valid(b, j)
        nowhere = b.index(high)
        first = b.select(there, self._between(first, low, high), nowhere, "i64")
        end = b.select(there, self._between(end, first, high), nowhere, "i64")
        shift = b.sub(b.mul(j, x.dilation), x.low)

        def copy(at: Index) -> Sequence[str]:
            where = b.add(source, b.mul(b.add(b.mul(at, x.stride), shift), x.input))
            b.store(b.load(bp, where, elem), self.packed_b, b.add(target, at), elem)
            return ()

        b.loop(low, first, clear)
        b.loop(first, end, copy)
        b.loop(end, high, clear)

    def _between(self, x: Index, low: Index, high: Index) -> str:
        b = self.b
        x = b.bin("maxsi", b.index(x), b.index(low), "i64")
        return b.bin("minsi", x, b.index(high), "i64")

    def _line_with_holes(
        self, bp: str, source: Index, target: Index, j: Index, low: Index, high: Index, there: str
    ) -> None:
        b, x, elem = self.b, self.conv.x, self.vec.elem

        def copy(at: Index) -> Sequence[str]:
            in_x = b.sub(b.add(b.mul(at, x.stride), b.mul(j, x.dilation)), x.low)
            both = b.all_of([there, inside(b, in_x, x)])
            where = b.add(source, b.mul(b.div(in_x, x.hole), x.input))
            (value,) = b.cond(
                both,
                lambda: [b.load(bp, where, elem)],
                lambda: [b.const(0.0, elem)],
                [elem],
            )
            b.store(value, self.packed_b, b.add(target, at), elem)
            return ()

        b.loop(low, high, copy)


class RowsConv(Product):
    """Channels last: rows are positions, columns are output channels."""

    def __init__(self, kernel: Kernel, conv: Conv, vec: Vec, target: CpuTarget) -> None:
        self.conv = conv
        y, x = conv.y, conv.x
        places = (conv.batch, y.out, x.out)
        taps = (y.taps, x.taps, conv.inputs)
        problem = Problem(
            batch_a=Group((conv.groups,), (conv.inputs * conv.input_channel,)),
            batch_b=Group((conv.groups,), (conv.outputs * conv.weight_output,)),
            m=Group(places, (conv.input_batch, y.stride * y.input, x.stride * x.input)),
            n=Group((conv.outputs,), (conv.weight_output,)),
            k_a=Group(taps, (y.dilation * y.input, x.dilation * x.input, conv.input_channel)),
            k_b=Group(taps, (y.weight, x.weight, conv.weight_input)),
            batch_c=Group((conv.groups,), (conv.outputs,)),
            row_c=conv.groups * conv.outputs,
        )
        data, weights = kernel.node.operands
        start = kernel.context.b.address(kernel.pointer(weights), conv.weight_start, vec.elem)
        super().__init__(
            kernel,
            problem,
            vec,
            target,
            kernel.pointer(data),
            start,
            shifted_a=not conv.in_place,
            k_unit=conv.inputs,
        )

    def _pack_a(self, a: str, m: Index, m_end: Index, k: Index, count: Index) -> None:
        """Copy the windows of positions [m, m_end) as rows, for a range of taps."""
        if self.conv.in_place:
            super()._pack_a(a, m, m_end, k, count)
            return
        b, c, elem = self.b, self.conv, self.vec.elem
        zero = b.const(0.0, elem)
        first, taps = b.div(k, c.inputs), b.div(count, c.inputs)

        def place(row: Index) -> Sequence[str]:
            image, out_y, out_x = b.delinear(row, (c.batch, c.y.out, c.x.out))
            line = b.mul(b.sub(row, m), self.blocks.k)

            def tap(number: Index) -> Sequence[str]:
                i, j = b.delinear(b.add(first, number), (c.y.taps, c.x.taps))
                in_y = b.sub(b.add(b.mul(out_y, c.y.stride), b.mul(i, c.y.dilation)), c.y.low)
                in_x = b.sub(b.add(b.mul(out_x, c.x.stride), b.mul(j, c.x.dilation)), c.x.low)
                there = b.all_of([inside(b, in_y, c.y), inside(b, in_x, c.x)])
                source = b.mul(image, c.input_batch)
                source = b.add(source, b.mul(b.div(in_y, c.y.hole), c.y.input))
                source = b.add(source, b.mul(b.div(in_x, c.x.hole), c.x.input))
                target = b.add(line, b.mul(number, c.inputs))

                def copy(at: Index) -> Sequence[str]:
                    value = b.load(a, b.add(source, b.mul(at, c.input_channel)), elem)
                    b.store(value, self.packed_a, b.add(target, at), elem)
                    return ()

                def clear(at: Index) -> Sequence[str]:
                    b.store(zero, self.packed_a, b.add(target, at), elem)
                    return ()

                b.cond(
                    there,
                    lambda: b.loop(0, c.inputs, copy),
                    lambda: b.loop(0, c.inputs, clear),
                )
                return ()

            b.loop(0, taps, tap)
            return ()

        b.loop(m, m_end, place)


register_kernel("conv", emit_conv)
