"""Opening a package: its files as mapped memory, its manifest, and whether it fits this machine."""

from __future__ import annotations

import hashlib
import json
import mmap
import platform
import struct
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pai.runtime import safetensors
from pai.runtime.cpu import missing_features
from pai.runtime.errors import PackageError
from pai.runtime.manifest import Manifest, manifest_from_json
from pai.runtime.program import ProgramCode
from pai.runtime.program import from_json as program_from_json

MANIFEST = "manifest.json"
PROGRAM = "programs/main.json"
CONSTANTS = "weights/constants.safetensors"
_LOCAL_HEADER = 30  # bytes of a zip member's header before its name


class PackageFiles:
    """The files of a package, a directory or a stored zip, mapped when asked for.

    Args:
        path: of the package.

    Raises:
        PackageError: when there is no package at ``path``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members: dict[str, tuple[int, int]] | None = None
        if not path.exists():
            raise PackageError("there is no such package", str(path))
        if path.is_file():
            self._archive = _map(path)
            self._members = _zip_members(path, self._archive)

    @cached_property
    def names(self) -> list[str]:
        """Paths inside the package, sorted."""
        if self._members is not None:
            return sorted(self._members)
        files = (file for file in self.path.rglob("*") if file.is_file())
        return sorted(file.relative_to(self.path).as_posix() for file in files)

    def where(self, name: str) -> str:
        """Return how messages name a file of the package."""
        return f"{self.path}/{name}"

    def read(self, name: str) -> np.ndarray:
        """Return the bytes of a file (uint8, read-only, not copied).

        Raises:
            PackageError: when the file is missing or unreadable.
        """
        if self._members is not None:
            if name not in self._members:
                raise PackageError("is missing from the package", self.where(name))
            begin, size = self._members[name]
            return self._archive[begin : begin + size]
        if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
            raise PackageError("lies outside the package", self.where(name))
        file = self.path / name
        if not file.is_file():
            raise PackageError("is missing from the package", self.where(name))
        return _map(file)

    def read_json(self, name: str) -> Any:
        """Return a JSON file; raises PackageError when it is missing or damaged."""
        try:
            return json.loads(self.read(name).tobytes())
        except ValueError as error:
            raise PackageError(f"is not valid JSON ({error})", self.where(name)) from error


def _map(file: Path) -> np.ndarray:
    try:
        with file.open("rb") as handle:
            if file.stat().st_size == 0:
                return np.zeros(0, np.uint8)
            return np.frombuffer(mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ), np.uint8)
    except OSError as error:
        raise PackageError(f"cannot be read ({error.strerror})", str(file)) from error


def _zip_members(path: Path, archive: np.ndarray) -> dict[str, tuple[int, int]]:
    members = {}
    try:
        with zipfile.ZipFile(path) as opened:
            for info in opened.infolist():
                if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                    raise PackageError("is a compressed zip", str(path), "store it uncompressed")
                start = info.header_offset + _LOCAL_HEADER
                lengths = archive[start - 4 : start].tobytes()  # of the name and of extra fields
                begin = start + sum(struct.unpack("<HH", lengths))
                if begin + info.file_size > archive.size:
                    raise PackageError("is truncated", str(path))
                members[info.filename] = (begin, info.file_size)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise PackageError("is not a pai-compile package", str(path)) from error
    return members


@dataclass(frozen=True)
class Package:
    """An opened package.

    Args:
        files: its files.
        manifest: its head.
        code: the program.
    """

    files: PackageFiles
    manifest: Manifest
    code: ProgramCode

    @cached_property
    def tensors(self) -> dict[str, np.ndarray]:
        """The bytes of every weight shard ``name#k`` and constant, as views of mapped memory."""
        out: dict[str, np.ndarray] = {}
        for name in self.manifest.checksums:
            if name.endswith(".safetensors"):
                out |= safetensors.read(self.files.read(name), self.files.where(name))
        return out

    def objects(self) -> dict[str, bytes]:
        """Return the bytes of the kernel objects, by path inside the package."""
        files = sorted({kernel.file for kernel in self.manifest.kernels.values()})
        return {file: self.files.read(file).tobytes() for file in files}


def open_package(path: str | Path, *, verify: bool = True) -> Package:
    """Open a package and check that it is whole and made for this kind of machine.

    Args:
        path: a directory or a stored zip.
        verify: compare the SHA-256 of every file with the manifest.

    Raises:
        PackageError: when it is missing, damaged, foreign, or for another processor.
    """
    files = PackageFiles(Path(path))
    if MANIFEST not in files.names:
        raise PackageError("is not a pai-compile package (it has no manifest.json)", str(path))
    manifest = manifest_from_json(files.read_json(MANIFEST), files.where(MANIFEST))
    _check_machine(manifest, str(path))
    if verify:
        _check_sums(files, manifest.checksums)
    code = program_from_json(files.read_json(PROGRAM), files.where(PROGRAM))
    counts = (len(manifest.arguments), len(manifest.results))
    if counts != (len(code.arguments), len(code.results)):
        raise PackageError("the program does not match the manifest", files.where(PROGRAM))
    return Package(files, manifest, code)


def _check_machine(manifest: Manifest, where: str) -> None:
    if manifest.arch != platform.machine():
        raise PackageError(
            f"was compiled for {manifest.arch}, this machine is {platform.machine()}", where
        )
    missing = missing_features(manifest.features)
    if missing:
        raise PackageError(
            f"was compiled for {manifest.level} and needs {', '.join(missing)}, "
            "which this processor lacks",
            where,
            "compile for a lower level, such as --target cpu:x86-64-v3 or cpu:x86-64-v2",
        )


def _check_sums(files: PackageFiles, checksums: dict[str, str]) -> None:
    def wrong(item: tuple[str, str]) -> str | None:
        name, expected = item
        actual = hashlib.sha256(files.read(name).data).hexdigest()
        return name if actual != expected else None

    for name in _in_parallel(wrong, checksums.items()):
        raise PackageError("is damaged (its checksum is wrong)", files.where(name))


def _in_parallel(check: Any, items: Iterable[tuple[str, str]]) -> Iterable[str]:
    with ThreadPoolExecutor(4) as threads:
        return [name for name in threads.map(check, items) if name is not None]
