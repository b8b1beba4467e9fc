"""Random inputs for a program: seeded, and within range where an input is used as an index."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pai.dialects.mlir import ir, stablehlo
from pai.dialects.program import Program, Role, Value
from pai.passes.rewrite import main_function
from pai.runtime.dtypes import DTYPES

# Operations that pass an index through unchanged, or only wrap negative ones.
_TRANSPARENT = frozenset(
    f"stablehlo.{name}"
    for name in (
        "convert", "reshape", "broadcast_in_dim", "transpose", "concatenate", "select", "clamp",
        "slice", "pad", "reverse",
    )
)  # fmt: skip


def random_inputs(program: Program, seed: int = 0) -> dict[str, np.ndarray]:
    """Return one array per input: floats standard normal, integers within their index bound.

    An integer input that indexes a gather or a dynamic slice is drawn below the size of what it
    indexes; other 8-bit integers from 0 to 100, other integers 0 or 1 (masks, flags).
    """
    generator = np.random.default_rng(seed)
    bounds = index_bounds(program.module)
    return {
        value.name: _draw(generator, value, bounds.get(position))
        for position, value in enumerate(program.signature.arguments)
        if value.role is Role.INPUT
    }


def _draw(generator: np.random.Generator, value: Value, bound: int | None) -> np.ndarray:
    dtype = DTYPES[value.dtype]
    if value.dtype.startswith("complex"):
        parts = generator.standard_normal((2, *value.shape))
        return (parts[0] + 1j * parts[1]).astype(dtype)
    if value.dtype == "i1":
        return generator.integers(0, 2, value.shape).astype(dtype)
    if value.dtype.startswith(("i", "ui")):
        default = 101 if value.dtype in ("i8", "ui8") else 2
        return generator.integers(0, bound or default, value.shape).astype(dtype)
    return generator.standard_normal(value.shape).astype(dtype)


def index_bounds(module: ir.Module) -> dict[int, int]:
    """Return, per argument number of ``@main`` that is used as an index, the exclusive bound."""
    main = main_function(module)
    bounds: dict[int, int] = {}
    for number, argument in enumerate(main.regions[0].blocks[0].arguments):
        found = list(_bounds_of(argument))
        if found:
            bounds[number] = max(min(found), 1)
    return bounds


def _bounds_of(value: ir.Value) -> Iterator[int]:
    """Follow ``value`` to the gathers and dynamic slices it indexes."""
    pending, seen = [value], set()
    while pending:
        current = pending.pop()
        for use in current.uses:
            op = use.owner.operation
            if op.name == "stablehlo.gather" and use.operand_number == 1:
                yield _gather_bound(op)
            elif op.name == "stablehlo.dynamic_slice" and use.operand_number > 0:
                dim = use.operand_number - 1
                sizes = (ir.RankedTensorType(v.type).shape for v in (op.operands[0], op.results[0]))
                yield next(sizes)[dim] - next(sizes)[dim] + 1
            elif op.name == "stablehlo.compare":
                yield from _classes(op.operands[1 - use.operand_number])
            elif op.name in _TRANSPARENT and op.results[0] not in seen:
                seen.add(op.results[0])
                pending.append(op.results[0])


def _classes(value: ir.Value) -> Iterator[int]:
    """Yield the number of classes when ``value`` enumerates them, as a one-hot encoding does."""
    while not isinstance(value, ir.BlockArgument):
        op = value.owner.operation
        if op.name == "stablehlo.iota":
            yield max(ir.RankedTensorType(op.results[0].type).shape, default=1)
            return
        if op.name == "stablehlo.constant":
            elements = ir.DenseElementsAttr(op.attributes["value"])
            if not elements.is_splat:
                yield int(np.asarray(elements).max()) + 1
            return
        if op.name not in _TRANSPARENT:
            return
        value = op.operands[0]


def _gather_bound(op: ir.Operation) -> int:
    numbers = stablehlo.GatherDimensionNumbers(op.attributes["dimension_numbers"])
    shape = ir.RankedTensorType(op.operands[0].type).shape
    sizes = list(ir.DenseI64ArrayAttr(op.attributes["slice_sizes"]))
    return min((shape[dim] - sizes[dim] + 1 for dim in numbers.start_index_map), default=1)
