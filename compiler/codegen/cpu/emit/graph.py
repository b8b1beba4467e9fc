"""A kernel function as plain Python objects: cheap to walk, hashed by identity."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pai.compiler.codegen.cpu.emit.types import ElemType, elem_type
from pai.dialects.mlir import ir
from pai.runtime.errors import UnsupportedOp


@dataclass(eq=False)
class Value:
    """One tensor.

    Args:
        type: element type.
        shape: extents.
        node: the operation that makes it; None for an argument.
        number: which result, or which argument, it is.
    """

    type: ElemType
    shape: tuple[int, ...]
    node: Node | None = None
    number: int = 0
    uses: list[Node] = field(default_factory=list, repr=False)
    captured: int = 0

    @property
    def size(self) -> int:
        """Number of elements."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count


@dataclass(eq=False)
class Region:
    """The one block of a region: its arguments, operations and returned values."""

    arguments: list[Value]
    nodes: list[Node]
    results: list[Value]


@dataclass(eq=False)
class Node:
    """One operation."""

    name: str
    op: Any = field(repr=False)
    operands: list[Value]
    results: list[Value] = field(default_factory=list, repr=False)
    regions: list[Region] = field(default_factory=list, repr=False)
    literal: Any = field(default=None, repr=False)

    def has(self, name: str) -> bool:
        """Return whether the attribute is there."""
        return name in self.op.attributes

    def ints(self, name: str, default: list[int] | None = None) -> list[int]:
        """Return an integer list attribute (dense array or dense elements)."""
        if name not in self.op.attributes:
            return list(default or [])
        attribute = self.op.attributes[name]
        for kind in (ir.DenseI64ArrayAttr, ir.DenseBoolArrayAttr):
            if isinstance(attribute, kind):
                return [int(x) for x in kind(attribute)]
        return [int(x) for x in ir.DenseIntElementsAttr(attribute)]

    def int(self, name: str) -> int:
        """Return an integer attribute."""
        return int(ir.IntegerAttr(self.op.attributes[name]).value)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a boolean attribute."""
        if name not in self.op.attributes:
            return default
        return bool(ir.BoolAttr(self.op.attributes[name]).value)

    def text(self, name: str) -> str:
        """Return the last word of an enum attribute, as in ``#stablehlo<x ADD>``."""
        if name not in self.op.attributes:
            return ""
        return str(self.op.attributes[name]).rstrip(">").split()[-1].split("<")[-1]

    @property
    def where(self) -> str:
        """The location, for messages."""
        return str(self.op.location)


@dataclass(eq=False)
class Graph:
    """A kernel function."""

    name: str
    arguments: list[Value]
    nodes: list[Node]
    results: list[Value]
    alias: dict[int, int]


def read_function(func: Any) -> Graph:
    """Read a ``func.func`` on static shapes.

    Raises:
        UnsupportedOp: for a type that kernels do not have.
    """
    op = func.operation
    values: dict[Any, Value] = {}
    region = _read_region(op.regions[0], values)
    pairs = (
        list(ir.DenseI64ArrayAttr(op.attributes["pai.alias"]))
        if "pai.alias" in op.attributes
        else []
    )
    return Graph(
        name=ir.StringAttr(op.attributes["sym_name"]).value,
        arguments=region.arguments,
        nodes=region.nodes,
        results=region.results,
        alias=dict(zip(pairs[::2], pairs[1::2], strict=True)),
    )


def _read_region(region: Any, values: dict[Any, Value]) -> Region:
    block = region.blocks[0]
    arguments = []
    for i, argument in enumerate(block.arguments):
        values[argument] = Value(*_type(argument.type, "argument"), None, i)
        arguments.append(values[argument])
    nodes: list[Node] = []
    results: list[Value] = []
    for view in block.operations:
        op = view.operation
        if op.name in ("func.return", "stablehlo.return"):
            results = [values[v] for v in op.operands]
            break
        node = Node(op.name.removeprefix("stablehlo."), op, [values[v] for v in op.operands])
        for i, result in enumerate(op.results):
            values[result] = Value(*_type(result.type, node.where), node, i)
            node.results.append(values[result])
        node.regions = [_read_region(r, values) for r in op.regions if len(r.blocks)]
        nodes.append(node)
    _live(nodes, results)
    return Region(arguments, nodes, results)


def _live(nodes: list[Node], results: list[Value]) -> None:
    """Drop operations nobody needs, and record who uses each value."""
    needed = set(results)
    for node in reversed(list(nodes)):
        if not needed.intersection(node.results):
            nodes.remove(node)
            continue
        needed.update(node.operands)
        for region in node.regions:
            _capture(region, needed)
        for operand in node.operands:
            operand.uses.append(node)


def _capture(region: Region, needed: set[Value]) -> None:
    for value in [*region.results, *(v for node in region.nodes for v in node.operands)]:
        needed.add(value)
        value.captured += 1
    for node in region.nodes:
        for inner in node.regions:
            _capture(inner, needed)


def _type(kind: Any, where: str) -> tuple[ElemType, tuple[int, ...]]:
    try:
        tensor = ir.RankedTensorType(kind)
        if not tensor.has_static_shape:
            raise ValueError(f"dynamic shape {kind}")
        return elem_type(str(tensor.element_type)), tuple(tensor.shape)
    except ValueError as error:
        raise UnsupportedOp(f"no kernel for values of type {kind}: {error}", where) from error
