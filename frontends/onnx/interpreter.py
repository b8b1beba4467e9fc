"""Evaluating an ONNX graph node by node: NumPy where values are concrete, else JAX."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import onnx
from jax import numpy as jnp
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto

from pai.frontends.onnx import functions
from pai.frontends.onnx.model import Model, normal, opset_versions
from pai.frontends.onnx.node import Node, Origin
from pai.frontends.onnx.registry import Handler, folds, lookup
from pai.frontends.onnx.tensors import Tensor, numpy_dtype, tensor_of
from pai.runtime.errors import InvalidModel, PaiError, UnsupportedOp

# A node whose inputs are all stored in the model is evaluated at once when each is this small;
# larger ones (weights) are arguments of the program.
FOLDED_FLOATS = 4
FOLDED_INTEGERS = 1024
# Concrete inputs with more elements than this are not folded: the result would be a large constant.
FOLD_LIMIT = 65536

StatedType = tuple[np.dtype, tuple[int, ...]]


def is_parameter(tensor: Tensor) -> bool:
    """Return whether a stored tensor is an argument of the program rather than a constant.

    Scalars and short integer lists (axes, shapes, indices) are constants; everything else is an
    argument, so that no weight enters the IR and every weight can be sharded and trained.
    """
    exact = tensor.dtype.kind in "iub" and tensor.dtype.itemsize > 0
    return tensor.size > (FOLDED_INTEGERS if exact else 1)


def _foldable(value: Any) -> bool:
    if isinstance(value, Tensor):
        exact = value.dtype.kind in "iub"
        return value.size <= (FOLDED_INTEGERS if exact else FOLDED_FLOATS)
    return value is None or isinstance(value, np.ndarray)


@dataclass
class Scope:
    """The values visible at one place: a graph's own, then those of the graphs around it."""

    opsets: Mapping[str, int]
    values: dict[str, Any] = field(default_factory=dict)
    parent: Scope | None = None
    references: Mapping[str, AttributeProto] = field(default_factory=dict)
    stated: Mapping[str, StatedType] = field(default_factory=dict)

    def find(self, name: str) -> Any:
        """Return the value of ``name``; None for the empty name."""
        if not name:
            return None
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.parent
        raise InvalidModel(f"value '{name}' is used but nothing computes it")


