"""``manifest.json``: what a package is, for which machine, and what goes in and out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pai.runtime.dtypes import DTYPES, itemsize
from pai.runtime.errors import PackageError
from pai.runtime.mesh import AxisRef, Mesh, Sharding

FORMAT = "pai-package"
VERSION = 1


@dataclass(frozen=True)
class TensorSpec:
    """One argument or result of the program.

    Args:
        name: the user's own name.
        role: input, parameter, state, output or check (an output that must be true).
        dtype: MLIR spelling of the element type.
        shape: global shape.
        sharding: how it is laid over the mesh.
        updates: for a result, the name of the state argument it replaces ("" when none).
    """

    name: str
    role: str
    dtype: str
    shape: tuple[int, ...]
    sharding: Sharding
    updates: str = ""

    def local_shape(self, mesh: Mesh) -> tuple[int, ...]:
        """Return the shape on one device, padding included."""
        return self.sharding.local_shape(self.shape, mesh)

    def local_bytes(self, mesh: Mesh) -> int:
        """Return the bytes on one device, padding included."""
        size = itemsize(self.dtype)
        for dim in self.local_shape(mesh):
            size *= dim
        return size


@dataclass(frozen=True)
class KernelSpec:
    """A kernel of the package.

    Args:
        file: path of its object inside the package.
        symbol: entry point in the object.
        grid: number of independent parts.
        scratch_bytes: private memory each thread needs.
    """

    file: str
    symbol: str
    grid: int
    scratch_bytes: int


@dataclass(frozen=True)
class Manifest:
    """The head of a package.

    Args:
        name: of the model.
        arch: processor architecture, as ``platform.machine()`` says.
        level: psABI level the kernels are made for.
        features: what the processor must have, in LLVM's names.
        mesh: the devices.
        arguments: of the program, in order.
        results: of the program, in order.
        kernels: by name.
        checksums: SHA-256 of every other file, by path inside the package.
    """

    name: str
    arch: str
    level: str
    features: tuple[str, ...]
    mesh: Mesh
    arguments: tuple[TensorSpec, ...]
    results: tuple[TensorSpec, ...]
    kernels: dict[str, KernelSpec]
    checksums: dict[str, str]


def manifest_to_json(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest as plain dicts, lists, numbers and text."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": manifest.name,
        "target": {
            "arch": manifest.arch,
            "level": manifest.level,
            "features": list(manifest.features),
        },
        "mesh": [list(axis) for axis in manifest.mesh.axes],
        **({"device_ids": list(ids)} if (ids := manifest.mesh.device_ids) else {}),
        "arguments": [_tensor_to_json(spec) for spec in manifest.arguments],
        "results": [_tensor_to_json(spec) for spec in manifest.results],
        "kernels": {name: vars(kernel) for name, kernel in manifest.kernels.items()},
        "checksums": manifest.checksums,
    }


def _tensor_to_json(spec: TensorSpec) -> dict[str, Any]:
    dims = [
        [a.name if a.sub_size is None else [a.name, a.pre_size, a.sub_size] for a in axes]
        for axes in spec.sharding.dims
    ]
    out = {"name": spec.name, "role": spec.role, "dtype": spec.dtype, "shape": list(spec.shape)}
    return {**out, "sharding": dims, **({"updates": spec.updates} if spec.updates else {})}


def manifest_from_json(data: Any, where: str) -> Manifest:
    """Read a manifest.

    Raises:
        PackageError: when it is not one, or of another version of the format.
    """
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise PackageError("is not a pai-compile package", where)
    if data.get("version") != VERSION:
        raise PackageError(
            f"has package format {data.get('version')}, this runtime reads format {VERSION}",
            where,
            "compile the model again, or install the matching version of pai-compile",
        )
    try:
        target = data["target"]
        return Manifest(
            str(data["name"]),
            str(target["arch"]),
            str(target["level"]),
            tuple(map(str, target["features"])),
            mesh := _mesh_from_json(data),
            tuple(_tensor_from_json(item, mesh) for item in data["arguments"]),
            tuple(_tensor_from_json(item, mesh) for item in data["results"]),
            {str(name): _kernel_from_json(item) for name, item in data["kernels"].items()},
            {str(name): str(digest) for name, digest in data["checksums"].items()},
        )
    except PackageError:
        raise
    except Exception as error:
        raise PackageError(f"the manifest is damaged ({error!r})", where) from error


def _mesh_from_json(data: Any) -> Mesh:
    axes = tuple((str(name), int(size)) for name, size in data["mesh"])
    return Mesh(axes, tuple(map(int, data.get("device_ids", ()))))


def _kernel_from_json(item: Any) -> KernelSpec:
    return KernelSpec(
        str(item["file"]), str(item["symbol"]), int(item["grid"]), int(item["scratch_bytes"])
    )


def _tensor_from_json(item: Any, mesh: Mesh) -> TensorSpec:
    dims = tuple(
        tuple(AxisRef(a) if isinstance(a, str) else AxisRef(a[0], int(a[1]), int(a[2])) for a in d)
        for d in item["sharding"]
    )
    shape = tuple(map(int, item["shape"]))
    spec = TensorSpec(
        str(item["name"]), str(item["role"]), str(item["dtype"]), shape, Sharding(dims),
        str(item.get("updates", "")),
    )  # fmt: skip
    if spec.dtype not in DTYPES or len(dims) != len(shape) or min((0, *shape)) < 0:
        raise PackageError("the manifest is damaged", f"tensor '{spec.name}'")
    for dim in range(len(dims)):
        spec.sharding.num_shards(dim, mesh)
    return spec
