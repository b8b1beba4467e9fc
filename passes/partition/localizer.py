"""Localizer: walks a function whose values carry shardings and appends its local form."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from pai.dialects.mlir import ir
from pai.dialects.sdy import SHARDING, sharding_from_attr
from pai.dialects.types import is_static_tensor
from pai.passes.partition.accounts import Accounts, Localized
from pai.passes.partition.annotations import (
    SHARDING_ATTRIBUTES,
    function_attributes,
    shardings_in,
    without_shardings,
)
from pai.passes.partition.contraction import Contraction, accumulates
from pai.passes.partition.control import CONTROL, STRUCTURE
from pai.passes.partition.emit import (
    Emitter,
    tensor,
)
from pai.passes.partition.handlers import HANDLERS, REPLICATE, Site
from pai.passes.partition.handlers.base import Handler, clone, operands_of
from pai.passes.partition.layout import Atoms, Grid, Layout, replicated
from pai.passes.partition.reshard import reshard, route_of
from pai.passes.partition.rule import Rule, Vote, assign, layout_of
from pai.passes.rewrite import where
from pai.runtime.errors import UnsupportedOp

COLLECTIVES = frozenset(
    {
        "stablehlo.all_reduce",
        "stablehlo.all_gather",
        "stablehlo.reduce_scatter",
        "stablehlo.all_to_all",
        "stablehlo.collective_permute",
        "stablehlo.collective_broadcast",
        "stablehlo.partition_id",
        "stablehlo.replica_id",
    }
)


PASSED_OVER = frozenset({"sdy.reshard", "stablehlo.slice"})
GSPMD_TARGETS = ("Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape")


@dataclass(frozen=True)
class _Plan:
    """How operations of one form are localized: see Localizer._clone."""

    rule: Rule
    axes: list[Atoms]
    need: list[Layout]
    types: list[ir.Type]
    layouts: list[Layout]
    wanted: list[Layout]
    extra: int


class Localizer:
    """Walks a function and appends its local form, block by block.

    Args:
        grid: the devices.
        out: where to record replications and shardings.
        strict: see Localize.
        gather_factors: see localize.
    """

    def __init__(
        self, grid: Grid, out: Localized, *, strict: bool, gather_factors: bool = True
    ) -> None:
        self.grid = grid
        self.gather_factors = gather_factors
        self.out = out
        self.accounts = Accounts(grid, out, strict)
        self.emit = Emitter(grid)
        self.values: dict[ir.Value, tuple[ir.Value, Layout]] = {}
        self.manual = 0
        self._layouts: dict[ir.Attribute, Layout] = {}
        self._plans: dict[Hashable, _Plan] = {}

    # Layouts.

    def layout(self, attr: ir.Attribute | None, rank: int) -> Layout:
        """Return the layout an sdy.sharding attribute says; none is replicated."""
        if attr is None:
            return replicated(rank)
        if attr not in self._layouts:
            self._layouts[attr] = self.grid.layout(sharding_from_attr(attr))
        found = self._layouts[attr]
        return found if len(found) == rank else replicated(rank)

    def layouts(self, op: ir.Operation, name: str, values: Sequence[ir.Value]) -> list[Layout]:
        """Return the layouts that attribute ``name`` of ``op`` gives ``values``."""
        if name not in op.attributes:
            return [replicated(_rank(value)) for value in values]
        attrs = shardings_in(op.attributes[name])
        return [
            _without_padding(self.layout(a, _rank(value)), value)
            for a, value in zip(attrs, values, strict=True)
        ]

    def local_type(self, kind: ir.Type, layout: Layout) -> ir.Type:
        """Return the type of a shard."""
        if not any(layout):
            return kind
        return tensor(self.grid.local_shape(kind.shape, layout), kind.element_type)

    def get(self, value: ir.Value, layout: Layout) -> ir.Value:
        """Return the local form of a global ``value`` in ``layout``."""
        local, have = self.values[value]
        if have == layout:
            return local
        return reshard(self.emit, local, value.type.shape, have, layout)

    # Structure.

    def function(self, op: ir.Operation) -> None:
        """Replace a function by its local form."""
        old = op.regions[0].blocks[0]
        kind = ir.FunctionType(ir.TypeAttr(op.attributes["function_type"]).value)
        arguments = [
            self.layout(attr, _rank(value))
            for attr, value in zip(
                function_attributes(op, "arg_attrs") or [None] * len(kind.inputs),
                old.arguments,
                strict=True,
            )
        ]
        returned = list(old.operations)[-1].operation.operands
        attrs = function_attributes(op, "res_attrs") or [None] * len(kind.results)
        results = [self.layout(a, _rank(v)) for a, v in zip(attrs, returned, strict=True)]
        inputs = [self.local_type(t, a) for t, a in zip(kind.inputs, arguments, strict=True)]
        outputs = [self.local_type(t, a) for t, a in zip(kind.results, results, strict=True)]
        with op.location, ir.InsertionPoint(op):
            new = self.emit.op("func.func", [], [], without_shardings(op), regions=1)
        new.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(inputs, outputs))
        locs = [value.location for value in old.arguments]
        block = new.regions[0].blocks.append(*inputs, arg_locs=locs)
        for value, local, layout in zip(old.arguments, block.arguments, arguments, strict=True):
            self.values[value] = (local, layout)
        self.block(old, block, results, "func.return")
        self.out.arguments = tuple(self.grid.sharding(layout) for layout in arguments)
        self.out.results = tuple(self.grid.sharding(layout) for layout in results)
        self.out.uneven_arguments += self._uneven(kind.inputs, arguments)
        self.out.uneven_results += self._uneven(kind.results, results)
        op.erase()

    def _uneven(
        self, types: Sequence[ir.Type], layouts: Sequence[Layout]
    ) -> Iterator[tuple[int, int, int, int]]:
        """Yield (index, dimension, size, shards) of what is padded."""
        for index, (kind, layout) in enumerate(zip(types, layouts, strict=True)):
            for dim, atoms in enumerate(layout):
                count = self.grid.count(atoms)
                if kind.shape[dim] % count:
                    yield index, dim, kind.shape[dim], count

    def block(
        self, old: ir.Block, new: ir.Block, results: Sequence[Layout], terminator: str | None
    ) -> list[ir.Value]:
        """Append the local form of ``old`` to ``new``; return what it returns, in ``results``.

        With a ``terminator``, end the block with that operation.
        """
        self.emit.enter_block()
        with ir.InsertionPoint(new):
            returned = self.operations(old, results)
            if terminator:
                with list(old.operations)[-1].location:
                    self.emit.op(terminator, [], returned)
        self.emit.leave_block()
        return returned

    def operations(self, old: ir.Block, results: Sequence[Layout]) -> list[ir.Value]:
        """Append the local form of a block's operations; return its results in ``results``."""
        *body, last = [op.operation for op in old.operations]
        for op in body:
            with op.location:
                self.operation(op)
        with last.location:
            return [self.get(v, a) for v, a in zip(last.operands, results, strict=True)]

    def operation(self, op: ir.Operation) -> None:
        """Append the local form of one operation."""
        name = op.name
        if name in PASSED_OVER and not _is_read(op.results[0]):
            return
        if name in STRUCTURE:
            STRUCTURE[name](self, op)
        elif name in SHARDING_ATTRIBUTES:
            self._reshard(op)
        elif name in CONTROL:
            CONTROL[name](self, op)
        else:
            self._compute(op)

    def _reshard(self, op: ir.Operation) -> None:
        # The handlers return complete values, so an sdy.all_reduce only says a layout here.
        (target,) = self.layouts(op, SHARDING_ATTRIBUTES[op.name][0], op.results)
        source = op.operands[0]
        self.values[op.results[0]] = (self.get(source, target), target)

    def _compute(self, op: ir.Operation) -> None:
        handler = HANDLERS.get(op.name, REPLICATE)
        if handler.build is clone and handler.inputs is operands_of and not len(op.regions):
            self._clone(op, handler)
            return
        self._check(op)
        rule = handler.rule(op)
        if rule is None:
            handler = REPLICATE
            rule = handler.rule(op) or Rule()
        operands = handler.inputs(op)
        have = [self.values[value][1] for value in operands]
        wanted = self.layouts(op, SHARDING, op.results)
        if handler.inputs is not operands_of:
            pairs = zip(op.results, wanted, strict=True)
            wanted = [self._behind_reshards(value, layout) for value, layout in pairs]
        if not any(map(any, have)) and not any(map(any, wanted)):
            axes: list[Atoms] = [()] * len(rule.sizes)
        else:
            axes = assign(rule, self.grid, _votes(rule, operands, have, op.results, wanted))
        need = [layout_of(dims, axes) for dims in rule.operands]
        self.accounts.account(op, operands, have, need)
        if self.gather_factors and handler.work and any(axes) and not accumulates(op):
            contraction = Contraction(
                rule, operands, op.results[0], have, wanted[0], handler.work(op)
            )
            axes = contraction.cheapest(axes, self.grid, self._distance)
            need = [layout_of(dims, axes) for dims in rule.operands]
        locals_ = [self.get(v, layout) for v, layout in zip(operands, need, strict=True)]
        site = Site(op, rule, list(axes), locals_, self.emit)
        results = handler.build(site)
        self.accounts.fetched(op, self.emit.gathered)
        for index, local in enumerate(results):
            self.values[op.results[index]] = (local, site.layout(index))
            if site.layout(index) != wanted[index]:
                value = op.results[index]
                self.values[value] = (self.get(value, wanted[index]), wanted[index])

    def _clone(self, op: ir.Operation, handler: Handler) -> None:
        """Append the local form of an operation that needs no more than other shapes.

        Operations that are alike, on operands laid out alike, are planned once.
        """
        states = [self.values[value] for value in op.operands]
        key = (
            op.name,
            *op.attributes.items(),
            *((value.type, layout) for value, (_, layout) in zip(op.operands, states, strict=True)),
            *(value.type for value in op.results),
        )
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._plan(op, handler, [layout for _, layout in states])
        if plan.extra:
            self.accounts.replicate(op, plan.extra)
        operands = [
            local if have == need else reshard(self.emit, local, value.type.shape, have, need)
            for value, (local, have), need in zip(op.operands, states, plan.need, strict=True)
        ]
        site = Site(op, plan.rule, list(plan.axes), operands, self.emit)
        locals_ = site.clone(types=plan.types)
        self.accounts.fetched(op, self.emit.gathered)
        for value, local, layout, wanted in zip(
            op.results, locals_, plan.layouts, plan.wanted, strict=True
        ):
            self.values[value] = (local, layout)
            if layout != wanted:
                self.values[value] = (self.get(value, wanted), wanted)

    def _plan(self, op: ir.Operation, handler: Handler, have: Sequence[Layout]) -> _Plan:
        self._check(op)
        rule = handler.rule(op) or REPLICATE.rule(op) or Rule()
        operands, wanted = list(op.operands), self.layouts(op, SHARDING, op.results)
        axes: list[Atoms] = [()] * len(rule.sizes)
        if any(map(any, have)) or any(map(any, wanted)):
            axes = assign(rule, self.grid, _votes(rule, operands, have, op.results, wanted))
        need = [layout_of(dims, axes) for dims in rule.operands]
        site = Site(op, rule, axes, [], self.emit)
        layouts = [site.layout(index) for index in range(len(op.results))]
        return _Plan(
            rule,
            axes,
            need,
            site.types(),
            layouts,
            wanted,
            self.accounts.extra(operands, have, need),
        )

    def _distance(self, value: ir.Value, source: Layout, target: Layout) -> float:
        """Return about how many bytes a device sends to move ``value`` between layouts."""
        if source == target or 0 in value.type.shape:
            return 0.0
        return sum(step.cost for step in route_of(self.emit, value.type, source, target))

    def _behind_reshards(self, value: ir.Value, layout: Layout) -> Layout:
        """Return the layout that all users of a value reshard it to; ``layout`` otherwise."""
        users = [use.owner.operation for use in value.uses]
        if any(user.name != "sdy.reshard" for user in users):
            return layout
        targets = {self.layouts(user, "sharding", user.results)[0] for user in users}
        return targets.pop() if len(targets) == 1 else layout

    def _check(self, op: ir.Operation) -> None:
        if op.name in COLLECTIVES and not self.manual:
            raise UnsupportedOp(f"{op.name} has no meaning before partitioning", where(op))
        if op.name == "stablehlo.custom_call":
            target = ir.StringAttr(op.attributes["call_target_name"]).value
            if target in GSPMD_TARGETS:
                raise UnsupportedOp(
                    f"custom call '{target}' belongs to GSPMD",
                    where(op),
                    "lower the model with Shardy (jax_use_shardy_partitioner)",
                )
        for value in (*op.operands, *op.results):
            if not is_static_tensor(value.type):
                raise UnsupportedOp(
                    f"{op.name} on {value.type} cannot be partitioned",
                    where(op),
                    "the simplify stage leaves tensors of static shape only",
                )


