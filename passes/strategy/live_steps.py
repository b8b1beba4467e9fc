"""A block of a local module as the steps of a package: kernels, collectives, control flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pai.dialects.mlir import ir
from pai.passes.fuse import ops
from pai.passes.fuse.fold_transposes import is_foldable
from pai.passes.fuse.fusion import Fuse
from pai.passes.fuse.graph import Node, captured, read_block
from pai.passes.fuse.groups import Kernel
from pai.passes.fuse.ops import Read

_CONTROL = {"stablehlo.while": "while", "stablehlo.if": "case", "stablehlo.case": "case"}
_BARRIER = "stablehlo.optimization_barrier"
_FUSE = Fuse()


@dataclass(frozen=True)
class Step:
    """One instruction to be.

    Args:
        kind: ``while``, ``case``, ``bitcast``, or what else there is.
        reads: operands in memory.
        results: what it makes.
        in_place: result number to the number of the operand that it may overwrite.
        regions: of control flow.
        captured: values of outer blocks that the regions use.
    """

    kind: str
    reads: tuple[ir.Value, ...]
    results: tuple[ir.Value, ...]
    in_place: dict[int, int] = field(default_factory=dict)
    regions: tuple[ir.Region, ...] = ()
    captured: tuple[ir.Value, ...] = ()


def steps_of(block: ir.Block) -> tuple[list[Step], list[ir.Value]]:
    """Return the steps in order, and the operands of the terminator."""
    nodes = read_block(block, _FUSE.constant_bytes)
    values = _see_through(nodes)
    steps = {k.roots[0]: _kernel(nodes, values, k) for k in _FUSE.kernels(nodes)}
    steps |= {
        number: _staying(node, values[number])
        for number, node in enumerate(nodes[:-1])
        if node.stays and node.name not in ("stablehlo.constant", "stablehlo.partition_id")
    }
    return [steps[number] for number in sorted(steps)], values[-1]


def _kernel(nodes: list[Node], values: list[list[ir.Value]], kernel: Kernel) -> Step:
    inside = set(kernel.members)
    roots = [nodes[number] for number in kernel.roots]
    first = roots[0].name in ops.IN_PLACE
    count = len(roots[0].op.results) if first and len(roots) == 1 else 0
    buffers = values[kernel.roots[0]][:count]
    leaves: dict[ir.Value, None] = {}
    for number in kernel.members:
        skip = count if number == kernel.roots[0] else 0
        pairs = zip(values[number][skip:], nodes[number].operands[skip:], strict=True)
        leaves |= dict.fromkeys(value for value, maker in pairs if maker not in inside)
    results = tuple(result for node in roots for result in node.op.results)
    return Step(kernel.kind, (*buffers, *leaves), results, {n: n for n in range(count)})


def _staying(node: Node, values: list[ir.Value]) -> Step:
    op = node.op
    inner = tuple(op.regions) if node.name in _CONTROL else ()
    used = tuple(dict.fromkeys(v for region in inner for v in captured(region)))
    reduces = node.name == "stablehlo.all_reduce"
    in_place = {n: n for n in range(len(values))} if reduces else {}
    kind = _CONTROL.get(node.name, node.name)
    return Step(kind, tuple(values), tuple(op.results), in_place, inner, used)


def _see_through(nodes: list[Node]) -> list[list[ir.Value]]:
    """Return each node's operands behind barriers, and behind transposes that products undo.

    Where any are, the graph is corrected in place.
    """
    behind: dict[ir.Value, ir.Value] = {}
    makers: dict[ir.Value, int] = {}
    values: list[list[ir.Value]] = []
    changed = False
    for number, node in enumerate(nodes):
        own = [behind.get(value, value) for value in node.op.operands]
        if node.name == _BARRIER:
            behind.update(zip(node.op.results, own, strict=True))
        elif node.name == "stablehlo.dot_general":
            for side in (0, 1):
                maker = makers.get(own[side])
                if maker is not None and is_foldable(node.op, side, nodes[maker].op):
                    own[side], changed = values[maker][0], True
        makers.update(dict.fromkeys(node.op.results, number))
        values.append(own)
    if changed or behind:
        _relink(nodes, values, makers)
    return values


def _relink(
    nodes: list[Node], values: Sequence[Sequence[ir.Value]], makers: dict[ir.Value, int]
) -> None:
    """Set makers, users and pins of the nodes from the operands they read in the end."""
    for node in nodes:
        node.users, node.pinned = [], False
    for number in range(len(nodes) - 1, -1, -1):  # users first: what nobody uses reads nothing
        node = nodes[number]
        node.operands = tuple(makers.get(value) for value in values[number])
        folded = node.name in (_BARRIER, "stablehlo.transpose")
        if folded and not node.users and not node.pinned:
            continue
        for position, maker in enumerate(node.operands):
            if maker is None:
                continue
            if number not in nodes[maker].users:
                nodes[maker].users.append(number)
            whole = not node.stays and node.reads[position] is Read.WHOLE
            nodes[maker].pinned |= node.stays or whole
        if node.name in _CONTROL:
            for value in (v for region in node.op.regions for v in captured(region)):
                if value in makers:
                    nodes[makers[value]].pinned = True
    for node in nodes:
        node.users.reverse()
