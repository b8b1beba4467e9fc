"""The elemental emitter: how to compute one element of a value at given indices.

Every family registers rules. A value is computed by asking the rule of its operation, which asks
for elements of its operands, down to memory; so any chain of elementwise operations, slices, pads,
gathers, transposes and broadcasts becomes straight-line code inside one loop nest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pai.compiler.codegen.cpu.emit.builder import Builder, Index
from pai.compiler.codegen.cpu.emit.convert import load
from pai.compiler.codegen.cpu.emit.elementwise import RULES
from pai.compiler.codegen.cpu.emit.graph import Node, Region, Value
from pai.compiler.codegen.cpu.emit.types import ElemType, Scalar, from_parts, reg_types
from pai.runtime.errors import UnsupportedOp

Indices = tuple[Index, ...]
ElementRule = Callable[["Emitter", Node, int, Indices], Scalar]
ELEMENTS: dict[str, ElementRule] = {}


def element_rule(*names: str) -> Callable[[ElementRule], ElementRule]:
    """Register how the operations ``names`` compute one element of one result."""

    def register(function: ElementRule) -> ElementRule:
        ELEMENTS.update(dict.fromkeys(names, function))
        return function

    return register


@dataclass(frozen=True)
class Buffer:
    """Where a value lies.

    Args:
        pointer: SSA name of its first byte's address.
        type: type of the elements in memory (sums of narrow floats are kept as f32).
        shape: extents of what is stored: the value's, or what is left of it inside a row loop.
        skip: leading dimensions of the value that are not stored (fixed by the row loop).
    """

    pointer: str
    type: ElemType
    shape: tuple[int, ...]
    skip: int = 0


class Emitter:
    """Computes elements of values into registers."""

    def __init__(self, b: Builder) -> None:
        self.b = b
        self.buffers: dict[Value, Buffer] = {}
        self._layers: list[dict[object, Scalar]] = [{}]

    @contextmanager
    def layer(self) -> Iterator[dict[object, Scalar]]:
        """Open a scope: what is computed inside is forgotten afterwards."""
        self._layers.append({})
        try:
            yield self._layers[-1]
        finally:
            self._layers.pop()

    def element(self, value: Value, index: Indices) -> Scalar:
        """Return one element.

        Raises:
            UnsupportedOp: when no rule computes the operation.
        """
        pending = [(value, index)]  # long elementwise chains, without recursion
        while pending:
            key = pending[-1]
            if self._known(key) is None:
                missing = [k for k in self._needs(*key) if self._known(k) is None]
                if missing:
                    pending += missing
                    continue
                self._layers[-1][key] = self._compute(*key)
            pending.pop()
        found = self._known((value, index))
        assert found is not None
        return found

    def _known(self, key: tuple[Value, Indices]) -> Scalar | None:
        for layer in reversed(self._layers):
            if key in layer:
                return layer[key]
        return None

    def _needs(self, value: Value, index: Indices) -> list[tuple[Value, Indices]]:
        """Return the elements that an elementwise operation asks for; none for other ones."""
        node = value.node
        if node is None or value in self.buffers or node.name not in RULES:
            return []
        return [(v, index if v.shape else ()) for v in node.operands]

    def _compute(self, value: Value, index: Indices) -> Scalar:
        buffer = self.buffers.get(value)
        if buffer is not None:
            from_memory = self.b.linear(index[buffer.skip :], buffer.shape)
            stored = load(self.b, buffer.pointer, from_memory, buffer.type)
            return Scalar(value.type, stored.re, stored.im)
        node = value.node
        if node is None:
            raise UnsupportedOp("a region uses a value that is not computed here", "kernel")
        if node.name in RULES:
            arguments = [self.element(v, index if v.shape else ()) for v in node.operands]
            return RULES[node.name](self.b, node, arguments, value.type)
        if node.name not in ELEMENTS:
            raise UnsupportedOp(f"no CPU kernel for {node.op.name}", node.where)
        return ELEMENTS[node.name](self, node, value.number, index)

    def position(self, value: Value, index: Indices) -> Index:
        """Return an element of an integer scalar as an index (sign- or zero-extended)."""
        x = self.element(value, index)
        return self.as_index(x)

    def as_index(self, x: Scalar) -> Index:
        """Return an integer as an i64; ui64 beyond the range of i64 becomes the largest."""
        b = self.b
        if x.type.reg == "i64":
            if x.type.signed:
                return x.re
            top = b.const((1 << 63) - 1, "i64")
            return b.bin("minui", x.re, top, "i64")
        return b.cast("extsi" if x.type.signed else "extui", x.re, x.type.reg, "i64")

    def apply(self, region: Region, arguments: Sequence[Scalar]) -> list[Scalar]:
        """Return the results of a region of scalars for these arguments."""
        with self.layer() as known:
            for formal, actual in zip(region.arguments, arguments, strict=True):
                known[formal, ()] = Scalar(formal.type, actual.re, actual.im)
            return [self.element(value, ()) for value in region.results]

    # --- regions of scf that carry elements ------------------------------------------------

    def choose(
        self,
        kind: ElemType,
        condition: str,
        then: Callable[[], Scalar],
        otherwise: Callable[[], Scalar],
    ) -> Scalar:
        """Return one of two elements of ``kind``, computing only that one."""

        def inside(make: Callable[[], Scalar]) -> Callable[[], list[str]]:
            def run() -> list[str]:
                with self.layer():
                    return make().parts

            return run

        parts = self.b.cond(condition, inside(then), inside(otherwise), reg_types(kind))
        return from_parts(kind, parts)

    def fold(
        self,
        extents: Sequence[int],
        inits: Sequence[Scalar],
        body: Callable[[Indices, list[Scalar]], Sequence[Scalar]],
    ) -> list[Scalar]:
        """Return what a nest of loops leaves in the carried elements."""
        kinds = [x.type for x in inits]
        flat = [p for x in inits for p in x.parts]
        types = [t for kind in kinds for t in reg_types(kind)]

        def run(index: Indices, *args: str) -> list[str]:
            with self.layer():
                return [p for x in body(index, unflatten(kinds, args)) for p in x.parts]

        return unflatten(kinds, self.b.loops(extents, run, flat, types))


def unflatten(kinds: Sequence[ElemType], parts: Sequence[str]) -> list[Scalar]:
    """Group registers into elements of ``kinds``."""
    rest = list(parts)
    return [from_parts(kind, [rest.pop(0) for _ in reg_types(kind)]) for kind in kinds]
