"""Our plans against hand plans, both by the cost model: ``python -m benchmarks.plan_quality``.

``[--json FILE] [--only published|models] [--rows TEXT]``

*Published*: for every row of the published tables the plan that ran, as ``benchmarks.published``
costs it, and the best that the search finds for the same model, cluster, batch, software and
training state. Only the plan differs: stages, chunks, tensor shards, sequence parallelism,
replicas, microbatches, ZeRO and recompute. The hand plan is scored in the search too. The column
``same recompute`` is the ratio when ours has to recompute what the hand plan does.

*Models*: training steps from StableHLO through both levels of the search, against plain plans: the
best of each ZeRO stage, of Megatron's split of weights with replicas and with the whole grid, and
what is published (``models_at_size.py``).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.models_at_size import MODELS, ModelCase, megatron, read_model
from benchmarks.published.case import Case, Option, Setup
from benchmarks.published.network import cluster_of
from benchmarks.published.tables import read_cases
from pai.passes.strategy.calibration import calibration
from pai.passes.strategy.hybrid import HybridOptions, HybridResult, Workloads, search_hybrids
from pai.passes.strategy.hybrid_point import Hybrid, HybridCost
from pai.passes.strategy.step_plan import MOST_CONTEXT
from pai.passes.strategy.transformer import Split, transformer_workload
from pai.passes.strategy.workload import Workload
from pai.runtime.errors import InfeasiblePlan

TABLES = ("sc21", "korthikanti", "mcore_h100", "llama3_h100", "alpa_v100")
PLAIN = ("data parallel", "ZeRO-1", "ZeRO-2", "ZeRO-3")
GIB = 2**30


@dataclass(frozen=True)
class Scored:
    """A plan with what it costs.

    Args:
        plan: its name, ``sequence`` added when norms and residuals are split too.
        seconds: of a step.
        memory: bytes of the fullest device.
        parts: seconds by what they go to.
    """

    plan: str
    seconds: float
    memory: float
    parts: dict[str, float]

    @classmethod
    def of(cls, cost: HybridCost, *, sequence: bool = False) -> Scored:
        """Return a point of the search as such."""
        name = cost.hybrid.name + (" sequence" if sequence and cost.hybrid.tensor > 1 else "")
        return cls(name, cost.seconds, cost.memory.total, asdict(cost.step))


@dataclass(frozen=True)
class Comparison:
    """A hand plan and ours.

    Args:
        table: where the hand plan is from.
        row: the configuration.
        devices: how many.
        batch: samples of a step.
        hand: the hand plan.
        ours: the best of the search, the hand plan among what it scores.
        alike: seconds of the best with the hand plan's recompute.
        found: whether ours is another than the hand plan.
        search_s: seconds of the search.
        points: how many were costed.
    """

    table: str
    row: str
    devices: int
    batch: int
    hand: Scored
    ours: Scored
    alike: float
    found: bool
    search_s: float
    points: int

    @property
    def ratio(self) -> float:
        """How many times as fast ours is."""
        return self.hand.seconds / self.ours.seconds

    @property
    def why(self) -> str:
        """What ours saves most, and what it pays for that."""
        return difference(self.hand, self.ours)


@dataclass(frozen=True)
class ModelComparison:
    """A model's plan of ours and the plain ones.

    Args:
        model: its name.
        devices: how many of which kind.
        batch: samples of a step.
        parameters: elements.
        ours: the best of the search.
        plain: the best of each plain kind by name; None when none fits.
        read_s: seconds to lower, read and fold it.
        search_s: seconds of the search.
    """

    model: str
    devices: str
    batch: int
    parameters: int
    ours: Scored
    plain: tuple[tuple[str, Scored | None], ...]
    read_s: float
    search_s: float

    @property
    def closest(self) -> tuple[str, Scored]:
        """The fastest plain plan."""
        return min(
            ((name, cost) for name, cost in self.plain if cost is not None),
            key=lambda pair: pair[1].seconds,
        )


def difference(hand: Scored, ours: Scored) -> str:
    """Return where the largest parts of the difference are, in percent of the hand plan's step."""
    moved = {name: ours.parts[name] - hand.parts[name] for name in hand.parts}
    ranked = sorted(moved.items(), key=lambda item: item[1])
    texts = [
        f"{name.replace('exposed_', '').replace('_', ' ')} {seconds / hand.seconds:+.0%}"
        for name, seconds in (*ranked[:2], ranked[-1])
        if abs(seconds) >= 0.01 * hand.seconds
    ]
    return ", ".join(texts) or "the same"


