"""Layouts, the isolated worker, and what partition() reports and refuses."""

from __future__ import annotations

import numpy as np
import pytest

from pai.dialects.mlir import ir, parse, to_text
from pai.passes.partition import partition
from pai.passes.partition.collectives.combine import CombineCollectives
from pai.passes.partition.isolation import run_isolated
from pai.passes.partition.layout import Grid, prime_factors
from pai.passes.partition.pieces import pieces, rounds
from pai.passes.partition.propagate import Propagate
from pai.passes.partition.reshard import permutation
from pai.passes.partition.rule import Rule, Vote, assign
from pai.passes.partition.worker import bytecode
from pai.runtime.errors import InvalidSharding, PassFailure
from pai.runtime.mesh import AxisRef, Mesh, Sharding

MESH = Mesh((("x", 4), ("y", 6)))

PROGRAM = """
sdy.mesh @mesh = <["x"=2]>
func.func @main(%x: tensor<5x6xf32> {pai.name = "x",
                    sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}]>},
                %w: tensor<6x3xf32> {pai.name = "w"}) -> (tensor<5x3xf32> {pai.name = "y"}) {
  %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
    : (tensor<5x6xf32>, tensor<6x3xf32>) -> tensor<5x3xf32>
  return %0 : tensor<5x3xf32>
}
"""


def test_an_axis_is_split_into_prime_atoms_at_its_cuts():
    grid = Grid(MESH, {"y": frozenset({3})})
    assert [(a.axis, a.size, a.stride) for a in grid.atoms] == [
        ("x", 2, 12),
        ("x", 2, 6),
        ("y", 3, 2),
        ("y", 2, 1),
    ]
    assert prime_factors(60) == [2, 2, 3, 5]


def test_cuts_that_do_not_nest_are_refused():
    with pytest.raises(InvalidSharding, match="do not nest"):
        Grid(MESH, {"y": frozenset({2, 3})})


@pytest.mark.parametrize(
    "dims",
    [
        ((AxisRef("y"),), (AxisRef("x"),)),
        ((AxisRef("x", 2, 2), AxisRef("y", 1, 3)), ()),
        ((AxisRef("y", 3, 2),), (AxisRef("x", 1, 2), AxisRef("y", 1, 3))),
    ],
)
def test_a_layout_numbers_shards_as_its_sharding_does(dims):
    grid = Grid(MESH, {"y": frozenset({3})})
    sharding = Sharding(dims)
    layout = grid.layout(sharding)
    assert grid.sharding(layout) == sharding
    for device in range(MESH.num_devices):
        index = tuple(grid.index(atoms, device) for atoms in layout)
        assert index == sharding.shard_index(MESH, device)


def test_groups_hold_the_devices_in_shard_order():
    grid = Grid(Mesh((("x", 2), ("y", 3))))
    assert grid.groups((1,)) == [[0, 1, 2], [3, 4, 5]]
    assert grid.groups((0,)) == [[0, 3], [1, 4], [2, 5]]
    assert grid.groups((1, 0)) == [[0, 3, 1, 4, 2, 5]]


def test_a_permutation_moves_every_block_and_keeps_what_is_in_place():
    grid = Grid(Mesh((("x", 2), ("y", 2))))
    pairs = permutation(grid, ((0,), (1,)), ((1,), (0,)))
    assert pairs == [(0, 0), (2, 1), (1, 2), (3, 3)]
    senders = [s for s, _ in permutation(grid, ((0,), ()), ((1,), ()))]
    assert sorted(senders) == [0, 1, 2, 3]


def test_an_atom_splits_one_factor_only_and_the_heavier_wins():
    grid = Grid(Mesh((("x", 4),)))
    rule = Rule()
    a, b = rule.factor(8), rule.factor(8)
    light = Vote([(a,)], ((0, 1),), 1)
    heavy = Vote([(b,)], ((0,),), 9)
    assert assign(rule, grid, [light, heavy]) == [(), (0,)]


def test_a_minor_factor_is_split_only_when_the_major_one_is_split_to_single_elements():
    grid = Grid(Mesh((("x", 4),)))
    rule = Rule()
    major, minor = rule.factor(2, even=True), rule.factor(6, even=True)
    rule.operands = [[(major, minor)]]
    assert assign(rule, grid, [Vote([(major, minor)], ((0, 1),), 1)]) == [(0,), (1,)]
    other = Rule([4, 6], {0, 1}, operands=[[(0, 1)]])
    assert assign(other, grid, [Vote([(1,)], ((0,),), 1)]) == [(), ()]


def test_pieces_cover_each_interval_and_rounds_send_and_receive_once():
    wanted = pieces([-1, 3, 7], 6, 4, 10)
    covered = {(p.target, p.target_start + k) for p in wanted for k in range(p.size)}
    inside = {(t, k) for t, s in enumerate([-1, 3, 7]) for k in range(6) if 0 <= s + k < 10}
    assert covered == inside
    for group in rounds(wanted):
        assert len({p.source for p in group}) == len(group)
        assert len({p.target for p in group}) == len(group)
    assert sum(map(len, rounds(wanted))) == len(wanted)


