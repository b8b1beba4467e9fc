"""Operations that treat every element alike."""

from __future__ import annotations

from pai.dialects.mlir import ir
from pai.passes.partition.handlers.base import Handler, Site, register, shape
from pai.passes.partition.rule import Rule, whole

STABLEHLO = """abs add and atan2 cbrt ceil clamp compare complex convert cosine
count_leading_zeros divide exponential exponential_minus_one floor imag is_finite log log_plus_one
logistic map maximum minimum multiply negate not or popcnt power real reduce_precision remainder
round_nearest_afz round_nearest_even rsqrt select shift_left shift_right_arithmetic
shift_right_logical sign sine sqrt subtract tan tanh xor uniform_quantize uniform_dequantize"""
CHLO = """acos acosh asin asinh atan atanh bessel_i1e conj cosh digamma erf erf_inv erfc is_inf
is_neg_inf is_pos_inf lgamma next_after polygamma sinh square tan zeta"""


def rule(op: ir.Operation) -> Rule:
    """Give each dimension one factor; scalar operands beside tensors have none."""
    out = Rule()
    dims = out.dims(op.results[0].type.shape)
    out.operands = [dims if value.type.rank == len(dims) else [] for value in op.operands]
    out.results = [dims]
    return out


def bitcast_rule(op: ir.Operation) -> Rule:
    """Share the common dimensions; the extra one of the narrower type is whole."""
    source, target = shape(op.operands[0]), shape(op.results[0])
    out = Rule()
    dims = out.dims(source if len(source) < len(target) else target)
    out.operands = [dims + whole(len(source) - len(dims))]
    out.results = [dims + whole(len(target) - len(dims))]
    return out


def rng_rule(op: ir.Operation) -> Rule:
    """Need everything whole: the numbers must not depend on the mesh.

    Every device draws the whole from the same state and keeps its block, which costs time but no
    communication: how bits are dealt to elements is the generator's own affair, even for counter
    based ones. What ``jax.random`` writes (threefry over an iota) is plain arithmetic and stays
    split.
    """
    return Rule(
        operands=[whole(value.type.rank) for value in op.operands],
        results=[whole(value.type.rank) for value in op.results],
    )


def build_rng(site: Site) -> list[ir.Value]:
    """Draw on every device, then take the first device's numbers: ``rng`` has no state to share."""
    emit = site.emit
    out = site.clone()[0]
    integer = out.type
    everyone = tuple(range(len(emit.grid.atoms)))
    first = emit.compare(emit.shard_index(everyone), "EQ", emit.scalar(0))
    kept = emit.select(first, out, emit.constant(integer, 0))
    return emit.all_reduce([kept], "or" if str(integer.element_type) == "i1" else "add", everyone)


register(Handler(rule), *(f"stablehlo.{name}" for name in STABLEHLO.split()))
register(Handler(rule), *(f"chlo.{name}" for name in CHLO.split()))
register(Handler(bitcast_rule), "stablehlo.bitcast_convert")
register(Handler(rng_rule, build_rng), "stablehlo.rng")
register(Handler(rng_rule), "stablehlo.rng_bit_generator")
