"""Constants, types and shardings survive the way into the IR and back."""

import ml_dtypes
import numpy as np
import pytest

from pai.dialects.constants import constant, constant_value, splat_value
from pai.dialects.mlir import context, ir, parse, run_pipeline, to_text
from pai.dialects.sdy import (
    argument_sharding,
    mesh_from_module,
    options_from_attr,
    set_argument_sharding,
    set_mesh,
    set_op_shardings,
    set_result_sharding,
    sharding_attr,
    sharding_from_attr,
    shardings_of_op,
)
from pai.dialects.types import dtype_name, shape_of, tensor_type
from pai.passes.rewrite import collect, main_function
from pai.runtime.dtypes import DTYPES
from pai.runtime.errors import InvalidModel, InvalidShape, InvalidSharding, PassFailure
from pai.runtime.mesh import AxisRef, Mesh, Sharding

RNG = np.random.default_rng(0)


def sample(name, shape):
    dtype, count = DTYPES[name], int(np.prod(shape))
    data = RNG.integers(0, 2 if name in {"i1", "i2"} else 4, size=count)
    if name in {"i4", "i8", "i16", "i32", "i64"}:
        data = data - 2
    if dtype.kind == "c":
        data = data + 1j * RNG.integers(0, 3, size=count)
    if name in {"f64", "f32", "f16", "bf16", "f8E5M2"} and count > 2:
        data = data.astype(np.float64)
        data[:3] = [1 / 3, np.nan, -np.inf]
    return data.astype(dtype).reshape(shape)


def bits(value):
    return np.ascontiguousarray(value).view(np.uint8).tolist() if value.size else []


@pytest.mark.parametrize("splat", [False, True])
@pytest.mark.parametrize("shape", [(), (3,), (2, 200), (0, 2)])
@pytest.mark.parametrize("name", DTYPES)
def test_constants(name, shape, splat):
    """Short and long (hexadecimal) printed forms, splats, and empty tensors of every type."""
    value = sample(name, shape)
    if splat and value.size:
        value = np.broadcast_to(value.reshape(-1)[-1], shape)
    with context() as ctx, ir.Location.unknown():
        module = ir.Module.create()
        with ir.InsertionPoint(module.body):
            op = constant(value, tensor_type(shape, name, ctx)).owner
        printed = parse(to_text(module), ctx=ctx)  # must outlive its operations
        for found in (op.operation, printed.body.operations[0].operation):
            result = constant_value(found)
            assert result.dtype == value.dtype
            assert result.shape == shape
            assert bits(result) == bits(value)
            if splat and value.size:
                assert bits(np.asarray(splat_value(found))) == bits(np.asarray(value.flat[0]))


def test_large_splat_takes_no_memory():
    with context() as ctx, ir.Location.unknown():
        module = ir.Module.create()
        with ir.InsertionPoint(module.body):
            for name in ("f32", "bf16"):
                constant(np.array(1.5, DTYPES[name]), tensor_type((1 << 20, 1 << 12), name, ctx))
        for op in module.body.operations:
            value = constant_value(op.operation)
            assert value.shape == (1 << 20, 1 << 12)
            assert not any(value.strides)
            assert splat_value(op.operation) == ml_dtypes.bfloat16(1.5)


def test_types():
    with context() as ctx:
        assert dtype_name(ir.Type.parse("tensor<2x3xf8E4M3FN>")) == "f8E4M3FN"
        assert shape_of(tensor_type((2, 3), "ui4", ctx)) == (2, 3)
        with pytest.raises(InvalidShape, match="not a tensor of static shape"):
            shape_of(ir.Type.parse("tensor<?xf32>"))


MESHED = """sdy.mesh @mesh = <["data"=4, "model"=4]>
sdy.mesh @empty = <[]>
func.func @main(%a: tensor<8x4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"data"}p0, {"model":(2)2, ?}p1]>}, %b: tensor<8x4xf32>) -> tensor<8x4xf32> {
  %0 = stablehlo.add %a, %b : tensor<8x4xf32>
  return %0 : tensor<8x4xf32>
}"""  # noqa: E501


def test_shardings():
    module = parse(MESHED)
    main = main_function(module)
    assert mesh_from_module(module) == Mesh((("data", 4), ("model", 4)))
    attr = argument_sharding(main, 0)
    sharding = sharding_from_attr(attr)
    assert sharding == Sharding(((AxisRef("data"),), (AxisRef("model", 2, 2),)))
    assert [(o.priority, o.closed) for o in options_from_attr(attr)] == [(0, True), (1, False)]
    with module.context:
        assert sharding_attr(sharding, priorities=[0, 1], open=[False, True]) == attr
        plain = sharding_attr(Sharding.replicated(2), priorities=[1, 1])
        open_ = sharding_attr(Sharding.replicated(2), priorities=[1, 1], open=True)
    assert argument_sharding(main, 1) is None
    set_argument_sharding(main, 1, open_)
    set_result_sharding(main, 0, plain)
    (add,) = collect(module, "stablehlo.add")
    assert shardings_of_op(add) is None
    set_op_shardings(add, [attr])
    assert shardings_of_op(add) == [sharding]
    assert module.operation.verify()
    assert argument_sharding(main, 1) == open_
    set_argument_sharding(main, 1, None)
    assert argument_sharding(main, 1) is None
    assert argument_sharding(main, 0) == attr


def test_meshes():
    module = parse("module {}")
    assert mesh_from_module(module) is None
    set_mesh(module, Mesh((("x", 2),)))
    set_mesh(module, Mesh((("y", 4),)))
    assert mesh_from_module(module) == Mesh((("y", 4),))
    with pytest.raises(InvalidSharding, match="2 different meshes: a, b"):
        mesh_from_module(parse('sdy.mesh @a = <["x"=2]>\nsdy.mesh @b = <["x"=4]>'))
    reordered = Mesh((("x", 2), ("y", 2)), (0, 2, 1, 3))
    set_mesh(module, reordered)
    assert mesh_from_module(module) == reordered
    assert reordered.coordinates(2) == {"x": 0, "y": 1}
    row_major = Mesh((("x", 2),), (0, 1))
    assert row_major == Mesh((("x", 2),))
    with pytest.raises(InvalidSharding, match="lists the devices \\[0, 0\\]"):
        Mesh((("x", 2),), (0, 0))


def test_errors_name_the_place():
    with pytest.raises(InvalidModel, match=r"net.mlir:2:3: not a valid MLIR module"):
        parse("module {\n  nothing\n}", "net.mlir")
    module = parse(
        "func.func @main(%a: tensor<2xf32>) -> tensor<2xf32> {\n"
        '  %0 = "stablehlo.map"(%a) ({\n  ^bb0(%x: tensor<f32>):\n'
        "    stablehlo.return %x : tensor<f32>\n  }) {dimensions = array<i64: 0>}"
        " : (tensor<2xf32>) -> tensor<2xf32>\n  return %0 : tensor<2xf32>\n}"
    )
    with pytest.raises(PassFailure, match=r"-:2:8: pipeline '.*' failed: failed to legalize"):
        run_pipeline(module, "func.func(stablehlo-legalize-deprecated-ops)")