def stated_types(graph: GraphProto) -> dict[str, StatedType]:
    """Return the dtypes and shapes a graph states; open dimensions are -1."""
    found = {}
    for value in (*graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if value.type.WhichOneof("value") == "tensor_type" and tensor.elem_type:
            dims = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
            found[value.name] = (numpy_dtype(tensor.elem_type), dims)
    return found


@dataclass(frozen=True)
class Interpreter:
    """Evaluates the graph of a model.

    Args:
        model: the model.
        arguments: tensor name to the traced argument that stands for it.
        origins: id of a traced argument to the argument and where it comes from.
    """

    model: Model
    arguments: Mapping[str, Any]
    origins: Mapping[int, tuple[Any, Origin]]

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        """Return the graph's outputs for its inputs, by name."""
        graph = self.model.graph
        scope = Scope(self.model.opsets, dict(inputs), stated=stated_types(graph))
        outputs = self._run_nodes(graph, scope)
        return [self._resolve(value) for value in outputs]

    def origin(self, value: Any) -> Origin | None:
        """Return where a traced value comes from when it is an argument."""
        entry = self.origins.get(id(value))
        return entry[1] if entry is not None and entry[0] is value else None

    def _run_nodes(self, graph: GraphProto, scope: Scope) -> list[Any]:
        for proto in graph.initializer:
            scope.values.setdefault(proto.name, self._stored(proto))
        for sparse in graph.sparse_initializer:
            scope.values.setdefault(sparse.values.name, self.model.tensors[id(sparse)])
        for node in graph.node:
            self._run_node(node, scope)
        return [scope.find(output.name) for output in graph.output]

    def _run_node(self, proto: NodeProto, scope: Scope) -> None:
        node = self._node(proto, scope)
        values = [scope.find(name) for name in proto.input]
        if node.op_type == "Identity" and not node.domain:
            results: tuple[Any, ...] = (values[0],)
        else:
            results = self._evaluate(node, proto, values)
        for name, value in zip(proto.output, results, strict=False):
            if name:
                scope.values[name] = value
        for name in proto.output[len(results) :]:
            if name:
                raise node.refuse(f"output '{name}' is not computed")

    def _evaluate(self, node: Node, proto: NodeProto, values: list[Any]) -> tuple[Any, ...]:
        handler = lookup(node.domain, node.op_type, node.version)
        try:
            with jax.named_scope(scope_name(node.name)):
                if handler is None:
                    results = self._run_function(node, proto, values)
                else:
                    results = self._run_handler(handler, node, values)
        except PaiError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            raise node.refuse(f"cannot be evaluated: {type(error).__name__}: {text}") from error
        _check_types(node, [getattr(v, "dtype", None) for v in values], results)
        return results

    def _run_handler(self, handler: Handler, node: Node, values: list[Any]) -> tuple[Any, ...]:
        small = all(map(_foldable, values))
        inputs = [self._resolve(value, concrete=small) for value in values]
        now = (
            bool(inputs)
            and folds(handler)
            and all(value is None or isinstance(value, np.ndarray) for value in inputs)
            and sum(value.size for value in inputs if value is not None) <= FOLD_LIMIT
        )
        if not now:
            return _as_tuple(handler(node, *inputs))
        with jax.ensure_compile_time_eval():
            return tuple(map(_to_numpy, _as_tuple(handler(node, *inputs))))

    def _resolve(self, value: Any, *, concrete: bool = False) -> Any:
        """Return a stored tensor as its argument, or as a NumPy array when it is a constant."""
        if isinstance(value, Tensor):
            if not concrete and value.name in self.arguments:
                return self.arguments[value.name]
            return value.load()
        return value

    def _stored(self, proto: Any) -> Tensor:
        known = self.model.tensors.get(id(proto))
        if known is not None:
            return known
        return tensor_of(proto, self.model.path.parent, proto.name, str(self.model.path))

    def _node(self, proto: NodeProto, scope: Scope) -> Node:
        domain = normal(proto.domain)
        attributes = {}
        for entry in proto.attribute:
            attribute = entry
            if entry.ref_attr_name:
                if entry.ref_attr_name not in scope.references:
                    continue
                attribute = scope.references[entry.ref_attr_name]
            attributes[entry.name] = self._attribute(attribute, proto.op_type)
        return Node(
            name=proto.name or next(filter(None, proto.output), proto.op_type),
            op_type=proto.op_type,
            domain=domain,
            version=scope.opsets.get(domain, 1),
            attributes=attributes,
            outputs=tuple(proto.output),
            run_graph=functools.partial(self._run_subgraph, scope),
            output_types=tuple(scope.stated.get(name) for name in proto.output),
            origin=self.origin,
        )

    def _attribute(self, attribute: AttributeProto, op_type: str) -> Any:
        if attribute.type == AttributeProto.TENSOR:
            tensor = self._stored(attribute.t)
            return tensor if op_type == "Constant" else tensor.load()
        if attribute.type == AttributeProto.SPARSE_TENSOR:
            from_model = self.model.tensors.get(id(attribute.sparse_tensor))
            return from_model or functions.sparse(attribute.sparse_tensor)
        if attribute.type == AttributeProto.TENSORS:
            return [self._stored(proto).load() for proto in attribute.tensors]
        if attribute.type == AttributeProto.GRAPH:
            return attribute.g
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.type == AttributeProto.STRING:
            return _text(value)
        if attribute.type == AttributeProto.STRINGS:
            return [_text(item) for item in value]
        return list(value) if isinstance(value, Iterable) else value

    def _run_subgraph(
        self, scope: Scope, graph: GraphProto, inputs: Sequence[Any] = ()
    ) -> tuple[Any, ...]:
        names = [value.name for value in graph.input]
        inner = Scope(
            scope.opsets,
            dict(zip(names, inputs, strict=False)),
            scope,
            scope.references,
            stated_types(graph),
        )
        return tuple(self._resolve(value) for value in self._run_nodes(graph, inner))

    def _run_function(self, node: Node, proto: NodeProto, values: list[Any]) -> tuple[Any, ...]:
        """Evaluate the body of a function: the model's own, or the one ONNX defines."""
        key = (node.domain, node.op_type, proto.overload)
        body = self.model.functions.get(key)
        if body is None:
            body = functions.standard_body(node, proto, values)
        if body is None:
            raise node.refuse(
                "there is no such operator, or it has no lowering yet",
                "see docs/onnx-coverage.md; export with other operators, or fold it away",
            )
        return self._call(body, node, proto, values)

    def _call(
        self, body: FunctionProto, node: Node, proto: NodeProto, values: list[Any]
    ) -> tuple[Any, ...]:
        given = {entry.name: entry for entry in proto.attribute}
        defaults = functions.attribute_defaults(node.domain, node.op_type, node.version)
        references = (
            defaults
            | {entry.name: entry for entry in body.attribute_proto}
            | {name: entry for name, entry in given.items() if not entry.ref_attr_name}
        )
        padded = [*values, *[None] * (len(body.input) - len(values))]
        scope = Scope(
            opset_versions(body.opset_import),
            dict(zip(body.input, padded, strict=False)),
            references=references,
        )
        for inner in body.node:
            self._run_node(inner, scope)
        wanted = [name or None for name in node.outputs]
        return tuple(
            scope.find(name) if want else None
            for name, want in zip(body.output, wanted, strict=False)
        )


def scope_name(name: str) -> str:
    """Return a node name that is safe inside a JAX name stack, where ``/`` separates."""
    return name.strip("/").replace("/", ".") or "node"


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _as_tuple(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)


def _to_numpy(value: Any) -> Any:
    if isinstance(value, (jax.Array, np.generic)) and not isinstance(value, jax.core.Tracer):
        return np.asarray(value)
    return value


@functools.cache
def _same_types(domain: str, name: str, version: int) -> tuple[tuple[int, int], ...]:
    """Return the (output, input) pairs that the operator's schema gives one type."""
    try:
        schema = onnx.defs.get_schema(name, version, domain)
    except onnx.defs.SchemaError:
        return ()
    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    return tuple(
        (o, i)
        for o, output in enumerate(schema.outputs)
        for i, source in enumerate(schema.inputs)
        if output.type_str == source.type_str
        and "(" not in output.type_str
        and source.is_homogeneous
        and variadic != output.option
    )


def _check_types(node: Node, dtypes: list[Any], results: Sequence[Any]) -> None:
    """Raise when a result is not of the dtype that the operator's schema or the model states."""
    for o, i in _same_types(node.domain, node.op_type, node.version):
        if o < len(results) and i < len(dtypes) and dtypes[i] is not None:
            _expect(node, results[o], dtypes[i])
    for value, stated in zip(results, node.output_types, strict=False):
        if stated is not None:
            _expect(node, value, stated[0])


def _expect(node: Node, value: Any, dtype: Any) -> None:
    have = getattr(value, "dtype", None)
    if have is not None and have != dtype:
        raise UnsupportedOp(
            f"evaluates to {have} where {np.dtype(dtype)} is stated",
            f"node '{node.name}' ({node.op_type})",
            "the model's type annotations are wrong, or this is a bug in pai-compile",
        )


def as_array(value: Any) -> Any:
    """Return a graph output as something JAX can return.

    Raises:
        UnsupportedOp: for sequences, optionals and strings.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind not in "OSU":
        return jnp.asarray(value)
    if isinstance(value, jax.Array):
        return value
    raise UnsupportedOp("it is not a tensor of numbers")
