"""The named stages of the driver and the passes each one runs."""

from __future__ import annotations

STAGES: dict[str, str] = {
    "simplify": "pai-inline,pai-legalize,pai-fold-constants,pai-dtype-cleanup,pai-cse,pai-dce",
}


def expand(pipeline: str) -> str:
    """Return the pipeline with the names of stages replaced by their passes."""
    items = pipeline.split(",") if "{" not in pipeline and "(" not in pipeline else [pipeline]
    return ",".join(STAGES.get(item.strip(), item) for item in items)
