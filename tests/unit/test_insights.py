from dataclasses import replace

import pytest

from pai.dialects.mlir import parse
from pai.dialects.program import Role, Signature, Value
from pai.passes.strategy import choose_plan, load_plan
from pai.passes.strategy.annotate import main_function
from pai.passes.strategy.auto_shard import signature_of
from pai.passes.strategy.feasible import nearest_changes
from pai.passes.strategy.inference import Goal, choose_for
from pai.passes.strategy.insights import fold_names
from pai.passes.strategy.plan import Prediction, plan_to_toml
from pai.passes.strategy.recost import with_insights
from pai.passes.strategy.scaling import scaled
from pai.passes.strategy.uses import parameter_uses
from pai.runtime.errors import InfeasiblePlan
from pai.runtime.topology import load_cluster

GIB = 1 << 30


def mlp(batch, width, hidden):
    x, w1, w2 = (f"tensor<{m}x{n}xbf16>" for m, n in
                 ((batch, width), (width, hidden), (hidden, width)))  # fmt: skip
    h = f"tensor<{batch}x{hidden}xbf16>"
    module = parse(f"""module {{
      func.func @main(%x: {x} {{pai.name = "x", pai.role = "input"}},
                      %w1: {w1} {{pai.name = "layer.0.w", pai.role = "parameter"}},
                      %w2: {w2} {{pai.name = "layer.1.w", pai.role = "parameter"}}) -> {x} {{
        %0 = stablehlo.dot_general %x, %w1, contracting_dims = [1] x [0] : ({x}, {w1}) -> {h}
        %1 = stablehlo.tanh %0 : {h}
        %2 = stablehlo.dot_general %1, %w2, contracting_dims = [1] x [0] : ({h}, {w2}) -> {x}
        return %2 : {x}
      }}
    }}""")
    return module, signature_of(module)


def test_the_other_choice_costs_what_its_plan_costs(tmp_path):
    """What is said of laying a parameter out whole is what a plan that does so is costed."""
    module, signature = mlp(8, 16384, 65536)
    cluster = load_cluster("a100-80g-sxm", 8)
    plan = choose_plan(module, signature, cluster)
    first, second = with_insights(plan, module, signature, cluster).insights().parameters
    assert {first.name, second.name} == {"layer.0.w", "layer.1.w"}
    assert first.is_split and first.local_bytes * 8 == first.num_bytes == 2 * 16384 * 65536
    for group in (first, second):
        whole = plan_to_toml(plan).replace(
            f'"{group.name}" = ', f'"{group.name}" = ["", ""]\n"unused" = '
        )
        lines = [line for line in whole.splitlines() if not line.startswith('"unused"')]
        path = tmp_path / "p.toml"
        path.write_text("\n".join(lines))
        other = load_plan(path, module, signature, cluster).predicted
        assert (group.other_bytes, group.other_s) == (other.memory_bytes, other.time_s)
        assert other.time_s > plan.predicted.time_s


def test_reasons_name_what_the_work_of_a_parameter_becomes():
    module, signature = mlp(8, 16384, 65536)
    cluster = load_cluster("a100-80g-sxm", 8)
    plan = with_insights(choose_plan(module, signature, cluster), module, signature, cluster)
    text = " ".join(plan.explain(width=1000).split())
    assert "over data each device makes a part of the outputs of its product" in text
    assert "over data each device sums a part of its product, and the sums are added up" in text
    assert "whole it would take 2.0 GiB more a device and still fit" in text


def test_what_does_not_fit_whole_is_said_to():
    module, signature = mlp(65536, 65536, 262144)  # 2 x 32 GiB
    cluster = load_cluster("a100-40g-sxm", 8)
    plan = with_insights(choose_plan(module, signature, cluster), module, signature, cluster)
    insights = plan.insights()
    assert all(group.other_bytes > cluster.memory_bytes for group in insights.parameters)
    assert "and not fit" in " ".join(plan.explain(width=1000).split())


def test_more_memory_helps_when_a_faster_plan_was_too_large():
    module, signature = mlp(65536, 1024, 4096)
    cluster = load_cluster("a100-80g-sxm", 8)
    roomy = choose_plan(module, signature, cluster)
    tight = scaled(cluster, memory=roomy.predicted.memory_bytes * 0.95 / cluster.memory_bytes)
    plan = with_insights(choose_plan(module, signature, tight), module, signature, tight)
    assert plan.predicted.time_s > roomy.predicted.time_s
    (memory,) = [s for s in plan.insights().sensitivities if s.change.startswith("memory twice")]
    assert memory.time_s == roomy.predicted.time_s
    assert memory.strategy == roomy.strategy
    assert f"bound by memory: '{roomy.strategy}' would take" in plan.explain()


