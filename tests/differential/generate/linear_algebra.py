"""fft, cholesky, triangular_solve and batch norm: batches split, the rest whole."""

from __future__ import annotations

from random import Random

import numpy as np
from jax import lax

from generate.draw import C64, F32, F64, Program, chance, sizes, values


def linear_algebra(pick: Random) -> Program:
    """Draw one of the library operations."""
    return pick.choice([_fft, _cholesky, _solve, _batch_norm])(pick)


def _fft(pick: Random) -> Program:
    shape = sizes(pick, pick.randint(1, 4), 300)
    count = pick.randint(1, min(3, len(shape)))
    kind = pick.choice(["fft", "ifft", "rfft", "irfft"])
    lengths = shape[len(shape) - count :]
    x = values(pick, shape, F32 if kind == "rfft" else C64)
    if kind == "irfft":
        lengths = [*lengths[:-1], max(1, 2 * (lengths[-1] - 1))]

    def function(a):
        return lax.fft(a, kind, lengths)

    return Program(function, [x], f"{kind} {lengths} of {shape}", tolerance=1e-4)


def _positive(pick: Random, batch: list[int], n: int, dtype: np.dtype) -> np.ndarray:
    x = values(pick, [*batch, n, n], dtype)
    return (x @ x.swapaxes(-1, -2).conj() + (4 + n) * np.eye(n)).astype(dtype)


def _cholesky(pick: Random) -> Program:
    batch, n = sizes(pick, pick.randint(0, 2), 12), pick.randint(1, 5)
    a = _positive(pick, batch, n, pick.choice([F32, F32, F64]))
    lower = "true" if chance(pick, 0.7) else "false"
    name = {4: "f32", 8: "f64"}[a.itemsize]
    kind = f"tensor<{'x'.join(map(str, a.shape))}x{name}>"
    mask = kind.replace(name, "i1")
    rows, columns = len(batch), len(batch) + 1
    # The other triangle's content is not defined: it is masked.
    text = f"""func.func @main(%a: {kind}) -> {kind} {{
      %0 = stablehlo.cholesky %a, lower = {lower} : {kind}
      %r = stablehlo.iota dim = {rows} : {kind.replace(name, "i32")}
      %c = stablehlo.iota dim = {columns} : {kind.replace(name, "i32")}
      %m = stablehlo.compare {"GE" if lower == "true" else "LE"}, %r, %c
        : ({kind.replace(name, "i32")}, {kind.replace(name, "i32")}) -> {mask}
      %z = stablehlo.constant dense<0.0> : {kind}
      %1 = stablehlo.select %m, %0, %z : {mask}, {kind}
      return %1 : {kind}
    }}"""
    return Program(text, [a], f"cholesky {a.shape} {lower}", tolerance=1e-4)


def _solve(pick: Random) -> Program:
    batch, n = sizes(pick, pick.randint(0, 2), 12), pick.randint(1, 5)
    left, lower, unit = (chance(pick, 0.5) for _ in range(3))
    transpose = chance(pick, 0.5)
    columns = pick.randint(1, 6)
    dtype = pick.choice([F32, F32, F64])
    a = _positive(pick, batch, n, dtype) / (4 + n)
    b = values(pick, [*batch, n, columns] if left else [*batch, columns, n], dtype)

    def function(c, d):
        return lax.linalg.triangular_solve(
            c, d, left_side=left, lower=lower, transpose_a=transpose, unit_diagonal=unit
        )

    note = f"solve left={left} lower={lower} {transpose} {unit} {a.shape} {b.shape}"
    return Program(function, [a.astype(dtype), b], note, tolerance=1e-3)


def _batch_norm(pick: Random) -> Program:
    shape = sizes(pick, pick.randint(2, 4), 200)
    feature = pick.randrange(len(shape))
    x, n = values(pick, shape, F32), shape[feature]
    scale, offset, mean = (values(pick, (n,), F32) for _ in range(3))
    variance = np.abs(values(pick, (n,), F32)) + 1
    training = chance(pick, 0.5)
    dims = [d for d in range(len(shape)) if d != feature]
    kind, row = f"tensor<{'x'.join(map(str, shape))}xf32>", f"tensor<{n}xf32>"
    attributes = f"{{epsilon = 0.01 : f32, feature_index = {feature} : i64}}"
    rest = f"%s: {row}, %o: {row}, %m: {row}, %v: {row}"
    if training:
        text = f"""func.func @main(%x: {kind}, {rest}) -> ({kind}, {row}, {row}) {{
          %0:3 = "stablehlo.batch_norm_training"(%x, %s, %o) {attributes}
            : ({kind}, {row}, {row}) -> ({kind}, {row}, {row})
          return %0#0, %0#1, %0#2 : {kind}, {row}, {row}
        }}"""
    else:
        text = f"""func.func @main(%x: {kind}, {rest}) -> {kind} {{
          %0 = "stablehlo.batch_norm_inference"(%x, %s, %o, %m, %v) {attributes}
            : ({kind}, {row}, {row}, {row}, {row}) -> {kind}
          return %0 : {kind}
        }}"""
    arrays = [x, scale, offset, mean, variance]
    return Program(text, arrays, f"batch norm {training} {dims} of {shape}", tolerance=1e-4)
