"""The targets on published clusters: rows that no constant was fitted to."""

import json
import shutil
import sys

import pytest
from rich.console import Console

from benchmarks.published import __main__ as command
from benchmarks.published.case import DATA
from benchmarks.published.fit import BOUNDS, PRODUCTS, fit_a100, fit_h100
from benchmarks.published.report import predict_all, summary
from benchmarks.published.tables import READERS, Errors, rank_correlation, read_cases
from pai.passes.strategy.calibration import A100, SHEETS, TABLE, calibration, transferred

CASES = read_cases()
KINDS = sorted({case.kind for case in CASES})


@pytest.fixture(scope="module")
def figures():
    rows = predict_all(CASES, {kind: calibration(kind) for kind in KINDS})
    tables = {name: [p for p in rows if p.case.table == name] for name in READERS}
    return {name: summary(found, [p.case for p in found]) for name, found in tables.items()}


@pytest.mark.parametrize(
    ("table", "mean", "most"), [("sc21", 0.04, 0.10), ("korthikanti", 0.04, 0.10)]
)
def test_megatron_step_times(figures, table, mean, most):
    for half in ("held_out", "fitted"):
        assert figures[table][half]["mean"] <= mean
        assert figures[table][half]["most"] <= most
    assert figures[table]["all"]["mean"] < 0.103  # Calculon's


def test_fsdp_step_times(figures):
    held = figures["llmfoundry_fsdp"]["held_out"]
    assert held["count"] == 54
    assert held["mean"] <= 0.04
    assert held["p90"] <= 0.08


def test_v100_step_times_with_nothing_but_the_data_sheet(figures):
    assert calibration("v100").source.startswith("transferred")
    assert figures["alpa_v100"]["held_out"]["mean"] <= 0.08
    assert figures["alpa_v100"]["all"]["mean"] <= 0.08


@pytest.mark.parametrize("table", ["sc21", "korthikanti", "llmfoundry_fsdp", "alpa_v100"])
def test_half_the_error_of_one_constant_rate(figures, table):
    found = figures[table]
    assert found["held_out"]["mean"] <= found["baseline_held_out"]["mean"] / 2
    assert found["all"]["mean"] <= found["baseline_all"]["mean"] / 2


@pytest.mark.parametrize("table", ["sc21", "korthikanti", "llmfoundry_fsdp", "mcore_h100"])
def test_configurations_are_ranked_as_measured(figures, table):
    assert figures[table]["rank_of_times"] >= 0.95


def test_plans_of_alpas_table_are_ranked_as_measured():
    rows = predict_all(
        [case for case in CASES if case.group == "plans"], {"v100": calibration("v100")}
    )
    found = rank_correlation([row.cost.total for row in rows], [row.case.measured for row in rows])
    assert found >= 0.95


def test_tables_that_nothing_was_fitted_to(figures):
    assert figures["mcore_h100"]["all"]["mean"] <= 0.08
    assert figures["llama3_h100"]["all"]["mean"] <= 0.10
    assert figures["torchtitan"]["all"]["mean"] <= 0.10


def test_peak_memory_within_8_percent():
    peaks = [case for case in CASES if case.peak]
    assert len(peaks) == 3
    for case in peaks:
        assert case.options[0].memory == pytest.approx(case.peak, rel=0.08)


def test_published_rows_fit_their_devices():
    assert all(
        min(option.memory for option in case.options) <= case.options[0].device.memory_bytes
        for case in CASES
    )


def test_transfer_to_h100_beats_a_constant_of_its_own():
    h100 = [c for c in CASES if c.table == "llmfoundry_fsdp" and c.kind == "h100"]
    moved = transferred(A100, SHEETS["a100"], SHEETS["h100"])
    found = summary(predict_all(h100, {"h100": moved}), h100)
    assert found["all"]["mean"] <= 0.05
    assert found["all"]["mean"] <= found["baseline_all"]["mean"] / 2


def test_constants_are_what_the_fitted_halves_give():
    a100 = fit_a100(CASES)
    for name in BOUNDS:
        assert getattr(A100, name) == pytest.approx(getattr(a100, name), rel=0.02)
    h100 = fit_h100(CASES, a100)
    for name in PRODUCTS:
        assert getattr(TABLE["h100"], name) == pytest.approx(getattr(h100, name), rel=0.02)


def test_constants_transfer_across_tables():
    found = command.across_tables(Console(quiet=True), CASES)
    assert found["sc21"].mean <= 0.04
    assert found["sc21"].most <= 0.10
    assert found["korthikanti"].mean <= 0.06


def test_halves_are_every_other_row_of_the_repository(tmp_path):
    (tmp_path / "sc21.csv").write_text((DATA / "sc21.csv").read_text().replace("163", "164"))
    ours = [case.fitted for case in CASES if case.table == "sc21"]
    assert ours == [True, False, True, False, True]
    others = [case.fitted for case in read_cases(tmp_path)]
    assert others == [True, False, True, False, False]


def test_the_command_reads_other_rows_and_says_what_it_cannot_read(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(DATA / "korthikanti.csv", folder)
    lines = (DATA / "torchtitan.csv").read_text().splitlines()
    lines.append(lines[1].replace("llama3-8b", "unheard-of"))
    (folder / "torchtitan.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "figures.json"
    arguments = ["published", "--data", str(folder), "--json", str(out)]
    monkeypatch.setattr(sys, "argv", arguments)
    command.main()
    found = json.loads(out.read_text())
    assert sorted(found["tables"]) == ["korthikanti", "torchtitan"]
    assert len(found["rows"]["korthikanti"]) == 4
    (unread,) = found["unread"]
    assert unread.startswith("torchtitan.csv:5")
    assert "not read" in capsys.readouterr().out
    row = found["rows"]["korthikanti"][0]
    assert sum(row["parts_s"].values()) == pytest.approx(row["predicted_s"])


def test_errors_and_ranks_by_hand():
    found = Errors.of([(11, 10), (9, 10), (10, 10), (8, 10)])
    assert found.count == 4
    assert (found.mean, found.most, found.bias) == pytest.approx((0.1, 0.2, -0.05))
    assert Errors.of([]) is None
    assert rank_correlation([1, 2, 3, 4], [10, 20, 40, 30]) == pytest.approx(0.8)
    assert rank_correlation([1, 1, 2], [3, 3, 5]) == pytest.approx(1)
