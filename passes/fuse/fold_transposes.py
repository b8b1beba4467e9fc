"""pai-fold-transposes: let dot_general read its operands in the order they lie in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pai.dialects.mlir import ir, stablehlo
from pai.passes.base import Pass
from pai.passes.rewrite import collect


@dataclass(frozen=True)
class FoldTransposes(Pass):
    """Replace the product of a transposed array by a product over other dimensions.

    Before::

        %0 = stablehlo.transpose %w, dims = [1, 0] : (tensor<8x4xf32>) -> tensor<4x8xf32>
        %1 = stablehlo.dot_general %x, %0, contracting_dims = [1] x [0] : ...

    After::

        %1 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [1] : ...

    A transpose stays when it changes the order of the operand's free dimensions, which is the order
    of the result's. Transposes that nobody uses any more are erased.
    """

    name: ClassVar[str] = "pai-fold-transposes"

    def run(self, module: ir.Module) -> None:
        """Rewrite ``module`` in place."""
        with module.context:
            for op in collect(module, "stablehlo.dot_general"):
                while any(_fold(op, side) for side in (0, 1)):
                    pass


def is_foldable(op: ir.Operation, side: int, maker: ir.Operation) -> bool:
    """Whether a ``dot_general`` can read operand ``side`` through ``maker``, a transpose."""
    if maker.name != "stablehlo.transpose":
        return False
    order = [int(d) for d in ir.DenseI64ArrayAttr(maker.attributes["permutation"])]
    batch, contract = _dims(op)
    fixed = {*batch[side], *contract[side]}
    free = [order[d] for d in range(len(order)) if d not in fixed]
    return free == sorted(free)


def _dims(op: ir.Operation) -> tuple[list[list[int]], list[list[int]]]:
    """Return the batching and the contracting dimensions of both operands."""
    numbers = stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"])
    batch = [list(numbers.lhs_batching_dimensions), list(numbers.rhs_batching_dimensions)]
    contract = [list(numbers.lhs_contracting_dimensions), list(numbers.rhs_contracting_dimensions)]
    return batch, contract


def _fold(op: ir.Operation, side: int) -> bool:
    """Read operand ``side`` through the transpose that makes it; False when there is none."""
    maker = op.operands[side].owner
    if isinstance(maker, ir.Block) or not is_foldable(op, side, maker.operation):
        return False
    transpose = maker.operation
    order = [int(d) for d in ir.DenseI64ArrayAttr(transpose.attributes["permutation"])]
    batch, contract = _dims(op)
    batch[side] = [order[d] for d in batch[side]]
    contract[side] = [order[d] for d in contract[side]]
    op.operands[side] = transpose.operands[0]
    op.attributes["dot_dimension_numbers"] = stablehlo.DotDimensionNumbers.get(
        batch[0], batch[1], contract[0], contract[1]
    )
    if not any(True for _ in transpose.results[0].uses):
        transpose.erase()
    return True
