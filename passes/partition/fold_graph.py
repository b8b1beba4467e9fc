"""The operations of @main as numbered nodes, with what makes two of them alike.

Arguments come first, then the operations in order, without the terminator. A *value* is a number
too: its node and its result number, packed. Folding layers compares modules of tens of thousands of
operations, so everything here is one pass over them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pai.dialects.mlir import ir

RESULT_BITS = 20
RESULT_MASK = (1 << RESULT_BITS) - 1

Ints = npt.NDArray[np.int64]


def node_of(value: int) -> int:
    """Return the node that defines a value."""
    return value >> RESULT_BITS


@dataclass
class Graph:
    """The dataflow of a block.

    Args:
        arguments: how many nodes are arguments.
        operations: the operations; number i is node ``arguments + i``.
        returned: the values that the terminator takes.
        signatures: per node, a number that equal operations share: name, attributes, types.
        operands: per node, the values it reads; those its regions capture come last.
        capturing: nodes whose regions use values from outside.
    """

    arguments: int
    operations: list[ir.Operation]
    returned: list[int]
    signatures: list[int]
    operands: list[list[int]]
    capturing: set[int] = field(default_factory=set)

    def location(self, node: int) -> ir.Location:
        """Return where a node comes from."""
        if node >= self.arguments:
            return self.operations[node - self.arguments].location
        block: ir.Block = self.operations[0].block
        location: ir.Location = block.arguments[node].location
        return location

    def users(self) -> list[list[tuple[int, int]]]:
        """Return, per node, who uses it: (node, place of the operand)."""
        out: list[list[tuple[int, int]]] = [[] for _ in self.signatures]
        for node, values in enumerate(self.operands):
            for place, value in enumerate(values):
                out[value >> RESULT_BITS].append((node, place))
        return out

    def depths(self) -> Ints:
        """Return the length of the longest path from an argument to each node."""
        out = [0] * len(self.signatures)
        for node, values in enumerate(self.operands):
            if values:
                out[node] = 1 + max([out[value >> RESULT_BITS] for value in values])
        return np.array(out, np.int64)

    def colours(self, rounds: int) -> npt.NDArray[np.uint64]:
        """Return a number per node, equal where all paths of ``rounds`` edges look alike."""
        pairs = [
            (node, value >> RESULT_BITS, place * 64 + (value & RESULT_MASK))
            for node, values in enumerate(self.operands)
            for place, value in enumerate(values)
        ]
        user, source, label = np.array(pairs or np.zeros((0, 3)), np.int64).T
        out = _mix(np.array(self.signatures, np.uint64))
        kind = _mix(label.astype(np.uint64) + np.uint64(1 << 40))
        for _ in range(rounds):
            total = _mix(out)
            np.add.at(total, user, _mix(out[source] ^ kind))
            np.add.at(total, source, _mix(out[user] + kind))
            out = total
        return out


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scramble 64-bit numbers (the finalizer of SplitMix64, Steele et al. 2014)."""
    out = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    out = (out ^ (out >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = out ^ (out >> np.uint64(31))
    return mixed


def read(block: ir.Block, argument_keys: Sequence[Hashable]) -> Graph:
    """Number the operations of a block.

    Args:
        block: the body of a function.
        argument_keys: per argument, what must be equal, besides the type, of arguments alike.
    """
    numbers: dict[Hashable, int] = {}
    values: dict[ir.Value, int] = {}
    signatures: list[int] = []
    operands: list[list[int]] = []
    for argument, key in zip(block.arguments, argument_keys, strict=True):
        values[argument] = len(signatures) << RESULT_BITS
        signatures.append(numbers.setdefault((argument.type, key), len(numbers)))
        operands.append([])
    *operations, last = [op.operation for op in block.operations]
    graph = Graph(len(signatures), operations, [], signatures, operands)
    for op in operations:
        node = len(signatures)
        taken = [values[value] for value in op.operands]
        results = list(op.results)
        key, captured = signature(op, results)
        if captured:
            outer = [values[value] for value in captured if value in values]
            graph.capturing.add(node)
            taken += outer
        signatures.append(numbers.setdefault((key, len(taken)), len(numbers)))
        operands.append(taken)
        for number, value in enumerate(results):
            values[value] = (node << RESULT_BITS) + number
    graph.returned = [values[value] for value in last.operands]
    return graph


def signature(
    op: ir.Operation, results: Sequence[ir.Value] | None = None
) -> tuple[Hashable, list[ir.Value]]:
    """Return what an operation is, but for its operands, and the values its regions capture."""
    outputs = op.results if results is None else results
    head = (op.name, *_attributes(op), *(value.type for value in outputs))
    if not len(op.regions):
        return head, []
    captured: list[ir.Value] = []
    inside: dict[ir.Value, int] = {}
    return (head, *_regions(op, inside, captured)), captured


def _attributes(op: ir.Operation) -> tuple[Hashable, ...]:
    try:
        return tuple(op.attributes.items())
    except TypeError:  # the bindings cannot hold a complex constant's elements
        return (str(op).partition(" = ")[2],)


def _regions(
    op: ir.Operation, inside: dict[ir.Value, int], captured: list[ir.Value]
) -> list[Hashable]:
    """Describe the regions of ``op``; values are numbered in order, outer ones by first use."""
    out: list[Hashable] = []
    for region in op.regions:
        for block in region.blocks:
            for argument in block.arguments:
                inside[argument] = len(inside)
                out.append(argument.type)
            out += [_inner(inner.operation, inside, captured) for inner in block.operations]
        out.append("region")
    return out


def _inner(op: ir.Operation, inside: dict[ir.Value, int], captured: list[ir.Value]) -> Hashable:
    sources: list[Hashable] = []
    for value in op.operands:
        if value in inside:
            sources.append(inside[value])
        else:
            sources.append(("outer", len(captured)))
            captured.append(value)
    regions = _regions(op, inside, captured) if len(op.regions) else ()
    for value in op.results:
        inside[value] = len(inside)
    return (
        op.name, *_attributes(op), *(value.type for value in op.results), *sources, *regions
    )  # fmt: skip


def operation_count(module: ir.Module) -> int:
    """Return the number of operations in the functions of a module, without those in regions."""
    return sum(
        len(list(block.operations))
        for function in module.body.operations
        if function.operation.name == "func.func"
        for block in function.operation.regions[0].blocks
    )
