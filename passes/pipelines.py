"""The named stages of the driver and the passes each one runs."""

from __future__ import annotations

STAGES: dict[str, str] = {
    "simplify": "pai-inline,pai-legalize,pai-fold-constants,pai-dtype-cleanup,pai-cse,pai-dce",
}


def expand(pipeline: str) -> str:
    """Return the pipeline with a stage's name replaced by its passes."""
    return STAGES.get(pipeline, pipeline)
