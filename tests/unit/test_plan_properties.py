"""What must hold of any program: more of something never makes the chosen plan worse."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pai.dialects.mlir import parse
from pai.passes.strategy import choose_plan
from pai.passes.strategy.auto_shard import signature_of
from pai.passes.strategy.cost import cost_local_module
from pai.passes.strategy.plan import Plan, layout_from_texts
from pai.passes.strategy.plan_check import check_plan
from pai.passes.strategy.plan_diff import diff_plans
from pai.passes.strategy.plan_read import parse_plan
from pai.passes.strategy.plan_values import apply_plan
from pai.passes.strategy.recost import with_insights
from pai.passes.strategy.scaling import scaled
from pai.runtime.errors import InfeasiblePlan, PaiError
from pai.runtime.mesh import Mesh
from pai.runtime.topology import load_cluster

SIZES = st.sampled_from([64, 256, 1024, 4096, 16384])
FACTORS = ("memory", "flops", "bandwidth", "inner", "outer")


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


@settings(max_examples=12, deadline=None)
@given(SIZES, SIZES, SIZES, st.sampled_from([2, 8, 16]), st.sampled_from(FACTORS))
def test_more_of_anything_never_makes_the_chosen_plan_slower(batch, width, hidden, devices, what):
    module, signature = mlp(batch, width, hidden)
    cluster = load_cluster("a100-40g-sxm", devices)
    before = choose_plan(module, signature, cluster)
    after = choose_plan(module, signature, scaled(cluster, **{what: 4}))
    assert after.predicted.time_s <= before.predicted.time_s * (1 + 1e-9)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from([256, 4096]), SIZES, st.integers(1, 64))
def test_memory_decides_whether_and_never_makes_worse(width, hidden, tenths):
    """Growing memory: infeasible until a plan fits, from then on never slower."""
    module, signature = mlp(4096, width, hidden)
    cluster = load_cluster("a100-40g-sxm", 4)
    need = choose_plan(module, signature, cluster).predicted.memory_bytes
    times = []
    for factor in sorted([tenths / 10, 0.25, 1.0, 4.0]):
        small = scaled(cluster, memory=need * factor / cluster.memory_bytes)
        try:
            plan = choose_plan(module, signature, small)
        except InfeasiblePlan as error:
            assert not times
            assert "it would fit with" in error.hint
        else:
            assert plan.predicted.memory_bytes <= small.memory_bytes
            times.append(plan.predicted.time_s)
    assert times == sorted(times, reverse=True)


LAYOUTS = [
    {"x": ["data", ""]},
    {"layer.0.w": ["", "model"], "layer.1.w": ["model", ""]},
    {"layer.0.w": ["data,model", ""], "layer.1.w": ["", "data"]},
    {"x": ["data", "model"], "layer.0.w": ["model", ""]},
]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(LAYOUTS), st.sampled_from(FACTORS), st.floats(1, 16))
def test_one_plan_is_never_slower_with_more(layouts, what, factor):
    module, _ = mlp(512, 1024, 2048)
    cluster = load_cluster("v100-32g", 16)
    mesh = Mesh((("data", 4), ("model", 4)))
    plan = Plan(mesh, tuple((n, layout_from_texts(t, mesh)) for n, t in layouts.items()))
    local = _local(module, plan)
    before = cost_local_module(local, mesh, cluster)
    after = cost_local_module(local, mesh, scaled(cluster, **{what: factor}))
    assert after.time_s <= before.time_s * (1 + 1e-9)
    assert after.peak_temporary_bytes == before.peak_temporary_bytes
    if factor > 1.01 and what == "memory":
        assert after == before


def _local(module, plan):
    from pai.dialects.mlir import to_text
    from pai.passes.partition import partition

    copy = parse(to_text(module))
    apply_plan(copy, plan)
    return partition(copy, plan.mesh).module


def test_twice_of_everything_takes_half_the_time():
    module, _ = mlp(512, 1024, 2048)
    cluster = load_cluster("v100-32g", 16)
    mesh = Mesh((("data", 16),))
    local = _local(module, Plan(mesh, (("x", layout_from_texts(["data", ""], mesh)),)))
    before = cost_local_module(local, mesh, cluster)
    after = cost_local_module(local, mesh, scaled(cluster, flops=2, bandwidth=2))
    assert after.compute_s + after.memory_bound_s == pytest.approx(
        (before.compute_s + before.memory_bound_s) / 2
    )


@settings(max_examples=6, deadline=None)
@given(SIZES, st.sampled_from([2, 8]))
def test_a_chosen_plan_loads_again_and_explains_itself(hidden, devices):
    module, signature = mlp(1024, 256, hidden)
    cluster = load_cluster("h100-sxm", devices)
    plan = choose_plan(module, signature, cluster)
    file = parse_plan(plan.to_toml(), "p.toml")
    check_plan(file, signature, cluster)
    assert not diff_plans(plan, file.plan).differs
    text = with_insights(plan, module, signature, cluster).explain()
    for expected in ("bound by", "where the time goes", "why parameters", "what would help most"):
        assert expected in text
    insights = with_insights(plan, module, signature, cluster).insights()
    assert all(item.time_s <= plan.predicted.time_s for item in insights.sensitivities)


DECISIONS = {
    "mesh": ('"data" = 4', ["data = 0", 'data = "4"', "data = 4.0", '"p1" = 4', "data = [4]"]),
    "arguments": ('"x" = ["data", ""]', [
        '"x" = ["data"]', '"x" = ["date", ""]', '"y" = ["data", ""]', '"x" = "data"',
        '"x" = ["data", "data"]', '"x" = ["data:(3)2", ""]', '"x" = [1, 2]',
    ]),
    "patterns": ('"layer.*" = ["", "model"]', [
        '"leyer.*" = ["", "model"]', '"layer.*" = ["model"]', '"/(/" = [""]',
        '"layer.*" = ["", "model", ""]', '"layer.*" = true',
    ]),
    "zero": ("data = 1", ["data = 4", "node = 1", "data = -1", "data = true"]),
    "recompute": ('"*" = "none"', ['"*" = "some"', '"*" = 1', '"/[/" = "none"']),
    "pipeline": ("microbatches = 2", [
        "microbatches = 3", "microbatches = 0", "stages = 2", "micro = 2", 'schedule = "1f1b"',
        "virtual = 2", "stages = 1.5",
    ]),
}  # fmt: skip
GOOD = '[mesh]\n"data" = 4\nmodel = 2\n' + "".join(
    f"[{section}]\n{line}\n" for section, (line, _) in DECISIONS.items() if section != "mesh"
)


def test_the_plan_that_violations_are_made_from_is_good():
    _, signature = mlp(64, 256, 256)
    check_plan(parse_plan(GOOD, "p.toml"), signature, load_cluster("h100-sxm", 8))


@pytest.mark.parametrize(
    ("section", "bad"), [(section, bad) for section, (_, bads) in DECISIONS.items() for bad in bads]
)
@settings(max_examples=5, deadline=None)
@given(st.integers(0, 3), st.lists(st.sampled_from(list(DECISIONS)), unique=True))
def test_every_violation_names_its_line(section, bad, blank, first):
    """Wherever the section stands in the file, with comments before it."""
    order = [*first, *(name for name in DECISIONS if name not in first)]
    lines = ["# a plan"] * blank
    for name in order:
        line = DECISIONS[name][0]
        lines += [f"[{name}]", "", bad if name == section else line]
        lines += ["model = 2"] if name == "mesh" else []
    expected = lines.index(bad, lines.index(f"[{section}]")) + 1
    _, signature = mlp(64, 256, 256)
    with pytest.raises(PaiError) as caught:
        check_plan(parse_plan("\n".join(lines), "p.toml"), signature, load_cluster("h100-sxm", 8))
    assert caught.value.where == f"p.toml:{expected}", str(caught.value)