def _is_read(value: ir.Value) -> bool:
    """Whether some user reads a value itself and not what it was made from."""
    users = (use.owner.operation for use in value.uses)
    return any(value in HANDLERS.get(user.name, REPLICATE).inputs(user) for user in users)


def _without_padding(layout: Layout, value: ir.Value) -> Layout:
    """Leave dimensions of one element whole, of which most shards would hold nothing."""
    if not any(layout):
        return layout
    sizes = value.type.shape
    return tuple(() if size == 1 else atoms for size, atoms in zip(sizes, layout, strict=True))


def _rank(value: ir.Value) -> int:
    return value.type.rank if is_static_tensor(value.type) else 0


def _votes(
    rule: Rule,
    operands: Sequence[ir.Value],
    have: Sequence[Layout],
    results: Sequence[ir.Value],
    wanted: Sequence[Layout],
) -> Iterator[Vote]:
    for dims, layout, value in zip(rule.results, wanted, results, strict=True):
        yield Vote(dims, layout, 2 * _elements(value) + 1, is_result=True)
    for dims, layout, value in zip(rule.operands, have, operands, strict=True):
        yield Vote(dims, layout, 2 * _elements(value))


def _elements(value: ir.Value) -> int:
    out = 1
    for size in value.type.shape:
        out *= size
    return out
