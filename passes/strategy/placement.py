"""Placement of mesh axes on a cluster, and the time of collectives over them.

Regular placements are closed forms of the axes' strides, so that a mesh of 16,384 devices costs
what one of 16 costs; others (lists of devices, hosts that differ) are counted once and remembered.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from pai.passes.strategy.collectives import shape_seconds
from pai.passes.strategy.hops import Placement, place_groups, regular_hops, send_time, unit_sizes
from pai.runtime.errors import InvalidSharding
from pai.runtime.mesh import AxisRef, Mesh
from pai.runtime.topology import ClusterSpec

__all__ = ["Placement", "axis_factors", "collective_time", "send_time"]

Axes = Sequence[str | AxisRef]


def axis_factors(mesh: Mesh, axes: Axes, cluster: ClusterSpec) -> Placement:
    """Return how the groups over ``axes`` of ``mesh`` lie on ``cluster``.

    Args:
        mesh: its devices are the first of the cluster, in ``device_ids`` order.
        axes: names or sub-axes; none is groups of one device.
        cluster: the devices and links.

    Raises:
        InvalidSharding: for an unknown axis, or a mesh larger than the cluster.
    """
    if mesh.num_devices > cluster.num_devices:
        raise InvalidSharding(
            f"the mesh {mesh} has more devices than the cluster's {cluster.num_devices}",
            cluster.name,
        )
    return _axis_factors(mesh, tuple(axes), cluster)


@functools.lru_cache(maxsize=4096)
def _axis_factors(mesh: Mesh, axes: tuple[str | AxisRef, ...], cluster: ClusterSpec) -> Placement:
    digits = _digits(mesh, axes)
    if not mesh.device_ids and cluster.is_uniform:
        inside = _inside_units(digits, mesh.num_devices, cluster)
        if inside is not None:
            hops = regular_hops(inside, mesh.num_devices, cluster)
            factors = tuple((hop.level, hop.fan) for hop in hops if hop.fan > 1)
            groups = mesh.num_devices // inside[-1]
            return Placement(groups, inside[-1], factors, (hops,) if hops else ())
    return place_groups(_groups(mesh, digits), cluster)


def _digits(mesh: Mesh, axes: tuple[str | AxisRef, ...]) -> tuple[tuple[int, int], ...]:
    """Return the (stride, size) of each axis in mesh positions."""
    strides, stride = {}, 1
    for name, size in reversed(mesh.axes):
        strides[name] = stride
        stride *= size
    out = []
    for axis in axes:
        ref = AxisRef(axis) if isinstance(axis, str) else axis
        size = ref.size(mesh)
        out.append((strides[ref.name] * (mesh.size(ref.name) // (ref.pre_size * size)), size))
    return tuple((stride, size) for stride, size in out if size > 1)


def _groups(mesh: Mesh, digits: tuple[tuple[int, int], ...]) -> list[list[int]]:
    """Return the device numbers of every group."""
    offsets = [0]
    for stride, size in digits:
        offsets = [base + i * stride for base in offsets for i in range(size)]
    inside = {
        position
        for position in range(mesh.num_devices)
        if all(position // stride % size == 0 for stride, size in digits)
    }
    device = mesh.device_ids or range(mesh.num_devices)
    return [[device[first + offset] for offset in offsets] for first in sorted(inside)]


def _inside_units(
    digits: tuple[tuple[int, int], ...], devices: int, cluster: ClusterSpec
) -> tuple[int, ...] | None:
    """Return the members of a group in one unit of each level, or None when it is irregular."""
    out = []
    for unit in unit_sizes(cluster):
        members = 1
        for stride, size in digits:
            extent = stride * size
            if unit >= devices or unit % extent == 0:
                members *= size
            elif unit % stride == 0 and extent % unit == 0:
                members *= unit // stride
            elif stride % unit:
                return None
        out.append(members)
    return (*out, math.prod(size for _, size in digits))


def collective_time(
    kind: str, num_bytes: float, mesh: Mesh, axes: Axes, cluster: ClusterSpec
) -> float:
    """Return the seconds of one collective over ``axes`` that all groups of the mesh run at once.

    Args:
        kind: ``all_reduce``, ``all_gather``, ``reduce_scatter``, ``all_to_all``,
            ``collective_permute`` or ``collective_broadcast``.
        num_bytes: the larger side of one device's tensors: what an all_gather returns, what a
            reduce_scatter takes.
        mesh: its devices are the first of the cluster.
        axes: the mesh axes.
        cluster: the devices and links.

    Raises:
        PassFailure: for a kind without a formula.
        InvalidSharding: as ``axis_factors``.
    """
    shapes = axis_factors(mesh, axes, cluster).shapes
    return max((shape_seconds(kind, num_bytes, hops) for hops in shapes), default=0.0)
