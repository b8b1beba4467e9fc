"""A block of the module as a graph of numbered operations, read once."""

from __future__ import annotations

from dataclasses import dataclass, field

from pai.dialects.mlir import ir
from pai.passes.fuse import ops
from pai.passes.fuse.ops import Read


@dataclass
class Node:
    """One operation of a block.

    Args:
        op: the operation.
        name: its name.
        operands: per operand, the number of the node that makes it; None when made outside.
        reads: per operand, how it is read.
        size: elements of the first result.
        bytes: bytes of all results.
        stays: it remains in the block (collective, control flow, large constant, terminator).
        sinks: a constant that every kernel copies.
        elemental: it can be evaluated at one index.
        users: numbers of the nodes that use a result, ascending, without repeats.
        pinned: a result is used by something that stays, so it must be in memory.
    """

    op: ir.Operation
    name: str
    operands: tuple[int | None, ...] = ()
    reads: tuple[Read, ...] = ()
    size: int = 1
    bytes: int = 0
    stays: bool = False
    sinks: bool = False
    elemental: bool = False
    users: list[int] = field(default_factory=list)
    pinned: bool = False


def read_block(block: ir.Block, constant_bytes: int) -> list[Node]:
    """Return the block's operations in order, with uses by nested regions counted as pins.

    Args:
        block: a block whose nested regions have been fused already.
        constant_bytes: constants up to this size are copied into kernels.
    """
    nodes: list[Node] = []
    makers: dict[ir.Value, int] = {}
    for number, view in enumerate(block.operations):
        node = _read(view.operation, makers, constant_bytes)
        if node.name in ops.IN_PLACE and _reads_its_buffer(nodes, node):
            node.reads = (Read.WHOLE,) * len(node.reads)
        nodes.append(node)
        for result in node.op.results:
            makers[result] = number
        for maker in dict.fromkeys(node.operands):
            if maker is not None:
                nodes[maker].users.append(number)
                nodes[maker].pinned |= node.stays
        for position, maker in enumerate(node.operands):
            if maker is not None and not node.stays and node.reads[position] is Read.WHOLE:
                nodes[maker].pinned = True
        if node.name in ops.CONTROL:
            for value in (v for region in node.op.regions for v in captured(region)):
                if value in makers:
                    nodes[makers[value]].pinned = True
    return nodes


def _reads_its_buffer(nodes: list[Node], node: Node) -> bool:
    """Whether an in-place update might read the buffer it writes, were its producers fused.

    Gives up, with True, after looking at 64 producers.
    """
    count = len(node.op.results)
    operands = list(node.op.operands)
    buffers = set(operands[:count])
    if not buffers.isdisjoint(operands[count:]):
        return True
    todo = [maker for maker in node.operands[count:] if maker is not None]
    seen: set[int] = set()
    while todo:
        number = todo.pop()
        if number in seen or not nodes[number].elemental:
            continue
        seen.add(number)
        if len(seen) > 64 or not buffers.isdisjoint(nodes[number].op.operands):
            return True
        todo += [maker for maker in nodes[number].operands if maker is not None]
    return False


def captured(region: ir.Region) -> list[ir.Value]:
    """Return the values that a region uses and does not make, in order of first use."""
    inside: set[ir.Value] = set()
    used: dict[ir.Value, None] = {}

    def visit(inner: ir.Region) -> None:
        for block in inner.blocks:
            inside.update(block.arguments)
            for op in block.operations:
                used.update(dict.fromkeys(op.operands))
                inside.update(op.results)
                for child in op.regions:
                    visit(child)

    visit(region)
    return [value for value in used if value not in inside]


def _read(op: ir.Operation, makers: dict[ir.Value, int], constant_bytes: int) -> Node:
    name = op.name
    operands = list(op.operands)
    node = Node(op, name, tuple(makers.get(value) for value in operands))
    results = op.results
    if len(results):
        node.size = ops.elements(results[0].type)
        node.bytes = sum(ops.bytes_of(result.type) for result in results)
    if name == "stablehlo.constant":
        node.sinks = ops.is_sinkable(op, constant_bytes)
        node.stays = not node.sinks
    elif name in ops.STAYS or name in ops.TERMINATORS:
        node.stays = True
    elif ops.is_elemental(name):
        node.elemental = True
        bitcast = ops.is_bitcast(op)
        node.reads = tuple(
            ops.elemental_read(op, position, bitcast=bitcast) for position in range(len(operands))
        )
    else:
        count = len(operands)
        node.reads = tuple(ops.head_read(name, position, count) for position in range(count))
    return node
