"""com.microsoft operators against onnxruntime."""

import numpy as np
import pytest
from onnx import helper
from onnx_single import check, compare, evaluate, feeds_of, integers, random, shape_of, single

MS = "com.microsoft"
U8, I8, I32 = 2, 3, 6


def scalar(value, dtype=np.float32):
    return np.array(value, dtype)


@pytest.mark.parametrize(
    ("name", "attributes", "count"),
    [
        ("BiasGelu", {}, 2),
        ("FastGelu", {}, 2),
        ("FastGelu", {}, 1),
        ("QuickGelu", {"alpha": 1.3}, 1),
        ("Gelu", {}, 1),
    ],
)
def test_gelus(tmp_path, name, attributes, count):
    inputs = [random(3, 5, 7), random(7, seed=1)][:count]
    check(tmp_path, name, inputs, domain=MS, **attributes)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
def test_skip_norm(tmp_path, name, bias):
    inputs = [random(2, 3, 8), random(2, 3, 8, seed=1), random(8)]
    if name == "SkipLayerNormalization":
        inputs.append(random(8, seed=3))
    if bias:
        inputs.append(random(8, seed=2))
    outputs = (True, False, False, True)
    check(tmp_path, name, inputs, domain=MS, outputs=outputs, types=[1] * 4, epsilon=1e-5)


def test_simplified_layer_norm(tmp_path):
    check(
        tmp_path, "SimplifiedLayerNormalization", [random(2, 3, 8), random(8)], axis=-1, outputs=2
    )


def test_early_layer_norm(tmp_path):
    inputs = [random(2, 3, 8), random(8), random(8, seed=1)]
    check(tmp_path, "LayerNormalization", inputs, opset=13, axis=-1)


@pytest.mark.parametrize("mask", [True, False])
def test_embed_layer_norm(tmp_path, mask):
    inputs = [
        integers(0, 11, 2, 5, dtype=np.int32),
        integers(0, 2, 2, 5, dtype=np.int32),
        random(11, 8),
        random(6, 8),
        random(2, 8),
        random(8),
        random(8, seed=1),
    ]
    if mask:
        inputs.append(np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32))
    check(tmp_path, "EmbedLayerNormalization", inputs, domain=MS, outputs=2, types=[1, I32])


@pytest.mark.parametrize(
    ("a", "b", "attributes"),
    [
        ((2, 3, 4), (2, 4, 5), {"alpha": 0.5}),
        ((2, 4, 3), (2, 5, 4), {"transA": 1, "transB": 1}),
        ((4, 2, 3, 5), (2, 3, 5, 6), {"transBatchA": 1}),
        ((2, 3, 4, 5), (5, 2, 3, 6), {"transBatchB": 1}),
        ((2, 3, 4, 5), (6, 2, 3, 5), {"transBatchB": 1, "transB": 1}),
    ],
)
def test_fused_matmul(tmp_path, a, b, attributes):
    check(tmp_path, "FusedMatMul", [random(*a), random(*b)], domain=MS, **attributes)


@pytest.mark.parametrize("activation", ["Relu", "Tanh", "LeakyRelu"])
def test_fused_gemm(tmp_path, activation):
    extra = {"activation_alpha": 0.3} if activation == "LeakyRelu" else {}
    inputs = [random(3, 4), random(5, 4), random(5)]
    check(
        tmp_path,
        "FusedGemm",
        inputs,
        domain=MS,
        transB=1,
        alpha=0.7,
        activation=activation,
        **extra,
    )


@pytest.mark.parametrize(
    ("activation", "parameters"),
    [("Relu", None), ("Clip", [-0.5, 0.75]), ("LeakyRelu", [0.2]), ("HardSigmoid", [0.3, 0.4])],
)
def test_fused_conv(tmp_path, activation, parameters):
    extra = {"activation_params": parameters} if parameters else {}
    inputs = [random(2, 3, 7, 5), random(4, 3, 3, 3), random(4), random(2, 4, 7, 5)]
    check(tmp_path, "FusedConv", inputs, domain=MS, pads=[1] * 4, activation=activation, **extra)


def test_inverse(tmp_path):
    check(tmp_path, "Inverse", [random(3, 5, 5) + 3 * np.eye(5, dtype=np.float32)], domain=MS)


