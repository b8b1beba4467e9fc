"""Random numbers from a key: the same whatever the mesh."""

from __future__ import annotations

from random import Random

import jax
import numpy as np
from jax import lax

from generate.draw import Program, chance, sizes, values


def random_bits(pick: Random) -> Program:
    """Draw rng_bit_generator of any algorithm and type, or JAX's own functions of a key."""
    shape = sizes(pick, pick.randint(1, 3), 300)
    way = pick.choice(["bits", "bits", "normal", "uniform", "permutation", "dropout", "split"])
    algorithm = pick.choice(["THREE_FRY", "PHILOX", "DEFAULT"])
    kind = pick.choice(["ui32", "ui64", "ui16", "ui8"])
    words = pick.choice([2, 3]) if algorithm == "PHILOX" else 2
    if way == "bits":
        state = values(pick, (words,), np.dtype("u8"))
        out = f"tensor<{'x'.join(map(str, shape))}x{kind}>"
        text = f"""func.func @main(%s: tensor<{words}xui64>) -> (tensor<{words}xui64>, {out}) {{
          %0, %1 = stablehlo.rng_bit_generator %s, algorithm = {algorithm}
            : (tensor<{words}xui64>) -> (tensor<{words}xui64>, {out})
          return %0, %1 : tensor<{words}xui64>, {out}
        }}"""
        return Program(text, [state], f"{algorithm} {kind} {shape}")
    key = values(pick, (2,), np.dtype("u4"))
    x = values(pick, shape)
    training = chance(pick, 0.5)

    def function(k, a):
        key = jax.random.wrap_key_data(k)
        if way == "normal":
            return jax.random.normal(key, a.shape) + a
        if way == "uniform":
            return jax.random.uniform(key, a.shape) * a, jax.random.randint(key, a.shape, 0, 9)
        if way == "permutation":
            return jax.random.permutation(key, a)
        if way == "split":
            first, second = jax.random.split(key)
            return jax.random.bits(first, a.shape), jax.random.bits(second, a.shape, np.uint8)
        keep = jax.random.bernoulli(key, 0.5, a.shape)
        scaled = lax.select(keep, a * 2, a * 0)
        return jax.grad(lambda b: (b * scaled).sum())(a) if training else scaled

    return Program(function, [key, x], f"{way} {shape}")
