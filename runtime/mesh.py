"""Device meshes and shardings as plain data, shared by the compiler and the runtime."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from pai.runtime.errors import InvalidSharding


@dataclass(frozen=True)
class Mesh:
    """Named axes over ``num_devices`` devices; positions are row-major: the last axis is fastest.

    Args:
        axes: (name, size) pairs, outermost first. An empty tuple is one device.
        device_ids: the device at each position; empty where the device is the position.
    """

    axes: tuple[tuple[str, int], ...] = ()
    device_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Reject duplicate names, sizes below one and device ids that name no device or two."""
        names = [name for name, _ in self.axes]
        if len(set(names)) != len(names) or any(size < 1 for _, size in self.axes):
            raise InvalidSharding(f"mesh axes {self.axes} repeat a name or have a size below 1")
        if self.device_ids == tuple(range(self.num_devices)):
            object.__setattr__(self, "device_ids", ())
        if self.device_ids and sorted(self.device_ids) != list(range(self.num_devices)):
            raise InvalidSharding(
                f"the mesh of {self.num_devices} devices lists the devices {list(self.device_ids)}",
                hint=f"list each of 0 to {self.num_devices - 1} once, or leave the list out",
            )

    @property
    def num_devices(self) -> int:
        """The number of devices."""
        return math.prod(size for _, size in self.axes)

    def __str__(self) -> str:
        """Return the axes as ``{'x': 2, 'y': 4}``, and the devices if in another order."""
        order = f" with the devices {list(self.device_ids)}" if self.device_ids else ""
        return f"{dict(self.axes)}{order}"

    def size(self, axis: str) -> int:
        """Return the size of ``axis``; raises InvalidSharding when it is not of this mesh."""
        for name, size in self.axes:
            if name == axis:
                return size
        raise InvalidSharding(f"mesh {self.axes} has no axis '{axis}'")

    def position(self, device: int) -> int:
        """Return the row-major position of ``device``."""
        return self.device_ids.index(device) if self.device_ids else device

    def coordinates(self, device: int) -> dict[str, int]:
        """Return the coordinate of ``device`` on each axis."""
        out: dict[str, int] = {}
        rest = self.position(device)
        for name, size in reversed(self.axes):
            rest, out[name] = divmod(rest, size)
        return out


@dataclass(frozen=True, order=True)
class AxisRef:
    """A whole mesh axis, or a sub-axis of it.

    A sub-axis follows Shardy's ``"x":(pre_size)size``: the axis of size n is seen as
    [pre_size, size, n / (pre_size * size)] and the middle dimension is meant.
    """

    name: str
    pre_size: int = 1
    sub_size: int | None = None

    def size(self, mesh: Mesh) -> int:
        """Return the number of shards this reference makes."""
        return mesh.size(self.name) if self.sub_size is None else self.sub_size

    def index(self, mesh: Mesh, coordinates: dict[str, int]) -> int:
        """Return the shard number along this reference of a device at ``coordinates``."""
        if self.sub_size is None:
            return coordinates[self.name]
        inner = mesh.size(self.name) // (self.pre_size * self.sub_size)
        return coordinates[self.name] // inner % self.sub_size


@dataclass(frozen=True)
class Sharding:
    """How one tensor is laid over a mesh: for each dimension the axes that split it.

    The first axis of a dimension is the major one. A dimension that the axes do not divide is
    split into ``ceil(dim / shards)`` parts and the last shards are padded.

    Args:
        dims: per dimension, the axes that shard it, major to minor.
    """

    dims: tuple[tuple[AxisRef, ...], ...] = field(default=())

    @staticmethod
    def replicated(rank: int) -> Sharding:
        """Return the sharding of a tensor of ``rank`` dimensions that every device holds whole."""
        return Sharding(((),) * rank)

    @property
    def is_replicated(self) -> bool:
        """Whether every device holds the whole tensor."""
        return not any(self.dims)

    def num_shards(self, dim: int, mesh: Mesh) -> int:
        """Return the number of parts that dimension ``dim`` is split into."""
        return math.prod(axis.size(mesh) for axis in self.dims[dim])

    def local_shape(self, shape: tuple[int, ...], mesh: Mesh) -> tuple[int, ...]:
        """Return the shape of one device's shard, padding included."""
        return tuple(-(-size // self.num_shards(dim, mesh)) for dim, size in enumerate(shape))

    def shard_index(self, mesh: Mesh, device: int) -> tuple[int, ...]:
        """Return per dimension which shard ``device`` holds."""
        coordinates = mesh.coordinates(device)
        out = []
        for axes in self.dims:
            index = 0
            for axis in axes:
                index = index * axis.size(mesh) + axis.index(mesh, coordinates)
            out.append(index)
        return tuple(out)