def test_what_fits_already_is_no_gain_of_memory():
    module, signature = mlp(4096, 1024, 4096)
    cluster = load_cluster("a100-80g-sxm", 8)
    plan = choose_for(Goal("throughput"), module, signature, cluster)
    faster = [a for a in plan.alternatives if a.time_s and a.time_s < plan.predicted.time_s]
    assert faster  # copies on more devices
    insights = with_insights(plan, module, signature, cluster).insights()
    (memory,) = [s for s in insights.sensitivities if s.change.startswith("memory twice")]
    assert (memory.time_s, memory.strategy) == (plan.predicted.time_s, "")


def test_uses_of_parameters():
    module = parse("""
      func.func @main(%ids: tensor<4xi32>, %table: tensor<100x8xf32>, %w: tensor<16x2x4xf32>,
                      %k: tensor<3x3x8x5xf32>, %image: tensor<1x9x9x8xf32>)
          -> (tensor<4x16xf32>, tensor<1x7x7x5xf32>) {
        %0 = "stablehlo.gather"(%table, %ids) <{
          dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0],
            start_index_map = [0], index_vector_dim = 1>,
          slice_sizes = array<i64: 1, 8>}>
          : (tensor<100x8xf32>, tensor<4xi32>) -> tensor<4x8xf32>
        %1 = stablehlo.reshape %w : (tensor<16x2x4xf32>) -> tensor<16x8xf32>
        %2 = stablehlo.transpose %1, dims = [1, 0] : (tensor<16x8xf32>) -> tensor<8x16xf32>
        %3 = stablehlo.dot_general %0, %2, contracting_dims = [1] x [0]
          : (tensor<4x8xf32>, tensor<8x16xf32>) -> tensor<4x16xf32>
        %4 = stablehlo.convolution(%image, %k)
          dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {}
          {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
          : (tensor<1x9x9x8xf32>, tensor<3x3x8x5xf32>) -> tensor<1x7x7x5xf32>
        return %3, %4 : tensor<4x16xf32>, tensor<1x7x7x5xf32>
      }""")
    uses = parameter_uses(main_function(module).regions[0].blocks[0])
    assert (uses[1].operation, uses[1].roles) == ("look-up", ("looked up", "output"))
    assert (uses[2].operation, uses[2].roles) == ("product", ("output", "summed", ""))
    assert (uses[3].operation, uses[3].roles) == (
        "convolution", ("window", "window", "summed", "output"),
    )  # fmt: skip


def test_names_fold_where_they_differ():
    assert fold_names(["l.0.w2", "l.1.w2"]) == "l.*.w2"
    assert fold_names(["a10b", "a2b"]) == "a*b"
    assert fold_names(["one"]) == "one"


SIGNATURE = Signature(
    (
        Value("x", Role.INPUT, "f32", (64, 8)),
        Value("w", Role.PARAMETER, "f32", (8, 8)),
    ),
    (),
)


def changes(need, devices=None, shards=1, memory=80 * GIB):
    cluster = load_cluster("a100-80g-sxm", 8)
    device = replace(cluster.hosts[0].device, memory_bytes=memory)
    hosts = tuple(replace(host, device=device) for host in cluster.hosts)
    return nearest_changes(need, SIGNATURE, replace(cluster, hosts=hosts), devices, shards)


def test_the_smallest_change_comes_first():
    need = Prediction(parameter_bytes=60 * GIB, temporary_bytes=40 * GIB)
    assert changes(need, 32) == (
        "it would fit with devices of 100.0 GiB (h200-sxm has 131.3 GiB), "
        "or a batch of 32 instead of 64, or parameters of bf16 instead of f32, "
        "or 32 such devices by estimate (--devices 32)"
    )


def test_changes_that_are_not_enough_are_not_named():
    need = Prediction(parameter_bytes=200 * GIB, temporary_bytes=GIB)
    text = changes(need)
    assert "batch" not in text and "bf16" not in text
    assert "devices of 201.0 GiB" in text
    mostly_values = Prediction(parameter_bytes=GIB, temporary_bytes=100 * GIB)
    assert "a batch of 48 instead of 64" in changes(mostly_values, shards=8)  # 6 of 8 each
    assert "batch" not in changes(mostly_values, shards=64)  # one sample a device is the least


@pytest.mark.parametrize("devices", [1, 2])
def test_the_change_that_is_named_is_enough(devices):
    module, signature = mlp(64, 32768, 131072)  # 2 x 8 GiB
    cluster = load_cluster("v100-16g-p3", devices)
    if devices == 2:
        assert choose_plan(module, signature, cluster)
        return
    with pytest.raises(InfeasiblePlan) as caught:
        choose_plan(module, signature, cluster)
    assert "--devices 2" in caught.value.hint