def test_a_failing_pass_is_named_and_its_module_is_kept(tmp_path):
    module = parse("func.func @main() { return }")
    with pytest.raises(PassFailure, match="'no-such-pass' failed") as caught:
        run_isolated(module, ["canonicalize", "no-such-pass"], dump_dir=tmp_path)
    assert str(tmp_path) in str(caught.value)
    (dump,) = tmp_path.iterdir()
    assert "@main" in to_text(parse(dump.read_bytes()))


def test_a_crash_in_the_worker_is_an_error_and_the_next_request_works(monkeypatch):
    from pai.passes.partition import isolation

    module = parse(PROGRAM)
    run_isolated(module, ["canonicalize"])
    isolation._process.kill()
    isolation._process.wait()
    isolation._process.poll = lambda: None
    with pytest.raises(PassFailure, match="crashed"):
        run_isolated(module, ["canonicalize"])
    assert "dot_general" in to_text(run_isolated(module, ["canonicalize"]))


def test_a_request_that_takes_too_long_is_stopped():
    with pytest.raises(PassFailure, match=r"took longer than 0\.001 s"):
        run_isolated(parse(PROGRAM), ["canonicalize", "cse"] * 500, time_limit=0.001)


def test_partition_reports_layouts_uneven_dimensions_and_keeps_names():
    local = partition(parse(PROGRAM), Mesh((("x", 2),)))
    assert local.argument_shardings[0] == Sharding(((AxisRef("x"),), ()))
    assert local.argument_shardings[1].is_replicated
    assert local.result_shardings[0] == Sharding(((AxisRef("x"),), ()))
    assert local.report.collectives == ()
    assert local.report.notes == (
        "argument 0: dimension 0 of size 5 is padded to 2 equal shards",
        "result 0: dimension 0 of size 5 is padded to 2 equal shards",
    )
    text = to_text(local.module)
    assert 'tensor<3x6xf32> {pai.name = "x"}' in text
    assert "sdy" not in text


def test_one_device_is_the_same_module():
    text = PROGRAM.replace('"x"=2', '"x"=1')
    module = parse(text)
    local = partition(module, Mesh((("x", 1),)))
    assert local.module is module
    assert "sdy" not in to_text(module)
    assert "tensor<5x6xf32>, tensor<6x3xf32>" in to_text(module)
    assert all(s.is_replicated for s in local.argument_shardings + local.result_shardings)


def test_one_device_drops_constraints_too():
    body = PROGRAM.replace('"x"=2', '"x"=1').replace(
        "return %0",
        '%1 = sdy.sharding_constraint %0 <@mesh, [{"x"}, {}]> : tensor<5x3xf32>\nreturn %1',
    )
    local = partition(parse(body), Mesh((("x", 1),)))
    assert "sdy" not in to_text(local.module)


def test_a_mesh_that_is_not_the_modules_is_refused():
    with pytest.raises(InvalidSharding, match="not"):
        partition(parse(PROGRAM), Mesh((("x", 4),)))


def test_large_constants_survive_the_worker():
    array = np.arange(1 << 16, dtype=np.float32)
    module = parse(
        'sdy.mesh @mesh = <["x"=2]>\n'
        "func.func @main() -> tensor<65536xf32> {\n"
        "%0 = stablehlo.constant dense<0.0> : tensor<65536xf32>\n"
        "return %0 : tensor<65536xf32>\n}"
    )
    with module.context:
        (constant, _) = module.body.operations[1].regions[0].blocks[0].operations
        constant.attributes["value"] = ir.DenseElementsAttr.get(array)
    assert len(bytecode(module)) < array.nbytes + 4096
    Propagate().run(module)
    constant = module.body.operations[1].regions[0].blocks[0].operations[0]
    np.testing.assert_array_equal(np.array(constant.attributes["value"]), array)


def test_what_depends_on_a_combined_all_reduce_moves_below_it():
    reduce = """
    %{0} = "stablehlo.all_reduce"(%{1}) <{{replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>}}> ({{
      ^bb0(%a: tensor<f32>, %b: tensor<f32>):
        %s = stablehlo.add %a, %b : tensor<f32>
        stablehlo.return %s : tensor<f32>
    }}) : (tensor<4xf32>) -> tensor<4xf32>"""
    text = (
        "func.func @main(%x: tensor<4xf32>, %y: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {"
        + reduce.format("p", "x")
        + "\n%q = stablehlo.negate %p : tensor<4xf32>"
        + reduce.format("r", "y")
        + "\n%t = stablehlo.add %q, %r : tensor<4xf32>"
        + reduce.format("u", "t")
        + "\nreturn %u, %q : tensor<4xf32>, tensor<4xf32>\n}"
    )
    module = parse(text)
    CombineCollectives().run(module)
    assert module.operation.verify()
    main = module.body.operations[0].regions[0].blocks[0]
    names = [op.operation.name.removeprefix("stablehlo.") for op in main.operations]
    assert names == ["all_reduce", "negate", "add", "all_reduce", "func.return"]
