"""What a handler is: a rule for an operation and a way to build its local form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pai.dialects.mlir import ir
from pai.passes.partition.emit import Emitter, tensor
from pai.passes.partition.layout import Atoms, Layout
from pai.passes.partition.rule import Rule, layout_of


def shape(value: ir.Value) -> list[int]:
    """Return the shape of a ranked tensor value."""
    return list(value.type.shape)


@dataclass
class Site:
    """One operation being localized.

    Args:
        op: the operation on global shapes.
        rule: its rule.
        axes: the atoms that split each factor.
        operands: local operands, laid out as the rule wants.
        emit: where to append.
    """

    op: ir.Operation
    rule: Rule
    axes: list[Atoms]
    operands: list[ir.Value]
    emit: Emitter

    def layout(self, result: int = 0) -> Layout:
        """Return the layout in which a result is computed."""
        return layout_of(self.rule.results[result], self.axes)

    def type(self, result: int = 0) -> ir.Type:
        """Return the local type of a result."""
        kind = self.op.results[result].type
        local = self.emit.grid.local_shape(kind.shape, self.layout(result))
        return tensor(local, kind.element_type)

    def types(self) -> list[ir.Type]:
        """Return the local types of all results."""
        return [self.type(i) for i in range(len(self.op.results))]

    def split(self, operand: int, dim: int) -> Atoms:
        """Return the atoms that split a dimension of an operand."""
        return self.atoms(self.rule.operands[operand][dim])

    def count(self, factor: int) -> int:
        """Return the number of shards of a factor."""
        return self.emit.grid.count(self.axes[factor])

    def split_factors(self, factors: Sequence[int]) -> list[int]:
        """Return those of ``factors`` that are split at all."""
        return [f for f in factors if self.axes[f]]

    def atoms(self, factors: Sequence[int]) -> Atoms:
        """Return all atoms of ``factors``."""
        return tuple(a for f in factors for a in self.axes[f])

    def mask(self, operand: int, factors: Sequence[int], fill: ir.Value) -> None:
        """Put the scalar ``fill`` where an operand reaches beyond the size of ``factors``."""
        for dim, dims in enumerate(self.rule.operands[operand]):
            if len(dims) == 1 and dims[0] in factors and self.axes[dims[0]]:
                factor = dims[0]
                self.operands[operand] = self.emit.mask_tail(
                    self.operands[operand], dim, self.rule.sizes[factor], self.axes[factor], fill
                )

    def clone(
        self,
        types: Sequence[ir.Type] | None = None,
        operands: Sequence[ir.Value] | None = None,
        **attributes: ir.Attribute,
    ) -> list[ir.Value]:
        """Append the operation on local operands, with some attributes replaced."""
        new = self.op.clone()
        for index, value in enumerate(operands or self.operands):
            new.operands[index] = value
        for result, kind in zip(new.results, types or self.types(), strict=True):
            result.set_type(kind)
        for name, attr in attributes.items():
            new.attributes[name] = attr
        drop_shardings(new)
        return list(new.results)


def drop_shardings(op: ir.Operation) -> None:
    """Remove the shardings of an operation and of those in its regions."""
    for named in list(op.attributes):
        name = getattr(named, "name", named)
        if name.startswith("sdy."):
            del op.attributes[name]
    for region in op.regions:
        for block in region.blocks:
            for inner in list(block.operations):
                if inner.operation.name.startswith("sdy."):  # a reshard of a scalar
                    inner.operation.result.replace_all_uses_with(inner.operation.operands[0])
                    inner.operation.erase()
                else:
                    drop_shardings(inner.operation)


def clone(site: Site) -> list[ir.Value]:
    """Build an operation whose attributes say nothing about shapes."""
    return site.clone()


def operands_of(op: ir.Operation) -> list[ir.Value]:
    """Return the operands of an operation."""
    return list(op.operands)


def before_reshards(op: ir.Operation) -> list[ir.Value]:
    """Return the operands as they were before a reshard, where Shardy gathers needlessly."""
    out = []
    for value in op.operands:
        before = value
        while not isinstance(before, ir.BlockArgument) and _owner(before).name == "sdy.reshard":
            before = _owner(before).operands[0]
        out.append(before)
    return out


def first_before_reshards(op: ir.Operation) -> list[ir.Value]:
    """Return the operands, the first (what is indexed) as it was before a reshard."""
    return [*before_reshards(op)[:1], *list(op.operands)[1:]]


def _owner(value: ir.Value) -> ir.Operation:
    owner: ir.Operation = value.owner.operation
    return owner


@dataclass(frozen=True)
class Handler:
    """How operations of some names are localized.

    Args:
        rule: the factors of one operation; None when this form of it has to be whole.
        build: appends the local form and returns its results, complete (not partial).
        inputs: the values it reads, its operands or what they were before a reshard or a slice;
            the rule's operands and the local ones are these.
        work: the multiplications of one operation on global shapes, where partial results may be
            added or the operands gathered, whichever is cheaper (`contraction`).
    """

    rule: Callable[[ir.Operation], Rule | None]
    build: Callable[[Site], list[ir.Value]] = clone
    inputs: Callable[[ir.Operation], list[ir.Value]] = operands_of
    work: Callable[[ir.Operation], int] | None = None


HANDLERS: dict[str, Handler] = {}


def register(handler: Handler, *names: str) -> None:
    """Enter ``handler`` for operations called ``names``."""
    for name in names:
        HANDLERS[name] = handler


def replicate_rule(op: ir.Operation) -> Rule:
    """Return the rule of an operation that needs everything whole."""
    return Rule(
        operands=[[()] * value.type.rank for value in op.operands],
        results=[[()] * value.type.rank for value in op.results],
    )


REPLICATE = Handler(replicate_rule)
