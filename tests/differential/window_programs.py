"""Programs of one window operation with drawn attributes, as StableHLO text.

Every strategy gives a `WindowProgram`; values are small multiples of 1/2, so that sums are exact
in any order and ties happen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st


@dataclass(frozen=True)
class WindowProgram:
    """A module of one operation and the shapes of its arguments, all f32 or all i32."""

    text: str
    shapes: tuple[tuple[int, ...], ...]

    def of_integers(self) -> WindowProgram:
        """Return the same program on i32."""
        text = self.text.replace("0xFF800000", "-2147483648").replace("0x7F800000", "2147483647")
        text = re.sub(r"dense<(-?\d+)\.0>", r"dense<\1>", text)
        return WindowProgram(re.sub(r"(<|x)f32>", r"\1i32>", text), self.shapes)

    def arguments(self) -> list[np.ndarray]:
        """Return arguments that are the same every time; some values repeat, many are negative."""
        rng = np.random.default_rng(len(self.text))
        values = [rng.integers(-9, 4, shape) for shape in self.shapes]
        if "i32" in self.text:
            return [value.astype(np.int32) for value in values]
        return [(value / 2).astype(np.float32) for value in values]


def kind(shape: Sequence[int], element: str = "f32") -> str:
    """Return a tensor type."""
    return f"tensor<{''.join(f'{size}x' for size in shape)}{element}>"


def array(values: Sequence[int]) -> str:
    """Return ``array<i64: ...>``."""
    return f"array<i64: {', '.join(map(str, values))}>"


def dense(edges: Sequence[tuple[int, int]]) -> str:
    """Return the padding attribute."""
    return f"dense<{[list(edge) for edge in edges]}> : tensor<{len(edges)}x2xi64>"


@dataclass(frozen=True)
class Spatial:
    """Attributes of one windowed dimension."""

    size: int
    window: int
    stride: int = 1
    low: int = 0
    high: int = 0
    base: int = 1
    dilation: int = 1
    reverse: bool = False

    @property
    def count(self) -> int:
        """The number of windows."""
        length = self.low + (self.size - 1) * self.base + 1 + self.high
        extent = (self.window - 1) * self.dilation + 1
        return (length - extent) // self.stride + 1 if length >= extent else 0


@st.composite
def spatials(draw: st.DrawFn, *, signed: bool = True, dilated: bool = True) -> Spatial:
    """Draw a windowed dimension; windows larger than what they slide over are as likely."""
    size = draw(st.integers(1, 17))
    window = draw(st.one_of(st.integers(1, 4), st.integers(1, size + 2)))
    edge = st.integers(-2 if signed else 0, 4)
    step = st.integers(1, 3)
    out = Spatial(
        size,
        window,
        draw(step),
        draw(st.one_of(edge, st.just(window - 1))),
        draw(edge),
        draw(step) if dilated else 1,
        draw(step) if dilated else 1,
        draw(st.booleans()),
    )
    assume(0 < out.count <= 40)
    return out


@st.composite
def convolutions(draw: st.DrawFn) -> WindowProgram:
    """Draw a convolution with one or two spatial dimensions, groups and any dimension order."""
    dims = draw(st.lists(spatials(), min_size=1, max_size=2))
    groups, batches = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2), (4, 1), (1, 4)]))
    batch, feature = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    outputs = draw(st.integers(1, 2)) * groups * batches
    orders = [draw(st.permutations(["b", "f", *map(str, range(len(dims)))])) for _ in range(2)]
    kernel_order = draw(st.permutations(["o", "i", *map(str, range(len(dims)))]))
    sizes: list[dict[str, int]] = [
        {"b": batch * batches, "f": feature * groups},
        {"o": outputs, "i": feature},
        {"b": batch, "f": outputs},
    ]
    for index, dim in enumerate(dims):
        for table, size in zip(sizes, (dim.size, dim.window, dim.count), strict=True):
            table[str(index)] = size
    names = (orders[0], kernel_order, orders[1])
    shapes = [
        tuple(table[name] for name in order) for table, order in zip(sizes, names, strict=True)
    ]
    lhs, rhs, res = (f"[{', '.join(order)}]" for order in names)
    window = (
        f"stride = {[d.stride for d in dims]}, pad = {[[d.low, d.high] for d in dims]}, "
        f"lhs_dilate = {[d.base for d in dims]}, rhs_dilate = {[d.dilation for d in dims]}, "
        f"reverse = [{', '.join(str(d.reverse).lower() for d in dims)}]"
    )
    types = [kind(shape) for shape in shapes]
    return WindowProgram(
        f"""func.func @main(%x: {types[0]}, %w: {types[1]}) -> {types[2]} {{
  %0 = stablehlo.convolution(%x, %w) dim_numbers = {lhs}x{rhs}->{res}, window = {{{window}}}
    {{batch_group_count = {batches} : i64, feature_group_count = {groups} : i64}}
    : ({types[0]}, {types[1]}) -> {types[2]}
  return %0 : {types[2]}
}}""",
        (shapes[0], shapes[1]),
    )


NEUTRAL = {"add": "0.0", "maximum": "0xFF800000", "minimum": "0x7F800000", "multiply": "1.0"}


def _window_attributes(dims: Sequence[Spatial]) -> str:
    rows = {
        "base_dilations": [d.base for d in dims],
        "window_dilations": [d.dilation for d in dims],
        "window_dimensions": [d.window for d in dims],
        "window_strides": [d.stride for d in dims],
    }
    text = ", ".join(f"{name} = {array(row)}" for name, row in rows.items())
    return f"{text}, padding = {dense([(d.low, d.high) for d in dims])}"


@st.composite
def reduce_windows(draw: st.DrawFn) -> WindowProgram:
    """Draw pooling of one operand, with any initial value, or of two as argmax does it."""
    dims = draw(st.lists(spatials(), min_size=1, max_size=2))
    body = draw(st.sampled_from([*NEUTRAL, "first"]))
    shape, result = [d.size for d in dims], [d.count for d in dims]
    assume(body != "multiply" or math.prod(d.window for d in dims) <= 12)
    init = draw(st.sampled_from([NEUTRAL.get(body, "0xFF800000"), "1.0"]))
    return _pooling(body, shape, result, init, _window_attributes(dims))


@st.composite
def scans(draw: st.DrawFn) -> WindowProgram:
    """Draw cumulative sums and the like, along one or two dimensions, either way."""
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    dims = []
    for size in shape:
        way = draw(st.sampled_from(["", "up", "down"]))
        window = size + draw(st.integers(0, 2)) if way else 1
        low, high = (window - 1, 0) if way == "up" else (0, window - 1)
        dims.append(Spatial(size, window, low=low, high=high))
    body = draw(st.sampled_from(["add", "maximum", "minimum"]))
    init = draw(st.sampled_from([NEUTRAL[body], "-1.0"]))
    return _pooling(body, shape, shape, init, _window_attributes(dims))


def _pooling(
    body: str, shape: Sequence[int], result: Sequence[int], init: str, attributes: str
) -> WindowProgram:
    count = 2 if body == "first" else 1
    names = [f"%x{k}" for k in range(count)]
    scalars = [f"%{side}{k}" for side in "ab" for k in range(count)]
    arguments = ", ".join(f"{name}: {kind(shape)}" for name in names)
    results = ", ".join([kind(result)] * count)
    if body == "first":
        code = """%c = stablehlo.compare GE, %a0, %b0 : (tensor<f32>, tensor<f32>) -> tensor<i1>
    %0 = stablehlo.select %c, %a0, %b0 : tensor<i1>, tensor<f32>
    %1 = stablehlo.select %c, %a1, %b1 : tensor<i1>, tensor<f32>
    stablehlo.return %0, %1 : tensor<f32>, tensor<f32>"""
    else:
        code = f"""%0 = stablehlo.{body} %a0, %b0 : tensor<f32>
    stablehlo.return %0 : tensor<f32>"""
    out = ", ".join(f"%r#{k}" for k in range(count))
    operands = ", ".join([*names, *["%init"] * count])
    types = ", ".join([kind(shape)] * count + ["tensor<f32>"] * count)
    return WindowProgram(
        f"""func.func @main({arguments}) -> ({results}) {{
  %init = stablehlo.constant dense<{init}> : tensor<f32>
  %r:{count} = "stablehlo.reduce_window"({operands}) <{{{attributes}}}> ({{
  ^bb0({", ".join(f"{name}: tensor<f32>" for name in scalars)}):
    {code}
  }}) : ({types}) -> ({results})
  return {out} : {results}
}}""",
        (tuple(shape),) * count,
    )


SCATTER = """  %r = "stablehlo.select_and_scatter"(%p, %y, %init) <{{
    window_dimensions = {dimensions}, window_strides = {strides}, padding = {padding}
  }}> ({{
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %c = stablehlo.compare {direction}, %a, %b : (tensor<f32>, tensor<f32>) -> tensor<i1>
    stablehlo.return %c : tensor<i1>
  }}, {{
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %c = stablehlo.{scatter} %a, %b : tensor<f32>
    stablehlo.return %c : tensor<f32>
  }}) : ({operand}, {source}, tensor<f32>) -> {operand}
