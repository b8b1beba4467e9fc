"""Kernels as private functions, each distinct one once, and calls in their place."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from pai.dialects.mlir import func, ir
from pai.passes.fuse.graph import Node
from pai.passes.fuse.groups import Kernel
from pai.passes.fuse.ops import IN_PLACE


@dataclass
class Outliner:
    """Makes kernel functions in a module; the same body is made once.

    Args:
        module: where the functions go.
        names: function name by structural key.
    """

    module: ir.Module
    names: dict[str, str] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _made: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def outline(self, nodes: Sequence[Node], kernel: Kernel) -> ir.Operation:
        """Put a call of the kernel where its first root is, and return the call.

        The old operations still use the old values, until ``replace`` is called.
        """
        members = [nodes[number].op for number in _canonical_order(nodes, kernel)]
        roots = [nodes[number].op for number in kernel.roots]
        in_place = _in_place_operands(roots)
        leaves = in_place + _leaves(members, len(in_place))
        name = self._function(kernel.kind, members, leaves, roots)
        outputs = [result for root in roots for result in root.results]
        arguments = [self._made.get(value, value) for value in leaves]
        with roots[0].location, ir.InsertionPoint(roots[0]):
            call = func.CallOp([value.type for value in outputs], name, arguments)
        self._made.update(zip(outputs, call.operation.results, strict=True))
        return call.operation

    def replace(self) -> None:
        """Let everything that uses a root's result use the call's."""
        for old, new in self._made.items():
            old.replace_all_uses_with(new)
        self._made.clear()

    def _function(
        self,
        kind: str,
        members: Sequence[ir.Operation],
        leaves: Sequence[ir.Value],
        roots: Sequence[ir.Operation],
    ) -> str:
        """Return the name of the kernel function with this body, made if it is new."""
        count = len(_in_place_operands(roots))
        function = _build(self.module, members, leaves, roots, count)
        function.attributes["pai.kernel"] = ir.StringAttr.get(kind)
        pairs = [0, 0] if kind == "bitcast" else [n for pair in range(count) for n in (pair, pair)]
        if pairs:
            function.attributes["pai.alias"] = ir.DenseI64ArrayAttr.get(pairs)
        key = hashlib.sha256(function.get_asm(use_local_scope=True).encode()).hexdigest()[:32]
        if key in self.names:
            function.erase()
            return self.names[key]
        number = self._counts.get(kind, 0)
        self._counts[kind] = number + 1
        name = f"kernel_{kind}_{number}"
        function.attributes["sym_name"] = ir.StringAttr.get(name)
        function.attributes["pai.key"] = ir.StringAttr.get(key)
        self.names[key] = name
        return name


def _canonical_order(nodes: Sequence[Node], kernel: Kernel) -> list[int]:
    """Return the members so that each follows its operands, whatever their order in the block.

    Kernels that do the same then have the same text.
    """
    inside = set(kernel.members)
    order: dict[int, None] = {}
    todo = [(root, False) for root in reversed(kernel.roots)]
    while todo:
        number, operands_done = todo.pop()
        if operands_done:
            order[number] = None
        elif number not in order:
            todo.append((number, True))
            below = [n for n in nodes[number].operands if n is not None and n in inside]
            todo += [(n, False) for n in reversed(below) if n not in order]
    return list(order)


def _in_place_operands(roots: Sequence[ir.Operation]) -> list[ir.Value]:
    """Return the operands whose buffers the results may take over, one per result.

    Each has an argument of its own, even when the kernel reads the same value elsewhere too.
    """
    root = roots[0]
    return list(root.operands)[: len(root.results)] if root.name in IN_PLACE else []


def _leaves(members: Sequence[ir.Operation], in_place: int) -> list[ir.Value]:
    """Return the values that the members read and do not make, in order of first use.

    Args:
        members: the kernel's operations; the last one is the root.
        in_place: so many of the root's first operands are left out.
    """
    inside: set[ir.Value] = set()
    leaves: dict[ir.Value, None] = {}
    for op in members:
        skipped = in_place if op is members[-1] else 0
        for value in list(op.operands)[skipped:]:
            if value not in inside:
                leaves[value] = None
        inside.update(op.results)
    return list(leaves)


def _build(
    module: ir.Module,
    members: Sequence[ir.Operation],
    leaves: Sequence[ir.Value],
    roots: Sequence[ir.Operation],
    in_place: int,
) -> ir.Operation:
    """Return a new private function at the end of the module that computes the roots."""
    outputs = [result for root in roots for result in root.results]
    kind = ir.FunctionType.get([v.type for v in leaves], [v.type for v in outputs], module.context)
    with roots[0].location, ir.InsertionPoint(module.body):
        function = func.FuncOp("kernel", kind, visibility="private")
        block = function.add_entry_block()
    arguments = list(block.arguments)
    values: dict[ir.Value, ir.Value] = dict(
        zip(leaves[in_place:], arguments[in_place:], strict=True)
    )
    with ir.InsertionPoint(block):
        for op in members:
            own = arguments[:in_place] if op is members[-1] else []
            copy = op.clone()
            for position, value in enumerate(op.operands):
                copy.operands[position] = own[position] if position < len(own) else values[value]
            values.update(zip(op.results, copy.results, strict=True))
        with roots[0].location:
            func.ReturnOp([values[value] for value in outputs])
    return function.operation
