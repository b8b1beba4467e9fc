"""What the fusion knows of each operation: how it reads its operands, and what it costs."""

from __future__ import annotations

import functools
from enum import Enum

from pai.dialects.constants import is_splat
from pai.dialects.mlir import ir
from pai.runtime.dtypes import itemsize


class Read(Enum):
    """How an operation reads an operand to make one element of its result."""

    SAME = "the element at the same index"
    LINEAR = "the element with the same row-major number"
    SCALAR = "one element, the same for all"
    MAP = "an element at another index"
    WHOLE = "the whole buffer: the operand must be in memory"


_CHEAP = """abs add and ceil clamp compare complex convert count_leading_zeros floor imag is_finite
maximum minimum multiply negate not or popcnt real reduce_precision round_nearest_afz
round_nearest_even select shift_left shift_right_arithmetic shift_right_logical sign subtract xor"""
_DEAR = """atan2 cbrt cosine exponential exponential_minus_one log log_plus_one logistic power
remainder sine tan tanh map"""
# Weight: what one element costs, in units of one addition.
_ELEMENTWISE: dict[str, float] = {
    **dict.fromkeys(_CHEAP.split(), 1.0),
    **dict.fromkeys(("divide", "sqrt", "rsqrt"), 4.0),
    **dict.fromkeys(_DEAR.split(), 10.0),
}
_INDEXED: dict[str, float] = {
    "broadcast_in_dim": 0.0,
    "reshape": 0.0,
    "slice": 0.0,
    "reverse": 0.5,
    "transpose": 0.5,
    "pad": 1.0,
    "concatenate": 1.0,
    "dynamic_slice": 1.0,
    "gather": 4.0,
    "bitcast_convert": 1.0,
}
# Operations that head a kernel of their own: the kernel's kind, and how each operand is read
# (the last entry also stands for all that follow).
_HEADS: dict[str, tuple[str, tuple[Read, ...]]] = {
    "dot_general": ("dot", (Read.WHOLE,)),
    "convolution": ("conv", (Read.WHOLE,)),
    "dynamic_update_slice": ("update", (Read.WHOLE, Read.MAP, Read.SCALAR)),
    "sort": ("sort", (Read.WHOLE,)),
    "scatter": ("scatter", (Read.WHOLE,)),
    "select_and_scatter": ("select_and_scatter", (Read.WHOLE,)),
    "reduce_window": ("reduce_window", (Read.WHOLE,)),
}
# Their results start out as copies of their first operands, one each.
IN_PLACE = frozenset({"stablehlo.dynamic_update_slice", "stablehlo.scatter"})
# At most one of these is in a kernel; element-wise operations of its shape may follow it there.
HEAVY = frozenset({"stablehlo.dot_general", "stablehlo.convolution", "stablehlo.reduce"})
# What stays in @main between the kernels.
STAYS = frozenset(
    {
        "func.call",
        "stablehlo.all_gather",
        "stablehlo.all_reduce",
        "stablehlo.all_to_all",
        "stablehlo.case",
        "stablehlo.collective_broadcast",
        "stablehlo.collective_permute",
        "stablehlo.if",
        "stablehlo.partition_id",
        "stablehlo.reduce_scatter",
        "stablehlo.replica_id",
        "stablehlo.while",
    }
)
CONTROL = frozenset({"stablehlo.case", "stablehlo.if", "stablehlo.while"})
TERMINATORS = frozenset({"stablehlo.return", "func.return"})


def short(name: str) -> str:
    """Return an operation's name without its dialect."""
    return name.partition(".")[2]


def is_elemental(name: str) -> bool:
    """Whether one element of the result can be made at a given index from its operands."""
    return (
        short(name) in _ELEMENTWISE
        or short(name) in _INDEXED
        or name in {"stablehlo.iota", "chlo.erf"}
    )


def is_elementwise(name: str) -> bool:
    """Whether the operation reads its array operands at the index of the result."""
    return short(name) in _ELEMENTWISE or name == "chlo.erf"


def weight(name: str) -> float:
    """Return what one element costs, in units of one addition."""
    if name == "chlo.erf":
        return 10.0
    key = short(name)
    return _ELEMENTWISE.get(key, _INDEXED.get(key, 0.25))


def kind_of(name: str) -> str:
    """Return the kind of the kernel that an operation heads."""
    if name == "stablehlo.reduce":
        return "reduce"
    if is_elemental(name):
        return "loop"
    return _HEADS.get(short(name), (short(name),))[0]


def head_read(name: str, position: int, count: int) -> Read:
    """Return how operand ``position`` of ``count`` is read by a head that is not elemental."""
    if name == "stablehlo.reduce":
        return Read.MAP if position < count // 2 else Read.SCALAR
    reads = _HEADS.get(short(name), ("", (Read.WHOLE,)))[1]
    return reads[min(position, len(reads) - 1)]


def is_bitcast(op: ir.Operation) -> bool:
    """Whether the result has the operand's elements in the operand's row-major order."""
    name = op.name
    if name == "stablehlo.reshape":
        return True
    if name == "stablehlo.transpose":
        shape = ir.RankedTensorType(op.operands[0].type).shape
        order = [int(d) for d in ir.DenseI64ArrayAttr(op.attributes["permutation"])]
        kept = [d for d in order if shape[d] != 1]
        return kept == sorted(kept)
    if name == "stablehlo.broadcast_in_dim":
        order = [int(d) for d in ir.DenseI64ArrayAttr(op.attributes["broadcast_dimensions"])]
        same = elements(op.operands[0].type) == elements(op.results[0].type)
        return same and order == sorted(order)
    return False


def elemental_read(op: ir.Operation, position: int, *, bitcast: bool) -> Read:
    """Return how an elemental operation reads operand ``position``."""
    if bitcast:
        return Read.LINEAR
    kind = op.operands[position].type
    if elements(kind) == 1:
        return Read.SCALAR
    return Read.SAME if is_elementwise(op.name) else Read.MAP


@functools.lru_cache(maxsize=65536)
def shape_of(kind: ir.Type) -> tuple[int, ...]:
    """Return the shape of a ranked tensor type; () for any other type."""
    if not isinstance(kind, ir.RankedTensorType):
        return ()
    return tuple(kind.shape)


def element_type(kind: ir.Type) -> str:
    """Return the spelling of a tensor's element type."""
    return str(ir.RankedTensorType(kind).element_type)


@functools.lru_cache(maxsize=65536)
def elements(kind: ir.Type) -> int:
    """Return the number of elements of a tensor type."""
    total = 1
    for dim in shape_of(kind):
        total *= dim
    return total


@functools.lru_cache(maxsize=65536)
def bytes_of(kind: ir.Type) -> int:
    """Return the bytes a tensor of this type takes in memory; 0 for a token."""
    if not isinstance(kind, ir.RankedTensorType):
        return 0
    return elements(kind) * itemsize(str(kind.element_type))


def is_sinkable(op: ir.Operation, limit: int) -> bool:
    """Whether a constant is copied into the kernels: a splat, or at most ``limit`` bytes."""
    return bytes_of(op.results[0].type) <= limit or is_splat(op)
