import math

import pytest

from pai.dialects.mlir import parse
from pai.passes.strategy.collectives import collective_seconds
from pai.passes.strategy.cost import cost_local_module, trip_count
from pai.passes.strategy.work import flops_of
from pai.runtime.errors import PassFailure
from pai.runtime.mesh import Mesh
from pai.runtime.topology_toml import cluster_from_toml

# Round numbers: 1 GFLOP/s, 1 GB/s, 1 ms a launch; links 1 ms and 1 GB/s, 10 ms and 100 MB/s.
CLUSTER = cluster_from_toml(
    """
    [device.d]
    memory = 1000000000
    memory_bandwidth = 1e9
    launch_overhead = 1e-3
    peak_flops = { f32 = 1e9, bf16 = 1e10 }
    [[host]]
    device = "d"
    devices = 4
    count = 2
    [link.chip]
    latency = 1e-3
    bandwidth = 1e9
    [link.host]
    latency = 1e-2
    bandwidth = 1e8
    """.replace("\n    ", "\n"),
    "test.toml",
)


def cost(body, arguments, result, extra=""):
    text = f"""module {{ func.func @main({arguments}) -> {result} {{
    {body}
    }} {extra} }}"""
    return cost_local_module(parse(text), Mesh((("d", 8),)), CLUSTER)


def only_op(body, arguments, result):
    module = parse(f"func.func @main({arguments}) -> {result} {{\n{body}\n}}")
    return module, module.body.operations[0].regions[0].blocks[0].operations[0].operation


def test_matrix_products_are_exact():
    module, op = only_op(
        """%0 = stablehlo.dot_general %a, %b, batching_dims = [0] x [0],
             contracting_dims = [2] x [1] : (tensor<5x4x8xf32>, tensor<5x8x16xf32>)
             -> tensor<5x4x16xf32>
           return %0 : tensor<5x4x16xf32>""",
        "%a: tensor<5x4x8xf32>, %b: tensor<5x8x16xf32>",
        "tensor<5x4x16xf32>",
    )
    assert flops_of(op) == 2 * 5 * 4 * 8 * 16
    del module


def test_convolutions_are_exact():
    """Grouped: each output feature sees input_features / groups = 2 channels."""
    module, op = only_op(
        """%0 = stablehlo.convolution(%a, %b) dim_numbers = [b, f, 0, 1]x[o, i, 0, 1]->[b, f, 0, 1],
             window = {} {batch_group_count = 1 : i64, feature_group_count = 3 : i64}
             : (tensor<2x6x10x10xf32>, tensor<9x2x3x3xf32>) -> tensor<2x9x8x8xf32>
           return %0 : tensor<2x9x8x8xf32>""",
        "%a: tensor<2x6x10x10xf32>, %b: tensor<9x2x3x3xf32>",
        "tensor<2x9x8x8xf32>",
    )
    assert flops_of(op) == 2 * (2 * 9 * 8 * 8) * (3 * 3 * 2)
    del module


def test_the_roofline_takes_the_larger_side():
    big = cost(
        """%0 = stablehlo.dot_general %a, %b, contracting_dims = [1] x [0]
             : (tensor<1000x1000xf32>, tensor<1000x1000xf32>) -> tensor<1000x1000xf32>
           return %0 : tensor<1000x1000xf32>""",
        "%a: tensor<1000x1000xf32>, %b: tensor<1000x1000xf32>",
        "tensor<1000x1000xf32>",
    )
    assert big.compute_s == pytest.approx(2.0)
    assert (big.memory_bound_s, big.kernels, big.overhead_s) == (0.0, 1, 1e-3)
    thin = cost(
        """%0 = stablehlo.dot_general %a, %b, contracting_dims = [1] x [0]
             : (tensor<1x1000xbf16>, tensor<1000x1000xbf16>) -> tensor<1x1000xbf16>
           return %0 : tensor<1x1000xbf16>""",
        "%a: tensor<1x1000xbf16>, %b: tensor<1000x1000xbf16>",
        "tensor<1x1000xbf16>",
    )
    assert thin.compute_s == 0.0
    assert thin.memory_bound_s == pytest.approx((1000 + 1000 * 1000 + 1000) * 2 / 1e9)
    assert thin.time_s == pytest.approx(thin.memory_bound_s + 1e-3)


