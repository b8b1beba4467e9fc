"""Work of a transformer's device, against published closed forms and sizes."""

from dataclasses import replace

import pytest

from pai.passes.strategy.transformer import Split, Stack, Transformer, transformer_workload
from pai.passes.strategy.workload import Attention, Collective, Dot, Stream

MEGATRON = Stack("f16", fused_attention=False, fused_elementwise=True, dropout=True)
GPT = Transformer(layers=48, hidden=6144, heads=64, vocab=51200, seq=2048)
LLAMA = Transformer(
    32, 4096, 32, 128256, 8192, 8, 14336, gated=True, biases=False, positions=False, tied=False
)


def layer_of(model, batch=1, split=None, stack=None):
    return transformer_workload(model, batch, split, stack).segments[1]


def saved(segment):
    return {choice.name: choice.saved_bytes for choice in segment.recompute}


def dot_flops(tasks):
    return sum(2 * t.m * t.n * t.k * t.batch * t.count for t in tasks if isinstance(t, Dot))


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (Transformer(12, 768, 12, 50368, 2048), 125311488),
        (Transformer(32, 4096, 32, 50368, 8192), 6684024832),
        (LLAMA, 8030261248),
    ],
    ids=["mpt-125m", "mpt-7b", "llama3-8b"],
)
def test_parameters_are_those_of_the_published_models(model, parameters):
    assert model.parameters == parameters


@pytest.mark.parametrize("tensor", [1, 8])
@pytest.mark.parametrize("sequence", [False, True])
def test_saved_activations_are_the_closed_forms_of_korthikanti(tensor, sequence):
    batch, s, h, a = 4, GPT.seq, GPT.hidden, GPT.heads
    found = saved(layer_of(GPT, batch, Split(tensor, 1, sequence), MEGATRON))
    unit = s * batch * h
    if sequence:
        assert found["none"] == pytest.approx(unit / tensor * (34 + 5 * a * s / h))
        assert found["selective"] == pytest.approx(34 * unit / tensor)
        assert found["full"] == pytest.approx(2 * unit / tensor)
    else:
        assert found["none"] == pytest.approx(unit * (10 + 24 / tensor + 5 * a * s / h / tensor))
        assert found["selective"] == pytest.approx(unit * (10 + 24 / tensor))
        assert found["full"] == pytest.approx(2 * unit)


def test_flops_of_a_step_are_megatrons_formula():
    batch, s, h, v = 4, GPT.seq, GPT.hidden, GPT.vocab
    work = transformer_workload(GPT, batch, stack=MEGATRON)
    total = sum(
        segment.repeat * dot_flops((*segment.forward, *segment.backward, *segment.weight_backward))
        for segment in work.segments
    )
    formula = 72 * batch * s * GPT.layers * h * h * (1 + s / (6 * h) + v / (12 * GPT.layers * h))
    assert total == pytest.approx(formula)
    layer = work.segments[1]
    again = {choice.name: dot_flops(choice.tasks) for choice in layer.recompute}
    assert again["full"] == pytest.approx(dot_flops(layer.forward))
    assert again["selective"] == pytest.approx(4 * batch * s * s * h)


def test_recompute_that_stops_early_leaves_the_last_product_out():
    whole, early = (
        next(r for r in layer_of(GPT, stack=Stack(early_stop=stop)).recompute if r.name == "full")
        for stop in (False, True)
    )
    last = 2 * GPT.seq * 4 * GPT.hidden**2
    assert dot_flops(whole.tasks) - dot_flops(early.tasks) == last


def test_fused_attention_keeps_no_scores():
    plain, fused = (
        saved(layer_of(GPT, stack=Stack("f16", fused_attention=fused)))["none"]
        for fused in (False, True)
    )
    assert plain - fused == 2 * GPT.heads * GPT.seq**2
    assert any(isinstance(task, Attention) for task in layer_of(GPT).forward)


