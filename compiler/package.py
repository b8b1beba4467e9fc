"""Writing a package: the manifest, the program, the kernels and every device's part of the weights.

Weights go through memory one tensor at a time. The bytes depend on nothing but the program, so the
same compilation gives the same package. It appears under its name whole or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
import zipfile as zipfiles
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pai.dialects.program import Program, Role, Value, Weights
from pai.passes.partition import LocalModule
from pai.runtime.dtypes import DTYPES
from pai.runtime.errors import PackageError
from pai.runtime.manifest import FORMAT, KernelSpec, Manifest, TensorSpec, manifest_to_json
from pai.runtime.memory import canonical, cut, shard_number
from pai.runtime.mesh import Mesh, Sharding
from pai.runtime.package import CONSTANTS, MANIFEST, PROGRAM
from pai.runtime.program import ProgramCode
from pai.runtime.program import to_json as program_to_json
from pai.runtime.safetensors import ALIGNMENT, Entry, header

FILE_LIMIT = 256 << 20  # bytes of one weights file; several are checked at once when loading
_EPOCH = (1980, 1, 1, 0, 0, 0)
Chunk = bytes | memoryview
_ZIP_PADDING = 0xD935  # extra field that aligns a member's data; readers skip it


class Target(Protocol):
    """The processor that the kernels are made for."""

    @property
    def arch(self) -> str: ...  # noqa: D102

    @property
    def level(self) -> str: ...  # noqa: D102

    @property
    def features(self) -> tuple[str, ...]: ...  # noqa: D102


class Kernel(Protocol):
    """A compiled kernel, such as ``codegen.cpu.compile.CompiledKernel``."""

    @property
    def key(self) -> str: ...  # noqa: D102

    @property
    def object(self) -> bytes: ...  # noqa: D102

    @property
    def symbol(self) -> str: ...  # noqa: D102

    @property
    def grid(self) -> int: ...  # noqa: D102

    @property
    def scratch_bytes(self) -> int: ...  # noqa: D102


def write_package(
    out: Path,
    program: Program,
    local: LocalModule,
    code: ProgramCode,
    kernels: Mapping[str, Kernel],
    target: Target,
    plan_text: str,
    report: dict[str, Any],
    *,
    zip: bool = False,  # noqa: A002
) -> None:
    """Write a package.

    Args:
        out: where it appears; a package that is already there is replaced.
        program: signature and weights.
        local: mesh and shardings.
        code: what every device runs.
        kernels: by the name that ``code`` calls them.
        target: the processor that the kernels are made for.
        plan_text: content of plan.toml.
        report: content of report.json.
        zip: write one stored zip file instead of a directory.

    Raises:
        PackageError: when ``out`` is something else than a package, or writing fails.
    """
    _refuse_foreign(out)
    arguments = _specs(program.signature.arguments, local.argument_shardings)
    with _replacing(out, zip=zip) as sink:
        sink.write("plan.toml", [plan_text.encode()])
        sink.write("report.json", [_json(report)])
        sink.write(PROGRAM, [_json(program_to_json(code))])
        for name, data in sorted({_file(k): k.object for k in kernels.values()}.items()):
            sink.write(name, [data])
        if code.constants:
            entries = [Entry(c.name, c.dtype, c.shape) for c in code.constants]
            sink.write(CONSTANTS, _with_header(entries, _constants(code)))
        _write_weights(sink, arguments, local.mesh, program.weights)
        manifest = Manifest(
            program.name,
            target.arch,
            target.level,
            tuple(target.features),
            local.mesh,
            arguments,
            _specs(program.signature.results, local.result_shardings),
            {
                name: KernelSpec(_file(k), k.symbol, k.grid, k.scratch_bytes)
                for name, k in kernels.items()
            },
            dict(sink.checksums),
        )
        sink.write(MANIFEST, [_json(manifest_to_json(manifest))])


def _file(kernel: Kernel) -> str:
    return f"kernels/{kernel.key}.o"


def _json(data: Any) -> bytes:
    return (json.dumps(data, sort_keys=True, separators=(",", ":")) + "\n").encode()


def _specs(values: tuple[Value, ...], shardings: tuple[Sharding, ...]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(v.name, v.role.value, v.dtype, tuple(v.shape), sharding, v.updates)
        for v, sharding in zip(values, shardings, strict=True)
    )


def _constants(code: ProgramCode) -> Iterator[np.ndarray]:
    for constant in code.constants:
        if constant.value is None:
            raise PackageError(f"the constant '{constant.name}' has no value")
        yield canonical(constant.value)


def _write_weights(
    sink: _Sink, arguments: tuple[TensorSpec, ...], mesh: Mesh, weights: Weights
) -> None:
    """Write each weight as its distinct shards ``name#k``, in files of at most FILE_LIMIT."""
    shards: list[tuple[Entry, TensorSpec, int]] = []
    for spec in arguments:
        if spec.role != Role.INPUT.value and spec.name in weights.loaders:
            shards += _shards_of(spec, mesh)
    files: list[list[tuple[Entry, TensorSpec, int]]] = []
    filled = FILE_LIMIT
    for shard in shards:
        if filled + shard[0].size > FILE_LIMIT:
            files.append([])
            filled = 0
        files[-1].append(shard)
        filled += shard[0].size
    loader = _Loader(weights, mesh)
    for number, file in enumerate(files):
        data = (loader.shard(spec, device) for _, spec, device in file)
        name = f"weights/{number:05}.safetensors"
        sink.write(name, _with_header([entry for entry, _, _ in file], data))


