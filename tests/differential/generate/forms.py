"""StableHLO that JAX does not write: odd bodies, unsorted broadcasts, gradients of batch norm."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np

from generate.draw import (
    BOOL,
    F32,
    F64,
    INTEGERS,
    Program,
    chance,
    permutation,
    sizes,
    subset,
    values,
)

NAMES = {"float32": "f32", "float64": "f64", "bool": "i1"}


def forms(pick: Random) -> Program:
    """Draw one of the forms."""
    return pick.choice(
        [
            _select_and_scatter,
            _select_and_scatter,
            _sort,
            _window,
            _broadcast,
            _branch,
            _map,
            _batch_norm_grad,
            _reduce,
            _clamp,
        ]
    )(pick)


def _type(shape: Sequence[int], dtype: np.dtype) -> str:
    name = NAMES.get(dtype.name) or dtype.name.replace("uint", "ui").replace("int", "i")
    return f"tensor<{''.join(f'{n}x' for n in shape)}{name}>"


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _padding(pairs: Sequence[tuple[int, int]]) -> str:
    rows = ", ".join(f"[{low}, {high}]" for low, high in pairs)
    return f"dense<[{rows}]> : tensor<{len(pairs)}x2xi64>"


def _drawn_window(pick: Random, shape: Sequence[int]):
    """Return sizes, strides, padding and the shape of the result."""
    size = [min(pick.choice([1, 1, 2, 3]), max(n, 1)) for n in shape]
    stride = [pick.choice([1, 2, 3]) if n > 1 else pick.choice([1, 1, 2]) for n in size]
    pad = [(pick.randint(0, n - 1), pick.randint(0, n - 1)) for n in size]
    out = [
        (n + low + high - k) // s + 1
        for n, k, s, (low, high) in zip(shape, size, stride, pad, strict=True)
    ]
    return size, stride, pad, out


def _select_and_scatter(pick: Random) -> Program:
    shape = [max(1, n) for n in sizes(pick, pick.randint(1, 4), 200)]
    dtype = pick.choice([F32, F32, F64, np.dtype("i4")])
    size, stride, pad, out = _drawn_window(pick, shape)
    rng = np.random.default_rng(pick.randrange(2**32))
    # Distinct: which of two equal ones is selected is not defined.
    x = (rng.permutation(int(np.prod(shape))).reshape(shape) - pick.choice([0, 30, 999])).astype(
        dtype
    )
    source = values(pick, out, dtype)
    first = pick.choice(["GE", "GT", "LE"])
    join = pick.choice(["add", "add", "maximum"])
    start = pick.choice([0, 0, 3])
    whole, part, one = _type(shape, dtype), _type(out, dtype), _type((), dtype)
    text = f"""func.func @main(%x: {whole}, %s: {part}) -> {whole} {{
      %i = stablehlo.constant dense<{start}{"" if dtype.kind == "i" else ".0"}> : {one}
      %0 = "stablehlo.select_and_scatter"(%x, %s, %i) ({{
      ^bb0(%a: {one}, %b: {one}):
        %c = stablehlo.compare {first}, %a, %b : ({one}, {one}) -> tensor<i1>
        stablehlo.return %c : tensor<i1>
      }}, {{
      ^bb0(%a: {one}, %b: {one}):
        %c = stablehlo.{join} %a, %b : {one}
        stablehlo.return %c : {one}
      }}) {{window_dimensions = array<i64: {_list(size)}>,
        window_strides = array<i64: {_list(stride)}>,
        padding = {_padding(pad)}}} : ({whole}, {part}, {one}) -> {whole}
      return %0 : {whole}
    }}"""
    return Program(text, [x, source], f"select {first} {join} {size} {stride} {pad} of {shape}")


def _sort(pick: Random) -> Program:
    shape = sizes(pick, pick.randint(1, 3), 200)
    dim = pick.randrange(len(shape))
    rng = np.random.default_rng(pick.randrange(2**32))
    x = rng.integers(-9, 9, shape).astype(np.float32)
    y = rng.permutation(int(np.prod(shape))).reshape(shape).astype(np.int32)
    direction = pick.choice(["LT", "GT"])
    a, b, f, i = _type(shape, F32), _type(shape, y.dtype), "tensor<f32>", "tensor<i32>"
    # By absolute value, ties by the second operand.
    text = f"""func.func @main(%x: {a}, %y: {b}) -> ({a}, {b}) {{
      %0:2 = "stablehlo.sort"(%x, %y) ({{
      ^bb0(%p: {f}, %q: {f}, %r: {i}, %s: {i}):
        %1 = stablehlo.abs %p : {f}
        %2 = stablehlo.abs %q : {f}
        %3 = stablehlo.compare {direction}, %1, %2 : ({f}, {f}) -> tensor<i1>
        %4 = stablehlo.compare EQ, %1, %2 : ({f}, {f}) -> tensor<i1>
        %5 = stablehlo.compare LT, %r, %s : ({i}, {i}) -> tensor<i1>
        %6 = stablehlo.and %4, %5 : tensor<i1>
        %7 = stablehlo.or %3, %6 : tensor<i1>
        stablehlo.return %7 : tensor<i1>
      }}) {{dimension = {dim} : i64, is_stable = false}} : ({a}, {b}) -> ({a}, {b})
      return %0#0, %0#1 : {a}, {b}
    }}"""
    return Program(text, [x, y], f"sort by size {direction} {dim} of {shape}")


def _window(pick: Random) -> Program:
    """reduce_window by a body other than a sum or extreme, or for the position of an extreme."""
    shape = [max(1, n) for n in sizes(pick, pick.randint(1, 3), 200)]
    size, stride, pad, out = _drawn_window(pick, shape)
    attributes = f"""{{window_dimensions = array<i64: {_list(size)}>,
        window_strides = array<i64: {_list(stride)}>, padding = {_padding(pad)}}}"""
    if chance(pick, 0.5):
        dtype = pick.choice([BOOL, *INTEGERS])
        kind, start = pick.choice([("or", 0), ("xor", 0), ("and", -1), ("maximum", 0)])
        fill = {BOOL: "true" if start else "false"}.get(dtype, str(start))
        if start and dtype.kind == "u":
            fill = str(np.iinfo(dtype).max)
        whole, part, one = _type(shape, dtype), _type(out, dtype), _type((), dtype)
        text = f"""func.func @main(%x: {whole}) -> {part} {{
          %i = stablehlo.constant dense<{fill}> : {one}
          %0 = "stablehlo.reduce_window"(%x, %i) ({{
          ^bb0(%a: {one}, %b: {one}):
            %c = stablehlo.{kind} %a, %b : {one}
            stablehlo.return %c : {one}
          }}) {attributes} : ({whole}, {one}) -> {part}
          return %0 : {part}
        }}"""
        return Program(text, [values(pick, shape, dtype)], f"{kind} {dtype} {size} {stride} {pad}")
    rng = np.random.default_rng(pick.randrange(2**32))
    x = rng.permutation(int(np.prod(shape))).reshape(shape).astype(np.float32)
    n = np.arange(x.size, dtype=np.float32).reshape(shape)
    whole, part, one = _type(shape, F32), _type(out, F32), "tensor<f32>"
    text = f"""func.func @main(%x: {whole}, %n: {whole}) -> ({part}, {part}) {{
      %i = stablehlo.constant dense<0xFF800000> : {one}
      %j = stablehlo.constant dense<-1.0> : {one}
      %0:2 = "stablehlo.reduce_window"(%x, %n, %i, %j) ({{
      ^bb0(%a: {one}, %p: {one}, %b: {one}, %q: {one}):
        %c = stablehlo.compare GE, %a, %b : ({one}, {one}) -> tensor<i1>
        %v = stablehlo.select %c, %a, %b : tensor<i1>, {one}
        %w = stablehlo.select %c, %p, %q : tensor<i1>, {one}
        stablehlo.return %v, %w : {one}, {one}
      }}) {attributes} : ({whole}, {whole}, {one}, {one}) -> ({part}, {part})
      return %0#0, %0#1 : {part}, {part}
    }}"""
    return Program(text, [x, n], f"window argmax {size} {stride} {pad} of {shape}")


def _broadcast(pick: Random) -> Program:
    """broadcast_in_dim whose dimensions do not rise, summed afterwards."""
    shape = [max(1, n) for n in sizes(pick, pick.randint(1, 3), 60)]
    rank = len(shape) + pick.randint(0, 2)
    dims = pick.sample(range(rank), len(shape))
    target = [pick.choice([1, 2, 3, 5]) for _ in range(rank)]
    for dim, n in zip(dims, shape, strict=True):
        target[dim] = n if n > 1 else pick.choice([1, 4])
    order = permutation(pick, rank)
    a, b = _type(shape, F32), _type(target, F32)
    c = _type([target[d] for d in order], F32)
    text = f"""func.func @main(%x: {a}) -> ({b}, {c}) {{
      %0 = stablehlo.broadcast_in_dim %x, dims = [{_list(dims)}] : ({a}) -> {b}
      %1 = stablehlo.transpose %0, dims = [{_list(order)}] : ({b}) -> {c}
      return %0, %1 : {b}, {c}
    }}"""
    return Program(text, [values(pick, shape)], f"broadcast {dims} of {shape} to {target}")


def _branch(pick: Random) -> Program:
    """A case that returns several values of different shapes, by a number from the data."""
    shape = [max(1, n) for n in sizes(pick, 2, 200)]
    a, row = _type(shape, F32), _type(shape[1:], F32)
    index = np.array(pick.randint(-1, 3), np.int32)
    scale = pick.choice([0.5, 2.0])
    text = f"""func.func @main(%n: tensor<i32>, %x: {a}) -> ({a}, {row}) {{
      %z = stablehlo.constant dense<0.0> : tensor<f32>
      %r = stablehlo.reduce(%x init: %z) applies stablehlo.add across dimensions = [0]
        : ({a}, tensor<f32>) -> {row}
      %0:2 = "stablehlo.case"(%n) ({{
        %1 = stablehlo.reverse %x, dims = [1] : {a}
        stablehlo.return %1, %r : {a}, {row}
      }}, {{
        %2 = stablehlo.constant dense<{scale}> : {a}
        %3 = stablehlo.multiply %x, %2 : {a}
        %4 = stablehlo.negate %r : {row}
        stablehlo.return %3, %4 : {a}, {row}
      }}, {{
        %5 = stablehlo.broadcast_in_dim %r, dims = [1] : ({row}) -> {a}
        %6 = stablehlo.reduce(%5 init: %z) applies stablehlo.maximum across dimensions = [0]
          : ({a}, tensor<f32>) -> {row}
        stablehlo.return %5, %6 : {a}, {row}
      }}) : (tensor<i32>) -> ({a}, {row})
      return %0#0, %0#1 : {a}, {row}
    }}"""
    return Program(text, [index, values(pick, shape)], f"case {index} of {shape}")


def _map(pick: Random) -> Program:
    shape = sizes(pick, pick.randint(1, 3), 200)
    a, one = _type(shape, F32), "tensor<f32>"
    text = f"""func.func @main(%x: {a}, %y: {a}) -> {a} {{
      %0 = "stablehlo.map"(%x, %y) ({{
      ^bb0(%p: {one}, %q: {one}):
        %1 = stablehlo.multiply %p, %q : {one}
        %2 = stablehlo.maximum %1, %p : {one}
        stablehlo.return %2 : {one}
      }}) {{dimensions = array<i64: {_list(range(len(shape)))}>}} : ({a}, {a}) -> {a}
      return %0 : {a}
    }}"""
    return Program(text, [values(pick, shape), values(pick, shape)], f"map of {shape}")


def _batch_norm_grad(pick: Random) -> Program:
    shape = [max(1, n) for n in sizes(pick, pick.randint(2, 4), 150)]
    feature = pick.randrange(len(shape))
    n = shape[feature]
    a, row = _type(shape, F32), _type([n], F32)
    text = f"""func.func @main(%x: {a}, %s: {row}, %m: {row}, %v: {row}, %g: {a})
        -> ({a}, {row}, {row}) {{
      %0:3 = "stablehlo.batch_norm_grad"(%x, %s, %m, %v, %g)
        {{epsilon = 0.1 : f32, feature_index = {feature} : i64}}
        : ({a}, {row}, {row}, {row}, {a}) -> ({a}, {row}, {row})
      return %0#0, %0#1, %0#2 : {a}, {row}, {row}
    }}"""
    scale, mean = values(pick, [n]), values(pick, [n])
    arrays = [values(pick, shape), scale, mean, np.abs(values(pick, [n])) + 1, values(pick, shape)]
    return Program(text, arrays, f"batch norm gradient {feature} of {shape}", tolerance=1e-4)


def _reduce(pick: Random) -> Program:
    """A body that is no known kind: the sum of squares that it begins with, or a constant in it."""
    shape = sizes(pick, pick.randint(1, 3), 200)
    dims = subset(pick, range(len(shape)), 1)
    left = [n for d, n in enumerate(shape) if d not in dims]
    a, b, one = _type(shape, F32), _type(left, F32), "tensor<f32>"
    bound = pick.choice(["0.0", "1.5", "9.0"])
    body = pick.choice(
        [
            f"%k = stablehlo.constant dense<{bound}> : {one}\n"
            f"%l = stablehlo.maximum %p, %q : {one}\n%o = stablehlo.maximum %l, %k : {one}",
            f"%k = stablehlo.compare GE, %p, %q : ({one}, {one}) -> tensor<i1>\n"
            f"%o = stablehlo.select %k, %p, %q : tensor<i1>, {one}",
            f"%o = stablehlo.minimum %q, %p : {one}",
        ]
    )
    start = "0x7F800000" if "minimum" in body else "0xFF800000"
    text = f"""func.func @main(%x: {a}) -> {b} {{
      %i = stablehlo.constant dense<{start}> : {one}
      %0 = "stablehlo.reduce"(%x, %i) ({{
      ^bb0(%p: {one}, %q: {one}):
        {body}
        stablehlo.return %o : {one}
      }}) {{dimensions = array<i64: {_list(dims)}>}} : ({a}, {one}) -> {b}
      return %0 : {b}
    }}"""
    return Program(text, [values(pick, shape)], f"{body} over {dims} of {shape}")


def _clamp(pick: Random) -> Program:
    """Bounds that are scalars or tensors, predicates that are scalars."""
    shape = sizes(pick, pick.randint(1, 3), 200)
    low = [] if chance(pick, 0.5) else shape
    high = [] if chance(pick, 0.5) else shape
    a, b, c = (_type(s, F32) for s in (shape, low, high))
    text = f"""func.func @main(%p: tensor<i1>, %l: {b}, %x: {a}, %h: {c}) -> {a} {{
      %0 = stablehlo.clamp %l, %x, %h : ({b}, {a}, {c}) -> {a}
      %1 = stablehlo.select %p, %0, %x : tensor<i1>, {a}
      return %1 : {a}
    }}"""
    arrays = [values(pick, (), BOOL), values(pick, low) - 4, values(pick, shape)]
    return Program(text, [*arrays, values(pick, high) + 4], f"clamp {low} {high} of {shape}")
