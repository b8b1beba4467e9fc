"""Changes of element type."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from jax import lax
from jax import numpy as jnp
from onnx import TensorProto

from pai.frontends.onnx.arrays import is_concrete
from pai.frontends.onnx.node import Node
from pai.frontends.onnx.registry import op
from pai.frontends.onnx.tensors import numpy_dtype

_FLOAT8 = {
    np.dtype(ml_dtypes.float8_e4m3fn),
    np.dtype(ml_dtypes.float8_e4m3fnuz),
    np.dtype(ml_dtypes.float8_e5m2),
    np.dtype(ml_dtypes.float8_e5m2fnuz),
}


def cast_to(x: Any, dtype: np.dtype, *, saturate: bool = True, rounding: str = "up") -> Any:
    """Return ``x`` in another element type as ONNX's Cast converts it.

    Args:
        x: the value.
        dtype: target type.
        saturate: for float 8: out-of-range values become the largest one, not NaN or infinity.
        rounding: for powers of two (float8e8m0): up, down or nearest.
    """
    if x.dtype == dtype:
        return x
    if dtype == np.bool_:
        return (np if is_concrete(x) else jnp).not_equal(x, np.zeros((), x.dtype))
    if dtype in _FLOAT8 and jnp.issubdtype(x.dtype, jnp.floating):
        return _to_float8(jnp.asarray(x), dtype, saturate)
    if dtype == np.dtype(ml_dtypes.float4_e2m1fn):
        limit = float(jnp.finfo(dtype).max)
        wide = jnp.asarray(x).astype(jnp.float32)
        return jnp.where(jnp.isnan(wide), -0.0, jnp.clip(wide, -limit, limit)).astype(dtype)
    if dtype == np.dtype(ml_dtypes.float8_e8m0fnu):
        return _to_power_of_two(jnp.asarray(x), saturate, rounding)
    if dtype.name in ("int4", "uint4", "int2", "uint2"):
        return _to_subbyte(jnp.asarray(x), dtype)
    if is_concrete(x):
        with np.errstate(all="ignore"):
            return x.astype(dtype)
    return x.astype(dtype)


def _to_float8(x: Any, dtype: np.dtype, saturate: bool) -> Any:
    info = jnp.finfo(dtype)
    wide = x.astype(jnp.float32)
    limit = float(info.max)
    if saturate:
        wide = jnp.where(jnp.isnan(wide), wide, jnp.clip(wide, -limit, limit))
    return wide.astype(dtype)


def _to_power_of_two(x: Any, saturate: bool, rounding: str) -> Any:
    """Convert to float8e8m0: an exponent alone, its code the float's biased exponent."""
    bits = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    exponent, fraction = (bits >> 23) & 0xFF, bits & 0x7FFFFF
    # The smallest power is half the smallest normal float, so a denormal counts from its middle.
    rest = jnp.where(exponent == 0, jnp.maximum(fraction, 0x400000) - 0x400000, fraction)
    half = jnp.where(exponent == 0, 0x200000, 0x400000)
    up = {"up": rest > 0, "nearest": rest >= half, "down": jnp.zeros(x.shape, bool)}[rounding]
    code = exponent + up.astype(jnp.uint32)
    if saturate:
        code = jnp.where(jnp.isnan(x), 0xFF, jnp.minimum(code, 0xFE))
    else:
        code = jnp.where(x == 0, 0xFF, jnp.minimum(code, 0xFF))
    return lax.bitcast_convert_type(code.astype(jnp.uint8), ml_dtypes.float8_e8m0fnu)


def _to_subbyte(x: Any, dtype: np.dtype) -> Any:
    """Convert to a 4- or 2-bit integer: floats are rounded and wrapped as integers are."""
    bits = 4 if dtype.name.endswith("4") else 2
    whole = jnp.round(x.astype(jnp.float32)) if not jnp.issubdtype(x.dtype, jnp.integer) else x
    code = whole.astype(jnp.int32) & ((1 << bits) - 1)
    if not dtype.name.startswith("u"):
        sign = 1 << (bits - 1)
        code = (code ^ sign) - sign
    return code.astype(jnp.int8).astype(dtype)


def _how(node: Node) -> dict[str, Any]:
    saturate = bool(node.attr("saturate", 1))
    return {"saturate": saturate, "rounding": node.attr("round_mode", "up")}


@op("Cast")
def cast(node: Node, x: Any) -> Any:
    """Convert the element type."""
    to = node.attributes["to"]
    target = numpy_dtype(TensorProto.DataType.Value(to) if isinstance(to, str) else to)
    if target.kind in "OSU" or x.dtype.kind in "OSU":
        raise node.refuse("strings are not supported", "convert them outside of the model")
    return cast_to(x, target, **_how(node))


@op("CastLike")
def cast_like(node: Node, x: Any, like: Any) -> Any:
    """Convert to the element type of another value."""
    if like.dtype.kind in "OSU" or x.dtype.kind in "OSU":
        raise node.refuse("strings are not supported", "convert them outside of the model")
    return cast_to(x, np.dtype(like.dtype), **_how(node))


@op("BitCast")
def bit_cast(node: Node, x: Any) -> Any:
    """Read the bits as another type of the same width."""
    target = numpy_dtype(node.attributes["to"])
    bits = jnp.asarray(x).astype(np.uint8) if x.dtype == np.bool_ else jnp.asarray(x)
    if target == np.bool_:
        return lax.bitcast_convert_type(bits, np.dtype(np.uint8)) != 0
    return lax.bitcast_convert_type(bits, target)
