"""Every element type through every kind of collective: complex, small integers and floats."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from harness import mesh_of, run_and_compare

from pai.compiler.reference import run_reference
from pai.dialects.mlir import parse
from pai.passes.partition import partition
from pai.runtime.dtypes import DTYPES

TYPES = [name for name in DTYPES if not name.startswith("f6")]  # XLA's CPU backend lacks those
ROWS, COLUMNS, WHOLE = '[{"x"}, {}]', '[{}, {"x"}]', "[{}, {}]"


def values(name, *shape):
    """Return small numbers, exact in the type, so that sums are exact in most."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 2 if name in ("i1", "i2", "ui2") else 3, shape)
    if name == "f8E8M0FNU":
        drawn = 2.0**drawn
    if name.startswith("complex"):
        drawn = drawn + 1j * rng.integers(-2, 3, shape)
    return drawn.astype(DTYPES[name])


def compare(body, name, source, target=WHOLE):
    """Run a body on a 5x6 tensor, split as said, against one device."""
    kind = f"tensor<5x6x{name}>"

    def program(argument="", result=""):
        end = body.rpartition(" : ")[2].strip()
        return f"func.func @main(%a: {kind}{argument}) -> ({end}{result}) {{\n{body}\n}}"

    def split(spec):
        return f" {{sdy.sharding = #sdy.sharding<@mesh, {spec}>}}"

    array = values(name, 5, 6)
    target = split(target) if target else ""
    text = 'sdy.mesh @mesh = <["x"=2]>\n' + program(split(source), target)
    local = partition(parse(text), mesh_of(2))
    run_and_compare(local, [array], run_reference(program(), [array]))
    return [use.kind for use in local.report.collectives]


@pytest.mark.parametrize("name", TYPES)
def test_moves(name):
    kind = f"tensor<5x6x{name}>"
    reverse = f"%0 = stablehlo.reverse %a, dims = [0] : {kind}\nreturn %0 : {kind}"
    assert "all_gather" in compare(reverse, name, COLUMNS, WHOLE)
    assert "collective_permute" in compare(reverse, name, ROWS, ROWS)
    assert compare(reverse, name, ROWS, COLUMNS)
    even = f"%0 = stablehlo.slice %a [0:4, 0:6] : ({kind}) -> tensor<4x6x{name}>\n"
    assert compare(f"{even}return %0 : tensor<4x6x{name}>", name, COLUMNS, ROWS)


def reduction(name, operation, start):
    result = f"tensor<6x{name}>"
    return (
        f"%z = stablehlo.constant dense<{start}> : tensor<{name}>\n"
        f"%0 = stablehlo.reduce(%a init: %z) applies stablehlo.{operation} across dimensions = [0]"
        f" : (tensor<5x6x{name}>, tensor<{name}>) -> {result}\nreturn %0 : {result}"
    )


def number(name, value):
    if name == "i1":
        return "true" if value else "false"
    if name.startswith("complex"):
        return f"({value}.0, 0.0)"
    return str(value) if "i" in name else f"{value}.0"


@pytest.mark.parametrize("name", [t for t in TYPES if t != "f8E8M0FNU"])
def test_sums(name):
    assert "all_reduce" in compare(reduction(name, "add", number(name, 0)), name, ROWS, "")


@pytest.mark.parametrize("operation", ["maximum", "minimum"])
@pytest.mark.parametrize("name", [t for t in TYPES if not t.startswith("complex")])
def test_extremes(name, operation):
    assert "all_reduce" in compare(reduction(name, operation, number(name, 1)), name, ROWS, "")


@pytest.mark.parametrize("name", ["complex<f32>", "complex<f64>", "bf16", "i8", "ui16", "i64"])
def test_products(name):
    compare(reduction(name, "multiply", number(name, 1)), name, ROWS, "")


@pytest.mark.parametrize("operation", ["and", "or", "xor"])
@pytest.mark.parametrize("name", ["i1", "ui2", "i4", "ui4", "i8", "ui32", "i64"])
def test_bits(name, operation):
    start = number(name, 1 if operation == "and" else 0)
    compare(reduction(name, operation, start), name, ROWS, "")


@pytest.mark.parametrize("name", ["complex<f32>", "f8E4M3FN", "f8E5M2", "i4", "ui8", "i1"])
def test_lookups_and_updates(name):
    """Rows of a split table by index, and rows written into one."""
    table = f"tensor<5x6x{name}>"
    rows = f"tensor<3x6x{name}>"
    lookup = (
        "%i = stablehlo.constant dense<[[4], [0], [3]]> : tensor<3x1xi32>\n"
        '%0 = "stablehlo.gather"(%a, %i) <{dimension_numbers = #stablehlo.gather<offset_dims = [1],'
        " collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>,"
        " slice_sizes = array<i64: 1, 6>, indices_are_sorted = false}>"
        f" : ({table}, tensor<3x1xi32>) -> {rows}\nreturn %0 : {rows}"
    )
    compare(lookup, name, ROWS, WHOLE)
    part = f"tensor<2x6x{name}>"
    update = (
        "%i = stablehlo.constant dense<2> : tensor<i32>\n"
        "%j = stablehlo.constant dense<0> : tensor<i32>\n"
        f"%p = stablehlo.slice %a [0:2, 0:6] : ({table}) -> {part}\n"
        f"%0 = stablehlo.dynamic_update_slice %a, %p, %i, %j"
        f" : ({table}, {part}, tensor<i32>, tensor<i32>) -> {table}\nreturn %0 : {table}"
    )
    compare(update, name, ROWS, ROWS)
