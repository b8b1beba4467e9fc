"""Which dimension of which weight to split so that products pair up: column, then row.

A product with a weight is split over its output features (*column*) when what it multiplies is
whole, and over its contracted features (*row*) when what it multiplies is itself the work of a
column; after a row the partial sums are added up and the value is whole again. That is the pairing
of M. Shoeybi et al., "Megatron-LM", arXiv:1909.08053, section 3, found by walking the dataflow
instead of by name. Embedding tables are split over their rows (the vocabulary).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pai.dialects.mlir import ir, stablehlo

_PASS_THROUGH = frozenset(
    {"stablehlo.convert", "stablehlo.multiply", "stablehlo.subtract", "stablehlo.divide",
     "stablehlo.optimization_barrier"}
)  # fmt: skip
Trace = tuple[int, tuple[int | None, ...]]  # (argument, its dimension for each dimension)


@dataclass(frozen=True)
class Product:
    """One operation that multiplies a weight.

    Args:
        position: place of the operation in the block.
        argument: number of the weight argument.
        mode: ``column``, ``row``, ``grouped`` or ``vocabulary``; "" leaves it whole.
    """

    position: int
    argument: int
    mode: str


@dataclass(frozen=True)
class TensorSplit:
    """A tensor-parallel layout over ``shards`` devices.

    Args:
        dims: argument number to the dimension that is split.
        products: the operations with weights, in program order.
        split: positions of the operations whose work is split.
    """

    dims: dict[int, int]
    products: tuple[Product, ...]
    split: frozenset[int]


def split_weights(
    block: ir.Block, is_weight: Callable[[int], bool], shards: int, *, vocabulary: bool
) -> TensorSplit:
    """Return which weights to split ``shards`` ways.

    Args:
        block: the body of ``@main``.
        is_weight: whether an argument number is a parameter that may be split.
        shards: size of the mesh axis.
        vocabulary: whether embedding tables are split too.
    """
    return _Splitter(block, is_weight, shards, vocabulary).result()


class _Splitter:
    def __init__(
        self, block: ir.Block, is_weight: Callable[[int], bool], shards: int, vocabulary: bool
    ) -> None:
        self.is_weight = is_weight
        self.shards = shards
        self.vocabulary = vocabulary
        self.traces: dict[ir.Value, Trace] = {}
        self.sharded: dict[ir.Value, bool] = {}
        self.dims: dict[int, int] = {}
        self.products: list[Product] = []
        self.split: set[int] = set()
        for argument in block.arguments:
            if isinstance(argument.type, ir.RankedTensorType):
                self.traces[argument] = (argument.arg_number, tuple(range(argument.type.rank)))
        for position, op in enumerate(block.operations):
            self.visit(op.operation, position)

    def result(self) -> TensorSplit:
        return TensorSplit(self.dims, tuple(self.products), frozenset(self.split))

    def visit(self, op: ir.Operation, position: int) -> None:
        self.trace(op)
        inherited = any(self.sharded.get(value, False) for value in op.operands)
        handler = {
            "stablehlo.dot_general": self.dot,
            "stablehlo.convolution": self.convolution,
            "stablehlo.gather": self.gather,
        }.get(op.name)
        handled = handler(op, position) if handler else None
        out = inherited if handled is None else handled
        if out or (self.products and self.products[-1].position == position
                   and self.products[-1].mode):  # fmt: skip
            self.split.add(position)
        for result in op.results:
            self.sharded[result] = out

    def trace(self, op: ir.Operation) -> None:
        """Follow weights through layout changes and element-wise scaling."""
        if not op.results or not isinstance(op.results[0].type, ir.RankedTensorType):
            return
        source = next((v for v in op.operands if self.weight(v) is not None), None)
        if source is None:
            return
        argument, dims = self.traces[source]
        if op.name == "stablehlo.transpose":
            order = [int(d) for d in op.attributes["permutation"]]
            self.traces[op.results[0]] = (argument, tuple(dims[d] for d in order))
        elif op.name == "stablehlo.reshape":
            target = list(op.results[0].type.shape)
            kept = reshaped_dims(list(ir.RankedTensorType(source.type).shape), target)
            found = tuple(dims[d] if d is not None else None for d in kept)
            self.traces[op.results[0]] = (argument, found)
        elif op.name in _PASS_THROUGH:
            self.traces[op.results[0]] = (argument, dims)

    def weight(self, value: ir.Value) -> Trace | None:
        found = self.traces.get(value)
        return found if found is not None and self.is_weight(found[0]) else None

    def dot(self, op: ir.Operation, position: int) -> bool | None:
        numbers = stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"])
        sides = (
            (numbers.lhs_contracting_dimensions, numbers.lhs_batching_dimensions),
            (numbers.rhs_contracting_dimensions, numbers.rhs_batching_dimensions),
        )
        weights = [self.weight(value) for value in op.operands]
        if (weights[0] is None) == (weights[1] is None):
            return None
        side = 0 if weights[0] is not None else 1
        contracting, batching = (list(dims) for dims in sides[side])
        rank = ir.RankedTensorType(op.operands[side].type).rank
        free = [d for d in range(rank) if d not in contracting and d not in batching]
        return self.product(op, position, side, inward=contracting, outward=free)

    def convolution(self, op: ir.Operation, position: int) -> bool | None:
        if self.weight(op.operands[1]) is None:
            return None
        numbers = stablehlo.ConvDimensionNumbers(op.attributes["dimension_numbers"])
        inward = [numbers.kernel_input_feature_dimension]
        outward = [numbers.kernel_output_feature_dimension]
        if ir.IntegerAttr(op.attributes["feature_group_count"]).value == 1:
            return self.product(op, position, 1, inward=inward, outward=outward)
        if not self.sharded.get(op.operands[0], False):
            self.products.append(Product(position, self.traces[op.operands[1]][0], ""))
            return False
        self.assign(op, position, 1, outward, "grouped")
        return True

    def product(
        self, op: ir.Operation, position: int, side: int, inward: list[int], outward: list[int]
    ) -> bool:
        """Split one weight; return whether the result is split."""
        argument, dims = self.traces[op.operands[side]]
        if argument in self.dims:  # a shared weight keeps its first choice
            row = self.dims[argument] in [dims[d] for d in inward]
            self.products.append(Product(position, argument, "row" if row else "column"))
            return not row
        row = self.sharded.get(op.operands[1 - side], False)
        if row and self.assign(op, position, side, inward, "row"):
            return False
        if not row and self.assign(op, position, side, outward, "column"):
            return True
        self.products.append(Product(position, argument, ""))
        return False

    def assign(
        self, op: ir.Operation, position: int, side: int, wanted: list[int], mode: str
    ) -> bool:
        argument, dims = self.traces[op.operands[side]]
        shape = ir.RankedTensorType(op.operands[side].type).shape
        for d in wanted:
            found = dims[d]
            if found is not None and shape[d] >= self.shards:
                self.dims.setdefault(argument, found)
                self.products.append(Product(position, argument, mode))
                return True
        return False

    def gather(self, op: ir.Operation, position: int) -> bool | None:
        if not self.vocabulary or self.weight(op.operands[0]) is None:
            return None
        numbers = stablehlo.GatherDimensionNumbers(op.attributes["dimension_numbers"])
        rows = list(numbers.start_index_map)
        if len(rows) == 1 and self.assign(op, position, 0, rows, "vocabulary"):
            return False
        return None


def reshaped_dims(source: list[int], target: list[int]) -> list[int | None]:
    """Return for each target dimension the source dimension whose shards stay whole in it."""
    out: list[int | None] = [None] * len(target)
    i = j = 0
    while i < len(source) and j < len(target):
        first_i, first_j, left, right = i, j, source[i], target[j]
        while left != right:
            if left < right:
                i += 1
                if i == len(source):
                    return out
                left *= source[i]
            else:
                j += 1
                if j == len(target):
                    return out
                right *= target[j]
        out[first_j] = first_i
        i, j = i + 1, j + 1
    return out
