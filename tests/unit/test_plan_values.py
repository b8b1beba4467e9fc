import pytest

from pai.dialects.mlir import parse, to_text
from pai.passes.partition import partition
from pai.passes.strategy import load_plan
from pai.passes.strategy.auto_shard import signature_of
from pai.passes.strategy.intra.layouts import Constraint
from pai.passes.strategy.plan import Plan, layout_from_texts, plan_from_toml, plan_to_toml
from pai.passes.strategy.plan_values import (
    apply_plan,
    fold_entries,
    operation_keys,
    values_from_constraints,
    values_to_constraints,
)
from pai.runtime.errors import InvalidSharding
from pai.runtime.mesh import AxisRef, Mesh, Sharding
from pai.runtime.topology import load_cluster

MESH = Mesh((("data", 2), ("model", 2)))
T = "tensor<8x8xf32>"
LAYER = """
  %h{i} = stablehlo.dot_general %x{i}, %w, contracting_dims = [1] x [0] : (T, T) -> T
      loc("jit(step)/layers/{i}/mlp/dot")
  %t{i} = stablehlo.tanh %h{i} : T loc("jit(step)/layers/{i}/mlp/tanh")
  %x{j} = stablehlo.dot_general %t{i}, %w, contracting_dims = [1] x [0] : (T, T) -> T
      loc("jit(step)/layers/{i}/mlp/dot")
"""


def model(layers=3):
    body = "".join(LAYER.replace("{i}", str(i)).replace("{j}", str(i + 1)) for i in range(layers))
    text = f"""module {{
      func.func @main(%x0: T {{pai.name = "x"}}, %w: T {{pai.name = "w"}}) -> T {{
      {body}
      %out = stablehlo.exponential %x{layers} : T loc(unknown)
      return %out : T }} }}"""
    return parse(text.replace("T", T))


def layout(*texts):
    return layout_from_texts(texts, MESH)


def test_keys_are_the_names_in_the_locations():
    assert operation_keys(model(1)) == [
        "layers/0/mlp/dot", "layers/0/mlp/tanh", "layers/0/mlp/dot#2", "exponential", "func.return",
    ]  # fmt: skip


ROWS = Sharding(((AxisRef("data"),), ()))
COLUMNS = Sharding(((), (AxisRef("model"),)))
BOTH = [
    Constraint(0, -1, 0, (COLUMNS,)), Constraint(2, -1, 0, (ROWS, COLUMNS)),
    Constraint(3, -1, 0, (COLUMNS,)), Constraint(5, -1, 0, (ROWS, COLUMNS)),
    Constraint(6, -1, 0, (COLUMNS,)), Constraint(7, 0, -1, (ROWS,), True),
    Constraint(8, -1, 0, (ROWS, COLUMNS)),
]  # fmt: skip


def test_constraints_survive_the_plan_file():
    module = model()
    values = values_from_constraints(module, BOTH)
    assert {key for key, _ in values} == {
        "layers/*/mlp/dot", "layers/*/mlp/dot#2", "layers/*/mlp/dot#2:then",
        "layers/2/mlp/tanh:in0:again",
    }  # fmt: skip
    back = plan_from_toml(plan_to_toml(Plan(MESH, values=values)))
    assert back.values == values
    assert values_to_constraints(model(), back.values) == BOTH


def test_a_glob_that_would_reach_further_is_not_made():
    known = ["a/0/x", "a/1/x", "a/2/x", "a/b/x"]
    rows = layout("data", "")
    assert fold_entries([("a/0/x", rows), ("a/1/x", rows)], known) == (
        ("a/0/x", rows), ("a/1/x", rows),
    )  # fmt: skip
    assert fold_entries([(key, rows) for key in known[:3]], known[:3]) == (("a/*/x", rows),)
    odd = [("w[1]", rows), ("w[2]", rows)]
    ((glob, _),) = fold_entries(odd, ["w[1]", "w[2]", "w1"])
    assert glob == "w[[]*]"


def test_values_are_laid_out_as_the_plan_says():
    module = model(1)
    plan = Plan(MESH, arguments=(("x", layout("data", "")),),
                values=(("layers/*/mlp/tanh", layout("data", "model")),))  # fmt: skip
    apply_plan(module, plan)
    text = to_text(module)
    (line,) = [line for line in text.splitlines() if "stablehlo.tanh" in line]
    assert '<@mesh, [{"data"}, {"model"}]>' in line
    local = to_text(partition(module, MESH).module)
    assert "tanh %" in local and "tensor<4x4xf32>" in local


def write(tmp_path, entry):
    path = tmp_path / "p.toml"
    path.write_text(f"[mesh]\ndata = 2\nmodel = 2\n[values]\n{entry}\n")
    return path


def test_a_plan_with_values_is_costed(tmp_path):
    module = model()
    cluster = load_cluster("h100-sxm", 4)
    path = write(tmp_path, '"layers/*/mlp/dot*" = ["data", "model"]')
    plan = load_plan(path, module, signature_of(module), cluster)
    assert plan.predicted.collectives
    assert "sdy" not in to_text(module)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('"layers/*/attention" = ["data", ""]', "p.toml:5: no value .* has the key 'layers/"),
        ('"layers/1/mlp/dot" = ["data"]', "p.toml:5: the plan gives 1 dimensions but 'layers/1/"),
        ('"layers/1/mlp/dot:in2" = ["data", ""]', "p.toml:5: no value"),
        ('"layers/1/mlp/dot" = ["node", ""]', "p.toml:5: .*no axis 'node'"),
    ],
)
def test_violations_name_their_line(tmp_path, entry, message):
    module = model()
    with pytest.raises(InvalidSharding, match=message):
        load_plan(write(tmp_path, entry), module, signature_of(module), load_cluster("cpu", 4))