def quantization(seed):
    return [scalar(0.01 + 0.003 * seed), scalar(100 + seed, np.uint8)]


@pytest.mark.parametrize("name", ["QLinearAdd", "QLinearMul"])
def test_qlinear_binary(tmp_path, name):
    a, b = (integers(0, 256, 3, 5, 7, dtype=np.uint8, seed=s) for s in (0, 1))
    inputs = [a, *quantization(1), b, *quantization(2), *quantization(3)]
    check(tmp_path, name, inputs, domain=MS, types=[U8], steps=1)


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("QLinearSigmoid", {}),
        ("QLinearLeakyRelu", {"alpha": 0.2}),
        ("QLinearAveragePool", {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 0]}),
        ("QLinearAveragePool", {"kernel_shape": [2, 2], "channels_last": 1}),
        ("QLinearGlobalAveragePool", {"channels_last": 0}),
        ("QLinearSoftmax", {"axis": -1}),
    ],
)
def test_qlinear_unary(tmp_path, name, attributes):
    x = integers(0, 256, 2, 3, 6, 5, dtype=np.uint8)
    inputs = [x, *quantization(1), *quantization(2)]
    if name == "QLinearSoftmax":
        inputs = [x, *quantization(1), scalar(1 / 256), scalar(0, np.uint8)]
    stored = (1, 2, 3, 4)
    steps = 0 if name in ("QLinearSigmoid", "QLinearLeakyRelu") else 1
    model = single(name, inputs, domain=MS, types=[U8], stored=stored, **attributes)
    if name == "QLinearSoftmax":
        model.graph.node[0].attribute.append(helper.make_attribute("opset", 13))
    compare(tmp_path, model, inputs, steps=steps)


def test_qlinear_concat(tmp_path):
    inputs = [*quantization(1)]
    for seed in (0, 1, 2):
        inputs += [integers(0, 256, 2, 3 + seed, dtype=np.uint8), *quantization(seed)]
    stored = [i for i in range(len(inputs)) if i not in (2, 5, 8)]
    check(tmp_path, "QLinearConcat", inputs, domain=MS, types=[U8], stored=stored, steps=0, axis=1)


@pytest.mark.parametrize("columns", [True, False])
@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_dynamic_quantize_matmul(tmp_path, columns, kind):
    b = integers(-100, 100, 6, 7, dtype=np.int8).astype(kind)
    count = (7,) if columns else ()
    scale = np.full(count, 0.02, np.float32) + random(*count) * np.float32(0.001)
    zero = np.full(count, 3, kind)
    inputs = [random(2, 5, 6), b, scale, zero, random(7)]
    check(tmp_path, "DynamicQuantizeMatMul", inputs, domain=MS, stored=(1, 2, 3))


def test_matmul_integer_to_float(tmp_path):
    a, b = integers(0, 256, 4, 6, dtype=np.uint8), integers(-128, 128, 6, 7, dtype=np.int8)
    inputs = [a, b, scalar(0.1), np.abs(random(7)), scalar(120, np.uint8), None, random(7, seed=1)]
    check(tmp_path, "MatMulIntegerToFloat", inputs, domain=MS)