def hand_point(setup: Setup) -> Hybrid:
    """Return a published plan as a point of the search."""
    run = setup.run
    return Hybrid(
        stages=run.stages,
        virtual=run.virtual,
        tensor=setup.split.tensor,
        replicas=run.replicas,
        microbatch=setup.microbatch,
        microbatches=run.microbatches,
        zero=run.zero,
        recompute=run.recompute,
        context=setup.split.context,
    )


def workloads_of(setup: Setup, *, sequence: bool) -> Workloads:
    """Return the work of a published model by sizes of tensor axis, microbatch and context axis."""
    model = setup.model

    def work(tensor: int, samples: int, context: int = 1) -> Workload | None:
        if model.heads % tensor or (model.kv_heads or model.heads) % tensor:
            return None
        if model.seq % context:
            return None
        split = Split(tensor, context, sequence and tensor > 1)
        return transformer_workload(model, samples, split, setup.stack)

    return work


def options_of(option: Option) -> HybridOptions:
    """Return the options under which a published plan ran: its software, state and memory."""
    setup = option.setup
    return HybridOptions(
        state=setup.state,
        memory_share=setup.memory().total / option.memory,
        software=setup.run,
        zero_bubble=False,
        context=MOST_CONTEXT,
    )


def search_setup(
    option: Option, options: HybridOptions | None = None
) -> Iterator[tuple[bool, HybridResult]]:
    """Yield what the search finds without and with sequence parallelism, where anything fits."""
    setup, point = option.setup, hand_point(option.setup)
    devices = point.mesh.num_devices
    batch = point.replicas * point.microbatch * point.microbatches
    cluster = cluster_of(setup.profile, devices, setup.fabric)
    own = setup.split.sequence_parallel
    for sequence in (False, True):
        hand = [point] if sequence == own else []
        works = workloads_of(setup, sequence=sequence)
        options = options or options_of(option)
        with contextlib.suppress(InfeasiblePlan):
            yield sequence, search_hybrids(works, batch, cluster, options, baselines=hand)


def compare_case(case: Case) -> Comparison:
    """Return the comparison of a published row."""
    option, _ = case.best(calibration(case.kind))
    point, own = hand_point(option.setup), option.setup.split.sequence_parallel
    start = time.perf_counter()
    found = list(search_setup(option))
    seconds = time.perf_counter() - start
    hand = next(cost for _, result in found for cost in result.baselines)
    like = replace(options_of(option), recompute=(point.recompute,))
    alike = list(search_setup(option, like))
    ours, sequence = fastest([*found, *alike])
    return Comparison(
        table=case.table,
        row=case.name,
        devices=point.mesh.num_devices,
        batch=point.replicas * point.microbatch * point.microbatches,
        hand=Scored.of(hand, sequence=own),
        ours=Scored.of(ours, sequence=sequence),
        alike=fastest(alike)[0].seconds,
        found=ours.hybrid != point or sequence != own,
        search_s=seconds,
        points=sum(result.scored for _, result in found),
    )


def fastest(found: Sequence[tuple[bool, HybridResult]]) -> tuple[HybridCost, bool]:
    """Return the best of several searches, and whether sequence parallelism was on."""
    flag, result = min(found, key=lambda pair: pair[1].best[0].seconds)
    return result.best[0], flag


def compare_published(text: str = "") -> list[Comparison]:
    """Return the comparisons of the published rows whose names have ``text`` in them."""
    cases = [case for case in read_cases() if case.table in TABLES and case.group != "ablations"]
    return [compare_case(case) for case in cases if text in f"{case.table} {case.name}"]


