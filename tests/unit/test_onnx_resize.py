"""Resize, Upsample, GridSample and AffineGrid against onnxruntime."""

import numpy as np
import pytest
from onnx_single import check, random

X = (2, 3, 6, 7)
MAPPINGS = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]


def scales(*values):
    return np.array(values, np.float32)


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("factors", [(1, 1, 2.0, 1.5), (1, 1, 0.6, 0.75), (1, 1, 1.7, 0.5)])
def test_interpolation(tmp_path, mapping, mode, factors):
    """With align_corners onnxruntime rounds the sizes first: compare where they are whole."""
    x = random(2, 3, 10, 20) if mapping == "align_corners" else random(*X)
    inputs = [x, None, scales(*factors)]
    check(
        tmp_path,
        "Resize",
        inputs,
        stored=(2,),
        mode=mode,
        coordinate_transformation_mode=mapping,
        tolerance=2e-5,
    )


@pytest.mark.parametrize(("mapping", "opset"), [*zip(MAPPINGS, [11, 19, 13, 18], strict=True)])
@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_nearest(tmp_path, mapping, rounding, opset):
    roi = np.array([], np.float32)
    inputs = [random(*X), roi, np.array([], np.float32), np.array([2, 3, 9, 5], np.int64)]
    if opset >= 13:
        inputs[1:3] = [None, None]
    check(
        tmp_path,
        "Resize",
        inputs,
        opset=opset,
        stored=(1, 2, 3),
        mode="nearest",
        nearest_mode=rounding,
        coordinate_transformation_mode=mapping,
    )


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("exclude", [0, 1])
@pytest.mark.parametrize("sizes", [(2, 3, 3, 4), (2, 3, 9, 3)])
def test_antialias(tmp_path, mode, exclude, sizes):
    inputs = [random(2, 3, 11, 13), None, None, np.array(sizes, np.int64)]
    check(
        tmp_path,
        "Resize",
        inputs,
        opset=18,
        stored=(3,),
        mode=mode,
        antialias=1,
        exclude_outside=exclude,
        tolerance=2e-5,
    )


@pytest.mark.parametrize("a", [-0.5, -0.75])
def test_exclude_outside(tmp_path, a):
    check(
        tmp_path,
        "Resize",
        [random(*X), None, scales(1, 1, 0.8, 1.3)],
        stored=(2,),
        mode="cubic",
        exclude_outside=1,
        cubic_coeff_a=a,
        tolerance=2e-5,
    )


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_crop(tmp_path, mode):
    roi = np.array([0, 0, 0.2, 0.3, 1, 1, 1.4, 0.9], np.float32)
    inputs = [random(*X), roi, None, np.array([2, 3, 5, 4], np.int64)]
    check(
        tmp_path,
        "Resize",
        inputs,
        stored=(1, 3),
        mode=mode,
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=9.0,
    )


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
def test_axes_and_aspect_ratio(tmp_path, policy):
    inputs = [random(*X), None, None, np.array([9, 5], np.int64)]
    check(
        tmp_path,
        "Resize",
        inputs,
        opset=18,
        stored=(3,),
        mode="linear",
        axes=[3, 2],
        keep_aspect_ratio_policy=policy,
    )


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("factors", [(1, 1, 2, 3), (1, 1, 0.5, 0.6)])
def test_resize_10(tmp_path, mode, factors):
    check(tmp_path, "Resize", [random(*X), scales(*factors)], opset=10, stored=(1,), mode=mode)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample(tmp_path, mode):
    inputs = [random(*X), scales(1, 1, 2, 1.5)]
    check(tmp_path, "Upsample", inputs, opset=9, stored=(1,), mode=mode)
    check(tmp_path, "Upsample", inputs[:1], opset=7, mode=mode, scales=[1.0, 1.0, 2.0, 1.5])


def test_integers(tmp_path):
    x = (random(*X) * 60).astype(np.uint8)
    check(
        tmp_path,
        "Resize",
        [x, None, scales(1, 1, 2, 1.5)],
        stored=(2,),
        types=[2],
        mode="linear",
        steps=1,
    )


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize(("align", "opset"), [(0, 20), (1, 16)])
def test_grid_sample(tmp_path, mode, padding, align, opset):
    old = {"linear": "bilinear", "cubic": "bicubic", "nearest": "nearest"}
    check(
        tmp_path,
        "GridSample",
        [random(2, 3, 6, 7), random(2, 4, 5, 2) * np.float32(1.2)],
        opset=opset,
        mode=mode if opset == 20 else old[mode],
        padding_mode=padding,
        align_corners=align,
        tolerance=1e-4,
    )


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grid_sample_volume(tmp_path, mode, padding):
    check(
        tmp_path,
        "GridSample",
        [random(2, 3, 4, 5, 6), random(2, 3, 2, 4, 3)],
        opset=20,
        mode=mode,
        padding_mode=padding,
        tolerance=1e-4,
    )


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 5, 6), (2, 3, 4, 5, 6)])
def test_affine_grid(tmp_path, align, size):
    rank = len(size) - 2
    inputs = [random(2, rank, rank + 1), np.array(size, np.int64)]
    check(
        tmp_path, "AffineGrid", inputs, opset=20, stored=(1,), align_corners=align, tolerance=1e-5
    )
