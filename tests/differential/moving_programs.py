"""Programs of pads, slices and concatenations with drawn attributes, as StableHLO text."""

from __future__ import annotations

import itertools

from hypothesis import assume
from hypothesis import strategies as st
from window_programs import WindowProgram, kind


@st.composite
def pads(draw: st.DrawFn) -> WindowProgram:
    """Draw padding, outside and between the elements; negative edges cut."""
    shape = draw(st.lists(st.integers(1, 12), min_size=1, max_size=3))
    low = [draw(st.integers(-3, 5)) for _ in shape]
    high = [draw(st.integers(-3, 5)) for _ in shape]
    interior = [draw(st.sampled_from([0, 0, 1, 2])) for _ in shape]
    result = [
        size + a + b + (size - 1) * gap
        for size, a, b, gap in zip(shape, low, high, interior, strict=True)
    ]
    assume(all(size > 0 for size in result))
    value = draw(st.sampled_from(["0.0", "7.0"]))
    return WindowProgram(
        f"""func.func @main(%x: {kind(shape)}) -> {kind(result)} {{
  %v = stablehlo.constant dense<{value}> : tensor<f32>
  %0 = stablehlo.pad %x, %v, low = {low}, high = {high}, interior = {interior}
    : ({kind(shape)}, tensor<f32>) -> {kind(result)}
  return %0 : {kind(result)}
}}""",
        (tuple(shape),),
    )


@st.composite
def slices(draw: st.DrawFn) -> WindowProgram:
    """Draw a strided slice and a reversal of some dimensions."""
    shape = draw(st.lists(st.integers(1, 16), min_size=1, max_size=3))
    begin = [draw(st.integers(0, size - 1)) for size in shape]
    limit = [draw(st.integers(a + 1, size)) for a, size in zip(begin, shape, strict=True)]
    steps = [draw(st.integers(1, 3)) for _ in shape]
    result = [-(-(b - a) // s) for a, b, s in zip(begin, limit, steps, strict=True)]
    back = [dim for dim in range(len(shape)) if draw(st.booleans())]
    ranges = ", ".join(f"{a}:{b}:{s}" for a, b, s in zip(begin, limit, steps, strict=True))
    return WindowProgram(
        f"""func.func @main(%x: {kind(shape)}) -> {kind(result)} {{
  %0 = stablehlo.reverse %x, dims = {back} : {kind(shape)}
  %1 = stablehlo.slice %0 [{ranges}] : ({kind(shape)}) -> {kind(result)}
  return %1 : {kind(result)}
}}""",
        (tuple(shape),),
    )


@st.composite
def joined_slices(draw: st.DrawFn) -> WindowProgram:
    """Draw slices of one tensor that are joined again, in any order, as rolling does it."""
    shape = draw(st.lists(st.integers(1, 16), min_size=1, max_size=2))
    along = draw(st.integers(0, len(shape) - 1))
    size = shape[along]
    if draw(st.booleans()):
        middle = draw(st.integers(0, size))
        ranges = [pair for pair in ((middle, size), (0, middle)) if pair[0] < pair[1]]
    else:
        ends = draw(st.lists(st.integers(0, size), min_size=2, max_size=6))
        ranges = [(a, b) for a, b in itertools.pairwise(ends) if a < b]
    assume(ranges)
    lines, types = [], []
    for index, (begin, end) in enumerate(ranges):
        cut = [f"0:{n}" if dim != along else f"{begin}:{end}" for dim, n in enumerate(shape)]
        types.append(kind([*shape[:along], end - begin, *shape[along + 1 :]]))
        lines.append(
            f"  %s{index} = stablehlo.slice %x [{', '.join(cut)}] : ({kind(shape)}) -> {types[-1]}"
        )
    result = kind([*shape[:along], sum(b - a for a, b in ranges), *shape[along + 1 :]])
    names = ", ".join(f"%s{index}" for index in range(len(ranges)))
    body = "\n".join(lines)
    return WindowProgram(
        f"""func.func @main(%x: {kind(shape)}) -> {result} {{
{body}
  %0 = stablehlo.concatenate {names}, dim = {along} : ({", ".join(types)}) -> {result}
  return %0 : {result}
}}""",
        (tuple(shape),),
    )


@st.composite
def moved_slices(draw: st.DrawFn) -> WindowProgram:
    """Draw a slice that a pad moves to another place, as the gradient of rolling does it."""
    size = draw(st.integers(1, 16))
    begin = draw(st.integers(0, size - 1))
    end = draw(st.integers(begin + 1, size))
    low, high = draw(st.integers(-2, size)), draw(st.integers(-2, size))
    gap = draw(st.sampled_from([0, 0, 1]))
    width = end - begin
    result = low + width + (width - 1) * gap + high
    assume(result > 0)
    return WindowProgram(
        f"""func.func @main(%x: tensor<{size}xf32>) -> tensor<{result}xf32> {{
  %v = stablehlo.constant dense<5.0> : tensor<f32>
  %s = stablehlo.slice %x [{begin}:{end}] : (tensor<{size}xf32>) -> tensor<{width}xf32>
  %0 = stablehlo.pad %s, %v, low = [{low}], high = [{high}], interior = [{gap}]
    : (tensor<{width}xf32>, tensor<f32>) -> tensor<{result}xf32>
  return %0 : tensor<{result}xf32>
}}""",
        ((size,),),
    )


FAMILIES = {
    "pad": pads(),
    "slice": slices(),
    "joined_slices": joined_slices(),
    "moved_slices": moved_slices(),
}
