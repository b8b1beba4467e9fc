"""LAPACK calls that JAX writes for CPUs: Cholesky factors and triangular systems as StableHLO."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pai.dialects.mlir import ir, stablehlo
from pai.dialects.types import shape_of
from pai.passes.simplify.build import reduce_add

_TARGET = re.compile(r"lapack_[sdcz](potrf|trsm)_ffi")
_CONFIG = "mhlo.backend_config"
_TRANSPOSE = {"N": "NO_TRANSPOSE", "T": "TRANSPOSE", "C": "ADJOINT"}


def lapack_call(op: ir.Operation, target: str) -> Sequence[ir.Value] | None:
    """Return the results of a known LAPACK call, None for any other custom call.

    The character options (``uplo``, ``side``, ``diag``, ``trans_x``) are LAPACK's own. The layouts
    of the call concern memory only: the operands are meant as they stand.
    """
    found = _TARGET.fullmatch(target)
    if found is None or _CONFIG not in op.attributes:
        return None
    config = ir.DictAttr(op.attributes[_CONFIG])
    options = {named.name: chr(ir.IntegerAttr(named.attr).value) for named in config}
    return _cholesky(op, options) if found[1] == "potrf" else _solve(op, options)


def _cholesky(op: ir.Operation, options: dict[str, str]) -> list[ir.Value]:
    """Return the factor beside the operand's other triangle, and a code: 0 where it exists."""
    (matrix,) = op.operands
    lower = options["uplo"] == "L"
    shape = shape_of(matrix.type)
    rank = len(shape)
    factor = stablehlo.CholeskyOp(matrix, lower=lower).result
    undefined = stablehlo.compare(factor, factor, stablehlo.ComparisonDirectionAttr.get("NE"))
    code = op.results[1].type.element_type
    counted = ir.RankedTensorType.get(shape_of(undefined.type), code)
    count = reduce_add(stablehlo.ConvertOp(counted, undefined).result, [rank - 2, rank - 1])
    index = ir.RankedTensorType.get(shape, ir.IntegerType.get_signless(32))
    row, column = (stablehlo.IotaOp(index, dim).result for dim in (rank - 2, rank - 1))
    side = stablehlo.ComparisonDirectionAttr.get("GE" if lower else "LE")
    return [stablehlo.select(stablehlo.compare(row, column, side), factor, matrix), count]


def _solve(op: ir.Operation, options: dict[str, str]) -> list[ir.Value]:
    transpose = f"#stablehlo<transpose {_TRANSPOSE[options['trans_x']]}>"
    solved = stablehlo.TriangularSolveOp(
        *op.operands,
        left_side=options["side"] == "L",
        lower=options["uplo"] == "L",
        unit_diagonal=options["diag"] == "U",
        transpose_a=ir.Attribute.parse(transpose),
    )
    return [solved.result]
