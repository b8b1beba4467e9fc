"""A plan that a training step's search wrote is costed on load as it was when it was chosen."""

import functools
import math

import pytest

from jax_models import llama, program
from pai.compiler.driver import clone, compile_model
from pai.compiler.options import CompileOptions
from pai.dialects.mlir import context, parse
from pai.dialects.program import Program
from pai.passes.simplify import simplify
from pai.passes.strategy import load_plan
from pai.passes.strategy.hybrid import HybridOptions
from pai.passes.strategy.plan import Plan, plan_from_toml
from pai.passes.strategy.recost import with_insights
from pai.passes.strategy.step_plan import choose_step_plan
from pai.runtime.errors import InfeasiblePlan, InvalidCluster
from pai.runtime.topology import load_cluster

CONFIG = llama.Config(4, 1024, 16, 4, 2816, 4096, 512, 1e4, "bfloat16")


@functools.cache
def step():
    module = parse(program.step_text("llama", CONFIG, 32), ctx=context())
    signature = program.sign(module, "llama", CONFIG)
    simplify(module)
    return module, signature


@functools.cache
def chosen(tensor=1, stages=1):
    module, signature = step()
    options = HybridOptions(tensor=tensor, stages=stages)
    return choose_step_plan(module, signature, load_cluster("a100-80g-sxm", 8), options)


def write(tmp_path, text):
    path = tmp_path / "p.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(("tensor", "stages"), [(1, 1), (2, 2)])
def test_it_costs_the_same_on_load(tmp_path, tensor, stages):
    module, signature = step()
    plan = chosen(tensor, stages)
    cluster = load_cluster("a100-80g-sxm", 8)
    back = load_plan(write(tmp_path, plan.to_toml()), module, signature, cluster)
    assert back == plan
    assert back.predicted.time_s > 0


def test_an_edit_is_costed_by_the_same_model(tmp_path):
    """ZeRO off in the file: costed as that point of the search, more memory, more to reduce."""
    module, signature = step()
    plan = chosen()
    cluster = load_cluster("a100-80g-sxm", 8)
    assert plan.zero and plan.zero[0][1] > 0
    edited = plan.to_toml().replace(f"[zero]\ndata = {plan.zero[0][1]}", "[zero]\ndata = 0")
    back = load_plan(write(tmp_path, edited), module, signature, cluster)
    choice = next(c for c in plan.insights().choices if c.name == "ZeRO 0")
    assert back.predicted.time_s == pytest.approx(choice.time_s)
    assert back.predicted.memory_bytes == pytest.approx(choice.memory_bytes, abs=8)


@pytest.mark.parametrize(
    ("stage", "moments", "parameters"), [(0, 1, 1), (1, 8, 1), (2, 8, 1), (3, 8, 8)]
)
def test_zero_is_what_the_partitioned_module_stores(tmp_path, stage, moments, parameters):
    """The file says [zero] and no layout: nothing follows by propagation that it does not say."""
    module, signature = step()
    text = f'[mesh]\ndata = 8\n[zero]\ndata = {stage}\n[patterns]\n"batch/*" = ["data p0", ""]\n'
    path = write(tmp_path, text)
    options = CompileOptions(devices=8, cluster="a100-80g-sxm", plan=path, stop_after="partition")
    state = compile_model(Program("llama", clone(module), signature), options)
    names = [value.name for value in signature.arguments]
    layouts = dict(zip(names, state.local.argument_shardings, strict=True))
    wanted = {
        "m/head": moments,
        "v/layers/0/mlp/up": moments,
        "params/head": parameters,
        "params/layers/0/mlp/up": parameters,
    }
    for name, shards in wanted.items():
        made = [layouts[name].num_shards(d, state.plan.mesh) for d in range(2)]
        assert math.prod(made) == shards, name
    assert plan_from_toml(state.plan.to_toml()) == state.plan
    assert state.plan.arguments == ()  # the file stays as it was written


def test_an_edited_layout_is_partitioned(tmp_path):
    module, signature = step()
    cluster = load_cluster("a100-80g-sxm", 8)
    text = chosen().to_toml()
    line = next(row for row in text.splitlines() if row.startswith('"batch/tokens" = '))
    edited = text.replace(line, '"batch/tokens" = ["", "data"]')
    assert edited != text
    back = load_plan(write(tmp_path, edited), module, signature, cluster)
    assert back.predicted.collectives
    assert back.predicted != chosen().predicted


def test_the_explanation_says_what_parameters_take():
    module, signature = step()
    cluster = load_cluster("a100-80g-sxm", 8)
    plan = with_insights(chosen(), module, signature, cluster)
    groups = plan.insights().parameters
    for role in ("parameter", "state"):
        sizes = [group.num_bytes for group in groups if group.role == role]
        assert sizes and sizes == sorted(sizes, reverse=True)
    moments = [g for g in groups if g.name.startswith("m/")]
    assert moments and all(g.local_bytes * 8 == g.num_bytes for g in moments)
    text = " ".join(plan.explain(width=1000).split())
    assert "each device keeps and updates a part, over data (ZeRO)" in text
    assert "why not otherwise" in text


def test_too_few_devices_and_too_little_memory_name_lines(tmp_path):
    module, signature = step()
    path = write(tmp_path, chosen().to_toml())
    with pytest.raises(InvalidCluster, match=r"p\.toml:4: .*makes 8 devices but .* has 4"):
        load_plan(path, module, signature, load_cluster("a100-80g-sxm", 4))
    device = "[device.x]\nmemory = 1000000\nmemory_bandwidth = 1e12\npeak_flops = { f32 = 1e13 }\n"
    cluster = tmp_path / "c.toml"
    cluster.write_text(f'{device}[[host]]\ndevice = "x"\ndevices = 8\n'
                       "[link.chip]\nlatency = 1e-6\nbandwidth = 1e11\n")  # fmt: skip
    mesh = chosen().to_toml().splitlines().index("[mesh]") + 1
    with pytest.raises(InfeasiblePlan, match=rf"p\.toml:{mesh}: the plan needs .* of 976"):
        load_plan(path, module, signature, load_cluster(str(cluster)))


def test_a_plan_of_the_search_reads_back():
    plan = chosen(2, 2)
    assert isinstance(plan, Plan)
    assert plan_from_toml(plan.to_toml()) == plan
