"""Plan: what the strategy chose, what it costs, and what lost; a readable file both ways.

::

    format = 1
    cluster = "a100-80g-sxm"
    strategy = "data=4 model=2"
    devices = 16                          # of one copy: those of the mesh times the stages
    objective = "latency"                 # or "throughput", "devices"
    precision = "bf16"                    # optional: the element type of the parameters

    [mesh]                                # axis sizes of one stage, outermost first
    data = 4
    model = 2

    [pipeline]                            # optional: one stage, the batch at once
    stages = 2
    virtual = 1                           # chunks a stage; more with "interleaved" only
    microbatches = 8
    schedule = "1f1b"                     # gpipe, 1f1b, interleaved, zero-bubble

    [[pipeline.stage]]                    # optional: one for each stage
    chunks = ["embedding, layer[0:15]"]   # segments; one string for each virtual stage
    devices = "0-7"                       # optional
    [[pipeline.stage]]
    chunks = ["layer[15:32], head"]
    mesh = { data = 2, model = 4 }        # optional: other sizes of the same axes
    devices = "8-15"

    [zero]                                # per axis: 1 shards optimizer state, 2 gradients too,
    data = 3                              # 3 parameters too

    [recompute]                           # segment glob, or /regex/, to none, selective or full
    "layer*" = "selective"                # the first match counts

    [patterns]                            # argument-name glob, or /regex/, to dimensions
    "encoder.*.weight" = ["model", ""]    # the first match counts

    [arguments]                           # exact names come before patterns
    "x" = ["data p0", ""]                 # axes, major first, then the priority

    [values]                              # values inside the program (``plan_values.py``)
    "layer3/attention/dot_general" = ["data", "", "model"]

A dimension is a string of axes separated by commas, with ``p<n>`` for the propagation priority;
``model:(1)2`` is a sub-axis as Shardy writes it. A line ``device_ids = [0, 2, 1, 3]`` before the
first table says which device is at each position of the mesh, row-major, when it is not 0, 1, 2…
``replicas = 4`` there says that four copies serve requests.
A plan written by hand needs only ``[mesh]`` and what it wants to decide; everything predicted is
computed again when a plan is loaded.
"""

from __future__ import annotations

from pai.passes.strategy.plan_data import (
    OBJECTIVES,
    RECOMPUTE,
    SCHEDULES,
    Alternative,
    CollectiveCost,
    Pipeline,
    Plan,
    Prediction,
    Stage,
)
from pai.passes.strategy.plan_layout import (
    TensorLayout,
    layout_from_texts,
    layout_to_texts,
    matches,
)
from pai.passes.strategy.plan_read import PlanFile, parse_plan, plan_from_toml, read_plan
from pai.passes.strategy.plan_write import plan_to_dict, plan_to_json, plan_to_toml

__all__ = [
    "OBJECTIVES",
    "RECOMPUTE",
    "SCHEDULES",
    "Alternative",
    "CollectiveCost",
    "Pipeline",
    "Plan",
    "PlanFile",
    "Prediction",
    "Stage",
    "TensorLayout",
    "layout_from_texts",
    "layout_to_texts",
    "matches",
    "parse_plan",
    "plan_from_toml",
    "plan_to_dict",
    "plan_to_json",
    "plan_to_toml",
    "read_plan",
]
