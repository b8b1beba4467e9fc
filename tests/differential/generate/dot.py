"""dot_general: batch, free and contracting dimensions, any number of each, in any order."""

from __future__ import annotations

from random import Random

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from generate.draw import BF16, BOOL, C64, F16, F32, Program, chance, number, sizes, values


def dot(pick: Random) -> Program:
    """Draw a dot_general, or its gradients."""
    batch, contract = sizes(pick, pick.randint(0, 2), 12), sizes(pick, pick.randint(0, 3), 60)
    left, right = (sizes(pick, pick.randint(0, 2), 12) for _ in range(2))
    dtype = pick.choice([number(pick), C64, BOOL, F32, F32])
    lhs, lhs_batch, lhs_contract = _operand(pick, batch, contract, left)
    rhs, rhs_batch, rhs_contract = _operand(pick, batch, contract, right)
    numbers = ((lhs_contract, rhs_contract), (lhs_batch, rhs_batch))
    wide = jnp.float32 if dtype in (BF16, F16) and chance(pick, 0.5) else None
    if dtype.kind in "iu" and chance(pick, 0.3):
        wide = jnp.dtype("i8" if dtype.kind == "i" else "u8")
    grad = dtype == F32 and chance(pick, 0.3)

    def product(x, y):
        return lax.dot_general(x, y, numbers, preferred_element_type=wide)

    def gradients(x, y):
        return jax.grad(lambda a, b: jnp.sum(product(a, b) ** 2), (0, 1))(x, y)

    arrays = [values(pick, lhs, dtype), values(pick, rhs, dtype)]
    return Program(gradients if grad else product, arrays, f"{numbers} {dtype} grad={grad}")


def _operand(
    pick: Random, batch: list[int], contract: list[int], free: list[int]
) -> tuple[list[int], list[int], list[int]]:
    """Return shape, batch dimensions and contracting dimensions, shuffled."""
    shape = [*batch, *contract, *free]
    order = pick.sample(range(len(shape)), len(shape))
    places = np.argsort(order).tolist()
    first = len(batch)
    return [shape[i] for i in order], places[:first], places[first : first + len(contract)]
