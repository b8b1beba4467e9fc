"""The named stages of the driver and the passes each one runs.

The driver runs ``simplify`` from here; the strategy, partition and fuse stages have functions
that also report, and the pipelines here are their rewrites alone, for ``pai-opt``.
"""

from __future__ import annotations

STAGES: dict[str, str] = {
    "simplify": "pai-inline,pai-legalize,pai-cse,pai-fold-constants,pai-dtype-cleanup,pai-cse,"
    "pai-dce",
    "strategy": "pai-auto-shard",
    "partition": "pai-propagate,pai-localize,pai-optimize-collectives",
    "fuse": "pai-fuse",
}


def split(pipeline: str) -> list[str]:
    """Split a pipeline at the commas that are in no bracket; empty items are dropped."""
    items: list[str] = []
    depth, start = 0, 0
    for index, char in enumerate(pipeline + ","):
        depth += char in "{(<["
        depth -= char in "})>]"
        if char == "," and depth == 0:
            items.append(pipeline[start:index].strip())
            start = index + 1
    return [item for item in items if item]


def expand(pipeline: str) -> str:
    """Return the pipeline with the names of stages replaced by their passes."""
    return ",".join(STAGES.get(item, item) for item in split(pipeline))
