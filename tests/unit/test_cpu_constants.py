"""Boolean constants are read right, whichever way the printer writes them."""

import numpy as np
import pytest

from pai.compiler.codegen.cpu.emit.constants import literal
from pai.compiler.codegen.cpu.emit.graph import read_function
from pai.dialects.mlir import parse


def read(body, size):
    kind = f"tensor<{size}xi1>"
    module = parse(
        f"func.func @main() -> {kind} {{ %c = stablehlo.constant dense<{body}> : {kind}\n"
        f"return %c : {kind} }}"
    )
    return literal(read_function(module.body.operations[0]).nodes[0])


@pytest.mark.parametrize("size", [3, 8, 64, 101, 144, 1000])  # long ones are printed in hex
def test_booleans(size):
    values = np.random.default_rng(size).integers(0, 2, size).astype(bool)
    text = ", ".join("true" if value else "false" for value in values)
    np.testing.assert_array_equal(read(f"[{text}]", size), values)
    np.testing.assert_array_equal(read("true", size), np.ones(size, bool))
    np.testing.assert_array_equal(read("false", size), np.zeros(size, bool))
