"""Rows of llm-foundry and TorchTitan: FSDP in PyTorch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from benchmarks.published.case import Case, Option, Row, Setup, integers
from benchmarks.published.megatron import llama, llama_flops
from pai.passes.strategy.memory import State
from pai.passes.strategy.step import Execution
from pai.passes.strategy.transformer import Split, Stack, Transformer
from pai.runtime.errors import PaiError

MPT = {
    "125m": (12, 768, 12),
    "350m": (24, 1024, 16),
    "760m": (24, 1536, 12),
    "1b": (24, 2048, 16),
    "3b": (32, 2560, 20),
    "7b": (32, 4096, 32),
    "13b": (40, 5120, 40),
    "30b": (48, 7168, 56),
    "70b": (80, 8192, 64),
}
"""Layers, hidden and heads of llm-foundry's configurations."""

PROFILES = {"a100_40gb": "a100-40g-sxm", "a100_80gb": "a100-80g-sxm", "h100_80gb": "h100-sxm"}
LLAMA = {
    "llama3-8b": (32, 4096, 32, 8, 14336),
    "llama3-70b": (80, 8192, 64, 8, 28672),
    "llama3-405b": (126, 16384, 128, 8, 53248),
}
"""Layers, hidden, heads, key heads and inner elements."""

TITAN_PROFILES = {"h100-96g": "h100-96g-500w", "h100": "h100-sxm", "a100": "a100-80g-sxm"}

UNFUSED_ADAM = 80
"""AdamW as nineteen f32 reads and writes a parameter and one for the gradient's norm."""

A100_GBPS = 1600
"""Between hosts of the A100 profiles; sections of llm-foundry's tables name theirs."""

FP8 = "f8E4M3FN"


def llmfoundry(row: Row, *, fitted: bool) -> Iterator[Case]:
    """Yield llm-foundry's throughput tables."""
    seq, gpus, batch = integers(row, "SeqLen (T)", "# GPUs", "GlobalBatchSize")
    model = _mpt(row, seq)
    recompute = row["Activation Checkpointing"] == "True"
    tokens = batch * seq / gpus
    scores = 4 * model.layers * model.hidden * seq
    flops = tokens * (4 if recompute else 3) * (2 * model.parameters + scores)
    setup = _foundry_setup(row, model, recompute=recompute)
    micro, accum = setup.microbatch, setup.run.microbatches
    marks = (" ckpt" if recompute else "") + (" fp8" if "fp8" in row["Precision"] else "")
    name = f"{row['Model']} s{seq} {row['GPU']} x{gpus} b{micro}x{accum}{marks}"
    seconds = tokens / float(row["Throughput (T/s/GPU)"])
    kind = row["GPU"].split("_")[0]
    yield Case("llmfoundry_fsdp", name, kind, seconds, flops, [Option(setup)], fitted)


def _mpt(row: Row, seq: int) -> Transformer:
    if row["Model"] not in MPT or row["Activation CPUOffload"] == "True":
        raise PaiError(
            f"'{row['Model']}' with offload {row['Activation CPUOffload']} is not known",
            "llmfoundry_fsdp.csv",
            f"models are {', '.join(MPT)}, without offload",
        )
    layers, hidden, heads = MPT[row["Model"]]
    model = Transformer(layers, hidden, heads, 50368, seq)
    if abs(model.parameters / int(row["NumParams"]) - 1) > 0.02:
        raise PaiError(
            f"'{row['Model']}' has {model.parameters} parameters, not {row['NumParams']}",
            "llmfoundry_fsdp.csv",
        )
    return model


def _foundry_setup(row: Row, model: Transformer, *, recompute: bool) -> Setup:
    gpus, micro, accum = integers(row, "# GPUs", "MicroBatchSize", "GradAccum")
    amp = row["Precision"].startswith("amp")
    stack = Stack(
        product_dtype=FP8 if "fp8" in row["Precision"] else "",
        early_stop=amp,
        loss_bytes=36,
        loss_peak=4,
    )
    run = Execution(
        microbatches=accum,
        replicas=gpus,
        zero={"FULL_SHARD": 3, "SHARD_GRAD_OP": 2, "NO_SHARD": 0}[row["Sharding Strategy"]],
        segmented=True,
        recompute="full" if recompute else "none",
        reduce_bytes=4 if row["MP Mode"] == "DEFAULT" else 2,
        gradient_bytes=10 if row["MP Mode"] == "DEFAULT" else 4,
        update_bytes=UNFUSED_ADAM,
    )
    speed = re.search(r"(\d+) Gbps", row["section"])
    fabric = int(speed[1]) / A100_GBPS if speed else 1.0
    return Setup(model, micro, PROFILES[row["GPU"]], Split(), stack, run, State(4, 4, 8), fabric)


def torchtitan(row: Row, *, fitted: bool) -> Iterator[Case]:
    """Yield TorchTitan's tables, with the peak memory."""
    seq, batch = integers(row, "seq", "local_batch")
    kind = next((kind for kind in TITAN_PROFILES if row["gpu"].startswith(kind)), "")
    if not kind or row["model"] not in LLAMA:
        raise PaiError(f"'{row['model']}' on '{row['gpu']}' is not known", "torchtitan.csv")
    model = llama(*LLAMA[row["model"]], 128256, seq)
    setup = replace(_titan_setup(row, model, batch), profile=TITAN_PROFILES[kind])
    shared = setup.split.tensor * setup.split.context * setup.run.stages
    tokens = batch * seq / shared
    name = f"{row['model']} {row['parallelism']} {row['precision']} {row['variant']}"
    yield Case(
        "torchtitan",
        name,
        kind.split("-")[0],
        tokens / float(row["tokens_per_s_per_gpu"]),
        batch * llama_flops(model) / shared,
        [Option(setup)],
        fitted,
        float(row["peak_GiB"]) * 2**30,
    )


def _titan_setup(row: Row, model: Transformer, batch: int) -> Setup:
    found = re.findall(r"(fsdp|tp|cp|pp)(\d+)", row["parallelism"])
    sizes = {name: int(size) for name, size in found}
    tensor, context, stages = (sizes.get(name, 1) for name in ("tp", "cp", "pp"))
    stack = Stack(
        fused_elementwise=row["variant"] != "eager",
        norm_traffic=36 if row["variant"] == "eager" else 4,
        product_dtype=FP8 if row["precision"] in {"fp8", "float8"} else "",
        early_stop=True,
        loss_peak=20 if tensor > 1 else 12,
        overlap_tensor="all" if "async" in row["variant"] else "",
    )
    run = Execution(
        stages=stages,
        microbatches=stages,
        replicas=sizes.get("fsdp", 1),
        context=context,
        zero=2
        if stages > 1
        else 3,  # with stages, parameters stay gathered until the backward pass
        segmented=True,
        recompute=row["recompute"],
        reduce_bytes=4,
        gradient_bytes=10,
        update_bytes=28,
    )
    split = Split(tensor, context, sequence_parallel=tensor > 1)
    state = State(4, 4, 8)
    return Setup(model, max(1, batch // stages), "h100-96g-500w", split, stack, run, state)
