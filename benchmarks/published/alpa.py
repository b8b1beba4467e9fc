"""Rows of Alpa, OSDI'22: V100s, 25 Gb/s between hosts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from benchmarks.published.case import Case, Option, Row, Setup, gpt_flops, integers
from benchmarks.published.megatron import ADAM_BYTES, MEGATRON
from pai.passes.strategy.memory import State
from pai.passes.strategy.step import Execution
from pai.passes.strategy.transformer import Split, Stack, Transformer
from pai.runtime.errors import PaiError

ALPA = Stack("f16", fused_attention=False, fused_elementwise=True)
"""What XLA makes of it: element-wise work fused, scores in memory."""

BATCH, SEQ, VOCAB = 1024, 1024, 51200
MEMORY_SHARE = 0.9
"""Part of the 16 GiB that XLA's allocator takes by default; PyTorch has about as much beside the
CUDA context and NCCL's buffers."""


def alpa(row: Row, *, fitted: bool) -> Iterator[Case]:
    """Yield the four times of a row: Megatron, Alpa and its two ablations."""
    if row["family"] != "gpt":
        raise PaiError(f"the family '{row['family']}' is not known", "alpa_v100.csv", "it has gpt")
    gpus, layers, hidden, heads = integers(row, "gpus", "layers", "hidden", "heads")
    model = Transformer(layers, hidden, heads, VOCAB, SEQ)
    flops = gpt_flops(BATCH, model, 4) / gpus
    plan = [_published(row["alpa_plan"], model, gpus)]
    single = gpus == 1
    columns = {
        "megatron_tflops_per_gpu": _grid(model, gpus, MEGATRON),
        "alpa_tflops_per_gpu": plan,
        "alpa_intra_only": plan if single else _grid(model, gpus, ALPA, 1, (0, 1, 2, 3)),
        "alpa_inter_only": plan if single else _grid(model, gpus, ALPA, gpus),
    }
    for column, options in columns.items():
        name = f"{row['params']} x{gpus} {column.removesuffix('_tflops_per_gpu')}"
        seconds = flops / float(row[column]) / 1e12
        group = "ablations" if "only" in column else "plans"
        yield Case("alpa_v100", name, "v100", seconds, flops, options, fitted, group=group)


def _published(text: str, model: Transformer, gpus: int) -> Option:
    """Return Alpa's plan: microbatches, stages, and (replicas, tensor) of a stage's mesh."""
    found = re.search(r"(\d+) microbatches; (\d+) stages? x (\d+) GPUs?", text)
    if found is None:
        raise PaiError(
            f"cannot be read: '{text}'", "alpa_plan", "M microbatches; S stages x G GPUs"
        )
    microbatches, stages, size = (int(part) for part in found.groups())
    mesh = re.search(r"logical mesh \((\d+),(\d+)\)", text)
    replicas, tensor = (int(mesh[1]), int(mesh[2])) if mesh else (1, size)
    micro = BATCH // microbatches // replicas
    zero = 2 if replicas > 1 else 0  # its post-pass: reduce-scatter and all-gather for updates
    return _option(model, stages, replicas, tensor, micro, ALPA, zero)


def _grid(
    model: Transformer, gpus: int, stack: Stack, only: int = 0, zero: tuple[int, ...] = (0,)
) -> list[Option]:
    """Return all sizes of stages (or ``only`` that many), replicas, tensor and microbatch."""
    out = []
    for stages in [only] if only else _divisors(gpus):
        for tensor in _divisors(gpus // stages):
            replicas = gpus // stages // tensor
            sizes = [m for m in (1, 2, 4, 8, 16, 32) if BATCH % (m * replicas) == 0]
            if model.heads % tensor or (not only and model.layers % stages):
                continue
            levels = zero if replicas > 1 else (0,)
            out += [
                _option(model, stages, replicas, tensor, micro, stack, level)
                for micro in sizes
                for level in levels
            ]
    return out


def _option(
    model: Transformer, stages: int, replicas: int, tensor: int, micro: int, stack: Stack, zero: int
) -> Option:
    run = Execution(
        stages=stages,
        microbatches=BATCH // replicas // micro,
        replicas=replicas,
        zero=zero,
        recompute="full",
        gradient_bytes=6,
        update_bytes=ADAM_BYTES,
    )
    option = Option(Setup(model, micro, "v100-16g-p3", Split(tensor), stack, run, State(2, 2, 12)))
    option.memory /= MEMORY_SHARE
    return option


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]
