"""Meshes whose devices stand in another order than row-major, from annotations to packages."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from generate import FAMILIES
from generate.cases import draw_programs, finish, start
from harness import check, run_and_compare

from pai.dialects.mlir import parse
from pai.passes.partition import partition
from pai.passes.partition.layout import Grid
from pai.runtime.mesh import AxisRef, Mesh, Sharding

AXES = (("x", 2), ("y", 2), ("z", 2))
TRANSPOSED = Mesh(AXES, (0, 4, 2, 6, 1, 5, 3, 7))  # x fastest
SNAKE = Mesh((("x", 2), ("y", 3)), (0, 1, 2, 5, 4, 3))  # no arithmetic gives the place
REVERSED = Mesh((("x", 4),), (3, 2, 1, 0))
NAMES = [name for name in FAMILIES if name != "manual"]  # which brings its mesh


def test_places_are_arithmetic_where_the_order_permutes_axes():
    assert not Grid(TRANSPOSED).table
    assert [Grid(TRANSPOSED).index((0,), device) for device in range(8)] == [0, 1] * 4
    assert Grid(SNAKE).table == (0, 1, 2, 5, 4, 3)
    assert Grid(SNAKE).groups((1,)) == [[0, 1, 2], [5, 4, 3]]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_layouts_and_shardings_agree_on_who_has_what(data):
    """The compiler's atoms, with sub-axes, and the runtime's shardings, in any order."""
    sizes = data.draw(st.sampled_from([(8,), (4, 2), (2, 3, 2), (6,), (12,)]))
    count = int(np.prod(sizes))
    order = tuple(data.draw(st.permutations(range(count))))
    mesh = Mesh(tuple(zip("xyz", sizes, strict=False)), order)
    name, size = data.draw(st.sampled_from(mesh.axes))
    pre = data.draw(st.sampled_from([n for n in range(1, size) if size % n == 0]))
    sub = data.draw(st.sampled_from([n for n in range(1, size // pre + 1) if size // pre % n == 0]))
    sharding = Sharding(
        ((AxisRef(name, pre, sub),), tuple(AxisRef(n) for n in "xyz"[: len(sizes)]))
    )
    grid = Grid(mesh, {name: frozenset({pre, pre * sub})})
    layout = grid.layout(sharding)
    for device in range(count):
        assert sharding.shard_index(mesh, device) == tuple(grid.index(a, device) for a in layout)
    for group in grid.groups(layout[0]):
        assert [grid.index(layout[0], device) for device in group] == list(range(sub))


@pytest.mark.parametrize("mesh", [TRANSPOSED, SNAKE, REVERSED], ids=["T", "snake", "reversed"])
@pytest.mark.parametrize("name", NAMES)
def test_programs(name, mesh):
    (lowered,) = draw_programs(name, FAMILIES[name], [0])
    lowered = replace(lowered, program=replace(lowered.program, mesh=mesh))
    task = start(name, 0, lowered, Random(f"{name} {mesh}"))
    finish([task])
    assert task.verdict.status == "right", task.verdict


def test_groups_name_devices_in_the_order_of_their_shards():
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    outcome = check(lambda a: jnp.cumsum(a[::-1], 0) @ a.T, [x], REVERSED, [["x", None]])
    assert "3, 2, 1, 0" in outcome.text


INLINED = """
sdy.mesh @other = <["x"=2, "y"=2], device_ids=[0, 2, 1, 3]>
func.func @main(
    %a: tensor<4x6xf32> {sdy.sharding = #sdy.sharding<@other, [{"x"}, {}]>},
    %b: tensor<6x5xf32> {sdy.sharding = #sdy.sharding<mesh<["x"=2, "y"=2], device_ids=[0, 2, 1, 3]>, [{}, {"y"}]>})
    -> tensor<4x5xf32> {
  %0 = stablehlo.dot_general %a, %b, contracting_dims = [1] x [0] : (tensor<4x6xf32>, tensor<6x5xf32>) -> tensor<4x5xf32>
  return %0 : tensor<4x5xf32>
}"""  # noqa: E501


def test_meshes_inside_shardings_are_that_of_the_module():
    module = parse(INLINED)
    mesh = Mesh((("x", 2), ("y", 2)), (0, 2, 1, 3))
    local = partition(module, mesh)
    a = np.arange(24, dtype=np.float32).reshape(4, 6)
    b = a.reshape(6, 4)[:, [0, 1, 2, 3, 0]]
    run_and_compare(local, [a, b], [a @ b])
    assert not local.report.collectives


def test_a_package_cuts_and_joins_in_the_order_of_the_devices(tmp_path):
    text = INLINED.replace("[0, 2, 1, 3]", "[3, 0, 2, 1]")
    path, package = tmp_path / "model.mlir", tmp_path / "model.pai"
    path.write_text(text)
    command = [sys.executable, "-P", "-m", "pai.cli", str(path), "-o", str(package)]
    done = subprocess.run(
        [*command, "--devices", "4", "--verify"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert '"device_ids":[3,0,2,1]' in (package / "manifest.json").read_text()


def test_a_plan_may_order_the_devices(tmp_path):
    path, plan, package = (tmp_path / name for name in ("model.mlir", "plan.toml", "model.pai"))
    path.write_text(
        "func.func @main(%a: tensor<4x6xf32>, %b: tensor<6x5xf32>) -> tensor<4x5xf32> {\n"
        "  %0 = stablehlo.dot_general %a, %b, contracting_dims = [1] x [0]"
        " : (tensor<4x6xf32>, tensor<6x5xf32>) -> tensor<4x5xf32>\n"
        "  return %0 : tensor<4x5xf32>\n}"
    )
    plan.write_text(
        "device_ids = [1, 2, 0]\n[mesh]\nx = 3\n[arguments]\narg0 = ['', 'x']\narg1 = ['x', '']\n"
    )
    command = [sys.executable, "-P", "-m", "pai.cli", str(path), "-o", str(package), "--verify"]
    done = subprocess.run(
        [*command, "--devices", "3", "--plan", str(plan)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "device_ids = [1, 2, 0]" in (package / "plan.toml").read_text()
