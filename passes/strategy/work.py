"""What a block of StableHLO does, as plain numbers: FLOPs, bytes, and which values it keeps.

``read_block`` turns a block into ``Node``s over integer value ids. Reshapes, broadcasts and
constants do no work, and neither do transposes and converts of arguments (kernels read the weight
in the order and type that it is stored in): their results are *views* of another value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from pai.dialects.constants import is_splat
from pai.dialects.mlir import ir, stablehlo
from pai.runtime.dtypes import DTYPES


class Kind(Enum):
    """How an operation is executed."""

    HEAVY = "heavy"  # a kernel of its own
    FUSED = "fused"  # part of a loop kernel with its neighbours
    COLLECTIVE = "collective"
    CONTROL = "control"  # its regions run


COLLECTIVES = frozenset(
    f"stablehlo.{name}"
    for name in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "collective_permute",
                 "collective_broadcast")
)  # fmt: skip
CONTROL = frozenset({"stablehlo.while", "stablehlo.case", "stablehlo.if", "func.call"})
_HEAVY = frozenset(
    f"stablehlo.{name}"
    for name in ("dot_general", "dot", "convolution", "gather", "scatter", "sort", "reduce_window",
                 "select_and_scatter", "fft", "cholesky", "triangular_solve", "custom_call", "rng",
                 "rng_bit_generator", "dynamic_update_slice")
) | {"chlo.top_k"}  # fmt: skip
_VIEWS = frozenset(
    {"stablehlo.reshape", "stablehlo.broadcast_in_dim", "stablehlo.optimization_barrier"}
)
_ARGUMENT_VIEWS = frozenset({"stablehlo.transpose", "stablehlo.convert"})
_SOURCES = frozenset({"stablehlo.constant", "stablehlo.iota", "stablehlo.partition_id"})
_PART_READERS = frozenset({"stablehlo.slice", "stablehlo.dynamic_slice", "stablehlo.gather"})


@dataclass(frozen=True)
class Node:
    """One operation that does work.

    Args:
        op: the operation.
        kind: how it is executed.
        position: place in the block.
        reads: (value id, bytes read) of its distinct operands; views are looked through.
        writes: value ids of its results.
        flops: floating-point (or integer) operations.
        dtype: element type that sets the rate.
        level: number of kernels on the longest path that leads to it.
    """

    op: ir.Operation
    kind: Kind
    position: int
    reads: tuple[tuple[int, int], ...]
    writes: tuple[int, ...]
    flops: int
    dtype: str
    level: int


@dataclass
class BlockWork:
    """The nodes of a block and the bytes of its values, by value id."""

    nodes: list[Node] = field(default_factory=list)
    num_bytes: list[int] = field(default_factory=list)
    arguments: list[int] = field(default_factory=list)
    results: list[int] = field(default_factory=list)


def tensor_bytes(type_: ir.Type) -> int:
    """Return the bytes of a static tensor; 0 for tokens and the like."""
    if not isinstance(type_, ir.RankedTensorType):
        return 0
    dtype = DTYPES.get(str(type_.element_type))
    return math.prod(type_.shape) * (dtype.itemsize if dtype is not None else 4)


def read_block(block: ir.Block) -> BlockWork:
    """Return the work of ``block``; nested regions are left to the caller."""
    return _Reader(block).work


class _Reader:
    def __init__(self, block: ir.Block) -> None:
        self.work = BlockWork()
        self.ids: dict[ir.Value, int] = {}
        self.level: list[int] = []
        self.free: set[int] = set()  # values without bytes of their own: constants, iota
        for argument in block.arguments:
            self.work.arguments.append(self.new(argument, 0))
        self.argument_views = set(self.work.arguments)
        for position, op in enumerate(block.operations):
            self.visit(op.operation, position)

    def new(self, value: ir.Value, level: int) -> int:
        number = len(self.work.num_bytes)
        self.ids[value] = number
        self.work.num_bytes.append(tensor_bytes(value.type))
        self.level.append(level)
        return number

    def operand(self, value: ir.Value) -> int:
        # A value from outside the block (captured by a region) is as an argument.
        return self.ids[value] if value in self.ids else self.new(value, 0)

    def visit(self, op: ir.Operation, position: int) -> None:
        operands = [self.operand(value) for value in op.operands]
        if not op.results:
            self.work.results = operands
            return
        view = op.name in _VIEWS or (
            op.name in _ARGUMENT_VIEWS and operands[0] in self.argument_views
        )
        if view:
            for result, source in zip(op.results, operands, strict=False):
                self.ids[result] = source
        elif op.name in _SOURCES:
            for result in op.results:
                number = self.new(result, 0)
                self.free.add(number)
                self.work.num_bytes[number] = _constant_bytes(op)
        else:
            self.node(op, operands, position)

    def node(self, op: ir.Operation, operands: list[int], position: int) -> None:
        kind = kind_of(op)
        used = [o for o in dict.fromkeys(operands) if o not in self.free or self.bytes(o) > 1024]
        level = max((self.level[o] for o in used), default=0)
        after = level if kind is Kind.FUSED else level + 1
        writes = tuple(self.new(result, after) for result in op.results)
        out = sum(self.bytes(w) for w in writes)
        part = op.name in _PART_READERS
        reads = tuple((o, min(self.bytes(o), out) if part else self.bytes(o)) for o in used)
        dtype = _rate_type(op)
        self.work.nodes.append(Node(op, kind, position, reads, writes, flops_of(op), dtype, level))

    def bytes(self, value: int) -> int:
        return self.work.num_bytes[value]


def kind_of(op: ir.Operation) -> Kind:
    """Return how ``op`` is executed."""
    if op.name in COLLECTIVES:
        return Kind.COLLECTIVE
    if op.name in CONTROL:
        return Kind.CONTROL
    return Kind.HEAVY if op.name in _HEAVY else Kind.FUSED


def flops_of(op: ir.Operation) -> int:
    """Return the operations ``op`` performs; exact for products, one an element for the rest."""
    if op.name in COLLECTIVES or op.name in CONTROL:
        return 0
    elements = sum(_elements(result.type) for result in op.results)
    if op.name == "stablehlo.dot_general":
        numbers = _dot_numbers(op)
        shape = ir.RankedTensorType(op.operands[0].type).shape
        return 2 * elements * math.prod(shape[d] for d in numbers)
    if op.name == "stablehlo.convolution":
        return 2 * elements * _products_per_output(op)
    if op.name in {"stablehlo.reduce", "stablehlo.scatter"}:
        return max((_elements(value.type) for value in op.operands), default=0)
    if op.name in {"stablehlo.reduce_window", "stablehlo.select_and_scatter"}:
        window = [int(d) for d in op.attributes["window_dimensions"]]
        return elements * math.prod(window)
    if op.name in {"stablehlo.sort", "chlo.top_k"}:
        size = _elements(op.operands[0].type)
        return size * max(1, math.ceil(math.log2(max(size, 2))))
    return elements


def _dot_numbers(op: ir.Operation) -> list[int]:
    numbers = stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"])
    return list(numbers.lhs_contracting_dimensions)


def _products_per_output(op: ir.Operation) -> int:
    numbers = stablehlo.ConvDimensionNumbers(op.attributes["dimension_numbers"])
    shape = ir.RankedTensorType(op.operands[1].type).shape
    spatial = math.prod(shape[d] for d in numbers.kernel_spatial_dimensions)
    return spatial * shape[numbers.kernel_input_feature_dimension]


def _elements(type_: ir.Type) -> int:
    return math.prod(type_.shape) if isinstance(type_, ir.RankedTensorType) else 0


def _rate_type(op: ir.Operation) -> str:
    """Products run at the rate of their operands' type; other kernels at that of f32."""
    if op.name in {"stablehlo.dot_general", "stablehlo.dot", "stablehlo.convolution"}:
        return str(ir.RankedTensorType(op.operands[0].type).element_type)
    return "f32"


def _constant_bytes(op: ir.Operation) -> int:
    if op.name != "stablehlo.constant":
        return 0
    return 0 if is_splat(op) else tensor_bytes(op.results[0].type)
