"""Kernels as private functions, each distinct one once, and calls in their place."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from pai.dialects.mlir import func, ir
from pai.passes.fuse.graph import Node, captured
from pai.passes.fuse.groups import Kernel
from pai.runtime.errors import PassFailure

# Heads whose result starts out as a copy of these operands: result number -> operand number.
_IN_PLACE = {"stablehlo.dynamic_update_slice", "stablehlo.scatter"}


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
        members = [nodes[number].op for number in kernel.members]
        leaves = _leaves(members)
        roots = [nodes[number].op for number in kernel.roots]
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
        function = _build(self.module, members, leaves, roots)
        function.attributes["pai.kernel"] = ir.StringAttr.get(kind)
        alias = _alias(kind, members, leaves, roots)
        if alias:
            function.attributes["pai.alias"] = ir.DenseI64ArrayAttr.get(alias)
        key = hashlib.sha256(function.get_asm(enable_debug_info=False).encode()).hexdigest()[:32]
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


def _leaves(members: Sequence[ir.Operation]) -> list[ir.Value]:
    """Return the values that the members read and do not make, in order of first use."""
    inside: set[ir.Value] = set()
    leaves: dict[ir.Value, None] = {}
    for op in members:
        for value in op.operands:
            if value not in inside:
                leaves[value] = None
        inside.update(op.results)
    return list(leaves)


def _build(
    module: ir.Module,
    members: Sequence[ir.Operation],
    leaves: Sequence[ir.Value],
    roots: Sequence[ir.Operation],
) -> ir.Operation:
    """Return a new private function ``@k`` at the end of the module that computes the roots."""
    outputs = [result for root in roots for result in root.results]
    kind = ir.FunctionType.get([v.type for v in leaves], [v.type for v in outputs], module.context)
    with roots[0].location, ir.InsertionPoint(module.body):
        function = func.FuncOp("k", kind, visibility="private")
        block = function.add_entry_block()
    values: dict[ir.Value, ir.Value] = dict(zip(leaves, block.arguments, strict=True))
    with ir.InsertionPoint(block):
        for op in members:
            if len(op.regions) and captured(op):
                raise PassFailure("a region inside a kernel uses outer values", str(op.location))
            copy = op.clone()
            for position, value in enumerate(op.operands):
                copy.operands[position] = values[value]
            values.update(zip(op.results, copy.results, strict=True))
        with roots[0].location:
            func.ReturnOp([values[value] for value in outputs])
    return function.operation


def _alias(
    kind: str,
    members: Sequence[ir.Operation],
    leaves: Sequence[ir.Value],
    roots: Sequence[ir.Operation],
) -> list[int]:
    """Return (result, operand) pairs whose buffers may be one."""
    (root,) = roots if len(roots) == 1 else (None,)
    if root is None:
        return []
    if kind == "bitcast":
        return [0, 0]
    if root.name not in _IN_PLACE:
        return []
    pairs: list[int] = []
    for number in range(len(root.results)):
        value = root.operands[number]
        others = [op for op in members if value in list(op.operands)]
        if value in leaves and others == [root] and list(root.operands).count(value) == 1:
            pairs += [number, leaves.index(value)]
    return pairs
