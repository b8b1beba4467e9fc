"""What the search needs of an operation: which dimensions are split together, and its work.

The partitioner's rules say it (``partition/handlers``); here they are reduced to one factor for a
dimension, the major one, and to the factors that are worth splitting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pai.dialects.mlir import ir
from pai.passes.partition.handlers import HANDLERS
from pai.passes.partition.handlers.base import replicate_rule
from pai.passes.partition.handlers.elementwise import CHLO, STABLEHLO
from pai.passes.partition.rule import Rule
from pai.passes.strategy.work import flops_of, tensor_bytes
from pai.runtime.dtypes import DTYPES

NONE = -1
ELEMENTWISE = frozenset(f"stablehlo.{name}" for name in STABLEHLO.split()) | frozenset(
    f"chlo.{name}" for name in CHLO.split()
)
MOVING = frozenset(
    f"stablehlo.{name}" for name in ("transpose", "reshape", "slice", "pad", "reverse",
                                     "concatenate", "optimization_barrier")
)  # fmt: skip
_PART_READERS = frozenset({"stablehlo.gather", "stablehlo.dynamic_slice", "stablehlo.slice"})


@dataclass(frozen=True)
class Tensor:
    """The type of a value."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return DTYPES[self.dtype].itemsize if self.dtype in DTYPES else 4

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole."""
        return self.itemsize * math.prod(self.shape)


def tensor_of(type_: ir.Type) -> Tensor:
    """Return shape and element type; () for what is no tensor."""
    if not isinstance(type_, ir.RankedTensorType):
        return Tensor((), str(type_))
    return Tensor(tuple(type_.shape), str(type_.element_type))


@dataclass(frozen=True)
class Split:
    """The factors of an operation.

    Args:
        sizes: of the factors.
        operands: per operand and dimension, a factor or NONE.
        results: per result and dimension, a factor or NONE.
        fixed: factors that are not to be split.
        even: factors that axes have to divide.
        simple: whether no dimension is made of several factors.
        complete: whether every dimension of more than one element has a factor.
    """

    sizes: tuple[int, ...]
    operands: tuple[tuple[int, ...], ...]
    results: tuple[tuple[int, ...], ...]
    fixed: frozenset[int]
    even: frozenset[int]
    simple: bool
    complete: bool

    @property
    def summed(self) -> frozenset[int]:
        """The factors that no result has."""
        kept = {f for dims in self.results for f in dims}
        return frozenset({f for dims in self.operands for f in dims if f >= 0} - kept)


def split_of(op: ir.Operation) -> Split:
    """Return the factors of an operation; none where the partitioner needs everything whole."""
    if op.name == "stablehlo.optimization_barrier":
        rule = _barrier_rule(op)
    elif op.name == "stablehlo.concatenate":
        rule = _concatenate_rule(op)
    else:
        handler = HANDLERS.get(op.name)
        with op.location:  # rules make attributes to compare with
            rule = (handler.rule(op) if handler is not None else None) or replicate_rule(op)
    shapes = [tensor_of(v.type).shape for v in (*op.operands, *op.results)]
    if len(rule.operands) != len(op.operands):
        rule = replicate_rule(op)
    fixed, simple, complete = set(rule.follow), True, True
    dims = []
    for shape, factors in zip(shapes, (*rule.operands, *rule.results), strict=True):
        row = []
        for size, parts in zip(shape, factors, strict=True):
            real = [f for f in parts if rule.sizes[f] > 1]
            fixed.update(real[1:])
            simple = simple and len(real) <= 1
            complete = complete and (size <= 1 or len(real) > 0)
            if len(real) == 1 and rule.sizes[real[0]] != size:
                fixed.add(real[0])
            row.append(real[0] if real else NONE)
        dims.append(tuple(row))
    count = len(op.operands)
    return Split(
        tuple(rule.sizes), tuple(dims[:count]), tuple(dims[count:]),
        frozenset(fixed), frozenset(rule.even), simple, complete,
    )  # fmt: skip


def _barrier_rule(op: ir.Operation) -> Rule:
    out = Rule()
    out.operands = [out.dims(tensor_of(value.type).shape) for value in op.operands]
    out.results = list(out.operands)
    return out


def _concatenate_rule(op: ir.Operation) -> Rule:
    along = ir.IntegerAttr(op.attributes["dimension"]).value
    out = Rule()
    dims = out.dims(tensor_of(op.results[0].type).shape)
    out.follow.update(dims[along])
    out.operands, out.results = [dims] * len(op.operands), [dims]
    return out


@dataclass(frozen=True)
class Contracted:
    """The factors of a product by what they are, and what else is summed."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    sums: tuple[int, ...]
    batch: tuple[int, ...]
    extra: int
    dtype: str


def contraction_of(op: ir.Operation, split: Split) -> Contracted | None:
    """Return a dot's or a convolution's factors; None for other operations."""
    if op.name not in ("stablehlo.dot_general", "stablehlo.convolution"):
        return None
    left, right = (frozenset(f for f in dims if f >= 0) for dims in split.operands[:2])
    result = frozenset(f for f in split.results[0] if f >= 0)
    rows = tuple(sorted((left - right) & result))
    columns = tuple(sorted((right - left) & result))
    sums = tuple(sorted((left | right) - result))
    batch = tuple(sorted(left & right & result))
    known = math.prod(split.sizes[f] for f in (*rows, *columns, *sums, *batch))
    extra = max(1, round(flops_of(op) / 2 / max(known, 1)))
    return Contracted(rows, columns, sums, batch, extra, tensor_of(op.operands[0].type).dtype)


def moved_bytes(op: ir.Operation) -> int:
    """Return the bytes that a heavy operation reads and writes, as a kernel of its own."""
    results = sum(tensor_bytes(value.type) for value in op.results)
    if op.name in _PART_READERS:
        return 2 * results
    if op.name == "stablehlo.dynamic_update_slice":
        return 2 * tensor_bytes(op.operands[1].type)
    if op.name == "stablehlo.scatter":
        return 3 * tensor_bytes(op.operands[len(op.operands) - 1].type)
    return results + sum(tensor_bytes(value.type) for value in op.operands)
