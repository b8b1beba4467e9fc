import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import pai
from pai import cli, plan_cli
from pai.passes.strategy.plan import Plan, layout_from_texts, plan_from_toml
from pai.passes.strategy.plan_diff import diff_plans
from pai.runtime.errors import InfeasiblePlan, UnsupportedPlan
from pai.runtime.mesh import Mesh

A = """
strategy = "data=4 model=2"
[mesh]
data = 4
model = 2
[arguments]
"layers.0.w" = ["", "model"]
"layers.1.w" = ["", "model"]
"layers.2.w" = ["", "model"]
"head" = ["", "model"]
[predicted]
time_s = 0.002
parameter_bytes = 1000
"""
B = A.replace('2.w" = ["", "model"]', '2.w" = ["model", ""]').replace("0.002", "0.001")
MODEL = """module {
  func.func @main(%x: tensor<64x32xf32> {pai.name = "x"},
                  %w: tensor<32x16xf32> {pai.name = "w"}) -> tensor<64x16xf32> {
    %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
        : (tensor<64x32xf32>, tensor<32x16xf32>) -> tensor<64x16xf32>
    return %0 : tensor<64x16xf32>
  }
}
"""


@pytest.fixture
def files(tmp_path):
    for name, text in {"a.toml": A, "b.toml": B, "model.mlir": MODEL}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_equal_plans_do_not_differ(files, capsys):
    assert plan_cli.main(["diff", str(files / "a.toml"), str(files / "a.toml")]) == 0
    assert capsys.readouterr().out == ""


def test_a_diff_says_what_changed_and_by_how_much(files, capsys):
    assert plan_cli.main(["diff", str(files / "a.toml"), str(files / "b.toml")]) == 1
    out = capsys.readouterr().out
    assert "layers.2.w  [-, model]  ->  [model, -]" in out
    assert "2 ms  ->  1 ms  -1 ms (-50%)" in out
    assert "head" not in out


def test_layouts_that_change_alike_are_folded(files, capsys):
    (files / "b.toml").write_text(A.replace('.w" = ["", "model"]', '.w" = ["data", ""]'))
    arguments = ["diff", "--json", str(files / "a.toml"), str(files / "b.toml")]
    assert plan_cli.main(arguments) == 1
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert change == {
        "section": "arguments", "key": "layers.*.w", "before": ["", "model"],
        "after": ["data", ""], "names": ["layers.0.w", "layers.1.w", "layers.2.w"],
    }  # fmt: skip


def test_the_order_of_axes_and_patterns_counts():
    text = '[mesh]\na = 2\nb = 2\n[patterns]\n"x*" = ["a"]\n"*y" = ["b"]\n'
    swapped = '[mesh]\nb = 2\na = 2\n[patterns]\n"*y" = ["b"]\n"x*" = ["a"]\n'
    changes = diff_plans(plan_from_toml(text), plan_from_toml(swapped)).changes
    assert [(c.section, c.key) for c in changes] == [("mesh", "order"), ("patterns", "order")]


def test_a_pattern_and_the_names_it_stands_for_lay_arguments_out_alike():
    mesh = Mesh((("model", 2),))
    layout = layout_from_texts(["", "model"], mesh)
    named = Plan(mesh, arguments=(("l.0.w", layout), ("l.1.w", layout)))
    globbed = Plan(mesh, patterns=(("l.*.w", layout),))
    changes = diff_plans(named, globbed).changes
    assert [(c.section, c.before) for c in changes] == [("patterns", None)]


def test_show_prints_the_plan(files, capsys):
    assert plan_cli.main(["show", str(files / "a.toml")]) == 0
    assert "2 ms a run" in capsys.readouterr().out
    assert plan_cli.main(["show", "--json", str(files / "a.toml")]) == 0
    assert json.loads(capsys.readouterr().out)["mesh"] == {"data": 4, "model": 2}


