"""Matrix products with register tiles: kernels of kind ``dot``.

The product is C[b, m, n] = sum over k of A[b, m, k] B[b, k, n], where each of b, m, n, k may stand
for several dimensions of the operands, in any order in memory. A part of the grid is a block of
C: some rows by some panels of columns. For each panel, the block's columns of B are copied
("packed") to scratch as consecutive rows, and tiles of C (8 x 48 in 512-bit registers, 6 x 16 in
256-bit ones) are computed with their sums in registers. Sums over more than 768 values
of k are made block by block and added in C. Then the element-wise operations that follow the
product run over the finished block.

Two other forms: few rows read B in place (as wide as the registers allow); few rows and
a B that is contiguous in k ("rows times rows") make each element as a product of vectors.

Left to the elemental emitter: types other than f32 and f64, empty operands, operations that
follow with another element type.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from pai.compiler.codegen.cpu.emit import register_kernel
from pai.compiler.codegen.cpu.emit.dimensions import dot_dimensions
from pai.compiler.codegen.cpu.emit.graph import Graph, Node, Value
from pai.compiler.codegen.cpu.emit.kernel import KernelSource
from pai.compiler.codegen.cpu.epilogue import make_kernel
from pai.compiler.codegen.cpu.problem import Group, Problem
from pai.compiler.codegen.cpu.product import Product
from pai.compiler.codegen.cpu.target import CpuTarget
from pai.compiler.codegen.cpu.tile import vec_of


def read_problem(node: Node) -> Problem:
    """Return a dot_general as groups of dimensions."""
    d = dot_dimensions(node)
    a, b = node.operands
    batch_a, batch_b = d.lhs_batch, d.rhs_batch
    k_a, k_b = d.lhs_contract, d.rhs_contract
    free_a = [d for d in range(len(a.shape)) if d not in batch_a + k_a]
    free_b = [d for d in range(len(b.shape)) if d not in batch_b + k_b]
    pairs = sorted(zip(k_a, k_b, strict=True))  # their order is free: as they lie in A
    k_a, k_b = [x for x, _ in pairs], [y for _, y in pairs]
    return Problem(
        _group(a, batch_a),
        _group(b, batch_b),
        _group(a, free_a),
        _group(b, free_b),
        _group(a, k_a),
        _group(b, k_b),
    )


def _group(value: Value, dims: Sequence[int]) -> Group:
    strides = [prod(value.shape[d + 1 :]) for d in range(len(value.shape))]
    return Group(tuple(value.shape[d] for d in dims), tuple(strides[d] for d in dims))


def emit_dot(func: Any, graph: Graph, target: CpuTarget) -> KernelSource | None:
    """Return the kernel of a product, or None when only the elemental emitter covers it."""
    kernel = make_kernel(func, graph, target, "dot_general")
    if kernel is None:
        return None
    problem = read_problem(kernel.node)
    if 0 in problem.sizes:
        return None
    vec = vec_of(target, kernel.node.results[0].type.name)
    return Product(kernel, problem, vec, target).emit()


register_kernel("dot", emit_dot)
