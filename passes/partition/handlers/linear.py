"""dot_general and convolution."""

from __future__ import annotations

from pai.dialects.mlir import ir, stablehlo
from pai.passes.partition.handlers.base import Handler, Site, register, shape
from pai.passes.partition.handlers.windows import (
    Window,
    fetch_halos,
    windows_of,
    without_padding,
)
from pai.passes.partition.rule import Factors, Rule


def dot_rule(op: ir.Operation) -> Rule:
    """Share batch dimensions; free ones follow their operand; contracting ones are reduced."""
    numbers = stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"])
    out = Rule()
    lhs = out.dims(shape(op.operands[0]))
    rhs = out.dims(shape(op.operands[1]))
    batch = list(numbers.lhs_batching_dimensions)
    contract = list(numbers.lhs_contracting_dimensions)
    for left, right in zip(
        batch + contract,
        [*numbers.rhs_batching_dimensions, *numbers.rhs_contracting_dimensions],
        strict=True,
    ):
        rhs[right] = lhs[left]
    result = [lhs[dim] for dim in batch]
    result += [dims for i, dims in enumerate(lhs) if i not in batch + contract]
    paired = set(numbers.rhs_batching_dimensions) | set(numbers.rhs_contracting_dimensions)
    result += [dims for i, dims in enumerate(rhs) if i not in paired]
    out.operands = [lhs, rhs]
    out.results = [result]
    return out


def build_contraction(site: Site, **attributes: ir.Attribute) -> list[ir.Value]:
    """Multiply local shards, padded tails zeroed, and add over the contracted factors."""
    results = {f for dims in site.rule.results[0] for f in dims}
    inputs = {f for dims in site.rule.operands[0] for f in dims}
    reduced = site.split_factors(sorted(inputs - results))
    for operand in range(2):
        element = site.operands[operand].type.element_type
        zero = site.emit.constant(ir.RankedTensorType.get([], element), 0)
        site.mask(operand, reduced, zero)
    for name in ("feature_group_count", "batch_group_count"):
        if name in site.op.attributes:
            attributes[name] = _groups(site, name)
    out = site.clone(**attributes)
    kind = "or" if str(out[0].type.element_type) == "i1" else "add"
    return site.emit.all_reduce(out, kind, site.atoms(reduced))


def _groups(site: Site, name: str) -> ir.Attribute:
    """Return a group count divided by the shards of its factor, which is the first one."""
    attr = ir.IntegerAttr(site.op.attributes[name])
    if attr.value == 1:
        return attr
    return ir.IntegerAttr.get(attr.type, attr.value // site.count(0))


def convolution_rule(op: ir.Operation) -> Rule:
    """Split batch, features and groups; spatial dimensions follow their operand."""
    numbers = stablehlo.ConvDimensionNumbers(op.attributes["dimension_numbers"])
    lhs, rhs, res = shape(op.operands[0]), shape(op.operands[1]), shape(op.results[0])
    features = ir.IntegerAttr(op.attributes["feature_group_count"]).value
    batches = ir.IntegerAttr(op.attributes["batch_group_count"]).value
    groups = features * batches
    out = Rule()
    if groups > 1:
        out.factor(groups, even=True)
    batch_in: Factors = (out.factor(lhs[numbers.input_batch_dimension] // batches),)
    batch_out = batch_in
    feature: Factors = (out.factor(rhs[numbers.kernel_input_feature_dimension]),)
    outputs: Factors = (out.factor(rhs[numbers.kernel_output_feature_dimension] // groups),)
    kernel_in = feature
    if groups > 1:
        # Blocks of a dimension (group, feature) are whole groups or nothing.
        outputs = (0,)
        if features > 1:
            feature, kernel_in = (0,), ()
        else:
            batch_in, batch_out = (0,), ()
    out.operands = [[()] * len(lhs), [()] * len(rhs)]
    out.results = [[()] * len(res)]
    out.operands[0][numbers.input_batch_dimension] = batch_in
    out.operands[0][numbers.input_feature_dimension] = feature
    out.operands[1][numbers.kernel_input_feature_dimension] = kernel_in
    out.operands[1][numbers.kernel_output_feature_dimension] = outputs
    out.results[0][numbers.output_batch_dimension] = batch_out
    out.results[0][numbers.output_feature_dimension] = outputs
    for dim, (window, result) in _spatial(op).items():
        if window.may_split(lhs[dim]) and 0 not in (lhs[dim], res[result]):
            factor = out.factor(res[result])
            if not window.trivial:
                out.follow.add(factor)
            out.operands[0][dim] = out.results[0][result] = (factor,)
    return out


NAMES = {"stride": "window_strides", "base_dilation": "lhs_dilation", "dilation": "rhs_dilation"}


def _spatial(op: ir.Operation) -> dict[int, tuple[Window, int]]:
    """Return by spatial dimension of the operand its window and the dimension of the result."""
    numbers = stablehlo.ConvDimensionNumbers(op.attributes["dimension_numbers"])
    kernel = shape(op.operands[1])
    sizes = [kernel[dim] for dim in numbers.kernel_spatial_dimensions]
    windows = windows_of(op, len(sizes), sizes, NAMES)
    pairs = zip(windows, numbers.output_spatial_dimensions, strict=True)
    return dict(zip(numbers.input_spatial_dimensions, pairs, strict=True))


def build_convolution(site: Site) -> list[ir.Value]:
    """Convolve each shard with its halo, and add over the contracted features."""
    zero = site.emit.constant(ir.RankedTensorType.get([], site.operands[0].type.element_type), 0)
    spatial = _spatial(site.op)
    done = fetch_halos(site, 0, spatial, zero)
    order = list(spatial)
    padding = without_padding(site.op, [order.index(dim) for dim in done])
    return build_contraction(site, **padding)


register(Handler(dot_rule, build_contraction), "stablehlo.dot_general")
register(Handler(convolution_rule, build_convolution), "stablehlo.convolution")
