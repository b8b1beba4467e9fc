"""Sibling kernels that read the same array become one kernel with several results.

Kernel k may join an earlier kernel j when everything k reads is made before j's first root: the
joint kernel is called at that place, so the order of the block stays a topological order.
"""

from __future__ import annotations

from pai.dialects.mlir import ir
from pai.passes.fuse import ops
from pai.passes.fuse.graph import Node
from pai.passes.fuse.groups import Kernel

MAX_RESULTS = 8


def merge_siblings(nodes: list[Node], kernels: list[Kernel], max_evaluated: int) -> list[Kernel]:
    """Return the kernels with loops of the same shape and a common large operand joined.

    Args:
        nodes: the block's operations.
        kernels: kernels in the order of their first roots.
        max_evaluated: limit of the operations evaluated in one kernel.
    """
    merged: list[Kernel] = []
    open_kernels: dict[tuple[tuple[int, ...], ir.Value], Kernel] = {}
    for kernel in kernels:
        shape = ops.shape_of(nodes[kernel.roots[0]].op.results[0].type)
        inputs = _inputs(nodes, kernel)
        partner = None
        if kernel.kind == "loop":
            candidates = (open_kernels.get((shape, value)) for value in inputs)
            fitting = (c for c in candidates if c and _fits(c, kernel, inputs, max_evaluated))
            partner = next(fitting, None)
        if partner is None:
            partner = kernel
            merged.append(kernel)
        else:
            partner.roots += kernel.roots
            partner.members = sorted({*partner.members, *kernel.members})
            partner.evaluated += kernel.evaluated
        if partner.kind == "loop":
            for value in inputs:
                if ops.bytes_of(value.type) >= nodes[kernel.roots[0]].bytes:
                    open_kernels[shape, value] = partner
    return merged


def _inputs(nodes: list[Node], kernel: Kernel) -> dict[ir.Value, int]:
    """Return the values the kernel reads from memory and the nodes that make them (or -1)."""
    inside = set(kernel.members)
    inputs: dict[ir.Value, int] = {}
    for number in kernel.members:
        node = nodes[number]
        for value, maker in zip(node.op.operands, node.operands, strict=True):
            if maker is None or maker not in inside:
                inputs[value] = -1 if maker is None else maker
    return inputs


def _fits(earlier: Kernel, later: Kernel, inputs: dict[ir.Value, int], max_evaluated: int) -> bool:
    return (
        all(maker < earlier.roots[0] for maker in inputs.values())
        and earlier.evaluated + later.evaluated <= max_evaluated
        and len(earlier.roots) + len(later.roots) <= MAX_RESULTS
    )
