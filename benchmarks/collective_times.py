"""All-reduce times of the model against published runs: ``python -m benchmarks.collective_times``.

Prints, for every row of ``nccl.csv``, the bus bandwidth that ``passes/strategy/collectives.py``
predicts with the constants of the built-in profiles against the measured one, then mean and maximum
error of the rows that the constants were fitted to (every other row of each series, the smallest
message first) and of the rows held out, and the constants. Bus bandwidth is bytes / time times
2(n-1)/n for all_reduce and (n-1)/n for all_gather, reduce_scatter and all_to_all (nccl-tests,
doc/PERFORMANCE.md).

``--data DIR`` takes ``DIR/nccl.csv`` with the same columns; ``--json`` prints the figures.
``--fit`` fits the constants again and prints what comes out instead of the tables.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import functools
import itertools
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pai.passes.strategy.collectives import collective_seconds
from pai.passes.strategy.placement import collective_time
from pai.runtime.mesh import Mesh
from pai.runtime.topology import ClusterSpec, InSwitch, LinkSpec, load_cluster

DATA = Path(__file__).parent / "data" / "published"
PROFILES = {
    "v100-16g": "v100-16g-p3",
    "v100-32g": "v100-32g",
    "a100-40g": "a100-40g-sxm",
    "a100-80g": "a100-80g-sxm",
    "h100": "h100-sxm",
    "h200": "h200-sxm",
    "h20": "h20-sxm",
    "b200": "b200-sxm",
    "mi300x": "mi300x",
}
KINDS = {
    "alltoall": "all_to_all",
    "broadcast": "collective_broadcast",
    "sendrecv": "collective_permute",
}
FACTORS = {"all_reduce": 2.0, "collective_broadcast": 0.0, "collective_permute": 0.0}
Constants = dict[str, float]
Adjust = Callable[[ClusterSpec], ClusterSpec]


@dataclasses.dataclass(frozen=True)
class Row:
    """One published measurement; ``busbw`` in bytes/s."""

    gpu: str
    nodes: int
    per_node: int
    kind: str
    num_bytes: int
    busbw: float
    fitted: bool = False

    @property
    def factor(self) -> float:
        """Bus bandwidth over bytes / time."""
        times = FACTORS.get(self.kind, 1.0)
        return times * (self.devices - 1) / self.devices if times else 1.0

    @property
    def devices(self) -> int:
        """Devices of all hosts."""
        return self.nodes * self.per_node


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a table; every other one of a series is marked as fitted."""
    with path.open(encoding="utf-8") as file:
        rows = [
            Row(
                gpu=line["gpu"],
                nodes=int(line["nodes"]),
                per_node=int(line["gpus_per_node"]),
                kind=KINDS.get(line["collective"], line["collective"]),
                num_bytes=int(line["bytes"]),
                busbw=float(line["busbw_GBps"]) * 1e9,
            )
            for line in csv.DictReader(file)
        ]
    series: dict[tuple[str, int, str], list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.num_bytes):
        series[row.gpu, row.nodes, row.kind].append(row)
    fitted = {row for members in series.values() for row in members[::2]}
    return [dataclasses.replace(row, fitted=row in fitted) for row in rows]


_profile = functools.cache(load_cluster)


def predict(row: Row, adjust: Adjust = lambda cluster: cluster) -> float:
    """Return the modelled bus bandwidth of a row in bytes/s."""
    host = _profile(PROFILES.get(row.gpu, row.gpu))
    size = host.hosts[0].devices
    if row.nodes > 1 and row.per_node > size:
        raise SystemExit(f"{row}: a host of {host.name} has {size} devices")
    cluster = adjust(host.take(max(row.nodes * size, row.per_node)))
    group = [node * size + i for node in range(row.nodes) for i in range(row.per_node)]
    groups = [group]
    if row.kind == "collective_permute":
        groups = [[src, dst] for src, dst in zip(group, group[1:] + group[:1], strict=True)]
    seconds = collective_seconds(row.kind, row.num_bytes, groups, cluster)
    return row.num_bytes / seconds * row.factor


def errors(rows: Iterable[Row]) -> dict[str, float]:
    """Return number, mean and maximum of the absolute relative errors."""
    found = [abs(predict(row) / row.busbw - 1) for row in rows]
    if not found:
        return {"rows": 0}
    return {"rows": len(found), "mean": statistics.mean(found), "max": max(found)}


def constants() -> dict[str, dict[str, object]]:
    """Return the links of every profile."""
    out: dict[str, dict[str, object]] = {}
    for name in sorted(set(PROFILES.values())):
        for level, link in load_cluster(name).links:
            values = dataclasses.asdict(link)
            out[f"{name} {level}"] = {key: value for key, value in values.items() if value}
    return out


