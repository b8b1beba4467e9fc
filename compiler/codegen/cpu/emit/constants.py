"""Literals: splats become constants of the function, others read-only data of the module."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from pai.compiler.codegen.cpu.emit.convert import constant, load
from pai.compiler.codegen.cpu.emit.emitter import Emitter, Indices
from pai.compiler.codegen.cpu.emit.graph import Node
from pai.compiler.codegen.cpu.emit.types import ElemType, Scalar
from pai.dialects.mlir import ir
from pai.runtime.dtypes import DTYPES


def constant_element(e: Emitter, node: Node, index: Indices) -> Scalar:
    """Return one element of a constant."""
    kind = node.results[0].type
    values = literal(node)
    position = e.b.linear(index, node.results[0].shape)
    if isinstance(position, int) or _same_bits(values):
        value = values[position if isinstance(position, int) else 0]
        return constant(
            e.b, kind, int(value) if kind.is_int or kind.kind == "bool" else _number(value)
        )
    data = _storage(values, kind)
    return load(e.b, e.b.table(tuple(data.tolist()), f"i{8 * data.dtype.itemsize}"), position, kind)


def splat(node: Node) -> Any:
    """Return the one value of a constant's elements; None when they differ."""
    values = literal(node)
    return values[0] if len(values) and _same_bits(values) else None


def _number(value: Any) -> complex | float:
    return complex(value) if np.iscomplexobj(value) else float(value)


def _same_bits(values: np.ndarray) -> bool:
    raw = values.view(np.uint8).reshape(len(values), -1)
    return bool((raw == raw[:1]).all())


def _storage(values: np.ndarray, kind: ElemType) -> np.ndarray:
    """Return the memory image as signed integers of the storage width."""
    size = kind.bytes // 2 if kind.is_complex else kind.bytes
    if values.dtype.kind in "iu" and kind.bits < 8:
        values = values.astype(np.int8)
    return values.view(f"i{size}")


def literal(node: Node) -> np.ndarray:
    """Return a constant's elements, flat, in the NumPy dtype of its element type."""
    if node.literal is None:
        value = node.results[0]
        node.literal = _values(node, value.type.name, value.size)
    return node.literal


_DIRECT = ("i8", "i16", "i32", "i64", "ui8", "ui16", "ui32", "ui64", "f16", "f32", "f64")
_TOKEN = re.compile(r"\([^)]*\)|[^\s,\[\]]+")


def _values(node: Node, name: str, size: int) -> np.ndarray:
    if name in _DIRECT:
        attribute = node.op.attributes["value"]
        return np.asarray(ir.DenseElementsAttr(attribute)).reshape(-1).astype(DTYPES[name])
    # The bindings do not give the other types; their text does.
    text = node.op.get_asm()
    body = text[text.index("dense<") + 6 : text.rindex("> : tensor<")]
    return _parse(body, name, size)


def _parse(body: str, name: str, size: int) -> np.ndarray:
    dtype = DTYPES[name]
    if body.startswith('"0x'):
        raw = bytes.fromhex(body[3:-1])
        if name == "i1":  # a byte an element, or a bit (older printers, and splats)
            values = np.frombuffer(raw, np.uint8)
            if len(values) != size:
                values = np.unpackbits(values, bitorder="little")[:size]
            return values.astype(bool) if len(values) == size else np.repeat(values[0] != 0, size)
        values = np.frombuffer(raw, np.uint8 if dtype.itemsize == 1 else dtype)
        values = values.view(dtype) if values.dtype.itemsize == dtype.itemsize else values
        return values.copy() if len(values) == size else np.repeat(values, size)
    values = np.array([_token(token, dtype) for token in _TOKEN.findall(body)], dtype)
    return values if body.startswith("[") or not size else np.repeat(values, size)


def _token(token: str, dtype: np.dtype) -> Any:
    if token.startswith("("):
        part = np.dtype(f"f{dtype.itemsize // 2}")
        re_im = [_token(t, part) for t in token[1:-1].split(",")]
        return complex(float(re_im[0]), float(re_im[1]))
    token = token.strip()
    if token in ("true", "false"):
        return token == "true"
    if token.startswith("0x"):
        return np.frombuffer(int(token, 16).to_bytes(dtype.itemsize, "little"), dtype)[0]
    if dtype.kind in "iu" or "int" in dtype.name:
        return int(token)
    return float(token)
