"""What dot and convolution kernels share: finding the heavy operation, and what runs after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from pai.compiler.codegen.cpu.emit.builder import Builder, Index
from pai.compiler.codegen.cpu.emit.emitter import Buffer
from pai.compiler.codegen.cpu.emit.graph import Graph, Node, Value
from pai.compiler.codegen.cpu.emit.kernel import KernelSource, StageContext, assemble
from pai.compiler.codegen.cpu.emit.types import ElemType
from pai.compiler.codegen.cpu.target import CpuTarget


@dataclass(frozen=True)
class Kernel:
    """A kernel with one heavy operation whose result lands in the kernel's only result.

    Args:
        graph: the kernel function.
        node: the heavy operation.
        context: the elemental emitter, which knows where the arguments are.
        symbol: the entry point's name.
        output: pointer of the result's buffer.
        root: the value to be stored there (before reshapes at the very end).
    """

    graph: Graph
    node: Node
    context: StageContext
    symbol: str
    output: str
    root: Value

    @property
    def type(self) -> ElemType:
        """Element type of the heavy operation's result."""
        return self.node.results[0].type

    def pointer(self, value: Value) -> str:
        """Return the pointer of an argument."""
        return self.context.buffers[value].pointer

    @property
    def has_epilogue(self) -> bool:
        """Whether operations follow the heavy one."""
        return self.root.node is not self.node

    def epilogue(self, start: Index, end: Index) -> None:
        """Run what follows over the elements [start, end) of the result, in place."""
        b, e, root = self.context.b, self.context, self.root
        width = root.shape[-1]

        def line(number: Index) -> Sequence[str]:
            outer = b.delinear(number, root.shape[:-1])
            first = b.mul(number, width)

            def element(column: Index) -> Sequence[str]:
                index = (*outer, column)
                with e.layer():
                    buffer = e.buffers.pop(root)
                    value = e.element(root, index)
                    e.buffers[root] = buffer
                    e.put(buffer, index, value)
                return ()

            low = b.clamp(b.sub(start, first), 0, width)
            b.loop(low, b.clamp(b.sub(end, first), 0, width), element)
            return ()

        b.loop(b.div(start, width), b.div(b.add(end, width - 1), width), line)


def make_kernel(func: Any, graph: Graph, target: CpuTarget, name: str) -> Kernel | None:
    """Return the kernel around the one operation ``name``, or None when it has another form.

    The form: one result, of the operation's element type and size, f32 or f64, and operands that
    are arguments of the kernel, of that type too.
    """
    nodes = [node for node in graph.nodes if node.name == name]
    if len(nodes) != 1 or len(graph.results) != 1:
        return None
    (node,) = nodes
    heavy, root = node.results[0], graph.results[0]
    while root.node is not None and root.node is not node and root.node.name == "reshape":
        root = root.node.operands[0]  # the same bytes
    same_type = {heavy.type.name, root.type.name, *(v.type.name for v in node.operands)}
    if same_type not in ({"f32"}, {"f64"}) or prod(heavy.shape) != prod(root.shape):
        return None
    if (
        root.node is None
        or not root.shape
        or any(operand.node is not None for operand in node.operands)
    ):
        return None
    attributes = func.operation.attributes
    key = str(attributes["pai.key"]).strip('"') if "pai.key" in attributes else graph.name
    symbol = "pai_" + "".join(c if c.isalnum() else "_" for c in key)
    b = Builder(frozenset(target.features))
    b.global_prefix = symbol
    context = StageContext(b, graph)
    for i, value in enumerate(graph.arguments):
        context.buffers[value] = Buffer(f"%p{i}", value.type, value.shape)
    output = f"%p{len(graph.arguments)}"
    context.buffers[root] = Buffer(output, root.type, root.shape)
    context.buffers[heavy] = Buffer(output, heavy.type, heavy.shape)
    return Kernel(graph, node, context, symbol, output, root)


def finish(kernel: Kernel, parts: int) -> KernelSource:
    """Return the kernel's text, once its body is written, for a grid of ``parts``."""
    return assemble(kernel.context, kernel.graph, kernel.symbol, parts)
