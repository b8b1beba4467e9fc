"""How far an operation reads its operands at the same leading indices as its result's.

The planner puts several loop nests into one loop over rows when each reads the others' results
only at its own row. ``operand_prefix`` is the fact it needs about each operation.
"""

from __future__ import annotations

from pai.compiler.codegen.cpu.emit.elementwise import RULES
from pai.compiler.codegen.cpu.emit.graph import Node


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count


def operand_prefix(node: Node, number: int, aligned: int) -> int:
    """Return how many leading dimensions of an operand are read exactly at the result's indices.

    Args:
        node: the operation.
        number: which operand.
        aligned: how many leading dimensions of the result are fixed.
    """
    x = node.operands[number]
    shape = node.results[0].shape
    name = node.name
    if name in RULES or name in ("map", "optimization_barrier"):
        return min(aligned, len(x.shape))
    if name in ("pad", "dynamic_slice", "dynamic_update_slice") and number > 0 and not x.shape:
        return 0
    prefix = _PREFIX.get(name)
    return (
        min(aligned, prefix(node, number), _common(x.shape, shape) if name not in _FREE else 99)
        if prefix
        else 0
    )


def _broadcast(node: Node, number: int) -> int:
    dims = node.ints("broadcast_dimensions")
    return _common(tuple(dims), tuple(range(len(dims))))


def _untouched(flags: list[bool]) -> int:
    return flags.index(False) if False in flags else len(flags)


def _slice(node: Node, number: int) -> int:
    starts, strides = node.ints("start_indices"), node.ints("strides")
    return _untouched([s == 0 and t == 1 for s, t in zip(starts, strides, strict=True)])


def _pad(node: Node, number: int) -> int:
    low, inner = node.ints("edge_padding_low"), node.ints("interior_padding")
    return _untouched([a == 0 and c == 0 for a, c in zip(low, inner, strict=True)])


def _transpose(node: Node, number: int) -> int:
    return _untouched([i == p for i, p in enumerate(node.ints("permutation"))])


def _reverse(node: Node, number: int) -> int:
    dims = node.ints("dimensions")
    return _untouched([i not in dims for i in range(len(node.operands[0].shape))])


def _reduce(node: Node, number: int) -> int:
    if number >= len(node.results):
        return 0
    dims = node.ints("dimensions")
    return min(dims, default=len(node.operands[0].shape))


def _contraction(node: Node, number: int) -> int:
    from pai.compiler.codegen.cpu.emit.dimensions import dot_dimensions  # noqa: PLC0415

    d = dot_dimensions(node)
    batch, contract = (
        (d.lhs_batch, d.lhs_contract) if number == 0 else (d.rhs_batch, d.rhs_contract)
    )
    lead = _common(tuple(batch), tuple(range(len(batch))))
    if lead < len(batch):
        return lead
    if number == 1:
        return lead
    while lead < len(node.operands[0].shape) and lead not in contract:
        lead += 1
    return lead


def _sort(node: Node, number: int) -> int:
    return node.int("dimension") if node.name == "sort" else len(node.operands[0].shape) - 1


def _minus_two(node: Node, number: int) -> int:
    return max(0, len(node.operands[number].shape) - 2)


_PREFIX = {
    "broadcast_in_dim": _broadcast,
    "reshape": lambda node, number: 99,
    "slice": _slice,
    "pad": _pad,
    "transpose": _transpose,
    "reverse": _reverse,
    "concatenate": lambda node, number: node.int("dimension"),
    "dynamic_slice": lambda node, number: 99,
    "dynamic_update_slice": lambda node, number: 99,
    "bitcast_convert": lambda node, number: 99,
    "reduce": _reduce,
    "dot_general": _contraction,
    "sort": _sort,
    "chlo.top_k": _sort,
    "cholesky": _minus_two,
    "triangular_solve": _minus_two,
    "fft": lambda node, number: max(0, len(node.operands[0].shape) - len(node.ints("fft_length"))),
}
# Here equal extents say nothing, or the rule above has looked at them.
_FREE = ("dot_general",)
