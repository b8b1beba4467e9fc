"""One cell of the table per operation, for types that take different ways through the emitter."""

import pytest

from benchmarks.stablehlo_table import cells, run_cell

# f32 takes polynomials, bf16 rounding, i4 odd widths, ui8 unsigned arithmetic, complex pairs.
TYPES = ("f32", "bf16", "f8E4M3FN", "i4", "ui8", "i1", "complex<f32>")
SLOW = ("reduce_precision", "compare", "rng ", "convert")
CHOSEN = [
    cell
    for i, cell in enumerate(c for c in cells() if c.type in TYPES and not c.op.startswith(SLOW))
    if cell.type == "f32" or i % 7 == 0
]


@pytest.mark.parametrize("cell", CHOSEN, ids=lambda c: f"{c.op} {c.type}")
def test_operation(cell):
    status, reason = run_cell(cell)
    assert status == "right", reason
