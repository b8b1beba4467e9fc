"""What XLA's SPMD partitioner makes of an annotated module: its collectives, read off the HLO."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import jax
import numpy as np
from jaxlib import xla_client

from pai.passes.partition.report import CollectiveUse
from pai.passes.partition.traffic import moved

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4,
         "u32": 4, "f64": 8, "s64": 8, "u64": 8, "c64": 8, "c128": 16}  # fmt: skip
_COLLECTIVE = re.compile(
    r"= (?P<type>\(?[^=]*?\)?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all"
    r"|collective-permute)(?:-start)?\("
)


def partition_with_xla(module_text: str, devices: int) -> str:
    """Compile a module with Shardy annotations for CPU devices; return the optimized HLO."""
    options = xla_client.CompileOptions()
    options.num_replicas, options.num_partitions = 1, devices
    build = options.executable_build_options
    build.use_spmd_partitioning = build.use_shardy_partitioner = True
    build.num_partitions = devices
    options.device_assignment = xla_client.DeviceAssignment.create(np.arange(devices)[None])
    found = jax.devices("cpu")[:devices]
    executable = found[0].client.compile_and_load(module_text, found, options)
    return str(executable.hlo_modules()[0].to_string())


def hlo_uses(hlo: str, devices: int) -> tuple[CollectiveUse, ...]:
    """Return the collectives that one run of an HLO module starts, by kind and group size."""
    totals: dict[tuple[str, int], list[float]] = {}
    computations = _computations(re.sub(r"/\*.*?\*/", "", hlo))
    entry = next(name for name, lines in computations.items() if lines[0].startswith("ENTRY"))
    for line, trips in _lines(computations, entry, 1):
        match = _COLLECTIVE.search(line)
        if match is None:
            continue
        kind, result = match["kind"].replace("-", "_"), _type_bytes(match["type"])
        size = 0 if kind == "collective_permute" else _group_size(line, devices)
        sent = _sent(line, devices) * result if size == 0 else moved(kind, result, size)
        total = totals.setdefault((kind, size), [0, 0, 0])
        for index, amount in enumerate((1, result, sent)):
            total[index] += trips * amount
    return tuple(
        CollectiveUse(kind, int(count), int(result), size, round(sent))
        for (kind, size), (count, result, sent) in sorted(totals.items())
    )


def _computations(hlo: str) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in hlo.splitlines():
        match = re.match(r"(?:ENTRY )?%?([\w.-]+) .*\{$", line)
        if match and not line.startswith(" "):
            lines = out.setdefault(match[1], [line])
        elif line.startswith(" "):
            lines.append(line)
    return out


def _lines(computations: dict[str, list[str]], name: str, trips: int) -> Iterator[tuple[str, int]]:
    """Yield each line a run executes and how often; the branches of a conditional all count."""
    for line in computations[name][1:]:
        yield line, trips
        if " while(" in line:
            count = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
            (body,) = re.findall(r"body=%?([\w.-]+)", line)
            yield from _lines(computations, body, trips * int(count[1] if count else 1))
        elif " conditional(" in line or " call(" in line:
            for inner in re.findall(r"(?:to_apply|computation)=%?([\w.-]+)", line):
                yield from _lines(computations, inner, trips)
            for group in re.findall(r"branch_computations=\{([^}]*)\}", line):
                for inner in re.findall(r"%?([\w.-]+)", group):
                    yield from _lines(computations, inner, trips)


def _type_bytes(text: str) -> int:
    sizes = re.findall(r"(\w+)\[([\d,]*)\]", text)
    return sum(
        BYTES[name] * math.prod(int(size) for size in shape.split(",") if size)
        for name, shape in sizes
    )


def _group_size(line: str, devices: int) -> int:
    """Return the devices of a group in any of HLO's three spellings; all without a group."""
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return len(match[1].split(","))
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(match[1])
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line):
        sizes = dict(re.findall(r"'([^']*)'=(\d+)", match[1]))
        axes = re.findall(r"'([^']*)'(?::\(\d+\)(\d+))?", match[2])
        return math.prod(int(part or sizes[name]) for name, part in axes)
    return devices


def _sent(line: str, devices: int) -> float:
    match = re.search(r"source_target_pairs=\{(.*?)\}\}", line)
    pairs = re.findall(r"(\d+),(\d+)", match[1] if match else "")
    return sum(a != b for a, b in pairs) / devices
