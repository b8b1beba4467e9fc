"""Where values go in a local module over a time axis: which belong to one microbatch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

from pai.dialects.mlir import ir
from pai.passes.partition.collectives.common import body_kind
from pai.passes.partition.report import LocalModule
from pai.passes.rewrite import main_function, walk

_SHARED = frozenset(
    f"stablehlo.{name}" for name in ("all_reduce", "all_gather", "collective_broadcast")
)
_EXCHANGED = frozenset(
    f"stablehlo.{name}"
    for name in ("partition_id", "replica_id", "reduce_scatter", "all_to_all", "collective_permute")
)
_ONE_TO_ONE = _SHARED | {"stablehlo.optimization_barrier"}
_BRANCHES = frozenset({"stablehlo.if", "stablehlo.case"})
_MOVES = frozenset(
    f"stablehlo.{name}"
    for name in ("add", "subtract", "negate", "reshape", "transpose", "broadcast_in_dim", "slice",
                 "concatenate", "return", "optimization_barrier", "reverse")
)  # fmt: skip
_PRODUCTS = frozenset({"stablehlo.multiply", "stablehlo.dot_general", "stablehlo.convolution"})
# Linear in the operands up to this number when the others do not depend on the sum.
_LINEAR_IN = {
    "stablehlo.dynamic_update_slice": 2,
    "stablehlo.dynamic_slice": 1,
    "stablehlo.divide": 1,
    "stablehlo.pad": 2,
}


class Flow:
    """The dataflow of ``@main``, through loops and branches.

    Args:
        local: a module partitioned over one axis, the microbatches.
        inputs: numbers of the arguments that are split into microbatches; the others are state.
    """

    def __init__(self, local: LocalModule, inputs: Collection[int]) -> None:
        self.users: dict[ir.Value, list[tuple[ir.Value, ir.Operation]]] = defaultdict(list)
        main = main_function(local.module)
        block = main.regions[0].blocks[0]
        sources = [
            value
            for value, sharding in zip(block.arguments, local.argument_shardings, strict=True)
            if not sharding.is_replicated
        ]
        self.shared: set[ir.Value] = set()
        for op in walk(main.operation):
            for source, target in _edges(op):
                self.users[source].append((target, op))
            if op.name in _EXCHANGED:
                sources += op.results
            elif op.name in _SHARED:
                self.shared.update(op.results)
        self.varying = set(self.reach(sources, blocked=self.shared))
        state = [value for i, value in enumerate(block.arguments) if i not in inputs]
        self.of_state = set(self.reach(state))

    def reach(
        self,
        sources: Iterable[ir.Value],
        blocked: frozenset[ir.Value] | set[ir.Value] = frozenset(),
    ) -> dict[ir.Value, ir.Operation | None]:
        """Return the values that depend on ``sources``, and the operation each was reached by."""
        found: dict[ir.Value, ir.Operation | None] = dict.fromkeys(sources)
        pending = list(found)
        while pending:
            for target, op in self.users[pending.pop()]:
                if target not in found and target not in blocked:
                    found[target] = op
                    pending.append(target)
        return found

    def microbatch_user(self, value: ir.Value) -> ir.Operation | None:
        """Return an operation of single microbatches that depends on ``value``, or None."""
        for target, op in self.reach([value]).items():
            if target in self.varying and op is not None:
                return op
        return None

    def nonlinear_in_loop(self, op: ir.Operation, value: ir.Value) -> ir.Operation | None:
        """Return an operation that keeps a sum in a loop from being made behind the loop.

        That needs everything that the loop makes of the sum to be linear in it.
        """
        loop = _loop_of(op)
        if loop is None:
            return None
        reached = self.reach([value])
        for inner in walk(loop):
            if inner.name != "stablehlo.while":
                derived = [i for i, operand in enumerate(inner.operands) if operand in reached]
                if derived and not _is_linear(inner, derived):
                    return inner
        return None


def _is_linear(op: ir.Operation, derived: list[int]) -> bool:
    if op.name == "stablehlo.return":
        loop = op.parent
        condition = loop.name == "stablehlo.while" and op.block == loop.regions[0].blocks[0]
        return not condition
    if op.name in _MOVES:
        return True
    if op.name == "stablehlo.convert":
        kinds = [ir.RankedTensorType(v.type).element_type for v in (*op.operands, *op.results)]
        return not any(ir.IntegerType.isinstance(kind) for kind in kinds)
    if op.name in _PRODUCTS:
        return len(derived) == 1
    if op.name == "stablehlo.reduce":
        return body_kind(op) == "add"
    if op.name in ("stablehlo.select", "stablehlo.case", "stablehlo.if"):
        return derived[0] > 0
    return derived[-1] < _LINEAR_IN.get(op.name, 0)


def _loop_of(op: ir.Operation) -> ir.Operation | None:
    """Return the outermost loop around an operation."""
    found = None
    parent = op.parent
    while parent is not None and parent.name != "func.func":
        if parent.name == "stablehlo.while":
            found = parent.operation
        parent = parent.parent
    return found


def _edges(op: ir.Operation) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Yield (source, target) of values that an operation makes depend on each other."""
    if op.name == "stablehlo.while":
        condition, body = (region.blocks[0] for region in op.regions)
        ends = list(list(body.operations)[-1].operands)
        for i, operand in enumerate(op.operands):
            for source in (operand, ends[i]):
                yield source, condition.arguments[i]
                yield source, body.arguments[i]
                yield source, op.results[i]
        decides = list(condition.operations)[-1].operands[0]
        yield from ((decides, result) for result in op.results)
    elif op.name in _BRANCHES:
        yield from ((op.operands[0], result) for result in op.results)
        for region in op.regions:
            yield from zip(list(region.blocks[0].operations)[-1].operands, op.results, strict=True)
    elif op.name in _ONE_TO_ONE:
        yield from zip(op.operands, op.results, strict=True)
    else:
        yield from ((operand, result) for operand in op.operands for result in op.results)
