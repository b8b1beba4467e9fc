"""pai-sink-collectives: a loop that adds up all_reduces adds first and reduces once, after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pai.dialects.mlir import ir
from pai.passes.base import Pass
from pai.passes.partition.collectives.common import (
    ALL_REDUCE,
    REDUCE_SCATTER,
    body_kind,
    definition,
    like,
    only_user,
    operations,
)
from pai.passes.partition.collectives.reassociate import ADD
from pai.passes.partition.collectives.scatter import MOVES
from pai.passes.partition.emit import splat
from pai.passes.rewrite import collect


@dataclass(frozen=True)
class SinkCollectives(Pass):
    """Accumulate the devices' own parts in a loop and combine them once, behind it.

    The gradient of a weight that a scan reads at every step is such a sum; so is the gradient of
    microbatches. An accumulator of a reduce_scatter grows to the whole tensor on each device.
    Transposes and reshapes may stand between an all_reduce and the addition.

    Before::

        %r = stablehlo.while(%i = %c0, %sum = %init) ... do {
          %1 = all_reduce(%0)
          %2 = stablehlo.add %sum, %1
          stablehlo.return %next, %2
        }

    After::

        %r = stablehlo.while(%i = %c0, %sum = %zero) ... do {
          %2 = stablehlo.add %sum, %0
          stablehlo.return %next, %2
        }
        %3 = all_reduce(%r#1)
        %4 = stablehlo.add %init, %3
    """

    name: ClassVar[str] = "pai-sink-collectives"

    def run(self, module: ir.Module) -> None:
        """Rewrite ``module`` in place."""
        for loop in collect(module, "stablehlo.while")[::-1]:
            for index in range(len(loop.results)):
                found = _accumulated(loop, index)
                if found is not None:
                    _sink(loop, index, *found)


def _accumulated(loop: ir.Operation, index: int) -> tuple[ir.Operation, ir.Operation] | None:
    """Return the addition and the collective of accumulator ``index`` of a loop, if it is one."""
    condition, body = (region.blocks[0] for region in loop.regions)
    argument = body.arguments[index]
    addition = only_user(argument)
    if addition is None or addition.name != ADD or addition.block != body:
        return None
    if list(condition.arguments[index].uses) or only_user(addition.results[0]) is None:
        return None
    if operations(body)[-1].operands[index] != addition.results[0]:
        return None
    left, right = addition.operands
    collective = _source(right if left == argument else left, body)
    if collective is None:
        return None
    if body_kind(collective) != "add" or len(collective.operands) != 1:
        return None
    if collective.block != body or only_user(collective.results[0]) is None:
        return None
    return addition, collective


def _source(term: ir.Value, body: ir.Block) -> ir.Operation | None:
    """Return the collective a term comes from; an all_reduce may be moved behind it."""
    op = definition(term)
    allowed = {ALL_REDUCE, REDUCE_SCATTER}
    while op is not None and op.name in MOVES and op.block == body and only_user(op.results[0]):
        op = definition(op.operands[0])
        allowed = {ALL_REDUCE}
    return op if op is not None and op.name in allowed else None


def _sink(loop: ir.Operation, index: int, addition: ir.Operation, collective: ir.Operation) -> None:
    part = collective.operands[0]
    init = loop.operands[index]
    old = init.type
    kind = part.type if collective.name == REDUCE_SCATTER else old
    with loop.context, loop.location:
        with ir.InsertionPoint(loop):
            attributes = {"value": splat(kind, 0)}
            zero = ir.Operation.create("stablehlo.constant", [kind], attributes=attributes)
        result = loop.results[index]
        uses = [(use.owner.operation, use.operand_number) for use in result.uses]
        loop.operands[index] = zero.results[0]
        result.set_type(kind)
        for region in loop.regions:
            region.blocks[0].arguments[index].set_type(kind)
        addition.results[0].set_type(kind)
        collective.results[0].replace_all_uses_with(part)
        after = _next(loop)
        with ir.InsertionPoint(after):
            total = like(collective, [result], [old]).results[0]
            total = ir.Operation.create(ADD, results=[old], operands=[init, total]).results[0]
        for owner, number in uses:
            owner.operands[number] = total
    collective.erase()


def _next(op: ir.Operation) -> ir.Operation:
    """Return the operation behind ``op``; it is no terminator."""
    ops = operations(op.block)
    return ops[ops.index(op) + 1]
