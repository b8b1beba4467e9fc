"""Rows of Megatron-LM, Korthikanti et al., Megatron-Core and Llama 3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.published.case import Case, Option, Row, Setup, gpt_flops, integers
from pai.passes.strategy.memory import State
from pai.passes.strategy.step import Execution
from pai.passes.strategy.transformer import Split, Stack, Transformer

MEGATRON = Stack("f16", fused_attention=False, fused_elementwise=True, dropout=True, loss_bytes=52)
"""Fused scale-mask-softmax, bias-GELU and bias-dropout-residual; the vocabulary-parallel loss reads
and writes 52 bytes of f32 a logit."""

ADAM_BYTES = 36
"""Fused Adam reads p, m, v, g and writes p, m, v in f32 (28); the f16 copies are read and written
and a gradient is converted (8)."""

HOPPER = Stack("bf16", fused_elementwise=True, overlap_tensor="all")
A100, H100, LLAMA3 = "a100-80g-sxm", "h100-sxm", "h100-llama3"


def sc21(row: Row, *, fitted: bool) -> Iterator[Case]:
    """Yield Table 1 of Narayanan et al., SC'21."""
    layers, hidden, heads, vocab, seq = integers(row, "layers", "hidden", "heads", "vocab", "seq")
    tp, pp, dp, gpus, batch, micro, virtual = integers(
        row, "TP", "PP", "DP", "GPUs", "GBS", "MBS", "virtual_stages"
    )
    model = Transformer(layers, hidden, heads, vocab, seq)
    run = Execution(
        stages=pp,
        microbatches=batch // dp // micro,
        virtual=virtual,
        replicas=dp,
        recompute=row["recompute"],
        gradient_bytes=6,
        update_bytes=ADAM_BYTES,
    )
    flops = gpt_flops(batch, model, 4 if row["recompute"] == "full" else 3) / gpus
    seconds = flops / float(row["tflops_per_gpu"]) / 1e12
    option = Option(Setup(model, micro, A100, Split(tp), MEGATRON, run))
    name = f"{row['params_B']}B tp{tp} pp{pp} dp{dp}"
    yield Case("sc21", name, "a100", seconds, flops, [option], fitted)


def korthikanti(row: Row, *, fitted: bool) -> Iterator[Case]:
    """Yield both times of each row of Korthikanti et al."""
    for column, recompute in (("t_full_s", "full"), ("t_seqsel_s", "selective")):
        setup = korthikanti_setup(row, recompute)
        passes = 4 if recompute == "full" else 3
        flops = gpt_flops(int(row["GBS"]), setup.model, passes) / int(row["GPUs"])
        name = f"{row['model']} {recompute}"
        seconds = float(row[column])
        yield Case("korthikanti", name, "a100", seconds, flops, [Option(setup)], fitted)


def korthikanti_setup(row: dict[str, str], recompute: str) -> Setup:
    """Return how a row ran; sequence parallelism comes with anything but full recompute."""
    layers, hidden, heads, seq = integers(row, "layers", "hidden", "heads", "seq")
    tp, pp, dp, virtual, batch, micro = integers(row, "TP", "PP", "DP", "virtual", "GBS", "MBS")
    run = Execution(
        stages=pp,
        microbatches=batch // dp // micro,
        virtual=virtual,
        replicas=dp,
        recompute=recompute,
        update_bytes=ADAM_BYTES,
    )
    stack = replace(MEGATRON, overlap_tensor="gradients")
    split = Split(tp, sequence_parallel=recompute == "selective")
    model = Transformer(layers, hidden, heads, 51200, seq)
    return Setup(model, micro, A100, split, stack, run, State(2, 4, 12))


def mcore(row: Row, *, fitted: bool) -> Iterator[Case]:
    """Yield Megatron-Core's table."""
    layers, hidden, heads, vocab, seq = integers(row, "layers", "hidden", "heads", "vocab", "seq")
    tp, pp, dp, gpus, batch = integers(row, "TP", "PP", "DP", "GPUs", "GBS")
    model = Transformer(layers, hidden, heads, vocab, seq, tied=False)
    flops = gpt_flops(batch, model, 3) / gpus
    stack = replace(HOPPER, attention_speed=1.6)
    base = Setup(model, 1, H100, Split(tp, sequence_parallel=tp > 1), stack, _overlapped(pp, dp, 1))
    options = _options(base, batch // dp, (1, 2, 4))
    seconds = flops / float(row["tflops_per_gpu"]) / 1e12
    name = f"{row['model']} tp{tp} pp{pp} dp{dp}"
    yield Case("mcore_h100", name, "h100", seconds, flops, options, fitted)


def llama3(row: Row, *, fitted: bool) -> Iterator[Case]:
    """Yield Table 4 of the Llama 3 paper."""
    layers, hidden, heads, kv, ffn, vocab, seq = integers(
        row, "layers", "hidden", "heads", "kv_heads", "ffn", "vocab", "seq"
    )
    tp, cp, pp, dp, gpus, batch = integers(row, "tp", "cp", "pp", "dp", "gpus", "batch_per_dp")
    model = llama(layers, hidden, heads, kv, ffn, vocab, seq)
    flops = dp * batch * llama_flops(model) / gpus
    split = Split(tp, cp, sequence_parallel=tp > 1)
    run = replace(_overlapped(pp, dp, 2), context=cp)
    base = Setup(model, 1, LLAMA3, split, HOPPER, run)
    seconds = flops / float(row["tflops_per_gpu"]) / 1e12
    name = f"{row['model']} x{gpus} tp{tp} cp{cp} pp{pp} dp{dp} s{seq}"
    options = _options(base, batch, (1, 2))
    yield Case("llama3_h100", name, "h100", seconds, flops, options, fitted)


def llama(
    layers: int, hidden: int, heads: int, kv: int, ffn: int, vocab: int, seq: int
) -> Transformer:
    """Return a Llama: gated MLP, rotary positions, no biases, a head of its own."""
    return Transformer(
        layers, hidden, heads, vocab, seq, kv, ffn,
        gated=True, biases=False, positions=False, tied=False,
    )  # fmt: skip


def llama_flops(model: Transformer) -> float:
    """Return a sequence's operations by the MFU convention, all scores counted."""
    scores = 12 * model.layers * model.hidden * model.seq
    return model.seq * float(6 * model.parameters + scores)


def _overlapped(stages: int, replicas: int, zero: int) -> Execution:
    return Execution(
        stages=stages,
        replicas=replicas,
        zero=zero,
        overlap_reduce=True,
        overlap_send=True,
        reduce_bytes=4,
    )


def _options(base: Setup, batch: int, microbatches: tuple[int, ...]) -> list[Option]:
    """Return the microbatches that divide the batch times the interleavings of a stage's layers."""
    layers = -(-base.model.layers // base.run.stages)
    chunks = [v for v in range(1, layers + 1) if layers % v == 0] if base.run.stages > 1 else [1]
    out = []
    for micro in microbatches:
        for virtual in chunks if batch % micro == 0 else ():
            run = replace(base.run, microbatches=batch // micro, virtual=virtual)
            state = State(2, 4, 12)
            out.append(Option(replace(base, microbatch=micro, run=run, state=state)))
    return out