def test_tensor_parallel_layers_exchange_twice_in_each_pass():
    bytes_of = GPT.seq * GPT.hidden * 2
    layer = layer_of(GPT, split=Split(8))
    for tasks in (layer.forward, layer.backward):
        (exchange,) = (task for task in tasks if isinstance(task, Collective))
        assert exchange == Collective("all_reduce", bytes_of, ("tensor",), count=2)
    parallel = layer_of(GPT, split=Split(8, sequence_parallel=True))
    kinds = [task.kind for task in parallel.forward if isinstance(task, Collective)]
    assert sorted(kinds) == ["all_gather", "reduce_scatter"]
    assert not [t for t in layer_of(GPT).forward if isinstance(t, Collective)]


def test_overlapped_exchanges_are_hidden_and_offloaded():
    split = Split(8, sequence_parallel=True)
    gradients = layer_of(GPT, split=split, stack=Stack(overlap_tensor="gradients"))
    assert not any(t.hidden for t in gradients.forward if isinstance(t, Collective))
    hidden = [t.hidden for t in gradients.backward if isinstance(t, Collective)]
    assert sorted(hidden) == [False, True, True]
    every = layer_of(GPT, split=split, stack=Stack(overlap_tensor="all"))
    exchanges = [t for t in (*every.forward, *every.backward) if isinstance(t, Collective)]
    assert all(t.hidden and t.offloaded for t in exchanges)


def test_work_falls_with_tensor_and_context_parallelism():
    one = dot_flops(layer_of(LLAMA).forward)
    assert dot_flops(layer_of(LLAMA, split=Split(8)).forward) == one / 8
    assert dot_flops(layer_of(LLAMA, split=Split(2, 4)).forward) == one / 8
    context = layer_of(LLAMA, split=Split(1, 4))
    (gathered,) = (task for task in context.forward if isinstance(task, Collective))
    assert gathered.num_bytes == 2 * 8 * 128 * LLAMA.seq * 2
    assert gathered.axes == ("context",)


def test_key_heads_may_be_fewer_than_tensor_devices():
    layer = layer_of(replace(LLAMA, kv_heads=2), split=Split(8))
    (attention,) = (task for task in layer.forward if isinstance(task, Attention))
    assert (attention.batch, attention.kv_batch) == (4, 1)


def test_products_in_another_type_cost_casts():
    def bytes_of(stack):
        layer = layer_of(LLAMA, stack=stack)
        tasks = (*layer.forward, *layer.backward)
        return sum(t.num_bytes * t.count for t in tasks if isinstance(t, Stream))

    tokens, matrices = LLAMA.seq, LLAMA.layer_parameters - 2 * LLAMA.hidden
    inputs = tokens * (4 * 4096 + 14336)
    outputs = tokens * (6144 + 4096 + 2 * 14336 + 4096)
    extra = bytes_of(Stack(product_dtype="f8E4M3FN")) - bytes_of(Stack())
    assert extra == pytest.approx(4 * (inputs + matrices + outputs))


def test_gathered_operands_are_cast_first():
    split = Split(8, sequence_parallel=True)
    layer = layer_of(LLAMA, split=split, stack=Stack(product_dtype="f8E4M3FN"))
    sizes = {t.kind: t.num_bytes for t in layer.forward if isinstance(t, Collective)}
    whole = LLAMA.seq * LLAMA.hidden
    assert sizes == {"all_gather": whole, "reduce_scatter": 2 * whole}


def test_norms_of_many_kernels_move_more():
    def bytes_of(traffic):
        layer = layer_of(LLAMA, stack=Stack(norm_traffic=traffic))
        tasks = (*layer.forward, *layer.backward)
        return sum(t.num_bytes * t.count for t in tasks if isinstance(t, Stream))

    elements = 2 * LLAMA.seq * LLAMA.hidden
    assert bytes_of(36.0) - bytes_of(4.0) == elements * 32 * 3.5


def test_shared_embedding_and_head():
    assert transformer_workload(GPT, 1, Split(8)).tied == GPT.vocab * GPT.hidden / 8
    assert transformer_workload(LLAMA, 1).tied == 0
    head = transformer_workload(LLAMA, 1, Split(8)).segments[-1]
    assert head.parameters == pytest.approx(LLAMA.vocab * LLAMA.hidden / 8, rel=1e-3)
