"""Read a StableHLO module into a Program."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pai.dialects.mlir import context, ir, parse, stablehlo, to_text
from pai.dialects.program import Program
from pai.dialects.sdy import lift_meshes
from pai.frontends.stablehlo import check_syntax, checks
from pai.frontends.stablehlo.entry import choose_main
from pai.frontends.stablehlo.foreign import normalize
from pai.frontends.stablehlo.resources import inline_resources
from pai.frontends.stablehlo.shapes import bind_shapes
from pai.frontends.stablehlo.signature import name_values, read_signature
from pai.frontends.stablehlo.split import SEPARATOR, join
from pai.frontends.stablehlo.weights import weights_beside
from pai.runtime.errors import InvalidModel, UnsupportedOp

BYTECODE_MAGIC = b"ML\xefR"
_VERSION = re.compile(rb"StableHLO_v(\d+\.\d+\.\d+)")


def load(path_or_text: str | bytes | Path, shapes: Sequence[str] = ()) -> Program:
    """Read StableHLO as text, MLIR bytecode, or a portable artifact.

    Args:
        path_or_text: a path, or the module itself (a text with a line break, or bytes).
        shapes: bindings of open dimensions, ``ARGUMENT:8,3``.

    Raises:
        InvalidModel: when it is missing, damaged, or not MLIR; names file and line.
        UnsupportedOp: for operations of dialects that are not StableHLO's.
        InvalidShape: for a dimension that no binding closes, or a binding that does not fit.
    """
    data, source, name = _read(path_or_text)
    module = _parse(data, source)
    normalize(module, source)
    choose_main(module, source)
    lift_meshes(module)
    if checks.has_checks(module):
        checks.lower_checks(module)
    bind_shapes(module, shapes, source)
    name_values(module)
    signature = read_signature(module, source)
    return Program(name, module, signature, weights_beside(signature, source), source)


def _read(path_or_text: str | bytes | Path) -> tuple[bytes, str, str]:
    """Return the bytes, a name for messages, and the program's name."""
    if isinstance(path_or_text, bytes):
        return path_or_text, "module", "module"
    if isinstance(path_or_text, str) and "\n" in path_or_text:
        return path_or_text.encode(), "module", "module"
    path = Path(path_or_text)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidModel(f"cannot be read ({error.strerror})", str(path)) from error
    return data, str(path), path.name.partition(".")[0] or "module"


def _parse(data: bytes, source: str) -> ir.Module:
    if not data.strip():
        raise InvalidModel("the file is empty", source)
    if data.startswith(BYTECODE_MAGIC):
        return _parse_bytecode(data, source)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InvalidModel("is neither MLIR text nor MLIR bytecode", source) from error
    generic = check_syntax.to_generic(inline_resources(text), source)
    if SEPARATOR not in generic:
        return _parse_text(generic, source)
    return _parse_parts(generic, source)


def _parse_text(text: str, source: str, ctx: ir.Context | None = None) -> ir.Module:
    try:
        return parse(text, source, ctx)
    except InvalidModel as error:
        raise _located(error) from error


def _parse_parts(text: str, source: str) -> ir.Module:
    """Parse text with separators, which one module may have all the same."""
    try:
        module = parse(text, source)
    except InvalidModel as error:
        if "redefinition" not in error.what:
            raise _located(error) from error
    else:
        if all(op.operation.name != "builtin.module" for op in module.body.operations):
            return module
    joined = join(text, source, partial(_parse_text, source=source, ctx=context()))
    if joined is None:
        raise InvalidModel(
            "holds several modules separated by '// -----', and not all check themselves",
            source,
            "give one file for each module",
        )
    return joined


def _parse_bytecode(data: bytes, source: str) -> ir.Module:
    version = _VERSION.search(data[:64])
    if version is None:
        try:
            module = parse(data, source)
        except InvalidModel as error:
            raise _located(error, "the bytecode may be truncated") from error
        text = to_text(module, locations=True)
        return _parse_text(inline_resources(text), source) if "dense_resource" in text else module
    ctx = context()
    handler = ctx.attach_diagnostic_handler(lambda _: True)  # else MLIR writes to stderr
    try:
        with ctx, ir.Location.unknown(ctx):
            return stablehlo.deserialize_portable_artifact(ctx, data)
    except (ir.MLIRError, ValueError) as error:
        raise _bad_artifact(version[1].decode(), source) from error
    finally:
        handler.detach()


def _bad_artifact(version: str, source: str) -> InvalidModel:
    mine = stablehlo.get_current_version()
    if tuple(map(int, version.split("."))) > tuple(map(int, mine.split("."))):
        return InvalidModel(
            f"is a portable artifact of StableHLO {version}, and this build reads up to {mine}",
            source,
            f"export it for StableHLO {mine} or older",
        )
    return InvalidModel(
        f"is a damaged portable artifact of StableHLO {version}", source, "write the file again"
    )


def _located(error: InvalidModel, hint: str = "") -> InvalidModel | UnsupportedOp:
    """Return the parser's error, as UnsupportedOp when it is an operation it does not know."""
    foreign = re.search(r"Dialect `([\w.]+)' not found for custom op '([\w.]+)'", error.what)
    later = re.search(r"custom op '([\w$]+\.[\w.]+)' is unknown", error.what)
    if foreign and foreign[1] == "interpreter":
        what = f"'{foreign[2]}' drives the StableHLO interpreter and is no part of a program"
    elif foreign:
        what = f"'{foreign[2]}' is of the dialect '{foreign[1]}', which is not StableHLO"
    elif later:
        what = f"there is no operation '{later[1]}' in StableHLO {stablehlo.get_current_version()}"
    else:
        return InvalidModel(error.what, error.where, hint)
    return UnsupportedOp(what, error.where, "lower the model to StableHLO or CHLO first")
