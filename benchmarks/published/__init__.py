"""Predicted against published step times and memory: ``python -m benchmarks.published``.

Rows are split by place: those at even places of a file of this repository (from 0) belong to the
fitted half, all others, and all rows that the repository does not have, are held out. Constants
are fitted to the fitted halves of the A100 tables and, for the H100's own set, of llm-foundry's
H100 rows; Alpa's, Megatron-Core's, Llama 3's and TorchTitan's times are fitted to by nothing.

What tables do not say, and what was assumed before anything was fitted:

* Megatron (SC'21): fp16, recompute of every layer, softmax and element-wise kernels fused, scores
  in memory, dropout, gradients in fp16 added up by a kernel of their own and reduced after the
  last microbatch, Adam of every parameter on every replica.
* Korthikanti et al.: the same a year later, so that gradients are added up inside the products and
  input gradients are exchanged beside the products of weight gradients.
* llm-foundry: MPT (12 h² + 13 h parameters a layer, which give NumParams exactly), fused attention
  and norms, other element-wise work in eager kernels, a loss of 36 bytes a logit (the fused one
  and two metrics in f32), an unfused AdamW of 80 bytes a parameter. ``amp_*`` rows: PyTorch 2.1,
  whose recompute stops at the last value that is needed, gradients reduced in f32. ``bf16`` rows:
  PyTorch 1.13, full recompute, gradients reduced in bf16.
* Alpa: fp16, every layer recomputed and counted in its TFLOP/s (96 B s l h² (1 + s/6h) +
  6 B s h V). Megatron's best grid, and the two ablations, are the fastest that fits 16 GB in our
  own model; pipelines longer than the layers split layers in halves.
* Megatron-Core: bf16, fused attention with Hopper's instructions (1.6 times the calibrated one: J.
  Shah et al., "FlashAttention-3", 2024, give 1.5 to 2.0), no recompute, ZeRO-1, all exchanges
  overlapped, tensor-parallel ones by copy engines. Microbatch (1, 2, 4) and interleaving (any
  divisor of a stage's layers): the fastest that fits 80 GB in our own model.
* Llama 3: as Megatron-Core with the calibrated attention, ZeRO-2, microbatch 1 or 2.
* TorchTitan: FSDP in bf16 with f32 state and reduction; ``compile`` fuses element-wise kernels,
  eager norms are chains of f32 kernels; with fp8, operands are cast before they are gathered.
"""