def _placement_check() -> list[tuple[str, float, float]]:
    """Bus bandwidth of 8 A100 in one host and of 8 groups over 8 hosts, at 64 MiB and 1 GiB."""
    mesh, cluster = Mesh((("hosts", 8), ("chips", 8))), load_cluster("a100-80g-sxm", 64)
    out = []
    for axis, published in (("chips", 155.7e9), ("hosts", 20.8e9)):
        for size in (1 << 26, 1 << 30):
            seconds = collective_time("all_reduce", size, mesh, (axis,), cluster)
            label = f"{'contiguous' if axis == 'chips' else 'strided'}, {size >> 20} MiB"
            out.append((label, size / seconds * 2 * 7 / 8, published))
    return out


def report(rows: Sequence[Row]) -> str:
    """Return the tables as Markdown."""
    lines = [
        "| GPU | hosts | GPUs | collective | bytes | measured GB/s | predicted GB/s | error | |",
        "|---|---:|---:|---|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        guess = predict(row)
        lines.append(
            f"| {row.gpu} | {row.nodes} | {row.devices} | {row.kind} | {row.num_bytes} "
            f"| {row.busbw / 1e9:.1f} | {guess / 1e9:.1f} | {guess / row.busbw - 1:+.1%} "
            f"| {'fitted' if row.fitted else 'held out'} |"
        )
    lines += ["", "| rows | number | mean error | maximum |", "|---|---:|---:|---:|"]
    for label, part in (
        ("fitted", [row for row in rows if row.fitted]),
        ("held out", [row for row in rows if not row.fitted]),
        ("all", rows),
    ):
        found = errors(part)
        if found["rows"]:
            lines.append(
                f"| {label} | {found['rows']:.0f} | {found['mean']:.1%} | {found['max']:.1%} |"
            )
    lines += ["", "8-way all_reduce on A100 (published without its size: 155.7 and 20.8 GB/s):"]
    lines += [
        f"- {label}: {guess / 1e9:.1f} GB/s (published {published / 1e9:.1f})"
        for label, guess, published in _placement_check()
    ]
    lines += ["", "Constants:"]
    lines += [f"- {name}: {values}" for name, values in constants().items()]
    return "\n".join(lines)


def figures(rows: Sequence[Row]) -> dict[str, object]:
    """Return what ``report`` prints as plain data."""
    return {
        "rows": [
            {
                **dataclasses.asdict(row),
                "predicted_busbw": (guess := predict(row)),
                "error": guess / row.busbw - 1,
            }
            for row in rows
        ],
        "fitted": errors(row for row in rows if row.fitted),
        "held_out": errors(row for row in rows if not row.fitted),
        "all": errors(rows),
        "constants": constants(),
    }


START: Constants = {
    "setup": 1.5e-5,
    "chip_fill": 5e-5,
    "a100_efficiency": 0.8,
    "in_switch_efficiency": 0.6,
    "in_switch_latency": 3e-5,
    "ring_latency": 3e-5,
    "host_fill": 5e-5,
    "host_efficiency": 0.95,
}


def adjusted(values: Constants) -> Adjust:
    """Return what puts ``values`` in the place of a profile's fitted constants."""

    def link(level: str, given: LinkSpec) -> LinkSpec:
        if level != "chip":
            return dataclasses.replace(
                given,
                ring_latency_s=values["ring_latency"],
                tree_latency_s=2 * values["ring_latency"],
                fill_s=values["host_fill"],
                efficiency=values["host_efficiency"],
            )
        switch = InSwitch(values["in_switch_efficiency"], values["in_switch_latency"])
        return dataclasses.replace(
            given,
            setup_s=values["setup"],
            fill_s=values["chip_fill"],
            efficiency=given.efficiency if given.in_switch else values["a100_efficiency"],
            in_switch=switch if given.in_switch else None,
        )

    def adjust(cluster: ClusterSpec) -> ClusterSpec:
        links = tuple((level, link(level, given)) for level, given in cluster.links)
        return dataclasses.replace(cluster, links=links)

    return adjust


def fit(rows: Sequence[Row]) -> Constants:
    """Return the constants with the least mean squared log error on ``rows``.

    Pattern search: each constant in turn is moved up and down by a factor that shrinks.
    """

    def loss(values: Constants) -> float:
        adjust = adjusted(values)
        return statistics.mean(math.log(predict(row, adjust) / row.busbw) ** 2 for row in rows)

    best, least = dict(START), loss(START)
    factor = 1.5
    while factor > 1.01:
        improved = False
        for name, by in itertools.product(START, (factor, 1 / factor)):
            trial = {**best, name: best[name] * by}
            if name.endswith("efficiency"):
                trial[name] = min(1.0, trial[name])
            if (found := loss(trial)) < least - 1e-9:
                best, least, improved = trial, found, True
        if not improved:
            factor = math.sqrt(factor)
    return best


def main() -> None:
    """Print the tables, the figures or the fitted constants."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with nccl.csv")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--fit", action="store_true", help="fit the constants again")
    options = parser.parse_args()
    rows = read_rows(options.data / "nccl.csv")
    if options.fit:
        print(json.dumps(fit([row for row in rows if row.fitted]), indent=1))
    elif options.json:
        print(json.dumps(figures(rows), indent=1))
    else:
        print(report(rows))


if __name__ == "__main__":
    main()
