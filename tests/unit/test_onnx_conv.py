"""Convolutions and pools against onnxruntime, over opsets, ranks, padding and dilation."""

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_single import check, evaluate, feeds_of, integers, random, shape_of, single

U8, I8, I32, I64 = 2, 3, 6, 7


@pytest.mark.parametrize("opset", [7, 22])
@pytest.mark.parametrize(
    ("x", "w", "attributes"),
    [
        ((2, 3, 11), (4, 3, 3), {"strides": [2], "pads": [2, 1]}),
        ((2, 3, 9, 7), (4, 3, 3, 2), {"pads": [1, 0, 2, 1], "dilations": [2, 1]}),
        ((1, 4, 8, 9), (6, 2, 3, 3), {"group": 2, "auto_pad": "SAME_UPPER", "strides": [2, 3]}),
        ((1, 4, 8, 9), (4, 1, 2, 4), {"group": 4, "auto_pad": "SAME_LOWER"}),
        ((1, 2, 5, 6, 7), (3, 2, 2, 3, 2), {"strides": [1, 2, 2]}),
    ],
)
def test_conv(tmp_path, opset, x, w, attributes):
    inputs = [random(*x), random(*w), random(w[0])]
    check(tmp_path, "Conv", inputs, opset=opset, **attributes)


def test_half_convolution_accumulates_in_float(tmp_path):
    x = np.full((1, 512, 4, 4), 0.1, np.float16)
    w = np.full((1, 512, 3, 3), 0.1, np.float16)
    model = single("Conv", [x, w], types=[10])
    model.graph.output[0].type.tensor_type.shape.CopyFrom(shape_of(np.empty((1, 1, 2, 2))))
    (got,) = evaluate(model, feeds_of(model, [x, w]), tmp_path)
    exact = float(np.float16(0.1)) ** 2 * 512 * 9
    assert got.dtype == np.float16
    np.testing.assert_allclose(got.astype(np.float64), exact, rtol=2**-11)