def test_trace_writes_the_course_of_a_step(files, capsys):
    text = "[mesh]\ndata = 1\n[pipeline]\nstages = 2\nmicrobatches = 4\nschedule = '1f1b'\n"
    (files / "p.toml").write_text(
        text + "[predicted]\ntime_s = 1.35\ncompute_s = 1.0\nbubble_s = 0.25\nupdate_s = 0.1\n"
    )
    out = files / "step.json"
    assert plan_cli.main(["trace", "--json", str(files / "p.toml"), "-o", str(out)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["seconds"] == pytest.approx(1.35)  # (p - 1) / m of bubble, as was predicted
    assert facts["bubble_fraction"] == pytest.approx(0.25)
    bars = [e for e in json.loads(out.read_text())["traceEvents"] if e["ph"] == "X"]
    names = {(bar["pid"], bar["name"]) for bar in bars}
    assert {(stage, f"{kind}{m}") for stage in (0, 1) for kind in "FB" for m in range(4)} <= names
    assert plan_cli.main(["trace", str(files / "p.toml"), "-o", "/nowhere/x.json"]) == 2


def test_values_lists_what_a_plan_can_name(files, capsys):
    assert plan_cli.main(["values", "--json", str(files / "model.mlir")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found.values()) == ["tensor<64x16xf32>"]
    (key,) = found
    text = f'[mesh]\ndata = 4\n[values]\n"{key}" = ["data", ""]\n'
    assert check(files, text) == 0


def check(files, text, *flags):
    (files / "p.toml").write_text(text)
    return plan_cli.main(["check", str(files / "p.toml"), str(files / "model.mlir"), *flags])


def test_check_costs_a_plan(files, capsys):
    text = '[mesh]\ndata = 4\n[arguments]\nx = ["data", ""]\n'
    assert check(files, text, "--cluster", "a100-80g-sxm", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fits"] and facts["runnable"]
    assert facts["plan"]["cluster"] == "a100-80g-sxm"
    assert facts["plan"]["predicted"]["input_bytes"] == (64 // 4 * 32 + 32 * 16) * 4
    assert check(files, text, "--explain") == 0
    assert "where the time goes" in capsys.readouterr().out


def test_check_says_what_packages_cannot_run(files, capsys):
    text = '[mesh]\ndata = 2\n[pipeline]\nmicrobatches = 4\n[arguments]\nx = ["data", ""]\n'
    assert check(files, text) == 0
    assert "4 microbatches, which packages cannot run yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[mesh]\ndata = 4\n[arguments]\ny = ["data"]\n',
            "p.toml:4: the model has no argument 'y'",
        ),
        ('[mesh]\ndata = 4\n[arguments]\nx = ["data"]\n', "p.toml:4: the plan gives 1 dimensions"),
        ("[mesh]\ndata = 2\n[pipeline]\nmicrobatches = 5\n", "p.toml:4: 5 microbatches do not div"),
        ('precision = "bf16"\n[mesh]\ndata = 2\n', "p.toml:1: the plan is for parameters of bf16"),
    ],
)
def test_a_violation_names_its_line(files, text, message, capsys):
    (files / "model.mlir").write_text(MODEL.replace('"w"}', '"w", pai.role = "parameter"}'))
    save_file({"w": np.ones((32, 16), np.float32)}, files / "model.safetensors")
    assert check(files, text) == 1
    error = capsys.readouterr().err
    assert message in error
    assert plan_cli.main(["check", "--json", str(files / "p.toml"), str(files / "model.mlir")]) == 1
    assert json.loads(capsys.readouterr().out)["where"].endswith(message.split(": ", maxsplit=1)[0])


def test_trouble(files, capsys):
    assert plan_cli.main(["diff", str(files / "a.toml"), str(files / "none.toml")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    (files / "bad.toml").write_text("[mesh\n")
    assert plan_cli.main(["diff", str(files / "a.toml"), str(files / "bad.toml")]) == 2
    assert "bad.toml:1: not valid TOML" in capsys.readouterr().err
    (files / "model.mlir").unlink()
    assert check(files, A) == 2
    assert "model.mlir" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        plan_cli.main([])
    assert stopped.value.code == 2


def test_packages_refuse_what_they_cannot_run(files, capsys):
    (files / "p.toml").write_text(
        '[mesh]\ndata = 2\n[pipeline]\nmicrobatches = 4\n[recompute]\n"*" = "full"\n'
    )
    model = [str(files / "model.mlir"), "--plan", str(files / "p.toml"), "--devices", "2"]
    assert cli.main([*model, "--stop-after", "strategy", "--explain"]) == 0
    out = capsys.readouterr().out
    assert "4 microbatches" in out and "recomputation is in neither time nor memory" in out
    assert cli.main([*model, "-o", str(files / "out.pai")]) == UnsupportedPlan.exit_code
    error = capsys.readouterr().err.splitlines()[-1]
    assert "p.toml: the plan has 4 microbatches and recomputation, which packages" in error
    assert not (files / "out.pai").exists()


def test_objectives_of_serving_from_python_and_the_command(files, capsys):
    plan = pai.plan(str(files / "model.mlir"), cluster="h100-sxm", devices=8,
                    objective="throughput")  # fmt: skip
    assert plan.replicas * plan.num_devices == 8
    assert "runs a second" in plan.explain()
    arguments = [str(files / "model.mlir"), "--cluster", "h100-sxm", "--devices", "8"]
    arguments += ["--objective", "devices", "--stop-after", "strategy", "--explain"]
    assert cli.main(arguments) == 0
    assert "plan: one device" in capsys.readouterr().out
    assert cli.main([*arguments, "--max-latency", "1e-9"]) == InfeasiblePlan.exit_code
    assert "more than" in capsys.readouterr().err
