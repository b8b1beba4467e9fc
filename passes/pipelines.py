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


def expand(pipeline: str) -> str:
    """Return the pipeline with the names of stages replaced by their passes."""
    items = pipeline.split(",") if "{" not in pipeline and "(" not in pipeline else [pipeline]
    return ",".join(STAGES.get(item.strip(), item) for item in items)
