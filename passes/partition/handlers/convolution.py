"""convolution: batch, features and groups split as in a product, spatial dimensions in two ways.

With x the input, w the kernel, b, s, k the base dilation, stride and kernel dilation,

    y[o] = sum_i x'[o * s + i * k - low] * w[i]        x'[j * b] = x[j], zero elsewhere

*Sliding* (small kernel, large result): y and x are split alike; a shard fetches the positions that
its windows see. *Contracting* (large kernel, small result, as in the gradient of the weights): x
and w are split alike; a shard multiplies its part of w, of n elements, with the positions
[shard * n * k - low, + (outputs - 1) * s + (n - 1) * k + 1) of x', and the shards' results, which
are small, are added.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pai.dialects.mlir import ir, stablehlo
from pai.passes.partition.cutting import zero_of
from pai.passes.partition.handlers.base import Handler, Site, register, shape
from pai.passes.partition.handlers.windows import (
    Remainder,
    Window,
    fetch_positions,
    window_attributes,
    windows_of,
)
from pai.passes.partition.rule import Factors, Rule, whole

NAMES = {
    "stride": "window_strides",
    "base_dilation": "lhs_dilation",
    "dilation": "rhs_dilation",
    "reversed": "window_reversal",
}


@dataclass(frozen=True)
class Spatial:
    """One spatial dimension: its dimensions in input, kernel and result, and their sizes."""

    window: Window
    input: int
    kernel: int
    result: int
    input_size: int
    result_size: int

    @property
    def empty(self) -> bool:
        """Whether there is nothing to convolve."""
        return 0 in (self.input_size, self.window.size, self.result_size)

    @property
    def contracting(self) -> bool:
        """Whether the window is the larger part, so that it is split and not the result."""
        return self.window.size > self.result_size

    def begins(self, shards: int, local: int) -> list[int]:
        """Return the first position of each shard's part of the window, ``local`` elements."""
        step = local * self.window.dilation
        first = [shard * step for shard in range(shards)]
        if self.window.reversed:
            end = self.window.size * self.window.dilation
            first = [end - step - start for start in first]
        return [start - self.window.low for start in first]

    def span(self, local: int) -> int:
        """Return the positions that all windows see through ``local`` elements."""
        part = (local - 1) * self.window.dilation + 1
        return (self.result_size - 1) * self.window.stride + part


def _spatials(op: ir.Operation) -> list[Spatial]:
    numbers = stablehlo.ConvDimensionNumbers(op.attributes["dimension_numbers"])
    kernel = list(numbers.kernel_spatial_dimensions)
    sizes = [shape(op.operands[1])[dim] for dim in kernel]
    inputs, results = shape(op.operands[0]), shape(op.results[0])
    columns = zip(
        windows_of(op, sizes, NAMES),
        numbers.input_spatial_dimensions,
        kernel,
        numbers.output_spatial_dimensions,
        strict=True,
    )
    return [Spatial(w, i, k, o, inputs[i], results[o]) for w, i, k, o in columns]


def _count(op: ir.Operation, name: str) -> int:
    return int(ir.IntegerAttr(op.attributes[name]).value)


def convolution_rule(op: ir.Operation) -> Rule:
    """Split batch, features and groups; spatial dimensions slide or contract."""
    numbers = stablehlo.ConvDimensionNumbers(op.attributes["dimension_numbers"])
    lhs, rhs, res = (shape(value) for value in (*op.operands, op.results[0]))
    features, batches = _count(op, "feature_group_count"), _count(op, "batch_group_count")
    groups = features * batches
    out = Rule(operands=[whole(len(lhs)), whole(len(rhs))], results=[whole(len(res))])
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
    out.operands[0][numbers.input_batch_dimension] = batch_in
    out.operands[0][numbers.input_feature_dimension] = feature
    out.operands[1][numbers.kernel_input_feature_dimension] = kernel_in
    out.operands[1][numbers.kernel_output_feature_dimension] = outputs
    out.results[0][numbers.output_batch_dimension] = batch_out
    out.results[0][numbers.output_feature_dimension] = outputs
    for spatial in _spatials(op):
        _add_spatial(out, spatial)
    return out


def _add_spatial(rule: Rule, spatial: Spatial) -> None:
    if spatial.empty:
        return
    if spatial.contracting:
        factor = rule.factor(spatial.window.size)
        rule.operands[1][spatial.kernel] = (factor,)
    else:
        factor = rule.factor(spatial.result_size)
        rule.results[0][spatial.result] = (factor,)
        if not spatial.window.trivial:
            rule.follow.add(factor)
    rule.operands[0][spatial.input] = (factor,)


def build_convolution(site: Site) -> list[ir.Value]:
    """Convolve what each shard holds and fetches, and add over what is contracted."""
    results = {f for dims in site.rule.results[0] for f in dims}
    inputs = {f for dims in site.rule.operands[0] for f in dims}
    reduced = site.split_factors(sorted(inputs - results))
    _mask(site, reduced)
    left = dict(_fetch(site))
    windows = shape(site.op.operands[0])
    attributes = window_attributes(site.op, len(windows) - 2, left, NAMES["base_dilation"])
    for name in ("feature_group_count", "batch_group_count"):
        attributes[name] = _groups(site, name)
    out = site.clone(**attributes)
    kind = "or" if str(out[0].type.element_type) == "i1" else "add"
    return site.emit.all_reduce(out, kind, site.atoms(reduced))


def _mask(site: Site, reduced: list[int]) -> None:
    """Put zeros into the padded tails of contracted dimensions.

    The input's spatial dimensions are left out: what is fetched of them is masked.
    """
    spatial = {f for s in _spatials(site.op) for f in site.rule.operands[0][s.input]}
    features = [factor for factor in reduced if factor not in spatial]
    site.mask(0, features, zero_of(site.emit, site.operands[0]))
    site.mask(1, reduced, zero_of(site.emit, site.operands[1]))


def _fetch(site: Site) -> Iterator[tuple[int, Remainder]]:
    """Fetch along every split spatial dimension; yield what is left to the convolution."""
    zero = zero_of(site.emit, site.operands[0])
    for index, spatial in enumerate(_spatials(site.op)):
        atoms = site.split(0, spatial.input)
        if not atoms or (spatial.window.trivial and not spatial.contracting):
            continue
        shards, needed = site.emit.grid.count(atoms), None
        if spatial.contracting:
            local = shape(site.operands[1])[spatial.kernel]
            begins, span = spatial.begins(shards, local), spatial.span(local)
        else:
            local = site.type().shape[spatial.result]
            begins, span = spatial.window.begins(shards, local), spatial.window.span(local)
            needed = spatial.window.needed(shards, local, spatial.result_size)
        base = spatial.window.base_dilation
        yield index, fetch_positions(site, 0, spatial.input, begins, span, base, zero, needed)


def _groups(site: Site, name: str) -> ir.Attribute:
    """Return a group count divided by the shards of its factor, which is the first one."""
    attr = ir.IntegerAttr(site.op.attributes[name])
    if attr.value == 1:
        return attr
    return ir.IntegerAttr.get(attr.type, attr.value // site.count(0))


def convolution_work(op: ir.Operation) -> int:
    """Return the multiplications: each element of the result sees a kernel of one output."""
    numbers = stablehlo.ConvDimensionNumbers(op.attributes["dimension_numbers"])
    kernel = shape(op.operands[1])
    outputs = max(1, kernel[numbers.kernel_output_feature_dimension])
    return math.prod(shape(op.results[0])) * math.prod(kernel) // outputs


register(
    Handler(convolution_rule, build_convolution, work=convolution_work), "stablehlo.convolution"
)