@pytest.mark.parametrize("quantized", [True, False])
def test_qgemm(tmp_path, quantized):
    inputs = [
        integers(0, 256, 4, 6, dtype=np.uint8),
        scalar(0.1),
        scalar(99, np.uint8),
        integers(0, 256, 7, 6, dtype=np.uint8),
        scalar(0.02),
        scalar(100, np.uint8),
        integers(-500, 500, 7, dtype=np.int32),
    ]
    if quantized:
        inputs += [scalar(2.5), scalar(101, np.uint8)]
    check(
        tmp_path,
        "QGemm",
        inputs,
        domain=MS,
        transB=1,
        types=[U8 if quantized else 1],
        stored=range(1, len(inputs)),
        steps=1,
    )


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize(("bits", "depth"), [(4, 64), (4, 80), (8, 48)])
def test_matmul_nbits(tmp_path, bits, depth, zeros):
    rows, block = 6, 32
    blocks = -(-depth // block)
    inputs = [
        random(3, depth),
        integers(0, 256, rows, blocks, block * bits // 8, dtype=np.uint8),
        np.abs(random(rows, blocks)) * np.float32(0.1),
    ]
    if zeros:
        inputs.append(integers(0, 256, rows, -(-blocks * bits // 8), dtype=np.uint8))
    check(
        tmp_path,
        "MatMulNBits",
        inputs,
        domain=MS,
        tolerance=1e-4,
        K=depth,
        N=rows,
        bits=bits,
        block_size=block,
        accuracy_level=1,
    )


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("columns", [True, False])
def test_dynamic_quantize_lstm(tmp_path, direction, columns):
    count, hidden, width = (2 if direction == "bidirectional" else 1), 8, 5
    gates = (count, 4 * hidden) if columns else (count,)
    inputs = [
        random(6, 1, width),
        integers(-127, 128, count, width, 4 * hidden, dtype=np.int8),
        integers(-127, 128, count, hidden, 4 * hidden, dtype=np.int8),
        random(count, 8 * hidden),
        None,
        random(count, 1, hidden),
        random(count, 1, hidden, seed=1),
        None,
        np.full(gates, 0.008, np.float32),
        np.zeros(gates, np.int8),
        np.full(gates, 0.006, np.float32),
        np.zeros(gates, np.int8),
    ]
    check(
        tmp_path,
        "DynamicQuantizeLSTM",
        inputs,
        domain=MS,
        outputs=3,
        stored=(1, 2, 8, 9, 10, 11),
        tolerance=2e-3,
        hidden_size=hidden,
        direction=direction,
    )


def masks(kind, batch, queries, keys):
    if kind is None:
        return None
    lengths = np.array([keys - 2, keys], np.int32)[:batch]
    raw = (np.arange(keys) < lengths[:, None]).astype(np.int32)
    if kind == 1:
        return lengths
    return raw if kind == 2 else np.repeat(raw[:, None], queries, axis=1)


@pytest.mark.parametrize("kind", [None, 1, 2, 3])
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("past", [0, 3])
def test_attention(tmp_path, kind, causal, past):
    batch, length, heads, size = 2, 4, 3, 8
    if kind == 1 and past:
        pytest.skip("lengths with a cache: onnxruntime wants raw masks")
    width = heads * size
    inputs = [
        random(batch, length, 10),
        random(10, 3 * width),
        random(3 * width),
        masks(kind, batch, length, past + length),
        random(2, batch, heads, past, size) if past else None,
    ]
    outputs = 2 if past else 1
    check(
        tmp_path,
        "Attention",
        inputs,
        domain=MS,
        outputs=outputs,
        num_heads=heads,
        unidirectional=causal,
    )


def test_attention_value_size(tmp_path):
    inputs = [random(2, 4, 10), random(10, 24 + 24 + 12), random(60)]
    check(tmp_path, "Attention", inputs, domain=MS, num_heads=3, qkv_hidden_sizes=[24, 24, 12])


@pytest.mark.parametrize("layout", ["plain", "cross", "past"])
@pytest.mark.parametrize("kind", [None, 2])
def test_multi_head_attention(tmp_path, layout, kind):
    batch, queries, keys, heads, size = 2, 4, 5, 2, 8
    width = heads * size
    q, k, v = random(batch, queries, width), random(batch, keys, width), random(batch, keys, width)
    bias = random(3 * width) if layout == "plain" else None
    mask = masks(kind, batch, queries, keys) if layout == "plain" else None
    inputs = [q, k, v, bias, mask]
    outputs = 1
    if layout == "cross":
        inputs = [q, random(batch, heads, keys, size), random(batch, heads, keys, size)]
    elif layout == "past":
        cache = random(batch, heads, 3, size)
        inputs = [q, k[:, :queries], v[:, :queries], None, None, None, cache, cache]
        outputs = 3
    check(tmp_path, "MultiHeadAttention", inputs, domain=MS, outputs=outputs, num_heads=heads)


@pytest.mark.parametrize("packed", ["qkv", "kv"])
def test_multi_head_attention_packed(tmp_path, packed):
    """onnxruntime's CPU does not take packed inputs: compare with the same ones unpacked."""
    batch, length, heads, size = 2, 4, 3, 8
    x = random(batch, length, heads, 3, size)
    q, k, v = (x[:, :, :, i].reshape(batch, length, -1) for i in range(3))
    (want,) = check(tmp_path, "MultiHeadAttention", [q, k, v], domain=MS, num_heads=heads)
    inputs = [x] if packed == "qkv" else [q, x[:, :, :, 1:]]
    model = single("MultiHeadAttention", inputs, domain=MS, num_heads=heads)
    model.graph.output[0].type.tensor_type.shape.CopyFrom(shape_of(want))
    (got,) = evaluate(model, feeds_of(model, inputs), tmp_path)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("single_position", [True, False])
def test_rotary_embedding(tmp_path, interleaved, rank, single_position):
    batch, length, heads, size = 2, 4, 3, 8
    x = random(batch, length, heads * size) if rank == 3 else random(batch, heads, length, size)
    positions = (
        np.array([2], np.int64)
        if single_position
        else integers(0, 10, batch, length, dtype=np.int64)
    )
    inputs = [x, positions, random(16, size // 2), random(16, size // 2, seed=1)]
    check(tmp_path, "RotaryEmbedding", inputs, domain=MS, interleaved=interleaved)


@pytest.mark.parametrize("stage", ["prompt", "decode", "chunk"])
@pytest.mark.parametrize("rotary", [0, 1])
@pytest.mark.parametrize("window", [-1, 3])
def test_group_query_attention(tmp_path, stage, rotary, window):
    batch, heads, shared, size, buffer = (1 if stage == "chunk" else 2), 4, 2, 16, 8
    length, total = {"prompt": (5, 5), "decode": (1, 6), "chunk": (2, 6)}[stage]
    lengths = np.array([total - 1, total - 1], np.int32)[:batch]
    if stage == "decode":
        lengths[1] -= 2
    cos, sin = random(16, size // 2), random(16, size // 2, seed=1)
    inputs = [
        random(batch, length, heads * size),
        random(batch, length, shared * size, seed=1),
        random(batch, length, shared * size, seed=2),
        random(batch, shared, buffer, size, seed=3),
        random(batch, shared, buffer, size, seed=4),
        lengths,
        scalar(total, np.int32),
        cos if rotary else None,
        sin if rotary else None,
    ]
    check(
        tmp_path,
        "GroupQueryAttention",
        inputs,
        domain=MS,
        outputs=3,
        only=(0,),
        stored=(6,),
        num_heads=heads,
        kv_num_heads=shared,
        do_rotary=rotary,
        local_window_size=window,
    )


@pytest.mark.parametrize("options", [{"softcap": 2.0}, {"smooth_softmax": 1}])
def test_group_query_attention_packed(tmp_path, options):
    batch, heads, shared, size, length = 2, 4, 2, 16, 5
    inputs = [
        random(batch, length, (heads + 2 * shared) * size),
        None,
        None,
        None,
        None,
        np.array([4, 4], np.int32),
        scalar(5, np.int32),
    ]
    check(
        tmp_path,
        "GroupQueryAttention",
        inputs,
        domain=MS,
        outputs=3,
        stored=(6,),
        num_heads=heads,
        kv_num_heads=shared,
        **options,
    )


def test_expand_dims(tmp_path):
    inputs = [random(2, 3), scalar(1, np.int32)]
    check(tmp_path, "ExpandDims", inputs, domain=MS, stored=(1,))


@pytest.mark.parametrize(("shape", "inner"), [((2, 3, 1, 5), 1), ((1, 1, 4, 5), 0)])
def test_bias_softmax(tmp_path, shape, inner):
    """onnxruntime has this on GPUs only: compare with the formula."""
    x, bias = random(2, 3, 4, 5), random(*shape)
    attributes = {"axis": 3, "is_inner_broadcast": inner}
    model = single("BiasSoftmax", [x, bias], domain=MS, **attributes)
    model.graph.output[0].type.tensor_type.shape.CopyFrom(shape_of(x))
    (got,) = evaluate(model, feeds_of(model, [x, bias]), tmp_path)
    weights = np.exp((x + bias).astype(np.float64))
    np.testing.assert_allclose(got, weights / weights.sum(-1, keepdims=True), rtol=1e-5)
