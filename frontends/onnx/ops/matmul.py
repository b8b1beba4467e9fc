"""Matrix products and determinants."""

from __future__ import annotations

from typing import Any

from jax import lax
from jax import numpy as jnp

from pai.frontends.onnx.node import Node
from pai.frontends.onnx.registry import op


@op("MatMul")
def matmul(_node: Node, a: Any, b: Any) -> Any:
    """Matrix product with NumPy's broadcasting of leading dimensions."""
    return jnp.matmul(a, b)


@op("Gemm")
def gemm(node: Node, a: Any, b: Any, c: Any = None) -> Any:
    """alpha·A·B + beta·C, A and B transposed on request."""
    left = 0 if node.attr("transA", 0) else 1
    right = 1 if node.attr("transB", 0) else 0
    result = lax.dot_general(jnp.asarray(a), jnp.asarray(b), (((left,), (right,)), ((), ())))
    result = _scaled(result, node.attr("alpha", 1.0))
    return result if c is None else result + _scaled(c, node.attr("beta", 1.0))


def _scaled(x: Any, factor: float) -> Any:
    if factor == 1.0:
        return x
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x * factor
    return (x * factor).astype(x.dtype)


@op("Einsum")
def einsum(node: Node, *values: Any) -> Any:
    """Einstein summation."""
    return jnp.einsum(node.attr("equation").replace(" ", ""), *values)


@op("Det")
def determinant(_node: Node, x: Any) -> Any:
    """Determinant of the last two dimensions, by Gaussian elimination with pivoting."""
    n = x.shape[-1]
    rows = jnp.arange(n)

    def step(k: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
        a, det = state
        column = jnp.where(rows >= k, jnp.abs(jnp.take(a, k, axis=-1)), -1)
        pivot = jnp.argmax(column, axis=-1)[..., None]
        order = jnp.where(rows == k, pivot, jnp.where(rows == pivot, k, rows))
        a = jnp.take_along_axis(a, order[..., None], axis=-2)
        top = jnp.take(a, k, axis=-2)
        value = jnp.take(top, k, axis=-1)
        sign = jnp.where(pivot[..., 0] == k, 1, -1).astype(a.dtype)
        safe = jnp.where(value == 0, 1, value)
        factor = jnp.where(rows > k, jnp.take(a, k, axis=-1) / safe[..., None], 0)
        return a - factor[..., :, None] * top[..., None, :], det * sign * value

    return lax.fori_loop(0, n, step, (jnp.asarray(x), jnp.ones(x.shape[:-2], x.dtype)))[1]
