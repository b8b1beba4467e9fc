"""A key/value cache as a state: updated in place on sharded devices, kept between runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pai.cli import main
from pai.runtime.executor import load
from pai.runtime.program import Call, walk

MODEL = """
func.func public @main(
    %s: tensor<8x16xf32> {pai.name = "cache", pai.role = "state"},
    %x: tensor<1x16xf32> {pai.name = "x", pai.role = "input"},
    %i: tensor<i32> {pai.name = "i", pai.role = "input"}
) -> (tensor<8x16xf32> {pai.name = "cache_out", pai.updates = "cache"},
      tensor<16xf32> {pai.name = "sum"}) {
  %z = stablehlo.constant dense<0> : tensor<i32>
  %u = stablehlo.dynamic_update_slice %s, %x, %i, %z :
      (tensor<8x16xf32>, tensor<1x16xf32>, tensor<i32>, tensor<i32>) -> tensor<8x16xf32>
  %c = stablehlo.constant dense<0.0> : tensor<f32>
  %r = stablehlo.reduce(%u init: %c) applies stablehlo.add across dimensions = [0] :
      (tensor<8x16xf32>, tensor<f32>) -> tensor<16xf32>
  return %u, %r : tensor<8x16xf32>, tensor<16xf32>
}
"""


@pytest.mark.parametrize("devices", [1, 2])
def test_a_cache_grows_in_place(tmp_path: Path, devices: int) -> None:
    (tmp_path / "kv.mlir").write_text(MODEL)
    start = np.zeros((8, 16), np.float32)
    start[7] = 100
    save_file({"cache": start}, tmp_path / "kv.safetensors")
    out = tmp_path / "kv.pai"
    assert main([str(tmp_path / "kv.mlir"), "-o", str(out), "--devices", str(devices)]) == 0
    kept, fresh = load(out, stateful=True), load(out)
    assert all(isinstance(instruction, Call) for instruction in walk(kept.code.code))
    want = start.copy()
    for step in range(5):
        row = np.full((1, 16), step + 1, np.float32)
        want[step] = row
        got = kept.run(x=row, i=np.int32(step))
        np.testing.assert_array_equal(got["cache_out"], want)
        np.testing.assert_array_equal(got["sum"], want.sum(0))
        alone = fresh.run(x=row, i=np.int32(step))
        np.testing.assert_array_equal(alone["sum"], np.full(16, 100 + step + 1))
    np.testing.assert_array_equal(got["cache_out"], want)
