"""Tables and figures of predictions, printed with rich and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.published.case import Case
from benchmarks.published.tables import (
    CALCULON,
    Errors,
    constant_rate,
    rank_correlation,
)
from pai.passes.strategy.calibration import Calibration
from pai.passes.strategy.step import StepCost

PARTS = ("compute", "memory_bound", "exposed_communication", "bubble", "optimizer", "overhead")


@dataclass(frozen=True)
class Prediction:
    """A row with what the model says."""

    case: Case
    cost: StepCost
    memory: float
    capacity: int

    @property
    def error(self) -> float:
        """Relative error of the time."""
        return self.cost.total / self.case.measured - 1

    def data(self) -> dict[str, Any]:
        """Return the row as plain data; times in seconds, memory in bytes."""
        out = {
            "row": self.case.name,
            "half": "fitted" if self.case.fitted else "held out",
            "measured_s": self.case.measured,
            "predicted_s": self.cost.total,
            "error": self.error,
            "memory": self.memory,
            "memory_of_device": self.capacity,
            "parts_s": asdict(self.cost),
        }
        return out | ({"measured_memory": self.case.peak} if self.case.peak else {})


def predict_all(cases: Sequence[Case], constants: Mapping[str, Calibration]) -> list[Prediction]:
    """Return the predictions of all rows with a set of constants for each device kind."""
    out = []
    for case in cases:
        option, cost = case.best(constants[case.kind])
        out.append(Prediction(case, cost, option.memory, option.device.memory_bytes))
    return out


def summary(rows: Sequence[Prediction], reference: Sequence[Case]) -> dict[str, Any]:
    """Return a table's figures: errors by half, the baseline, and rank correlation.

    Args:
        rows: the table's predictions.
        reference: the repository's rows of the table, whose fitted half gives the baseline's rate.
    """
    rate = constant_rate(reference)
    held = [row for row in rows if not row.case.fitted]
    return {
        "fitted": _errors([row for row in rows if row.case.fitted]),
        "held_out": _errors(held),
        "all": _errors(rows),
        "baseline_tflops": rate / 1e12,
        "baseline_held_out": _baseline(held, rate),
        "baseline_all": _baseline(rows, rate),
        "rank_of_times": rank_correlation(
            [row.cost.total for row in rows], [row.case.measured for row in rows]
        ),
        "rank_of_rates": rank_correlation(
            [row.case.flops / row.cost.total for row in rows],
            [row.case.flops / row.case.measured for row in rows],
        ),
    }


def _errors(rows: Sequence[Prediction]) -> dict[str, Any] | None:
    found = Errors.of((row.cost.total, row.case.measured) for row in rows)
    return asdict(found) if found else None


def _baseline(rows: Sequence[Prediction], rate: float) -> dict[str, Any] | None:
    found = Errors.of((row.case.flops / rate, row.case.measured) for row in rows)
    return asdict(found) if found else None


def print_table(console: Console, name: str, rows: Sequence[Prediction]) -> None:
    """Print one published table row by row."""
    table = Table(title=name, title_justify="left")
    for column in ("row", "half", "measured s", "predicted s", "error", "GiB", "of device"):
        table.add_column(column, justify="left" if column in {"row", "half"} else "right")
    for part in PARTS:
        table.add_column(part.replace("_", " ").replace("exposed ", ""), justify="right")
    for row in rows:
        total = row.cost.total
        table.add_row(
            row.case.name,
            "fitted" if row.case.fitted else "held out",
            f"{row.case.measured:.3f}",
            f"{total:.3f}",
            f"{row.error:+.1%}",
            f"{row.memory / 2**30:.1f}",
            f"{row.memory / row.capacity:.0%}",
            *(f"{getattr(row.cost, part) / total:.1%}" for part in PARTS),
        )
    console.print(table)


def print_summary(console: Console, title: str, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the figures of all tables: ours, beside one constant rate."""
    table = Table(title=title, title_justify="left")
    for column in (
        "table", "half", "rows", "mean", "p90", "max", "bias",
        "one rate: mean", "max", "ranks: times", "rates",
    ):  # fmt: skip
        table.add_column(column, justify="left" if column in {"table", "half"} else "right")
    for name, figures in found.items():
        for half, title_of in (("fitted", "fitted"), ("held_out", "held out"), ("all", "all")):
            _add_half(table, name, figures, half, title_of)
    console.print(table)


def _add_half(table: Table, name: str, figures: Mapping[str, Any], half: str, title: str) -> None:
    errors, base = figures[half], figures.get(f"baseline_{half}")
    if errors is None:
        return
    ranks = [f"{figures[f'rank_of_{what}']:.3f}" for what in ("times", "rates")]
    table.add_row(
        name,
        title,
        str(errors["count"]),
        *(f"{errors[key]:.1%}" for key in ("mean", "p90", "most")),
        f"{errors['bias']:+.1%}",
        *([f"{base['mean']:.1%}", f"{base['most']:.1%}"] if base else ["", ""]),
        *(ranks if half == "all" else ["", ""]),
    )


def print_memory(console: Console, rows: Sequence[Prediction]) -> dict[str, Any]:
    """Print measured peaks against predicted ones, and which published rows seem not to fit."""
    peaks = [row for row in rows if row.case.peak]
    found = Errors.of((row.memory, row.case.peak) for row in peaks)
    if found:
        table = Table(title="peak memory, GiB", title_justify="left")
        for column in ("row", "measured", "predicted", "error"):
            table.add_column(column, justify="left" if column == "row" else "right")
        for row in peaks:
            values = (row.case.peak / 2**30, row.memory / 2**30)
            error = f"{row.memory / row.case.peak - 1:+.1%}"
            table.add_row(row.case.name, *(f"{value:.1f}" for value in values), error)
        console.print(table)
    full = [row.case.name for row in rows if row.memory > row.capacity]
    console.print(f"published rows that fit their device in our model: {len(rows) - len(full)}"
                  f" of {len(rows)}" + (f"; not: {', '.join(full)}" if full else ""))  # fmt: skip
    return {"peaks": asdict(found) if found else None, "not_fitting": full}


def print_calculon(console: Console, figures: Mapping[str, Any]) -> None:
    """Print our errors on Megatron's table beside Calculon's."""
    ours = figures["all"]
    console.print(
        f"Megatron's table, all rows: ours {ours['mean']:.1%} mean, {ours['most']:.1%} maximum; "
        f"Calculon {CALCULON[0]:.1%} and {CALCULON[1]:.1%}"
    )
