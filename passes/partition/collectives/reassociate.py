"""pai-reassociate-collectives: add first, then reduce over the devices once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pai.dialects.mlir import ir
from pai.passes.base import Pass
from pai.passes.partition.collectives.common import (
    ALL_REDUCE,
    REDUCE_SCATTER,
    attribute_names,
    body_kind,
    definition,
    inner_first,
    like,
    only_user,
    operations,
)
from pai.passes.rewrite import building_before, replace

ADD = "stablehlo.add"
LINEAR = frozenset({ALL_REDUCE, REDUCE_SCATTER})


@dataclass(frozen=True)
class ReassociateCollectives(Pass):
    """Turn a sum of all_reduces, or of reduce_scatters, over the same groups into one of the sum.

    The gradient of a value that several column-parallel products read is such a sum. Other terms
    of the sum are added afterwards. The order of floating-point additions changes, as it does
    with the number of devices anyway.

    Before::

        %2 = all_reduce(%0)
        %3 = all_reduce(%1)
        %4 = stablehlo.add %2, %3

    After::

        %2 = stablehlo.add %0, %1
        %4 = all_reduce(%2)
    """

    name: ClassVar[str] = "pai-reassociate-collectives"

    def run(self, module: ir.Module) -> None:
        """Rewrite ``module`` in place."""
        for block in inner_first(module):
            sums = [op for op in operations(block) if op.name == ADD]
            for root in [op for op in sums if not _is_inner(op)]:
                _reassociate(root)


def _is_inner(op: ir.Operation) -> bool:
    """Whether an addition is a term of another one only."""
    user = only_user(op.results[0])
    return user is not None and user.name == ADD and user.block == op.block


def _leaves(root: ir.Operation) -> tuple[list[ir.Value], list[ir.Operation]]:
    """Return the terms of a sum and its additions, the root first."""
    terms: list[ir.Value] = []
    additions: list[ir.Operation] = []
    work = [root.results[0]]
    while work:
        value = work.pop()
        op = definition(value)
        if op is not None and (op == root or (op.name == ADD and _is_inner(op))):
            additions.append(op)
            work += list(op.operands)[::-1]
        else:
            terms.append(value)
    return terms, additions


def _reassociate(root: ir.Operation) -> None:
    terms, additions = _leaves(root)
    buckets: dict[tuple[object, ...], list[ir.Operation]] = {}
    rest: list[ir.Value] = []
    for term in terms:
        op = definition(term)
        if op is not None and _is_linear(op, root):
            buckets.setdefault(_key(op), []).append(op)
        else:
            rest.append(term)
    if all(len(bucket) == 1 for bucket in buckets.values()):
        return
    with building_before(root):
        for bucket in buckets.values():
            total = _sum([op.operands[0] for op in bucket])
            result = root.results[0].type
            rest.append(like(bucket[0], [total], [result]).results[0])
        replace(root, [_sum(rest)])
    for op in (*additions[1:], *(op for bucket in buckets.values() for op in bucket)):
        op.erase()


def _is_linear(op: ir.Operation, root: ir.Operation) -> bool:
    return (
        op.name in LINEAR
        and len(op.operands) == 1
        and op.block == root.block
        and only_user(op.results[0]) is not None
        and body_kind(op) == "add"
    )


def _key(op: ir.Operation) -> tuple[object, ...]:
    names = [name for name in attribute_names(op) if name != "channel_handle"]
    return (op.name, op.operands[0].type, *(op.attributes[name] for name in names))


def _sum(terms: list[ir.Value]) -> ir.Value:
    """Add from left to right; every addition has the location of the term that it adds."""
    total = terms[0]
    for term in terms[1:]:
        maker = definition(term)
        loc = maker.location if maker is not None else ir.Location.current
        operands = [total, term]
        total = ir.Operation.create(ADD, [total.type], operands, loc=loc).results[0]
    return total
