"""Elementwise programs: a few operations in a row, often summed up at the end.

The sum, maximum or argmax at the end sees what stands in padded tails: a logarithm or a division
leaves infinities and NaN there.
"""

from __future__ import annotations

from random import Random

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from generate.draw import FLOATS, INTEGERS, Program, chance, sizes, subset, values

UNARY = {
    "abs": jnp.abs,
    "negate": jnp.negative,
    "exp": lambda x: jnp.exp(jnp.clip(x, -5, 5)),
    "expm1": jnp.expm1,
    "log": lambda x: jnp.log(jnp.abs(x)),
    "log1p": lambda x: jnp.log1p(jnp.abs(x)),
    "reciprocal": lambda x: 1 / x,
    "tanh": jnp.tanh,
    "logistic": jax.nn.sigmoid,
    "sqrt": lambda x: jnp.sqrt(jnp.abs(x)),
    "rsqrt": lambda x: lax.rsqrt(jnp.abs(x)),
    "cbrt": jnp.cbrt,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "floor": jnp.floor,
    "ceil": jnp.ceil,
    "round": jnp.round,
    "away": lambda x: lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO),
    "sign": jnp.sign,
    "square": jnp.square,
    "erf": lax.erf,
    "gelu": jax.nn.gelu,
    "reduce_precision": lambda x: lax.reduce_precision(x, 5, 4),
    "integer_pow": lambda x: lax.integer_pow(x, 3),
    "relu": jax.nn.relu,
    "clip": lambda x: jnp.clip(x, -1, 2),
    "cast": lambda x: x.astype(jnp.int32).astype(x.dtype),
}
INTEGER_UNARY = {
    "abs": jnp.abs,
    "negate": jnp.negative,
    "not": jnp.bitwise_not,
    "popcount": lax.population_count,
    "clz": lax.clz,
    "sign": jnp.sign,
    "square": jnp.square,
    "clip": lambda x: jnp.clip(x, 1, 3),
    "cast": lambda x: x.astype(jnp.int8).astype(x.dtype),
    "shift": lambda x: lax.shift_left(x, jnp.full_like(x, 2)),
    "shift_right": lambda x: lax.shift_right_arithmetic(x, jnp.full_like(x, 1)),
    "shift_logical": lambda x: lax.shift_right_logical(x, jnp.full_like(x, 3)),
}
BINARY = {
    "add": jnp.add,
    "subtract": jnp.subtract,
    "multiply": jnp.multiply,
    "divide": lambda x, y: lax.div(x, jnp.where(y == 0, jnp.ones_like(y), y)),
    "remainder": lambda x, y: lax.rem(x, jnp.where(y == 0, jnp.ones_like(y), y)),
    "maximum": jnp.maximum,
    "minimum": jnp.minimum,
    "where": lambda x, y: jnp.where(x > y, x, y + 1),
    "clamp": lambda x, y: lax.clamp(y, x, y + 2),
    "equal": lambda x, y: jnp.where(x == y, x, -y),
}
FLOAT_BINARY = {
    "atan2": jnp.arctan2,
    "pow": lambda x, y: jnp.power(jnp.abs(x) + 1, y),
    "nextafter": lambda x, y: jnp.minimum(lax.nextafter(x, y), 5),
}
INTEGER_BINARY = {"and": jnp.bitwise_and, "or": jnp.bitwise_or, "xor": jnp.bitwise_xor}
ENDS = {
    "none": lambda x, dims: x,
    "sum": jnp.sum,
    "max": jnp.max,
    "min": jnp.min,
    "argmax": lambda x, dims: jnp.argmax(x, dims[0]) if dims else x,
    "mean": lambda x, dims: jnp.mean(x.astype(jnp.float32), dims),
    "any": lambda x, dims: jnp.any(x > 1, dims),
}


def elementwise(pick: Random) -> Program:
    """Draw two to five operations on two or three arrays, one of which may be broadcast."""
    dtype = pick.choice(FLOATS if chance(pick, 0.7) else INTEGERS)
    whole = dtype.kind in "iu"
    unary = INTEGER_UNARY if whole else UNARY
    binary = {**BINARY, **(INTEGER_BINARY if whole else FLOAT_BINARY)}
    if dtype.itemsize == 2:
        binary.pop("nextafter", None)
    shape = sizes(pick, pick.randint(1, 4))
    special = chance(pick, 0.15)
    arrays = [values(pick, shape, dtype, special=special) for _ in range(pick.randint(1, 2))]
    arrays.append(values(pick, [n if chance(pick, 0.6) else 1 for n in shape], dtype))
    steps = [
        pick.choice(list(unary) if chance(pick, 0.5) else list(binary))
        for _ in range(pick.randint(1, 4))
    ]
    partners = [pick.randrange(len(arrays)) for _ in steps]
    end = "none" if special else pick.choice(list(ENDS))
    dims = tuple(subset(pick, range(len(shape)), 1))

    def function(*args):
        x, second = args[0], None
        for step, partner in zip(steps, partners, strict=True):
            second, x = x, (unary[step](x) if step in unary else binary[step](x, args[partner]))
        x = x.astype(args[0].dtype)
        return ENDS[end](x, dims), jnp.broadcast_to(second, shape) if second is not None else x

    return Program(function, arrays, f"{steps} {partners} {end} {dims}", tolerance=_limit(dtype))


def _limit(dtype: np.dtype) -> float | None:
    # A few functions in a row lose a few bits more than one sum.
    return {2: 5e-2, 4: 1e-4}.get(dtype.itemsize) if dtype.kind not in "iu" else None
