"""pai-hoist-collectives: a collective of what a loop does not change runs once, before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pai.dialects.mlir import ir
from pai.passes.base import Pass
from pai.passes.partition.collectives.common import KINDS, definition, operations
from pai.passes.rewrite import collect

CHEAP = frozenset(
    f"stablehlo.{name}"
    for name in (
        "reshape", "transpose", "convert", "slice", "pad", "broadcast_in_dim", "constant",
        "dynamic_slice", "partition_id", "divide", "remainder", "multiply", "add",
    )
)  # fmt: skip


@dataclass(frozen=True)
class HoistCollectives(Pass):
    """Move collectives of loop-invariant values out of while loops, what makes their operands too.

    A value that a loop carries unchanged is read from outside first. An all_gather of a parameter
    in a loop over microbatches or time steps is the case in mind: it takes the memory of the
    gathered value during the loop, and saves one collective per further trip.

    Before::

        %r = stablehlo.while(%i = %c0, %w = %shard) ... do {
          %full = all_gather(%w) ...
          stablehlo.return %next, %w
        }

    After::

        %full = all_gather(%shard)
        %r = stablehlo.while(%i = %c0, %w = %shard) ... do {
          stablehlo.return %next, %w
        }
    """

    name: ClassVar[str] = "pai-hoist-collectives"

    def run(self, module: ir.Module) -> None:
        """Rewrite ``module`` in place."""
        for loop in collect(module, "stablehlo.while")[::-1]:
            if any(True for _ in collect(loop, *KINDS)):
                _read_from_outside(loop)
                _hoist(loop)


def _read_from_outside(loop: ir.Operation) -> None:
    """Let the regions use the initial value of what the body returns as it came."""
    condition, body = (region.blocks[0] for region in loop.regions)
    returned = list(operations(body)[-1].operands)
    for index, value in enumerate(loop.operands):
        argument = body.arguments[index]
        if returned[index] == argument:
            argument.replace_all_uses_except(value, operations(body)[-1])
            condition.arguments[index].replace_all_uses_with(value)
            loop.results[index].replace_all_uses_with(value)


def _hoist(loop: ir.Operation) -> None:
    for region in loop.regions:
        block = region.blocks[0]
        ops = operations(block)
        inside: set[ir.Value] = set(block.arguments)
        for op in ops:
            collective = op.name in KINDS
            fixed = not any(value in inside for value in op.operands)
            if not fixed or not (collective or op.name in CHEAP):
                inside |= set(op.results)
            elif collective:
                _move_before(loop, op, block)


def _move_before(loop: ir.Operation, op: ir.Operation, block: ir.Block) -> None:
    """Move ``op``, and what its operands are made of in the block, to before the loop."""
    for value in op.operands:
        maker = definition(value)
        if maker is not None and maker.block == block:
            _move_before(loop, maker, block)
    op.move_before(loop)
