"""Memory that values live in, and how long."""

from __future__ import annotations

from dataclasses import dataclass, field

from pai.dialects.mlir import ir


@dataclass(eq=False)
class Storage:
    """Memory of one or more values.

    Args:
        number: position among all storages.
        size: bytes.
        space: arena, argument, result, constant or device, as in ``runtime/program.py``.
        index: number of the argument, result or constant.
        first: instruction that writes it first.
        last: last instruction that needs it.
        values: the values it holds now.
        pinned: must not be overwritten, whatever the uses of its values say.
    """

    number: int
    size: int
    space: str = "arena"
    index: int = 0
    first: int = 0
    last: int = 0
    values: set[ir.Value] = field(default_factory=set)
    pinned: bool = False


class Uses:
    """Where in its own block a value is used for the last time."""

    def __init__(self) -> None:
        self._index: dict[ir.Operation, int] = {}
        self._last: dict[ir.Value, int] = {}

    def enter(self, block: ir.Block) -> None:
        """Number the operations of a block."""
        for number, op in enumerate(block.operations):
            self._index[op.operation] = number

    def index(self, op: ir.Operation) -> int:
        """Return the position of an operation in its block."""
        return self._index[op]

    def last(self, value: ir.Value) -> int:
        """Return the position of the last operation that uses ``value``, itself or inside.

        -1 when nothing uses it. Positions are those of the block that defines the value.
        """
        if value not in self._last:
            home = block_of(value)
            positions = [self._index[_ancestor(use.owner, home)] for use in value.uses]
            self._last[value] = max(positions, default=-1)
        return self._last[value]

    def captured(self, value: ir.Value, by: ir.Operation) -> bool:
        """Whether an operation inside a region of ``by`` uses ``value``."""
        home = block_of(value)
        return any(
            use.owner.operation != by and _ancestor(use.owner, home) == by for use in value.uses
        )


def block_of(value: ir.Value) -> ir.Block:
    """Return the block that defines a value."""
    owner = value.owner
    return owner if isinstance(owner, ir.Block) else owner.operation.block


def _ancestor(op: ir.OpView | ir.Operation, block: ir.Block) -> ir.Operation:
    """Return the operation of ``block`` that is ``op`` or holds it."""
    found = op.operation
    while found.block != block:
        parent = found.parent
        if parent is None:
            raise ValueError("a value is used outside of the function that defines it")
        found = parent.operation
    return found
