"""The named stages of the driver and the passes each one runs.

The driver runs ``simplify`` from here; the strategy, partition and fuse stages have functions
that also report, and the pipelines here are their rewrites alone, for ``pai-opt``.
"""

from __future__ import annotations

# Collectives of a local module: gathers before broadcasts, equal ones shared, those of what a loop
# does not change moved out, sums reduced once, blocks scattered, accumulators reduced behind their
# loop, neighbours joined. Only the last may join those of different layers; folded layers are back
# in the module by then.
SINGLE_COLLECTIVES = (
    "pai-narrow-gathers,pai-share-collectives,pai-hoist-collectives,pai-reassociate-collectives,"
    "pai-scatter-collectives,pai-reassociate-collectives,pai-sink-collectives,"
    "pai-share-collectives"
)
JOINED_COLLECTIVES = "pai-combine-collectives"
COLLECTIVES = f"{SINGLE_COLLECTIVES},{JOINED_COLLECTIVES}"

STAGES: dict[str, str] = {
    "simplify": "pai-inline,pai-legalize,pai-cse,pai-fold-constants,pai-dtype-cleanup,pai-cse,"
    "pai-dce",
    "strategy": "pai-auto-shard",
    "partition": f"pai-fold-padding,pai-propagate,pai-localize,{COLLECTIVES}",
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
