"""``python -m benchmarks.published [--data DIR] [--json FILE] [--fit] [--summary]``.

Prints, for every table of DIR, predicted against measured step times (``--summary`` leaves the rows
out), then mean, 90th percentile and maximum error of the fitted and the held-out half beside the
baselines of one constant rate for the table and of Calculon; then what constants of the A100 and
data sheets alone say about the other GPUs; then memory. ``--fit`` fits the constants again and
prints them as they stand in ``passes/strategy/calibration.py``; nothing else needs it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.published.case import DATA, Case
from benchmarks.published.fit import fit_a100, fit_h100
from benchmarks.published.report import (
    Prediction,
    predict_all,
    print_calculon,
    print_memory,
    print_summary,
    print_table,
    summary,
)
from benchmarks.published.tables import READERS, Errors, read_cases
from pai.passes.strategy.calibration import A100, SHEETS, Calibration, calibration, transferred


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.published")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with other rows")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--fit", action="store_true", help="fit the constants and print them")
    parser.add_argument("--summary", action="store_true", help="print no rows")
    options = parser.parse_args()
    console = Console(width=None if Console().is_terminal else 200)
    reference = read_cases()
    if options.fit:
        print_fit(console, reference)
    unread: list[str] = []
    figures = compare(
        console, read_cases(options.data, unread), reference, rows=not options.summary
    )
    for line in unread:
        console.print(f"not read: {line}", markup=False)
    figures["unread"] = unread
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def print_fit(console: Console, reference: Sequence[Case]) -> None:
    """Fit the constants to the fitted halves and print them."""
    a100 = fit_a100(reference)
    for name, found in (("A100", a100), ("H100", fit_h100(reference, a100))):
        values = {f.name: getattr(found, f.name) for f in fields(found)}
        kept = (f"{key}={value:.3g}" for key, value in values.items() if isinstance(value, float))
        console.print(f"{name}: {', '.join(kept)}", highlight=False)
    across_tables(console, reference)


def across_tables(console: Console, reference: Sequence[Case]) -> dict[str, Errors]:
    """Print what constants fitted to llm-foundry's A100 rows alone say about Megatron's tables."""
    alone = fit_a100([case for case in reference if case.table == "llmfoundry_fsdp"])
    out = {}
    for name in ("sc21", "korthikanti"):
        pairs = [(c.predict(alone), c.measured) for c in reference if c.table == name]
        found = Errors.of(pairs)
        if found:
            out[name] = found
            console.print(
                f"{name}, all rows, with constants fitted to llm-foundry's A100 rows alone: "
                f"{found.mean:.1%} mean, {found.most:.1%} maximum"
            )
    return out


def compare(
    console: Console, cases: Sequence[Case], reference: Sequence[Case], *, rows: bool
) -> dict[str, Any]:
    """Print all comparisons and return their figures."""
    kinds = {case.kind for case in cases}
    predictions = predict_all(cases, {kind: calibration(kind) for kind in kinds})
    tables = {name: [p for p in predictions if p.case.table == name] for name in READERS}
    tables = {name: found for name, found in tables.items() if found}
    if rows:
        for name, found in tables.items():
            print_table(console, name, found)
    figures = _summaries(tables, reference)
    print_summary(console, "step times", figures)
    if "sc21" in figures:
        print_calculon(console, figures["sc21"])
    return {
        "tables": figures,
        "rows": {name: [p.data() for p in found] for name, found in tables.items()},
        "transfer": transfer(console, cases, reference),
        "memory": print_memory(console, predictions),
    }


def transfer(
    console: Console, cases: Sequence[Case], reference: Sequence[Case]
) -> dict[str, dict[str, Any]]:
    """Print what constants of the A100 and the data sheets say about the other GPUs."""
    others = [case for case in cases if case.kind != "a100"]
    moved = {kind: from_a100(kind) for kind in {case.kind for case in others}}
    by_table: dict[str, list[Prediction]] = {}
    for prediction in predict_all(others, moved):
        by_table.setdefault(prediction.case.table, []).append(prediction)
    figures = _summaries(by_table, [case for case in reference if case.kind != "a100"])
    if figures:
        print_summary(console, "transfer: A100's constants, other data sheets", figures)
    return figures


def from_a100(kind: str) -> Calibration:
    """Return a device kind's constants with nothing of its own but its data sheet."""
    return transferred(A100, SHEETS["a100"], SHEETS[kind])


def _summaries(
    tables: Mapping[str, Sequence[Prediction]], reference: Sequence[Case]
) -> dict[str, dict[str, Any]]:
    """Return the figures of every table, and of each part of it (GPU kinds, ablations)."""
    out = {}
    for name, found in tables.items():
        known = [case for case in reference if case.table == name]
        out[name] = summary(found, known)
        groups = sorted({p.case.group or p.case.kind for p in found})
        for group in groups if len(groups) > 1 else ():
            own = [p for p in found if (p.case.group or p.case.kind) == group]
            same = [case for case in known if (case.group or case.kind) == group]
            out[f"{name}, {group}"] = summary(own, same)
    return out


if __name__ == "__main__":
    main()
