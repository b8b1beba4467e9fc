"""Host memory of a run: aligned arrays, and global arrays cut into shards and put together."""

from __future__ import annotations

import math

import numpy as np

from pai.runtime.dtypes import DTYPES, itemsize
from pai.runtime.errors import PackageError
from pai.runtime.manifest import TensorSpec
from pai.runtime.mesh import Mesh
from pai.runtime.program import ALIGNMENT

_NARROW = {
    DTYPES["i2"]: np.int8, DTYPES["i4"]: np.int8, DTYPES["ui2"]: np.uint8, DTYPES["ui4"]: np.uint8,
}  # fmt: skip


def allocate(size: int) -> np.ndarray:
    """Return ``size`` bytes (at least one) of memory aligned to 64 bytes, not initialized.

    Raises:
        PackageError: when there is not that much memory.
    """
    try:
        raw = np.empty(max(size, 1) + ALIGNMENT, np.uint8)
    except (MemoryError, ValueError) as error:
        raise PackageError(f"a run needs {size / 2**30:.3g} GiB more memory than there is") from (
            error
        )
    skip = -raw.ctypes.data % ALIGNMENT
    return raw[skip : skip + size]


def typed(memory: np.ndarray, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return bytes as an array of the given element type and shape, not copied."""
    size = itemsize(dtype) * math.prod(shape)
    return memory[:size].view(DTYPES[dtype]).reshape(shape)


def shard_number(spec: TensorSpec, mesh: Mesh, device: int) -> int:
    """Return which of the distinct shards of a tensor ``device`` holds (row-major)."""
    number = 0
    for dim, index in enumerate(spec.sharding.shard_index(mesh, device)):
        number = number * spec.sharding.num_shards(dim, mesh) + index
    return number


def shard_slices(spec: TensorSpec, mesh: Mesh, device: int) -> tuple[slice, ...]:
    """Return where a device's shard lies in the global tensor; the padded tail is left out."""
    index = spec.sharding.shard_index(mesh, device)
    local = spec.local_shape(mesh)
    return tuple(
        slice(min(i * size, whole), min((i + 1) * size, whole))
        for i, size, whole in zip(index, local, spec.shape, strict=True)
    )


def canonical(array: np.ndarray) -> np.ndarray:
    """Return the elements in the bytes that kernels expect.

    ml_dtypes ignores the upper bits of integers of 2 or 4 bits; kernels want them extended.
    """
    kind = _NARROW.get(array.dtype)
    return array if kind is None else array.astype(kind).view(array.dtype)


def cut(array: np.ndarray, spec: TensorSpec, mesh: Mesh, device: int, into: np.ndarray) -> None:
    """Write the shard of ``device`` into ``into`` (local shape); the padded tail becomes zero."""
    part = array[shard_slices(spec, mesh, device)]
    if part.shape != into.shape:
        into[...] = np.zeros((), into.dtype)
    into[tuple(slice(0, size) for size in part.shape)] = canonical(part)


def paste(shard: np.ndarray, spec: TensorSpec, mesh: Mesh, device: int, into: np.ndarray) -> None:
    """Write the shard of ``device`` to its place in the global array ``into``."""
    slices = shard_slices(spec, mesh, device)
    sizes = tuple(slice(0, s.stop - s.start) for s in slices)
    into[slices] = shard[sizes]
