"""Reading an ONNX file: parse, check, and list its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
)

from pai.frontends.onnx.tensors import Tensor, sparse_tensor_of, tensor_of
from pai.runtime.errors import InvalidModel, PaiError, UnsupportedOp

FunctionKey = tuple[str, str, str]


@dataclass(frozen=True)
class Model:
    """A checked ONNX model.

    Args:
        path: the file.
        proto: the message.
        opsets: domain to version.
        functions: (domain, name, overload) to the model's own functions.
        tensors: id of a TensorProto inside ``proto`` to the lazy tensor.
    """

    path: Path
    proto: ModelProto
    opsets: Mapping[str, int]
    functions: Mapping[FunctionKey, FunctionProto]
    tensors: Mapping[int, Tensor]

    @property
    def graph(self) -> GraphProto:
        """Return the main graph."""
        return self.proto.graph


def read_model(path: str | Path) -> Model:
    """Read and check an ONNX file; external data is found and measured, not read.

    Raises:
        InvalidModel: missing, not ONNX, damaged or not a valid graph.
        UnsupportedOp: an opset newer than the onnx package.
    """
    file = Path(path)
    try:
        return _read(file)
    except PaiError:
        raise
    except Exception as error:  # whatever the protobuf and checker libraries meet in bad bytes
        text = " ".join(str(error).split())[:200]
        raise InvalidModel(f"the file is damaged ({text})", str(file)) from error


def _read(file: Path) -> Model:
    proto = _parse(file)
    where = str(file)
    _check_opsets(proto, where)
    tensors = _tensors(proto, file.parent, where)
    check_acyclic(proto.graph, where)
    _check_operators(proto, where)
    _check(file, where)
    functions = {(normal(f.domain), f.name, f.overload): f for f in proto.functions}
    return Model(file, proto, opset_versions(proto.opset_import), functions, tensors)


def normal(domain: str) -> str:
    """Return the domain with "ai.onnx" spelled ""."""
    return "" if domain == "ai.onnx" else domain


def opset_versions(imports: Iterable[OperatorSetIdProto]) -> dict[str, int]:
    """Return domain to version of a model's or function's opset imports."""
    return {normal(entry.domain): entry.version for entry in imports}


def _parse(file: Path) -> ModelProto:
    where = str(file)
    if file.is_dir():
        raise InvalidModel("is a directory, not an ONNX file", where)
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise InvalidModel("there is no such file", where) from error
    except OSError as error:
        raise InvalidModel(f"cannot be read: {error.strerror}", where) from error
    if not data:
        raise InvalidModel("the file is empty", where)
    proto = ModelProto()
    hint = "give an .onnx file as torch.onnx.export or onnx.save writes it"
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise InvalidModel("not an ONNX file, or a truncated one", where, hint) from error
    if not proto.HasField("graph") or not proto.ir_version:
        raise InvalidModel("not an ONNX file: it holds no graph", where, hint)
    if not proto.graph.output:
        raise InvalidModel("its graph has no outputs", where)
    return proto


def _check_opsets(proto: ModelProto, where: str) -> None:
    newest = onnx.defs.onnx_opset_version()
    if not proto.opset_import:
        raise InvalidModel("it names no opset", where, "set opset_import and save it again")
    version = opset_versions(proto.opset_import).get("", 1)
    if not 1 <= version <= newest:
        raise UnsupportedOp(
            f"opset {version} is not supported: onnx {onnx.__version__} knows 1 to {newest}",
            where,
            "export with an older opset, or update the onnx package",
        )


def _check(file: Path, where: str) -> None:
    """Raise InvalidModel with the checker's message when the graph is not valid."""
    try:
        onnx.checker.check_model(str(file))
    except onnx.checker.ValidationError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InvalidModel(f"not a valid graph: {' '.join(lines)[:400]}", where) from error


def _check_operators(proto: ModelProto, where: str) -> None:
    """Raise UnsupportedOp for a name that the default domain does not know."""
    own = {(normal(function.domain), function.name) for function in proto.functions}

    def visit(nodes: Iterable[NodeProto]) -> None:
        for node in nodes:
            known = normal(node.domain) or onnx.defs.has(node.op_type)
            if not known and ("", node.op_type) not in own:
                name = node.name or next(iter(node.output), "")
                raise UnsupportedOp(
                    f"there is no operator {node.op_type}", f"{where}: node '{name}'"
                )
            for graph in subgraphs(node):
                visit(graph.node)

    visit(proto.graph.node)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs in a node's attributes."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def check_acyclic(graph: GraphProto, where: str) -> None:
    """Raise InvalidModel when nodes depend on each other in a circle."""
    producer = {
        name: index for index, node in enumerate(graph.node) for name in node.output if name
    }
    needs = [[producer[name] for name in node.input if name in producer] for node in graph.node]
    waiting = [len(set(indices)) for indices in needs]
    users: dict[int, list[int]] = {}
    for index, indices in enumerate(needs):
        for source in set(indices):
            users.setdefault(source, []).append(index)
    ready = [index for index, count in enumerate(waiting) if not count]
    done = 0
    while ready:
        done += 1
        for user in users.get(ready.pop(), []):
            waiting[user] -= 1
            if not waiting[user]:
                ready.append(user)
    if done < len(waiting):
        stuck = next(graph.node[index] for index, count in enumerate(waiting) if count)
        raise InvalidModel(
            "the graph has a cycle", f"{where}: node '{stuck.name or stuck.output[0]}'"
        )
    for node in graph.node:
        for inner in subgraphs(node):
            check_acyclic(inner, where)


def _tensors(proto: ModelProto, folder: Path, where: str) -> dict[int, Tensor]:
    """Return every initializer and Constant of the model, subgraphs and functions included."""
    found: dict[int, Tensor] = {}
    names: set[str] = set()

    def unique(name: str) -> str:
        candidate, count = name, 1
        while candidate in names:
            candidate, count = f"{name}.{count}", count + 1
        names.add(candidate)
        return candidate

    def visit_nodes(nodes: Iterable[NodeProto]) -> None:
        for node in nodes:
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name == "value":
                    name = unique(node.output[0])
                    found[id(attribute.t)] = tensor_of(attribute.t, folder, name, where)
            for graph in subgraphs(node):
                visit(graph)

    def visit(graph: GraphProto) -> None:
        for tensor in graph.initializer:
            found[id(tensor)] = tensor_of(tensor, folder, unique(tensor.name), where)
        for sparse in graph.sparse_initializer:
            name = unique(sparse.values.name)
            found[id(sparse)] = sparse_tensor_of(sparse, name, where)
        visit_nodes(graph.node)

    visit(proto.graph)
    for function in proto.functions:
        visit_nodes(function.node)
    return found