@pytest.mark.parametrize("opset", [11])
@pytest.mark.parametrize(
    ("x", "w", "attributes"),
    [
        ((2, 3, 7), (3, 4, 3), {"strides": [2], "pads": [1, 1], "output_padding": [1]}),
        ((2, 4, 5, 6), (4, 3, 3, 3), {"group": 2, "strides": [2, 3], "pads": [1, 2, 0, 1]}),
        ((1, 3, 5, 6), (3, 2, 3, 2), {"dilations": [2, 3], "strides": [1, 2]}),
        ((1, 3, 5, 6), (3, 2, 3, 3), {"output_shape": [10, 13], "strides": [2, 2]}),
        ((1, 3, 5, 6), (3, 2, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((1, 3, 5, 6), (3, 2, 4, 4), {"auto_pad": "SAME_LOWER", "strides": [3, 2]}),
        ((1, 2, 3, 4, 3), (2, 3, 2, 3, 2), {"strides": [2, 1, 2]}),
        ((1, 2, 6, 6), (2, 1, 2, 2), {"pads": [2, 2, 2, 2]}),
    ],
)
def test_conv_transpose(tmp_path, opset, x, w, attributes):
    outs = w[1] * attributes.get("group", 1)
    inputs = [random(*x), random(*w), random(outs)]
    check(tmp_path, "ConvTranspose", inputs, opset=opset, **attributes)


@pytest.mark.parametrize("x_zero", [None, 7])
def test_conv_integer(tmp_path, x_zero):
    inputs = [
        integers(0, 256, 2, 3, 7, 6, dtype=np.uint8),
        integers(0, 256, 4, 3, 3, 2, dtype=np.uint8),
        None if x_zero is None else np.array(x_zero, np.uint8),
        None if x_zero is None else np.array(5, np.uint8),
    ]
    check(tmp_path, "ConvInteger", inputs, types=[I32], pads=[1, 0, 1, 1])


@pytest.mark.parametrize("columns", [True, False])
def test_qlinear_conv(tmp_path, columns):
    count = (4,) if columns else ()
    inputs = [
        integers(0, 256, 2, 3, 7, 6, dtype=np.uint8),
        np.float32(0.02),
        np.uint8(120),
        integers(-128, 128, 4, 3, 3, 3, dtype=np.int8),
        np.full(count, 0.01, np.float32) + np.abs(random(*count)) * np.float32(0.01),
        np.zeros(count, np.int8),
        np.float32(0.4),
        np.uint8(99),
        integers(-5000, 5000, 4, dtype=np.int32),
    ]
    check(tmp_path, "QLinearConv", inputs, types=[U8], pads=[1] * 4, steps=1)


@pytest.mark.parametrize("offset_groups", [1, 2])
def test_deform_conv(tmp_path, offset_groups):
    inputs = [
        random(2, 4, 7, 6),
        random(6, 2, 3, 2),
        random(2, offset_groups * 2 * 6, 4, 6),
        random(6),
        np.abs(random(2, offset_groups * 6, 4, 6)),
    ]
    check(
        tmp_path,
        "DeformConv",
        inputs,
        opset=19,
        group=2,
        offset_group=offset_groups,
        strides=[2, 1],
        pads=[1, 0, 1, 1],
        tolerance=1e-4,
    )


@pytest.mark.parametrize(
    "attributes", [{}, {"strides": [2, 1], "pads": [1, 0, 1, 0]}, {"dilations": [2, 1]}]
)
def test_col2im(tmp_path, attributes):
    image, block = np.array([7, 6]), np.array([3, 2])
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    pads = attributes.get("pads", [0] * 4)
    counts = [
        (image[i] + pads[i] + pads[2 + i] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1
        for i in range(2)
    ]
    inputs = [random(2, 18, int(np.prod(counts))), image, block]
    check(tmp_path, "Col2Im", inputs, opset=18, stored=(1, 2), **attributes)


POOLS = [
    ((2, 3, 11), {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
    ((2, 3, 9, 8), {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 1, 1]}),
    ((2, 3, 9, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ((1, 2, 10, 7), {"kernel_shape": [2, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((1, 2, 10, 7), {"kernel_shape": [2, 3], "auto_pad": "SAME_LOWER"}),
    ((1, 2, 6, 5, 7), {"kernel_shape": [2, 3, 2], "strides": [2, 1, 2]}),
]


@pytest.mark.parametrize("opset", [12])
@pytest.mark.parametrize(("shape", "attributes"), POOLS)
def test_max_pool(tmp_path, opset, shape, attributes):
    check(tmp_path, "MaxPool", [random(*shape)], opset=opset, **attributes)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 1, 1, 0]},
        {"kernel_shape": [2, 2], "dilations": [2, 3]},
    ],
)
def test_max_pool_indices(tmp_path, order, attributes):
    check(
        tmp_path,
        "MaxPool",
        [random(2, 3, 8, 7)],
        outputs=2,
        types=[1, I64],
        storage_order=order,
        **attributes,
    )


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_max_pool_of_integers(tmp_path, kind):
    x = integers(0, 256, 2, 3, 8, 7, dtype=np.uint8).astype(kind)
    code = I8 if kind == np.int8 else U8
    check(tmp_path, "MaxPool", [x], types=[code], kernel_shape=[3, 3], pads=[1] * 4)


@pytest.mark.parametrize(("include", "opset"), [(0, 10), (1, 22)])
@pytest.mark.parametrize(("shape", "attributes"), POOLS)
def test_average_pool(tmp_path, include, opset, shape, attributes):
    check(
        tmp_path,
        "AveragePool",
        [random(*shape)],
        opset=opset,
        count_include_pad=include,
        **attributes,
    )


def test_average_pool_dilated(tmp_path):
    check(
        tmp_path,
        "AveragePool",
        [random(1, 2, 9, 10)],
        opset=19,
        kernel_shape=[3, 2],
        dilations=[2, 3],
        pads=[1, 1, 1, 1],
    )


@pytest.mark.parametrize("p", [1, 2, 3])
def test_lp_pool(tmp_path, p):
    check(tmp_path, "LpPool", [random(1, 2, 9, 8)], kernel_shape=[3, 2], strides=[2, 2], p=p)
    check(tmp_path, "GlobalLpPool", [random(1, 2, 9, 8)], p=p)


@pytest.mark.parametrize("name", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pool(tmp_path, name):
    check(tmp_path, name, [random(2, 3, 5, 7)])


def test_max_unpool(tmp_path):
    where = np.array([[[[5, 7], [13, 15]]]], np.int64)
    shape = np.array([1, 1, 5, 5], np.int64)
    inputs = [random(1, 1, 2, 2), where]
    check(tmp_path, "MaxUnpool", inputs, kernel_shape=[2, 2], strides=[2, 2])
    model = single("MaxUnpool", [*inputs, shape], stored=(2,), kernel_shape=[2, 2], strides=[2, 2])
    model.graph.output[0].type.tensor_type.shape.CopyFrom(shape_of(np.empty((1, 1, 5, 5))))
    feeds = feeds_of(model, inputs)
    (want,) = ReferenceEvaluator(model).run(None, feeds)
    np.testing.assert_array_equal(evaluate(model, feeds, tmp_path)[0], want)


ROIS = np.array([[1, 1, 6, 7], [0, 2, 9, 5], [-3, -1, 30, 20], [4, 4, 4, 4]], np.float32)


@pytest.mark.parametrize("opset", [10, 16])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align(tmp_path, opset, mode, ratio):
    inputs = [random(2, 3, 10, 12), ROIS, np.array([0, 1, 1, 0], np.int64)]
    check(
        tmp_path,
        "RoiAlign",
        inputs,
        opset=opset,
        stored=(1,) if ratio == 0 else (),
        mode=mode,
        output_height=3,
        output_width=4,
        sampling_ratio=ratio,
        spatial_scale=0.75,
    )


def test_max_roi_pool(tmp_path):
    rois = np.concatenate([np.array([[0], [1], [1], [0]], np.float32), ROIS], axis=1)
    inputs = [random(2, 3, 10, 12), np.abs(rois)]
    check(tmp_path, "MaxRoiPool", inputs, pooled_shape=[3, 2], spatial_scale=0.5)


@pytest.mark.parametrize("centred", [0, 1])
def test_non_max_suppression(tmp_path, centred):
    boxes = np.abs(random(2, 12, 4)) + np.array([0, 0, 1, 1], np.float32)
    inputs = [
        boxes,
        random(2, 3, 12),
        np.array([4], np.int64),
        np.array([0.4], np.float32),
        np.array([0.1], np.float32),
    ]
    check(
        tmp_path,
        "NonMaxSuppression",
        inputs,
        opset=11,
        types=[I64],
        stored=range(5),
        center_point_box=centred,
    )
