"""Compile a JAX function for four virtual devices and run the package.

``python examples/jax_function.py OUT.pai``
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import pai


def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Return softmax(q kᵀ / √d) v for (batch, heads, sequence, d) arrays."""
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k) / np.sqrt(q.shape[-1])
    return jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(scores, axis=-1), v)


def main(output: Path) -> None:
    """Write the package and print how far its result is from JAX's own."""
    generator = np.random.default_rng(0)
    q, k, v = (generator.standard_normal((4, 8, 32, 16)).astype(np.float32) for _ in range(3))
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder) / "attention.mlir"
        module.write_text(jax.jit(attention).lower(q, k, v).as_text())
        package = pai.compile(module, output, devices=4)
    names = [value.name for value in package.inputs]
    (result,) = package.run(**dict(zip(names, (q, k, v), strict=True))).values()
    error = np.abs(result - np.asarray(attention(q, k, v))).max()
    print(f"{package.num_devices} devices, largest difference from JAX {error:.1e}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