"""


@st.composite
def select_and_scatters(draw: st.DrawFn) -> WindowProgram:
    """Draw the gradient of a pooling, with gaps, overlaps, ties and padding.

    Padding is the operation's own, or a pad before and a slice behind it, as JAX has it.
    """
    dims = draw(st.lists(spatials(signed=False, dilated=False), min_size=1, max_size=2))
    if draw(st.booleans()):
        dims = [Spatial(d.size, d.window, d.stride) for d in dims]
    assume(all(d.count > 0 and d.low < d.window and d.high < d.window for d in dims))
    padded = draw(st.sampled_from(["", "0xFF800000", "-1.0"]))
    low, high = [d.low for d in dims], [d.high for d in dims]
    shape, source = [d.size for d in dims], kind([d.count for d in dims])
    edges = zip(shape, low, high, strict=True)
    inner = [size + a + b for size, a, b in edges] if padded else shape
    before = ""
    if padded:
        zeros = [0] * len(dims)
        before = f"""  %v = stablehlo.constant dense<{padded}> : tensor<f32>
  %p = stablehlo.pad %x, %v, low = {low}, high = {high}, interior = {zeros}
    : ({kind(shape)}, tensor<f32>) -> {kind(inner)}
"""
    scatter = SCATTER.format(
        dimensions=array([d.window for d in dims]),
        strides=array([d.stride for d in dims]),
        padding=dense([(0, 0) if padded else (d.low, d.high) for d in dims]),
        direction=draw(st.sampled_from(["GE", "LE", "GT"])),
        scatter=draw(st.sampled_from(["add", "maximum"])),
        operand=kind(inner),
        source=source,
    )
    starts = low if padded else [0] * len(dims)
    cut = ", ".join(f"{a}:{a + size}" for a, size in zip(starts, shape, strict=True))
    name = "%x" if padded else "%p"
    return WindowProgram(
        f"""func.func @main({name}: {kind(shape)}, %y: {source}) -> {kind(shape)} {{
  %init = stablehlo.constant dense<{draw(st.sampled_from(["0.0", "1.0"]))}> : tensor<f32>
{before}{scatter}  %0 = stablehlo.slice %r [{cut}] : ({kind(inner)}) -> {kind(shape)}
  return %0 : {kind(shape)}
}}""",
        (tuple(shape), tuple(d.count for d in dims)),
    )


@st.composite
def padded_pooling(draw: st.DrawFn) -> WindowProgram:
    """Draw a sum or maximum over windows of a tensor that a pad has dilated or enlarged."""
    dims = draw(st.lists(spatials(signed=False), min_size=1, max_size=2))
    body = draw(st.sampled_from(["add", "maximum"]))
    init = draw(st.sampled_from([NEUTRAL[body], "-1.0"]))
    inner = [d.low + (d.size - 1) * d.base + 1 + d.high for d in dims]
    plain = [
        Spatial(n, d.window, d.stride, 0, 1, 1, d.dilation)
        for n, d in zip(inner, dims, strict=True)
    ]
    assume(all(d.count > 0 for d in plain))
    shape, gaps = [d.size for d in dims], [d.base - 1 for d in dims]
    text = _pooling(body, inner, [d.count for d in plain], init, _window_attributes(plain)).text
    pad = f"""  %x0 = stablehlo.pad %x, %init,
    low = {[d.low for d in dims]}, high = {[d.high for d in dims]}, interior = {gaps}
    : ({kind(shape)}, tensor<f32>) -> {kind(inner)}
  %r:1"""
    text = text.replace(f"%x0: {kind(inner)}", f"%x: {kind(shape)}").replace("  %r:1", pad)
    return WindowProgram(text, (tuple(shape),))


@st.composite
def cut_windows(draw: st.DrawFn) -> WindowProgram:
    """Draw a sum over windows whose first and last results are cut off again."""
    dim = draw(spatials())
    front = draw(st.integers(0, dim.count - 1))
    back = draw(st.integers(0, dim.count - 1 - front))
    count = dim.count - front - back
    program = _pooling("add", [dim.size], [dim.count], "0.0", _window_attributes([dim]))
    cut = f"""  %s = stablehlo.slice %r [{front}:{dim.count - back}]
    : (tensor<{dim.count}xf32>) -> tensor<{count}xf32>
  return %s : tensor<{count}xf32>"""
    text = program.text.replace(f"  return %r#0 : tensor<{dim.count}xf32>", cut).replace(
        f"-> (tensor<{dim.count}xf32>) {{\n  %init", f"-> tensor<{count}xf32> {{\n  %init"
    )
    return WindowProgram(text, program.shapes)


FAMILIES = {
    "convolution": convolutions(),
    "reduce_window": reduce_windows(),
    "scan": scans(),
    "select_and_scatter": select_and_scatters(),
    "padded_pooling": padded_pooling(),
    "cut_windows": cut_windows(),
}