def _shards_of(spec: TensorSpec, mesh: Mesh) -> list[tuple[Entry, TensorSpec, int]]:
    devices: dict[int, int] = {}
    for device in range(mesh.num_devices):
        devices.setdefault(shard_number(spec, mesh, device), device)
    shape = spec.local_shape(mesh)
    return [
        (Entry(f"{spec.name}#{number}", spec.dtype, shape), spec, device)
        for number, device in sorted(devices.items())
    ]


class _Loader:
    """Cuts weights into shards; holds one weight at a time."""

    def __init__(self, weights: Weights, mesh: Mesh) -> None:
        self._weights = weights
        self._mesh = mesh
        self._name = ""
        self._array = np.zeros(0)

    def shard(self, spec: TensorSpec, device: int) -> np.ndarray:
        if spec.name != self._name:
            self._array = self._weights.load(spec.name)
            self._name = spec.name
            if self._array.dtype != DTYPES[spec.dtype] or self._array.shape != spec.shape:
                raise PackageError(
                    f"the weight '{spec.name}' is {self._array.dtype}{list(self._array.shape)}, "
                    f"the program has {spec.dtype}{list(spec.shape)}"
                )
        out = np.empty(spec.local_shape(self._mesh), DTYPES[spec.dtype])
        cut(self._array, spec, self._mesh, device, out)
        return out


def _with_header(entries: list[Entry], arrays: Iterable[np.ndarray]) -> Iterator[Chunk]:
    yield header(entries)[0]
    for entry, array in zip(entries, arrays, strict=True):
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        yield bytes(-entry.size % ALIGNMENT)


class _Sink(Protocol):
    """Where the files of a package go."""

    checksums: dict[str, str]

    def write(self, name: str, chunks: Iterable[Chunk]) -> None: ...
    def close(self) -> None: ...


class _Directory:
    def __init__(self, path: Path) -> None:
        self.checksums: dict[str, str] = {}
        self._path = path
        path.mkdir()

    def write(self, name: str, chunks: Iterable[Chunk]) -> None:
        file = self._path / name
        file.parent.mkdir(exist_ok=True)
        digest = hashlib.sha256()
        with file.open("wb") as handle:
            for chunk in chunks:
                digest.update(chunk)
                handle.write(chunk)
            handle.flush()
            os.fsync(handle.fileno())
        self.checksums[name] = digest.hexdigest()

    def close(self) -> None:
        for folder in (self._path, *(p for p in self._path.iterdir() if p.is_dir())):
            _sync(folder)


class _Zip:
    """A stored zip; the data of each member starts at a multiple of 64 bytes of the file."""

    def __init__(self, path: Path) -> None:
        self.checksums: dict[str, str] = {}
        self._path = path
        self._archive = zipfiles.ZipFile(path, "x", zipfiles.ZIP_STORED)

    def write(self, name: str, chunks: Iterable[Chunk]) -> None:
        info = zipfiles.ZipInfo(name, _EPOCH)
        begin = self._archive.start_dir + 30 + len(name.encode()) + 20 + 4  # 20: of zip64
        padding = -begin % ALIGNMENT
        info.extra = struct.pack("<HH", _ZIP_PADDING, padding) + bytes(padding)
        digest = hashlib.sha256()
        with self._archive.open(info, "w", force_zip64=True) as member:
            for chunk in chunks:
                digest.update(chunk)
                member.write(chunk)
        self.checksums[name] = digest.hexdigest()

    def close(self) -> None:
        self._archive.close()
        _sync(self._path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_package(path: Path) -> bool:
    """Whether a directory or file is a package of ours, be it of another version or damaged."""
    mark = f'"{FORMAT}"'.encode()
    try:
        if path.is_dir():
            return mark in (path / MANIFEST).read_bytes()
        with zipfiles.ZipFile(path) as archive:
            return mark in archive.read(MANIFEST)
    except (zipfiles.BadZipFile, OSError, KeyError):
        return False


def _refuse_foreign(out: Path) -> None:
    if not out.exists() or is_package(out) or (out.is_dir() and not any(out.iterdir())):
        return
    raise PackageError(
        "exists and is not a package", str(out), "choose another path, or remove it yourself"
    )


@contextmanager
def _replacing(out: Path, *, zip: bool) -> Iterator[_Sink]:  # noqa: A002
    """Yield a sink for a temporary neighbour of ``out`` that takes its place at the end."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}.new")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sink: _Sink = _Zip(temporary) if zip else _Directory(temporary)
        yield sink
        sink.close()
        _take_place(temporary, out)
    except OSError as error:
        hint = "free some space or choose another disk" if error.errno == errno.ENOSPC else ""
        reason = error.strerror or str(error)
        raise PackageError(f"the package cannot be written ({reason})", str(out), hint) from error
    finally:
        _remove(temporary)


def _take_place(temporary: Path, out: Path) -> None:
    if out.exists() and (out.is_dir() or temporary.is_dir()):
        old = out.with_name(f".{out.name}.{os.getpid()}.old")
        out.rename(old)
        try:
            temporary.rename(out)
        except OSError:
            old.rename(out)
            raise
        _remove(old)
    else:
        temporary.replace(out)
    _sync(out.parent)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
