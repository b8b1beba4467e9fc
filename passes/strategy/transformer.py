"""Transformers by their published dimensions: the work of one device under a hand-written split.

Sizes follow D. Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters
Using Megatron-LM" (SC'21), and V. Korthikanti et al., "Reducing Activation Recomputation in Large
Transformer Models" (2022), whose closed forms of the saved activations are sums of what the tasks
here keep. The *stack* says which kernels the software has: these are facts about programs, not
fitted numbers.
"""

from __future__ import annotations

from pai.passes.strategy.dimensions import Split, Stack, Transformer
from pai.passes.strategy.transformer_layer import CONTEXT, TENSOR, Layer
from pai.passes.strategy.workload import Collective, Dot, Recompute, Segment, Stream, Task, Workload

__all__ = ["CONTEXT", "TENSOR", "Split", "Stack", "Transformer", "transformer_workload"]


def transformer_workload(
    model: Transformer, microbatch: int, split: Split | None = None, stack: Stack | None = None
) -> Workload:
    """Return the work of one device of a training step for one microbatch.

    Args:
        model: the dimensions.
        microbatch: sequences.
        split: tensor and context parallelism; pipeline and data parallelism come in ``step.py``.
        stack: the kernels of the program.
    """
    layer = Layer(model, microbatch, split or Split(), stack or Stack())
    shared = model.vocab / layer.split.tensor * model.hidden if model.tied else 0.0
    return Workload((_embedding(layer), _layers(layer), _head(layer)), tied=shared)


def _layers(layer: Layer) -> Segment:
    exchange, context = layer.exchange(), layer.context_exchange()
    return Segment(
        "layer",
        forward=(
            *layer.dots(), *layer.attention(), *layer.streams(), *layer.casts(), *exchange,
            *context,
        ),
        backward=(
            *layer.input_gradients(), *layer.attention_backward(), *layer.streams_backward(),
            *layer.casts_backward(), *layer.exchange_backward(), *context, *context,
        ),
        weight_backward=layer.weight_gradients(),
        repeat=layer.model.layers,
        parameters=layer.model.layer_parameters / layer.split.tensor,
        recompute=layer.recomputes(),
        output_bytes=layer.token_bytes / layer.split.tensor,
        transient_bytes=layer.gradients(),
    )  # fmt: skip


def _embedding(layer: Layer) -> Segment:
    model = layer.model
    rows = model.vocab / layer.split.tensor + (model.seq if model.positions else 0)
    exchange: tuple[Task, ...] = ()
    if layer.split.tensor > 1:
        exchange = (Collective("all_reduce", layer.token_bytes, (TENSOR,)),)
    return Segment(
        "embedding",
        forward=(Stream((5 if model.positions else 2) * layer.token_bytes), *exchange),
        backward=(Stream(3 * layer.token_bytes),),
        parameters=rows * model.hidden,
        output_bytes=layer.token_bytes / layer.split.tensor,
    )


def _head(layer: Layer) -> Segment:
    model, tokens = layer.model, layer.tokens
    columns = model.vocab // layer.split.tensor
    exchange: tuple[Task, ...] = ()
    if layer.split.tensor > 1:
        exchange = (Collective("all_reduce", layer.token_bytes, (TENSOR,)),)
    logits = tokens * columns
    norm = Stream(2 * layer.norm_bytes)
    return Segment(
        "head",
        forward=(
            norm,
            Dot(tokens, columns, model.hidden, dtype=layer.stack.dtype),
            Stream(logits * layer.stack.loss_bytes / 2),
        ),
        backward=(
            Stream(logits * layer.stack.loss_bytes / 2),
            Dot(tokens, model.hidden, columns, dtype=layer.stack.dtype),
            Stream(5 * layer.norm_bytes),
            *exchange,
        ),
        weight_backward=(Dot(columns, model.hidden, tokens, dtype=layer.stack.dtype),),
        parameters=(0 if model.tied else columns * model.hidden) + 2 * model.hidden,
        recompute=(Recompute("none", 2 * layer.norm_bytes),),
        transient_bytes=logits * layer.stack.loss_peak + layer.token_bytes,
    )
