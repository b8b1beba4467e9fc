"""custom_call: a registry of how each target may be split, for users and frontends.

Shardy and the localizer know nothing of the code behind a custom call. `register_custom_call` says
which dimensions of its operands and results go together, as an einsum does::

    register_custom_call("my_norm", "... d, d -> ... d")           # rows are independent of rows
    register_custom_call("my_norm", "b s _, _ -> b s _")           # but the last dimension is whole
    register_custom_call("my_dot", "m k, k n -> m n", reduce="add")  # partial results are added

A call of another target gets its operands whole, and the report says so; one with a side effect is
refused, for every device would have it. A call may also bring a rule of its own, as Shardy writes
it: ``sdy.sharding_rule = #sdy.op_sharding_rule<([i, j])->([i, j]) {i=4, j=6}, custom>``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pai.dialects.mlir import ir, sdy
from pai.passes.partition.emit import REDUCTIONS
from pai.passes.partition.handlers.base import Handler, Site, clone, register, shape
from pai.passes.partition.rule import Factors, Rule, whole
from pai.passes.rewrite import where
from pai.runtime.errors import InvalidSharding, UnsupportedOp

RULE = "sdy.sharding_rule"
_LEADING, _WHOLE = "...", "_"
_LAPACK = re.compile(r"lapack_[sdcz]\w+_ffi")

RuleOf = Callable[[ir.Operation], Rule | None]
Build = Callable[[Site], list[ir.Value]]
CUSTOM_CALLS: dict[str, Handler] = {}


def register_custom_call(
    target: str, rule: str | RuleOf, build: Build | None = None, *, reduce: str = ""
) -> None:
    """Say how custom calls of ``target`` may be split.

    Args:
        target: ``call_target_name``; a second call for the same target replaces the first.
        rule: names of the dimensions of operands and results, ``"m k, k n -> m n"``, where ``_``
            is a dimension that every device needs whole and ``...`` are leading dimensions; or a
            function of the operation that returns its `Rule` (None: everything whole).
        build: appends the local form and returns its complete results; by default a copy of the
            call with local types, and the collective that ``reduce`` asks for.
        reduce: how partial results combine (add, mul, max, min, and, or, xor) over names that are
            only in operands. Such a dimension is only split evenly, so that no padding is added.

    Raises:
        InvalidSharding: when the text of a rule cannot be read, or ``reduce`` is missing.
    """
    if isinstance(rule, str):
        named = _Named.parse(target, rule, reduce)
        CUSTOM_CALLS[target] = Handler(named.rule, build or named.build)
    else:
        CUSTOM_CALLS[target] = Handler(rule, build or clone)


@dataclass(frozen=True)
class _Named:
    """A rule written as text.

    Args:
        target: of the call.
        operands: per operand, the names of its dimensions.
        results: the same of the results.
        reduce: how partial results combine.
    """

    target: str
    operands: tuple[tuple[str, ...], ...]
    results: tuple[tuple[str, ...], ...]
    reduce: str

    @staticmethod
    def parse(target: str, text: str, reduce: str) -> _Named:
        sides = text.split("->")
        if len(sides) != 2:
            raise _error(target, f"the rule '{text}' needs one '->'")
        operands, results = (tuple(tuple(t.split()) for t in side.split(",")) for side in sides)
        for dims in (*operands, *results):
            names = [name for name in dims if name != _WHOLE]
            if len(set(names)) != len(names) or _LEADING in dims[1:]:
                raise _error(target, f"the dimensions '{' '.join(dims)}' repeat a name")
        inner = {n for dims in operands for n in dims} - {n for dims in results for n in dims}
        if inner - {_WHOLE} and reduce not in REDUCTIONS:
            lost = ", ".join(sorted(inner - {_WHOLE}))
            raise _error(target, f"no result has {lost} and reduce is '{reduce}'")
        return _Named(target, operands, results, reduce)

    def rule(self, op: ir.Operation) -> Rule:
        """Return the factors of one call; raises InvalidSharding when it does not fit."""
        out = Rule()
        factors: dict[str, int] = {}
        kept = {name for dims in self.results for name in dims}

        def dims_of(value: ir.Value, names: tuple[str, ...]) -> list[Factors]:
            sizes = shape(value)
            if names[:1] == (_LEADING,):
                extra = len(sizes) - len(names) + 1
                names = (*(f"...{extra - i}" for i in range(extra)), *names[1:])
            if len(names) != len(sizes):
                raise _error(
                    self.target, f"the rule has {len(names)} names for {value.type}", where(op)
                )
            dims: list[Factors] = []
            for name, size in zip(names, sizes, strict=True):
                if name == _WHOLE:
                    dims.append(())
                    continue
                reduced = name not in kept and not name.startswith(_LEADING)
                if name not in factors:
                    factors[name] = out.factor(size, even=reduced)
                if out.sizes[factors[name]] != size:
                    raise _error(self.target, f"the sizes of '{name}' differ", where(op))
                dims.append((factors[name],))
            return dims

        for values, rows, into in (
            (op.operands, self.operands, out.operands),
            (op.results, self.results, out.results),
        ):
            if len(values) != len(rows):
                raise _error(self.target, f"the rule is for {len(rows)} values", where(op))
            into += [dims_of(value, names) for value, names in zip(values, rows, strict=True)]
        return out

    def build(self, site: Site) -> list[ir.Value]:
        """Copy the call and combine the partial results."""
        kept = {f for dims in site.rule.results for factors in dims for f in factors}
        used = {f for dims in site.rule.operands for factors in dims for f in factors}
        atoms = site.atoms(sorted(used - kept))
        return site.emit.all_reduce(site.clone(), self.reduce, atoms)


def _error(target: str, what: str, place: str = "") -> InvalidSharding:
    return InvalidSharding(f"custom call '{target}': {what}", place, "see register_custom_call")


def custom_call_rule(op: ir.Operation) -> Rule | None:
    """Return the rule of a registered call, of one that brings its own, or None."""
    target = ir.StringAttr(op.attributes["call_target_name"]).value
    if target in CUSTOM_CALLS:
        return CUSTOM_CALLS[target].rule(op)
    if RULE in op.attributes:
        return _own_rule(op)
    if _LAPACK.fullmatch(target):
        return _matrices(op)
    effect = op.attributes.get("has_side_effect")
    if effect is not None and ir.BoolAttr(effect).value:
        raise UnsupportedOp(
            f"the custom call '{target}' has a side effect, which every device would have",
            where(op),
            "remove it, or register how it is split with register_custom_call",
        )
    return None


def build_custom_call(site: Site) -> list[ir.Value]:
    """Build as registered, else copy the call."""
    target = ir.StringAttr(site.op.attributes["call_target_name"]).value
    return CUSTOM_CALLS.get(target, Handler(custom_call_rule)).build(site)


def _matrices(op: ir.Operation) -> Rule:
    """Share the batch of LAPACK calls, whose operands end in one or two dimensions of a matrix."""
    out = Rule()
    first = shape(op.operands[0])
    batch = out.dims(first[:-2])
    values = (*op.operands, *op.results)
    if any(shape(value)[: len(batch)] != first[:-2] for value in values):
        batch = []
    out.operands = [batch + whole(value.type.rank - len(batch)) for value in op.operands]
    out.results = [batch + whole(value.type.rank - len(batch)) for value in op.results]
    return out


def _own_rule(op: ir.Operation) -> Rule:
    """Read an ``sdy.sharding_rule``; factors that are not simply passed through are whole."""
    attr = sdy.OpShardingRuleAttr(op.attributes[RULE])
    sizes = list(attr.factor_sizes)
    special = (attr.reduction_factors, attr.need_replication_factors, attr.permutation_factors)
    barred = {factor for factors in special for factor in factors}
    out = Rule(sizes=sizes, even=set(range(len(sizes))))

    def dims_of(mapping: ir.Attribute) -> list[Factors]:
        dims = [
            tuple(sdy.DimMappingAttr(dim).factor_indices)
            for dim in sdy.TensorMappingAttr(mapping).dim_mappings
        ]
        return [() if barred & set(factors) else factors for factors in dims]

    out.operands = [dims_of(mapping) for mapping in attr.operand_mappings]
    out.results = [dims_of(mapping) for mapping in attr.result_mappings]
    return out


def tell_shardy(ops: Sequence[ir.Operation]) -> None:
    """Write the rules of registered custom calls among ``ops`` for the propagation."""
    for op in ops:
        if op.name != "stablehlo.custom_call" or RULE in op.attributes:
            continue
        target = ir.StringAttr(op.attributes["call_target_name"]).value
        rule = CUSTOM_CALLS[target].rule(op) if target in CUSTOM_CALLS else None
        if rule is not None:
            with op.context:
                op.attributes[RULE] = _rule_attr(op, rule)


def _rule_attr(op: ir.Operation, rule: Rule) -> ir.Attribute:
    """Return a rule as Shardy writes it; whole dimensions get factors that need replication."""
    sizes = list(rule.sizes)
    alone: list[int] = []

    def mapping(value: ir.Value, dims: Sequence[Factors]) -> ir.Attribute:
        out = []
        for size, factors in zip(shape(value), dims, strict=True):
            if not factors:
                alone.append(len(sizes))
                sizes.append(size)
            out.append(sdy.DimMappingAttr.get(list(factors or (len(sizes) - 1,))))
        return sdy.TensorMappingAttr.get(out)

    operands = [mapping(v, dims) for v, dims in zip(op.operands, rule.operands, strict=True)]
    results = [mapping(v, dims) for v, dims in zip(op.results, rule.results, strict=True)]
    kept = {f for dims in rule.results for factors in dims for f in factors}
    reduced = [f for f in range(len(rule.sizes)) if f not in kept]
    return sdy.OpShardingRuleAttr.get(
        sizes, operands, results, reduced, sorted(alone), is_custom=True
    )


register(Handler(custom_call_rule, build_custom_call), "stablehlo.custom_call")
