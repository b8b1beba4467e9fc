"""Depthwise convolutions: one input channel per group, so no reuse that a product could use.

Channels first: a part of the grid is one plane. It is copied, padded with zeros, to scratch, with
the columns sorted by their remainder modulo the stride, so that all columns a vector needs are
neighbours; then every tap is one multiply-add on vectors along x.

Channels last: a part is one line of the result. Vectors run along the channels; the loops over taps
run only over those inside the input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

from pai.compiler.codegen.cpu.conv_shape import Conv
from pai.compiler.codegen.cpu.emit.builder import Builder, Index
from pai.compiler.codegen.cpu.emit.kernel import KernelSource
from pai.compiler.codegen.cpu.epilogue import Kernel, finish
from pai.compiler.codegen.cpu.tile import Vec, make_tile

_UNROLLED_TAPS = 25  # windows up to this size are written out tap by tap
_SUMS = 6  # vectors of sums at a time: enough to hide the latency of a multiply-add


def emit_depthwise(kernel: Kernel, conv: Conv, vec: Vec) -> KernelSource | None:
    """Return the kernel of a depthwise convolution, None when this file does not cover it."""
    if conv.inputs != 1 or conv.groups == 1 or conv.x.hole > 1 or conv.y.hole > 1:
        return None
    if conv.channels_first and conv.x.taps <= _UNROLLED_TAPS:
        return _Planes(kernel, conv, vec).emit()
    dense = conv.input_channel == 1 and conv.weight_output == 1
    if conv.channels_last and conv.outputs == 1 and dense:
        return _Lines(kernel, conv, vec).emit()
    return None


class _Depthwise:
    """What both forms need."""

    def __init__(self, kernel: Kernel, conv: Conv, vec: Vec) -> None:
        self.kernel, self.conv, self.vec = kernel, conv, vec
        self.b: Builder = kernel.context.b
        data, weights = kernel.node.operands
        self.data = kernel.pointer(data)
        self.weights = self.b.address(kernel.pointer(weights), conv.weight_start, vec.elem)

    def chunks(self, width: int, body: Callable[[Index, Sequence[int]], None]) -> None:
        """Call ``body`` with the start and the vectors of each piece of ``_SUMS`` vectors."""
        lanes = self.vec.lanes
        step = _SUMS * lanes
        whole = width // step * step

        def full(start: Index) -> Sequence[str]:
            body(start, (lanes,) * _SUMS)
            return ()

        self.b.loop(0, whole, full, step=step)
        if whole < width:
            body(whole, make_tile(self.vec, 1, width - whole).counts)


class _Planes(_Depthwise):
    """Channels first."""

    def __init__(self, kernel: Kernel, conv: Conv, vec: Vec) -> None:
        super().__init__(kernel, conv, vec)
        y, x = conv.y, conv.x
        self.rows = (y.out - 1) * y.stride + (y.taps - 1) * y.dilation + 1
        reach = ((x.taps - 1) * x.dilation) // x.stride
        self.columns = ceil(x.out / vec.lanes) * vec.lanes + reach
        shape = (self.rows, x.stride, self.columns)
        self.plane = kernel.context.scratch(kernel.type, shape).pointer

    def emit(self) -> KernelSource:
        """Write the loop over planes."""
        b, c = self.b, self.conv
        size = c.y.out * c.x.out

        def part(number: Index) -> Sequence[str]:
            image, group = b.delinear(number, (c.batch, c.groups))
            start = b.add(b.mul(image, c.input_batch), b.mul(group, c.input_channel))
            self._copy(start)

            def output(o: Index) -> Sequence[str]:
                channel = b.add(b.mul(group, c.outputs), o)
                plane = b.add(b.mul(image, c.groups * c.outputs), channel)
                first = b.mul(plane, size)
                self._output(b.mul(channel, c.weight_output), first)
                if self.kernel.has_epilogue:
                    self.kernel.epilogue(first, b.add(first, size))
                return ()

            b.loop(0, c.outputs, output)
            return ()

        b.loop("%begin", "%end", part)
        return finish(self.kernel, c.batch * c.groups)

    def _copy(self, start: Index) -> None:
        """Copy a plane to scratch: [row][column modulo stride][column / stride], zero-padded."""
        b, elem, x, y = self.b, self.vec.elem, self.conv.x, self.conv.y
        zero = b.const(0.0, elem)

        def line(row: Index) -> Sequence[str]:
            in_y = b.sub(row, y.low)
            there = b.all_of([b.icmp("sge", in_y, 0), b.icmp("slt", in_y, y.size)])
            source = b.add(start, b.mul(in_y, y.input))
            target = b.mul(row, x.stride * self.columns)

            def clear(low: int, high: int, at: int) -> None:
                def store(i: Index) -> Sequence[str]:
                    b.store(zero, self.plane, b.add(b.add(target, at), i), elem)
                    return ()

                b.loop(low, high, store)

            def fill() -> Sequence[str]:
                for phase in range(x.stride):
                    first = min(max(0, -((phase - x.low) // x.stride)), self.columns)
                    end = (x.size - 1 + x.low - phase) // x.stride + 1
                    end = min(max(end, first), self.columns)
                    at = phase * self.columns
                    clear(0, first, at)
                    b.loop(first, end, lambda i, p=phase, a=at: copy(i, p, a))
                    clear(end, self.columns, at)
                return ()

            def copy(i: Index, phase: int, at: int) -> Sequence[str]:
                column = b.add(b.mul(i, x.stride), phase - x.low)
                value = b.load(self.data, b.add(source, b.mul(column, x.input)), elem)
                b.store(value, self.plane, b.add(b.add(target, at), i), elem)
                return ()

            def empty() -> Sequence[str]:
                clear(0, x.stride * self.columns, 0)
                return ()

            b.cond(there, fill, empty)
            return ()

        b.loop(0, self.rows, line)

    def _output(self, weight: Index, first: Index) -> None:
        """Make one plane of the result from the plane in scratch."""
        b, vec, x, y = self.b, self.vec, self.conv.x, self.conv.y
        pitch = x.stride * self.columns

        def row_of_taps(
            i: Index, out_y: Index, start: Index, counts: Sequence[int], sums: Sequence[str]
        ) -> list[str]:
            sums = list(sums)
            row = b.add(b.mul(out_y, y.stride), b.mul(i, y.dilation))
            for j in range(x.taps):
                at = b.add(weight, b.add(b.mul(i, y.weight), j * x.weight))
                factor = vec.splat(b, b.load(self.weights, at, vec.elem))
                phase, shift = (j * x.dilation) % x.stride, (j * x.dilation) // x.stride
                place = b.add(b.mul(row, pitch), b.add(start, phase * self.columns + shift))
                for n in range(len(counts)):
                    value = vec.load(b, self.plane, b.add(place, n * vec.lanes), vec.lanes)
                    sums[n] = vec.mul_add(b, factor, value, sums[n])
            return sums

        def chunk(out_y: Index, start: Index, counts: Sequence[int]) -> None:
            sums = [vec.zero(b)] * len(counts)
            if y.taps * x.taps > _UNROLLED_TAPS:
                kinds = [vec.type] * len(counts)
                sums = b.loop(
                    0, y.taps, lambda i, *s: row_of_taps(i, out_y, start, counts, s), sums, kinds
                )
            else:
                for i in range(y.taps):
                    sums = row_of_taps(i, out_y, start, counts, sums)
            place = b.add(b.add(first, b.mul(out_y, x.out)), start)
            for n, count in enumerate(counts):
                where = b.add(place, n * vec.lanes)
                vec.store(b, sums[n], self.kernel.output, where, count)

        def line(out_y: Index) -> Sequence[str]:
            self.chunks(x.out, lambda start, counts: chunk(out_y, start, counts))
            return ()

        b.loop(0, y.out, line)


class _Lines(_Depthwise):
    """Channels last."""

    def emit(self) -> KernelSource:
        """Write the loop over lines of the result."""
        b, c = self.b, self.conv
        size = c.x.out * c.groups

        def part(number: Index) -> Sequence[str]:
            image, out_y = b.delinear(number, (c.batch, c.y.out))
            first = b.mul(number, size)

            def place(out_x: Index) -> Sequence[str]:
                self._place(image, out_y, out_x, b.add(first, b.mul(out_x, c.groups)))
                return ()

            b.loop(0, c.x.out, place)
            if self.kernel.has_epilogue:
                self.kernel.epilogue(first, b.add(first, size))
            return ()

        b.loop("%begin", "%end", part)
        return finish(self.kernel, c.batch * c.y.out)

    def _range(self, out: Index, axis_name: str) -> tuple[Index, Index, Index]:
        """Return the taps [low, high) that lie inside the input, and tap 0's input position."""
        b, axis = self.b, getattr(self.conv, axis_name)
        at = b.sub(b.mul(out, axis.stride), axis.low)
        d = axis.dilation
        before = b.sub(d - 1, at)  # tap >= -at / d, rounded up
        low = b.clamp(b.div(b.clamp(before, 0, 1 << 62), d), 0, axis.taps)
        beyond = b.sub(axis.size - 1 + d, at)  # tap <= (size - 1 - at) / d
        high = b.clamp(b.div(b.clamp(beyond, 0, 1 << 62), d), 0, axis.taps)
        return low, high, at

    def _place(self, image: Index, out_y: Index, out_x: Index, first: Index) -> None:
        """Make all channels at one place."""
        b, vec, c = self.b, self.vec, self.conv
        y_low, y_high, y_at = self._range(out_y, "y")
        x_low, x_high, x_at = self._range(out_x, "x")
        source = b.add(b.mul(image, c.input_batch), b.mul(y_at, c.y.input))
        source = b.add(source, b.mul(x_at, c.x.input))

        def channels(start: Index, counts: Sequence[int]) -> None:
            def tap(i: Index, j: Index, sums: Sequence[str]) -> list[str]:
                at = b.add(b.mul(i, c.y.dilation * c.y.input), b.mul(j, c.x.dilation * c.x.input))
                at = b.add(b.add(source, at), start)
                weight = b.add(b.add(b.mul(i, c.y.weight), b.mul(j, c.x.weight)), start)
                result = []
                for n, count in enumerate(counts):
                    value = vec.load(b, self.data, b.add(at, n * vec.lanes), count)
                    factor = vec.load(b, self.weights, b.add(weight, n * vec.lanes), count)
                    result.append(vec.mul_add(b, factor, value, sums[n]))
                return result

            kinds = [vec.type] * len(counts)

            def taps(i: Index, *sums: str) -> list[str]:
                return b.loop(x_low, x_high, lambda j, *s: tap(i, j, s), sums, kinds)

            sums = b.loop(y_low, y_high, taps, [vec.zero(b)] * len(counts), kinds)
            for n, count in enumerate(counts):
                where = b.add(b.add(first, start), n * vec.lanes)
                vec.store(b, sums[n], self.kernel.output, where, count)

        self.chunks(c.groups, channels)