def test_elementwise_neighbours_are_one_kernel():
    """tanh and add fuse: the group reads %a and %b once and writes one result."""
    fused = cost(
        """%c = stablehlo.constant dense<2.0> : tensor<f32>
           %s = stablehlo.broadcast_in_dim %c, dims = [] : (tensor<f32>) -> tensor<1000xf32>
           %0 = stablehlo.tanh %a : tensor<1000xf32>
           %1 = stablehlo.add %0, %b : tensor<1000xf32>
           %2 = stablehlo.multiply %1, %s : tensor<1000xf32>
           %3 = stablehlo.subtract %2, %a : tensor<1000xf32>
           return %3 : tensor<1000xf32>""",
        "%a: tensor<1000xf32>, %b: tensor<1000xf32>",
        "tensor<1000xf32>",
    )
    assert fused.kernels == 1
    assert fused.flops == 4000
    assert fused.peak_temporary_bytes == 0
    assert fused.memory_bound_s + fused.compute_s == pytest.approx(12000 / 1e9)


DOT = "contracting_dims = [1] x [0] : (tensor<10x10xf32>, tensor<10x10xf32>) -> tensor<10x10xf32>"


def test_a_residual_does_not_glue_kernels_across_a_product():
    """tanh -> dot -> add(tanh, dot): three kernels, whose sum a package adds behind the product.

    So only tanh's result is in memory, on 64-byte boundaries.
    """
    out = cost(
        f"""%0 = stablehlo.tanh %a : tensor<10x10xf32>
           %1 = stablehlo.dot_general %0, %w, {DOT}
           %2 = stablehlo.add %0, %1 : tensor<10x10xf32>
           return %2 : tensor<10x10xf32>""",
        "%a: tensor<10x10xf32>, %w: tensor<10x10xf32>",
        "tensor<10x10xf32>",
    )
    assert out.kernels == 3
    assert out.peak_temporary_bytes == 448
    assert out.argument_bytes == (400, 400)
    assert out.result_bytes == (400,)


def test_temporaries_die_after_their_last_use():
    """A chain of four products holds two values at a time, the last being the result."""
    lines = ["%0 = stablehlo.dot_general %a, %w, " + DOT]
    lines += [f"%{i} = stablehlo.dot_general %{i - 1}, %w, {DOT}" for i in range(1, 4)]
    out = cost(
        "\n".join([*lines, "return %3 : tensor<10x10xf32>"]),
        "%a: tensor<10x10xf32>, %w: tensor<10x10xf32>",
        "tensor<10x10xf32>",
    )
    assert out.peak_temporary_bytes == 2 * 448


def test_views_of_weights_are_free():
    out = cost(
        """%0 = stablehlo.transpose %w, dims = [1, 0] : (tensor<10x10xf32>) -> tensor<10x10xf32>
        """
        + f"%1 = stablehlo.dot_general %a, %0, {DOT}\n return %1 : tensor<10x10xf32>",
        "%a: tensor<10x10xf32>, %w: tensor<10x10xf32>",
        "tensor<10x10xf32>",
    )
    assert out.kernels == 1
    assert out.peak_temporary_bytes == 0


WHILE = f"""%z = stablehlo.constant dense<3> : tensor<i32>
    %0:2 = stablehlo.while(%i = %z, %x = %a) : tensor<i32>, tensor<10x10xf32>
    cond {{
      %n = stablehlo.constant dense<10> : tensor<i32>
      %p = stablehlo.compare LT, %i, %n : (tensor<i32>, tensor<i32>) -> tensor<i1>
      stablehlo.return %p : tensor<i1>
    }} do {{
      %o = stablehlo.constant dense<1> : tensor<i32>
      %j = stablehlo.add %i, %o : tensor<i32>
      %y = stablehlo.dot_general %x, %w, {DOT}
      stablehlo.return %j, %y : tensor<i32>, tensor<10x10xf32>
    }}
    return %0#1 : tensor<10x10xf32>"""