def print_published(console: Console, rows: Sequence[Comparison]) -> None:
    """Print the comparisons of the published rows."""
    table = Table(title="published plans and ours, modelled", title_justify="left")
    for column in (
        "table",
        "row",
        "hand plan",
        "our plan",
        "what changes, of the hand plan's step",
    ):
        table.add_column(column, overflow="fold")
    for column in (
        "batch",
        "hand s",
        "GiB",
        "ours s",
        "GiB",
        "ratio",
        "same recompute",
        "search s",
    ):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row.table,
            row.row,
            row.hand.plan,
            row.ours.plan if row.found else "the same",
            row.why,
            str(row.batch),
            f"{row.hand.seconds:.3f}",
            f"{row.hand.memory / GIB:.1f}",
            f"{row.ours.seconds:.3f}",
            f"{row.ours.memory / GIB:.1f}",
            f"{row.ratio:.2f}",
            f"{row.hand.seconds / row.alike:.2f}",
            f"{row.search_s:.1f}",
        )
    console.print(table)


def compare_model(case: ModelCase) -> ModelComparison:
    """Return a model's plan and the plain ones."""
    start = time.perf_counter()
    read = read_model(case)
    lowered = time.perf_counter()
    given = tuple(case.hand.values())
    ours = replace(case.options, experts=read.inner.experts)
    found = search_hybrids(read.inner, case.batch, case.cluster, ours, baselines=given)
    searched = time.perf_counter()
    families = dict(found.families)
    plain = [(name, families[name]) for name in PLAIN]
    split, options = megatron(read)
    with contextlib.suppress(InfeasiblePlan):
        hand = search_hybrids(split, case.batch, case.cluster, options)
        both = "tensor and data parallel"
        plain += [(both, dict(hand.families)[both]), ("Megatron grid", hand.best[0])]
    named = list(zip(case.hand, found.baselines, strict=True))
    plain += named
    return ModelComparison(
        case.name,
        f"{case.devices} {case.profile.split('-')[0]}",
        case.batch,
        read.parameters,
        Scored.of(found.best[0]),
        tuple((name, Scored.of(cost) if cost else None) for name, cost in plain),
        lowered - start,
        searched - lowered,
    )


def print_models(console: Console, rows: Sequence[ModelComparison]) -> None:
    """Print the comparisons of models: how many times as fast ours is as each plain plan."""
    table = Table(
        title="models from StableHLO: ours and plain plans, modelled", title_justify="left"
    )
    for column in ("model", "devices", "our plan", "best other plan", "what changes, of its step"):
        table.add_column(column, overflow="fold")
    names = list(dict.fromkeys(name for row in rows for name, _ in row.plain))
    for column in ("batch", "ours s", "GiB", *names, "read s", "search s"):
        table.add_column(column, justify="right")
    for row in rows:
        name, other = row.closest
        table.add_row(
            row.model,
            row.devices,
            row.ours.plan,
            f"{name}: {other.plan}",
            difference(other, row.ours),
            str(row.batch),
            f"{row.ours.seconds:.3f}",
            f"{row.ours.memory / GIB:.1f}",
            *(_ratio(row, name) for name in names),
            f"{row.read_s:.1f}",
            f"{row.search_s:.1f}",
        )
    console.print(table)


def _ratio(row: ModelComparison, name: str) -> str:
    plain = dict(row.plain)
    if name not in plain:
        return ""
    cost = plain[name]
    return f"{cost.seconds / row.ours.seconds:.2f}" if cost else "no memory"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.plan_quality")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--only", choices=("published", "models"), help="one of the two tables")
    parser.add_argument("--rows", default="", help="text in the names of rows")
    options = parser.parse_args()
    console = Console(width=None if Console().is_terminal else 240)
    figures: dict[str, Any] = {}
    if options.only != "models":
        rows = compare_published(options.rows)
        print_published(console, rows)
        figures["published"] = [asdict(row) | {"ratio": row.ratio} for row in rows]
    if options.only != "published":
        models = [compare_model(case) for case in MODELS if options.rows in case.name]
        print_models(console, models)
        figures["models"] = [asdict(row) for row in models]
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
