"""pai-fuse: turn @main into calls of kernel functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pai.dialects.mlir import ir
from pai.passes.base import Pass
from pai.passes.fuse import ops
from pai.passes.fuse.fold_transposes import FoldTransposes
from pai.passes.fuse.graph import Node, captured, read_block
from pai.passes.fuse.groups import Grouping, Kernel
from pai.passes.fuse.merge import merge_siblings
from pai.passes.fuse.outline import Outliner
from pai.passes.rewrite import constant_operand, main_function, where
from pai.runtime.errors import PassFailure


@dataclass(frozen=True)
class FusionReport:
    """What the fusion did.

    Args:
        kernels: calls of kernels in the module (inside loops once).
        unique: distinct kernel functions.
        ops: operations before, without constants, control flow and collectives.
        fused_ops: operations that no longer have a buffer of their own.
        bytes_before: bytes read and written if every operation were a kernel.
        bytes_after: bytes read and written by the calls.
    """

    kernels: int
    unique: int
    ops: int
    fused_ops: int
    bytes_before: int
    bytes_after: int


@dataclass
class _Totals:
    kernels: int = 0
    ops: int = 0
    roots: int = 0
    before: int = 0
    after: int = 0


def fuse(module: ir.Module) -> FusionReport:
    """Run ``pai-fold-transposes`` and ``pai-fuse`` on a local module, in place."""
    FoldTransposes().run(module)
    return Fuse().fuse(module)


@dataclass(frozen=True)
class Fuse(Pass):
    """Group operations into kernels, outline them as private functions, and call them.

    Before::

        func.func public @main(%x: tensor<8x4xf32>, %w: tensor<4x4xf32>, %b: tensor<4xf32>)
            -> tensor<8x4xf32> {
          %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : ...
          %1 = stablehlo.broadcast_in_dim %b, dims = [1] : ...
          %2 = stablehlo.add %0, %1 : tensor<8x4xf32>
          %zero = stablehlo.constant dense<0.0> : tensor<8x4xf32>
          %3 = stablehlo.maximum %2, %zero : tensor<8x4xf32>
          return %3 : tensor<8x4xf32>
        }

    After::

        func.func public @main(%x, %w, %b) -> tensor<8x4xf32> {
          %0 = call @kernel_dot_0(%x, %w, %b) : ...
          return %0 : tensor<8x4xf32>
        }
        func.func private @kernel_dot_0(%x, %w, %b) -> tensor<8x4xf32>
            attributes {pai.kernel = "dot", pai.key = "..."} { ...the five operations... }

    What is computed where is decided in ``groups.py``; ``@main`` keeps collectives, control flow
    (whose regions are treated the same way) and the constants that kernels take as operands or
    that are results.

    Args:
        constant_bytes: constants up to this size, and splats of any size, are copied into kernels.
        max_evaluated: limit of the operations evaluated in one kernel.
        max_views: how many index maps of one operation one kernel may evaluate.
        merge: let kernels of one shape that share an operand be one kernel with several results.
    """

    name: ClassVar[str] = "pai-fuse"

    constant_bytes: int = 1024
    max_evaluated: int = 128
    max_views: int = 4
    merge: bool = True

    def run(self, module: ir.Module) -> None:
        """Rewrite ``module`` in place."""
        self.fuse(module)

    def fuse(self, module: ir.Module) -> FusionReport:
        """Rewrite ``module`` in place and return what was done."""
        totals = _Totals()
        outliner = Outliner(module)
        with module.context:
            main = main_function(module)
            for region in main.operation.regions:
                for block in region.blocks:
                    self._fuse_block(block, outliner, totals)
        return FusionReport(
            totals.kernels,
            len(outliner.names),
            totals.ops,
            totals.ops - totals.roots,
            totals.before,
            totals.after,
        )

    def kernels(self, nodes: list[Node]) -> list[Kernel]:
        """Return the kernels of a block's operations, in the order of their first roots."""
        kernels = Grouping(nodes, self.max_evaluated, self.max_views).run()
        for kernel in kernels:
            _name_bitcast(nodes, kernel)
        return merge_siblings(nodes, kernels, self.max_evaluated) if self.merge else kernels

    def _fuse_block(self, block: ir.Block, outliner: Outliner, totals: _Totals) -> None:
        _drop_barriers(block)
        for view in block.operations:
            op = view.operation
            if op.name in ops.CONTROL:
                for region in op.regions:
                    for inner in region.blocks:
                        self._fuse_block(inner, outliner, totals)
            elif len(op.regions):
                _sink_constants(op)
        nodes = read_block(block, self.constant_bytes)
        _count_before(nodes, totals)
        for kernel in self.kernels(nodes):
            call = outliner.outline(nodes, kernel)
            totals.kernels += 1
            totals.roots += len(kernel.roots)
            totals.after += _traffic(call)
        outliner.replace()
        _erase(nodes)


def _drop_barriers(block: ir.Block) -> None:
    for view in list(block.operations):
        op = view.operation
        if op.name == "stablehlo.optimization_barrier":
            for result, operand in zip(op.results, op.operands, strict=True):
                result.replace_all_uses_with(operand)
            op.erase()


def _sink_constants(op: ir.Operation) -> None:
    """Copy the outer constants that the regions of a kernel's operation use into them."""
    for region in op.regions:
        for value in captured(region):
            constant = constant_operand(value)
            if constant is None:
                raise PassFailure("a region of an operation uses outer values", where(op))
            with ir.InsertionPoint.at_block_begin(region.blocks[0]):
                copy = constant.clone()
            uses = [use for use in value.uses if _is_inside(use.owner, op)]
            for use in uses:
                use.owner.operands[use.operand_number] = copy.results[0]


def _is_inside(inner: ir.OpView, outer: ir.Operation) -> bool:
    parent = inner.operation.parent
    while parent is not None and parent.operation != outer:
        parent = parent.operation.parent
    return parent is not None


def _name_bitcast(nodes: list[Node], kernel: Kernel) -> None:
    """Mark kernels that change nothing but the shape: they move no bytes."""
    if kernel.kind == "loop" and all(ops.is_bitcast(nodes[n].op) for n in kernel.members):
        kernel.kind = "bitcast"


def _count_before(nodes: list[Node], totals: _Totals) -> None:
    for node in nodes:
        if not node.stays and not node.sinks:
            totals.ops += 1
            totals.before += _traffic(node.op)


def _traffic(op: ir.Operation) -> int:
    read = {value: ops.bytes_of(value.type) for value in op.operands}
    return sum(read.values()) + sum(ops.bytes_of(result.type) for result in op.results)


def _erase(nodes: list[Node]) -> None:
    """Erase what the kernels have replaced, users first; constants only when nobody uses them."""
    for node in reversed(nodes):
        if node.stays and node.name != "stablehlo.constant":
            continue
        constant = node.name == "stablehlo.constant"
        if constant and any(next(iter(r.uses), None) is not None for r in node.op.results):
            continue
        node.op.erase()
