"""What a convolution computes: axes, channels and where its elements lie in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from pai.compiler.codegen.cpu.emit.builder import Builder, Index
from pai.compiler.codegen.cpu.emit.dimensions import conv_dimensions
from pai.compiler.codegen.cpu.emit.graph import Node

_FAR = 1 << 62  # larger than any position


@dataclass(frozen=True)
class Axis:
    """One spatial dimension: output y and tap i read input (y*stride + i*dilation - low) / hole.

    Args:
        size: extent of the input.
        out: extent of the result.
        taps: extent of the window.
        stride: step of the window.
        dilation: distance of the window's taps.
        low: padding before the first element (may be negative).
        hole: dilation of the input; positions between its elements are zero.
        input: stride of the input's buffer, in elements.
        weight: stride of the weights' buffer along the taps (negative when reversed).
        result: stride of the result's buffer.
    """

    size: int
    out: int
    taps: int
    stride: int
    dilation: int
    low: int
    hole: int
    input: int
    weight: int
    result: int

    def valid(self, b: Builder, tap: Index) -> tuple[Index, Index]:
        """Return the outputs [first, end) whose tap lies inside the input (without holes)."""
        at = b.sub(b.mul(tap, self.dilation), self.low)  # input position of output 0
        before = b.clamp(b.sub(self.stride - 1, at), 0, _FAR)  # output >= -at / stride, rounded up
        beyond = b.clamp(b.sub(self.size - 1 + self.stride, at), 0, _FAR)
        first = b.clamp(b.div(before, self.stride), 0, self.out)
        end = b.clamp(b.div(beyond, self.stride), 0, self.out)
        return first, end


@dataclass(frozen=True)
class Conv:
    """A convolution over two axes (the first one is trivial when there is only one).

    Strides are in elements. ``inputs`` and ``outputs`` are channels of one group.
    """

    batch: int
    groups: int
    inputs: int
    outputs: int
    y: Axis
    x: Axis
    input_batch: int
    input_channel: int
    weight_input: int
    weight_output: int
    weight_start: int
    result_batch: int
    result_channel: int

    @property
    def taps(self) -> int:
        """Taps of the window."""
        return self.y.taps * self.x.taps

    @property
    def channels_first(self) -> bool:
        """Whether the result is [batch, channel, y, x]."""
        dense = self.x.result == 1 and self.y.result == self.x.out
        return dense and self.result_channel == self.y.out * self.x.out

    @property
    def channels_last(self) -> bool:
        """Whether the result is [batch, y, x, channel]."""
        channels = self.groups * self.outputs
        dense = self.x.result == channels and self.y.result == channels * self.x.out
        return dense and self.result_channel == 1

    @property
    def in_place(self) -> bool:
        """Whether the input is read as it is: one tap, no stride, padding or holes."""
        return self.taps == 1 and all(
            a.stride == 1 and a.low == 0 and a.hole == 1 and a.size == a.out
            for a in (self.y, self.x)
        )


def read_conv(node: Node) -> Conv | None:
    """Return a convolution of one or two axes, None for another form."""
    d = conv_dimensions(node)
    data, weight = node.operands
    rank = len(d.input_spatial)
    if rank not in (1, 2) or node.int("batch_group_count") != 1:
        return None
    groups = node.int("feature_group_count")
    strides = [_strides(v.shape) for v in (data, weight, node.results[0])]
    padding = node.ints("padding", [0] * (2 * rank))
    reverse = node.ints("window_reversal", [0] * rank)
    axes = []
    start = 0
    for i in range(rank):
        tap = strides[1][d.kernel_spatial[i]]
        taps = weight.shape[d.kernel_spatial[i]]
        start += (taps - 1) * tap if reverse[i] else 0
        axes.append(
            Axis(
                data.shape[d.input_spatial[i]],
                node.results[0].shape[d.output_spatial[i]],
                taps,
                node.ints("window_strides", [1] * rank)[i],
                node.ints("rhs_dilation", [1] * rank)[i],
                padding[2 * i],
                node.ints("lhs_dilation", [1] * rank)[i],
                strides[0][d.input_spatial[i]],
                -tap if reverse[i] else tap,
                strides[2][d.output_spatial[i]],
            )
        )
    if rank == 1:
        x = axes[0]
        whole = (x.size * x.input, x.out * x.result)
        axes.insert(0, Axis(1, 1, 1, 1, 1, 0, 1, whole[0], 0, whole[1]))
    return Conv(
        data.shape[d.input_batch],
        groups,
        weight.shape[d.kernel_input],
        weight.shape[d.kernel_output] // groups,
        axes[0],
        axes[1],
        strides[0][d.input_batch],
        strides[0][d.input_feature],
        strides[1][d.kernel_input],
        strides[1][d.kernel_output],
        start,
        strides[2][d.output_batch],
        strides[2][d.output_feature],
    )


def _strides(shape: Sequence[int]) -> list[int]:
    return [prod(shape[i + 1 :]) for i in range(len(shape))]


def inside(b: Builder, position: Index, axis: Axis) -> str:
    """Return whether a padded position is an element of the input (i1)."""
    last = (axis.size - 1) * axis.hole
    conditions = [b.icmp("sge", position, 0), b.icmp("sle", position, last)]
    if axis.hole > 1:
        conditions.append(b.icmp("eq", b.rem(position, axis.hole), 0))
    return b.all_of(conditions)