def test_loops_count_their_trips():
    arguments = "%a: tensor<10x10xf32>, %w: tensor<10x10xf32>"
    out = cost(WHILE, arguments, "tensor<10x10xf32>")
    assert out.flops == 7 * (2000 + 1) + 8
    module = parse(f"func.func @main({arguments}) -> tensor<10x10xf32> {{ {WHILE} }}")
    loop = module.body.operations[0].regions[0].blocks[0].operations[1].operation
    assert trip_count(loop) == 7


def all_reduce(groups):
    return f"""%0 = "stablehlo.all_reduce"(%a) ({{
      ^bb0(%x: tensor<f32>, %y: tensor<f32>):
        %s = stablehlo.add %x, %y : tensor<f32>
        stablehlo.return %s : tensor<f32>
    }}) {{replica_groups = dense<{groups}> : tensor<{len(groups)}x{len(groups[0])}xi64>,
         channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>, use_global_device_ids}}
      : (tensor<1000000xf32>) -> tensor<1000000xf32>
    return %0 : tensor<1000000xf32>"""


def test_collectives_know_their_level():
    argument = "%a: tensor<1000000xf32>"
    inside = cost(all_reduce([[0, 1, 2, 3], [4, 5, 6, 7]]), argument, "tensor<1000000xf32>")
    assert inside.communication_s == pytest.approx(6 * 1e-3 + 1.5 * 4e6 / 1e9)
    across = cost(all_reduce([[0, 4], [1, 5], [2, 6], [3, 7]]), argument, "tensor<1000000xf32>")
    assert across.communication_s == pytest.approx(2 * 1e-2 + 4e6 / 1e8)
    alone = cost(all_reduce([[0]]), argument, "tensor<1000000xf32>")
    assert alone.communication_s == 0.0
    (use,) = across.collectives
    assert (use.kind, use.group_size, use.count, use.bytes_per_device) == (
        "all_reduce", 2, 1, 4000000,
    )  # fmt: skip


def test_formulas_by_hand():
    def seconds(kind, size, *groups):
        return collective_seconds(kind, size, groups, CLUSTER)

    host, wide = [0, 1, 2, 3], list(range(8))
    assert seconds("all_gather", 4000, host) == pytest.approx(3e-3 + 0.75 * 4000 / 1e9)
    assert seconds("reduce_scatter", 4000, host) == seconds("all_gather", 4000, host)
    assert seconds("collective_permute", 4000, [0, 1], [3, 4]) == pytest.approx(1e-2 + 4000 / 1e8)
    # 8 devices: 3 peers inside and 4 across by pairs, or 2 + 1 steps with half of it each
    assert seconds("all_to_all", 8000, wide) == pytest.approx(2e-3 + 1e-2 + 4 * 4000 / 4e8)
    # 6 steps inside, one across; 4 ports of 100 MB/s carry what 7 of 8 devices need, twice
    ring = 2 * (6e-3 + 1e-2) + 2 * 7 / 8 * 8e6 / 4e8
    tree = 2 * (2e-3 + 1e-2) + 8e6 / 4e8
    assert seconds("all_reduce", 8000000, wide) == pytest.approx(min(ring, tree))
    assert seconds("all_reduce", 4000, [5]) == 0.0
    with pytest.raises(PassFailure, match="no cost formula for the collective 'all_bored'"):
        seconds("all_bored", 1, host)


def test_the_slowest_device_counts():
    text = """func.func @main(%a: tensor<1000xf32>) -> tensor<1000xf32> {
      %0 = stablehlo.tanh %a : tensor<1000xf32>
      return %0 : tensor<1000xf32> }"""
    mixed = cluster_from_toml(
        """
[device.fast]
memory = 10
memory_bandwidth = 1e9
peak_flops = { f32 = 1e12 }
[device.slow]
memory = 10
memory_bandwidth = 1e6
peak_flops = { f32 = 1e12 }
[[host]]
device = "fast"
devices = 1
[[host]]
device = "slow"
devices = 1
[link.chip]
latency = 0
bandwidth = 1
""",
        "mixed.toml",
    )
    out = cost_local_module(parse(text), Mesh(), mixed)
    assert math.isclose(out.time_s, 8000 / 1e6)
