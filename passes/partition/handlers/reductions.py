"""reduce, and what its body says."""

from __future__ import annotations

from pai.dialects.mlir import ir
from pai.passes.partition.cutting import is_splat
from pai.passes.partition.emit import (
    REDUCTIONS,
    array_attr,
    identity,
    is_complex,
    tensor,
)
from pai.passes.partition.handlers.base import Handler, Site, register, shape
from pai.passes.partition.handlers.shapes import ints
from pai.passes.partition.rule import Factors, Rule, whole

KINDS = {name: kind for kind, name in REDUCTIONS.items()}
IDEMPOTENT = ("max", "min", "and", "or")
CHOOSERS = ("stablehlo.select", "stablehlo.maximum", "stablehlo.minimum")


def reduction_kind(op: ir.Operation) -> str | None:
    """Return the key of REDUCTIONS that the body of ``op`` computes, or None."""
    return region_kind(op.regions[0])


def region_kind(region: ir.Region) -> str | None:
    """Return the key of REDUCTIONS that a region of two scalars computes, or None."""
    block = region.blocks[0]
    ops = [inner.operation for inner in block.operations]
    if len(ops) != 2 or len(block.arguments) != 2 or ops[0].name not in KINDS:
        return None
    operands = list(ops[0].operands)
    arguments = list(block.arguments)
    if operands not in (arguments, arguments[::-1]) or list(ops[1].operands) != [ops[0].result]:
        return None
    return KINDS[ops[0].name]


def chooses(op: ir.Operation) -> bool:
    """Whether every result of the body of ``op`` is one of its arguments, as in argmax.

    Then combining a value twice, or the initial value more than once, changes nothing.
    """
    block = op.regions[0].blocks[0]
    ops = [inner.operation for inner in block.operations]
    return all(_is_choice(value, block) for value in ops[-1].operands)


def _is_choice(value: ir.Value, block: ir.Block) -> bool:
    if isinstance(value, ir.BlockArgument):
        return value.owner == block
    owner = value.owner
    if owner.name not in CHOOSERS:
        return False
    parts = list(owner.operands)
    return all(_is_choice(part, block) for part in parts[owner.name == CHOOSERS[0] :])


def reduce_rule(op: ir.Operation) -> Rule:
    """Share the kept dimensions; reduced ones too when partial results can be combined."""
    inputs = len(op.operands) // 2
    reduced = set(ints(op, "dimensions"))
    partial = (inputs == 1 and reduction_kind(op) is not None) or chooses(op)
    out = Rule()
    dims: list[Factors] = [
        (out.factor(size),) if partial or dim not in reduced else ()
        for dim, size in enumerate(shape(op.operands[0]))
    ]
    out.operands = [dims] * inputs + [whole(0)] * inputs
    out.results = [[f for dim, f in enumerate(dims) if dim not in reduced]] * inputs
    return out


def build_reduce(site: Site) -> list[ir.Value]:
    """Reduce each shard, then combine the shards' results."""
    dims = site.rule.operands[0]
    reduced = site.split_factors([f for d in ints(site.op, "dimensions") for f in dims[d]])
    if not reduced:
        return site.clone()
    kind = reduction_kind(site.op) if len(site.operands) == 2 else None
    return _reduce_kind(site, kind, reduced) if kind else _reduce_choice(site, reduced)


def _reduce_kind(site: Site, kind: str, reduced: list[int]) -> list[ir.Value]:
    emit = site.emit
    init = site.operands[1]
    neutral = emit.constant(init.type, identity(kind, init.type.element_type))
    site.mask(0, reduced, neutral)
    out = site.clone(operands=[site.operands[0], neutral])
    out = emit.all_reduce(out, kind, site.atoms(reduced))
    if is_neutral(site.op.operands[1], kind):
        return out
    start = emit.broadcast(init, shape(out[0]), [])
    return [emit.binary(REDUCTIONS[kind].removeprefix("stablehlo."), out[0], start)]


def _reduce_choice(site: Site, reduced: list[int]) -> list[ir.Value]:
    emit, half = site.emit, len(site.operands) // 2
    inits = site.operands[half:]
    for index in range(half):
        site.mask(index, reduced, inits[index])
    atoms = site.atoms(reduced)
    stacked = []
    for part in site.clone():
        row = emit.unary("reshape", part, tensor([1, *shape(part)], part.type.element_type))
        stacked.append(emit.all_gather(row, 0, atoms))
    return site.clone(operands=[*stacked, *inits], dimensions=array_attr([0]))


def is_neutral(value: ir.Value, kind: str) -> bool:
    """Whether ``value`` is a splat that leaves others unchanged under ``kind``."""
    if is_complex(value.type):
        return kind == "add" and is_splat(value, 0)
    return is_splat(value, identity(kind, value.type.element_type))


def repeats_init(op: ir.Operation) -> bool:
    """Whether combining the initial value any number of times more changes no result of ``op``.

    XLA leaves padding out of reduce_window's windows where StableHLO combines initial values, so
    whoever fills padding in has to ask.
    """
    kind = region_kind(op.regions[0]) if len(op.operands) == 2 else None
    return kind in IDEMPOTENT or (kind is not None and is_neutral(op.operands[1], kind))


register(Handler(reduce_rule, build_reduce), "stablehlo.reduce")
