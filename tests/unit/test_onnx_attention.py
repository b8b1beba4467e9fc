"""Attention, rotary embedding and linear attention against ONNX's reference, ragged shapes."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_single import evaluate, feeds_of, integers, random, shape_of, single


def against_reference(folder, model, inputs, tolerance=1e-5):
    feeds = feeds_of(model, inputs)
    want = ReferenceEvaluator(model).run(None, feeds)
    for value, array in zip(model.graph.output, want, strict=True):
        value.type.tensor_type.shape.CopyFrom(shape_of(array))
    got = evaluate(model, feeds, folder)
    for ours, theirs in zip(got, want, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        wide = theirs.astype(np.float64)
        assert not np.isnan(wide).any()
        assert np.any(wide != 0)
        np.testing.assert_allclose(ours.astype(np.float64), wide, rtol=tolerance, atol=tolerance)
    return got


def qkv(*, heads=4, shared=4, queries=5, keys=7, size=8, value_size=6, batch=2, packed=False):
    shapes = [(heads, queries, size), (shared, keys, size), (shared, keys, value_size)]
    if packed:
        return [random(batch, n, h * s, seed=i) for i, (h, n, s) in enumerate(shapes)]
    return [random(batch, *shape, seed=i) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize(("opset", "shared"), [(23, 4), (24, 2), (25, 1)])
@pytest.mark.parametrize("causal", [0, 1])
def test_shared_heads(tmp_path, opset, shared, causal):
    inputs = qkv(shared=shared)
    model = single("Attention", inputs, opset=opset, is_causal=causal)
    against_reference(tmp_path, model, inputs)


@pytest.mark.parametrize("mask", ["bool", "float", "short", "per_head", "row"])
@pytest.mark.parametrize("causal", [0, 1])
def test_masks(tmp_path, mask, causal):
    if mask == "row" and causal:
        pytest.skip("the reference takes the mask's single row for a single query")
    inputs = qkv()
    shape = {"short": (2, 1, 5, 4), "per_head": (2, 4, 5, 7), "row": (1, 7)}.get(mask, (5, 7))
    value = random(*shape) > -0.3
    value[..., 0] = True
    if mask in ("float", "per_head"):
        value = random(*shape)
    model = single("Attention", [*inputs, value], opset=24, is_causal=causal)
    against_reference(tmp_path, model, [*inputs, value])


def test_rows_with_nothing_to_see_are_zero(tmp_path):
    inputs = qkv()
    mask = np.ones((5, 7), bool)
    mask[2] = False
    model = single("Attention", [*inputs, mask], opset=24)
    (y,) = against_reference(tmp_path, model, [*inputs, mask])
    assert (y[:, :, 2] == 0).all()
    assert (y[:, :, 1] != 0).any()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_cache_and_scores(tmp_path, packed, mode):
    inputs = qkv(shared=2, keys=5, packed=packed)
    past = [random(2, 2, 3, 8, seed=7), random(2, 2, 3, 6, seed=8)]
    heads = {"q_num_heads": 4, "kv_num_heads": 2} if packed else {}
    values = [*inputs, None, *past]
    model = single(
        "Attention",
        values,
        opset=23,
        outputs=4,
        is_causal=1,
        scale=0.2,
        qk_matmul_output_mode=mode,
        **heads,
    )
    against_reference(tmp_path, model, values)


def test_softcap(tmp_path):
    inputs = qkv()
    model = single("Attention", inputs, opset=23, softcap=0.5, scale=1.0)
    against_reference(tmp_path, model, inputs)


@pytest.mark.parametrize("causal", [0, 1])
def test_external_cache(tmp_path, causal):
    values = [*qkv(), None, None, None, np.array([3, 7], np.int64)]
    model = single("Attention", values, opset=24, is_causal=causal)
    against_reference(tmp_path, model, values)


@pytest.mark.parametrize(("left", "right"), [(2, -1), (-1, 1), (1, 2)])
@pytest.mark.parametrize("causal", [0, 1])
def test_window(tmp_path, left, right, causal):
    inputs = qkv()
    model = single(
        "Attention",
        inputs,
        opset=25,
        left_window_size=left,
        right_window_size=right,
        is_causal=causal,
    )
    against_reference(tmp_path, model, inputs)


def test_half_precision_with_float_softmax(tmp_path):
    inputs = [value.astype(np.float16) for value in qkv()]
    model = single("Attention", inputs, opset=23, types=[10], softmax_precision=1)
    against_reference(tmp_path, model, inputs, tolerance=2e-3)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("part", [0, 4])
@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("positions", [True, False])
def test_rotary_embedding(tmp_path, interleaved, part, rank, positions):
    batch, heads, length, size = 2, 3, 5, 8
    x = random(batch, heads, length, size) if rank == 4 else random(batch, length, heads * size)
    half = (part or size) // 2
    shape = (11, half) if positions else (batch, length, half)
    inputs = [x, random(*shape), random(*shape, seed=1)]
    if positions:
        inputs.append(integers(0, 11, batch, length, dtype=np.int64))
    attributes = {"num_heads": heads} if rank == 3 else {}
    model = single(
        "RotaryEmbedding",
        inputs,
        opset=23,
        interleaved=interleaved,
        rotary_embedding_dim=part,
        **attributes,
    )
    against_reference(tmp_path, model, inputs)


@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta"])
@pytest.mark.parametrize("past", [True, False])
def test_linear_attention(tmp_path, rule, past):
    batch, length, heads, shared, key, value = 2, 5, 4, 2, 6, 3
    inputs = [
        random(batch, length, heads * key),
        random(batch, length, shared * key, seed=1),
        random(batch, length, shared * value, seed=2),
        random(batch, shared, key, value, seed=3) if past else None,
        -np.abs(random(batch, length, shared * key, seed=4)) if "gated" in rule else None,
        np.abs(random(batch, length, shared, seed=5)) if "delta" in rule else None,
    ]
    model = single(
        "LinearAttention",
        inputs,
        opset=27,
        outputs=2,
        q_num_heads=heads,
        kv_num_heads=shared,
        update_rule=rule,
    )
    against_reference(tmp_path, model, inputs, tolerance=1e-4)


def test_flex_attention(tmp_path):
    def body(name, op_type, constant):
        info = helper.make_tensor_value_info
        shape = [2, 4, 5, 7]
        nodes = [
            helper.make_node("Constant", [], ["c"], value_float=constant),
            helper.make_node(op_type, ["s", "c"], ["t"]),
        ]
        values = [[info(n, TensorProto.FLOAT, shape)] for n in ("s", "t")]
        return helper.make_graph(nodes, name, *values)

    inputs = qkv(shared=2)
    model = single(
        "FlexAttention",
        inputs,
        opset=26,
        domain="ai.onnx.preview",
        score_mod=body("score", "Mul", 0.5),
        prob_mod=body("prob", "Add", 0.25),
    )
    against_reference(tmp_path, model, inputs)
