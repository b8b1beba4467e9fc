"""Function bodies that ONNX itself defines for operators without a lowering of their own."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, NodeProto, SparseTensorProto

from pai.frontends.onnx.node import Node
from pai.frontends.onnx.tensors import Tensor, sparse_tensor_of


def sparse(proto: SparseTensorProto) -> Tensor:
    """Return a sparse tensor that stands in a function body as a lazy dense one."""
    return sparse_tensor_of(proto, proto.values.name, "function body")


def standard_body(node: Node, proto: NodeProto, values: list[Any]) -> FunctionProto | None:
    """Return the body that ONNX defines for a node's operator, or None.

    Args:
        node: the node.
        proto: its message.
        values: its inputs; their types choose among context-dependent bodies.
    """
    try:
        schema = onnx.defs.get_schema(node.op_type, node.version, node.domain)
    except onnx.defs.SchemaError:
        return None
    if schema.has_function:
        return _plain(node.domain, node.op_type, node.version)
    if not schema.has_context_dependent_function:
        return None
    types = [_type_of(value) for value in values]
    versions = schema.context_dependent_function_opset_versions
    version = max((v for v in versions if v <= node.version), default=versions[0])
    body = FunctionProto()
    body.ParseFromString(
        schema.get_context_dependent_function_with_opset_version(
            version, proto.SerializeToString(), [t.SerializeToString() for t in types]
        )
    )
    return body


@functools.cache
def _plain(domain: str, name: str, version: int) -> FunctionProto:
    """Return a body without context, kept so that its constants keep their identity."""
    schema = onnx.defs.get_schema(name, version, domain)
    versions = schema.function_opset_versions
    best = max((v for v in versions if v <= version), default=versions[0])
    body = FunctionProto()
    body.ParseFromString(schema.get_function_with_opset_version(best))
    return body


@functools.cache
def attribute_defaults(domain: str, name: str, version: int) -> dict[str, AttributeProto]:
    """Return the defaults of an operator's attributes, as its schema states them."""
    try:
        schema = onnx.defs.get_schema(name, version, domain)
    except onnx.defs.SchemaError:
        return {}
    defaults = {key: entry.default_value for key, entry in schema.attributes.items()}
    return {key: value for key, value in defaults.items() if value.name}


def _type_of(value: Any) -> onnx.TypeProto:
    if value is None:
        return onnx.TypeProto()
    elem_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
    return onnx.helper.make_tensor_type_proto(elem_type, value.shape)
