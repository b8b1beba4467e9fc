"""Placement of mesh axes on a cluster, and the time of collectives over them.

Regular placements are closed forms of the axes' strides, so that a mesh of 16,384 devices costs
what one of 16 costs; others (lists of devices, hosts that differ) are counted once and remembered.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np

from pai.passes.strategy.collectives import shape_seconds
from pai.passes.strategy.hops import Placement, place_groups, regular_hops, send_time, unit_sizes
from pai.runtime.errors import InvalidSharding
from pai.runtime.mesh import AxisRef, Mesh
from pai.runtime.topology import ClusterSpec

__all__ = ["Placement", "axis_factors", "axis_orders", "collective_time", "send_time"]

Axes = Sequence[str | AxisRef]
Digits = tuple[tuple[int, int], ...]


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
    refs = tuple(AxisRef(axis) if isinstance(axis, str) else axis for axis in axes)
    digits = _device_digits(mesh, refs) if cluster.is_uniform else None
    inside = None if digits is None else _inside_units(digits, mesh.num_devices, cluster)
    if inside is None:
        return place_groups(_groups(mesh, _digits(mesh, refs)), cluster)
    hops = regular_hops(inside, mesh.num_devices, cluster)
    factors = tuple((hop.level, hop.fan) for hop in hops if hop.fan > 1)
    groups = mesh.num_devices // inside[-1]
    return Placement(groups, inside[-1], factors, (hops,) if hops else ())


def _digits(mesh: Mesh, refs: tuple[AxisRef, ...]) -> Digits:
    """Return the (stride, size) of each axis in mesh positions."""
    strides, stride = {}, 1
    for name, size in reversed(mesh.axes):
        strides[name] = stride
        stride *= size
    sizes = [ref.size(mesh) for ref in refs]
    inner = [mesh.size(ref.name) // (ref.pre_size * n) for ref, n in zip(refs, sizes, strict=True)]
    return tuple(
        (strides[ref.name] * minor, size)
        for ref, size, minor in zip(refs, sizes, inner, strict=True)
        if size > 1
    )


def _device_digits(mesh: Mesh, refs: tuple[AxisRef, ...]) -> Digits | None:
    """Return the (stride, size) of each axis in device numbers, or None when there are none.

    A list of devices has them when it is a change of radix order: a position's prime digits, times
    strides of their own, add up to the device.
    """
    digits = _digits(mesh, refs)
    if not mesh.device_ids:
        return digits
    cuts = {1, mesh.num_devices}
    for stride, size in (*digits, *_digits(mesh, tuple(AxisRef(name) for name, _ in mesh.axes))):
        cuts |= {stride, stride * size}
    ordered = sorted(cuts)
    if any(major % minor for minor, major in itertools.pairwise(ordered)):
        return None
    primes = [
        (minor * math.prod(factors[:i]), factor)
        for minor, major in itertools.pairwise(ordered)
        for factors in (_primes(major // minor),)
        for i, factor in enumerate(factors)
    ]
    moved = _affine(mesh.device_ids, tuple(primes))
    if moved is None:
        return None
    return tuple(
        (moved[place], factor)
        for stride, size in digits
        for place, factor in primes
        if stride <= place < stride * size
    )


@functools.lru_cache(maxsize=256)
def _affine(devices: tuple[int, ...], digits: Digits) -> dict[int, int] | None:
    """Return the device stride of each position stride, or None when they do not add up."""
    moved = {stride: devices[stride] for stride, _ in digits}
    expected = np.zeros(1, dtype=np.int64)
    for stride, size in digits:
        expected = (np.arange(size)[:, None] * moved[stride] + expected).reshape(-1)
    return moved if np.array_equal(expected, devices) else None


def _primes(number: int) -> list[int]:
    out, factor = [], 2
    while number > 1:
        while number % factor == 0:
            out.append(factor)
            number //= factor
        factor += 1
    return out


def _groups(mesh: Mesh, digits: Digits) -> list[list[int]]:
    """Return the device numbers of every group."""
    offsets, positions = np.zeros(1, dtype=np.int64), np.arange(mesh.num_devices)
    first = np.ones(mesh.num_devices, dtype=bool)
    for stride, size in digits:
        offsets = (offsets[:, None] + np.arange(size) * stride).reshape(-1)
        first &= positions // stride % size == 0
    groups = positions[first][:, None] + offsets
    devices: list[list[int]] = (
        np.asarray(mesh.device_ids)[groups] if mesh.device_ids else groups
    ).tolist()
    return devices


def _inside_units(digits: Digits, devices: int, cluster: ClusterSpec) -> tuple[int, ...] | None:
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


def axis_orders(
    axes: Sequence[tuple[str, int]], cluster: ClusterSpec
) -> tuple[tuple[tuple[str, int], ...], ...]:
    """Return the orders of mesh axes, outermost first, that lie differently on the cluster.

    The innermost axis is on neighbouring devices. Of orders in which every axis has the same level
    factors and shares ports with as many groups, the first is kept, starting with the given one.

    Args:
        axes: (name, size) pairs; those of size 1 stay outermost.
        cluster: the devices and links.
    """
    small = tuple(axis for axis in axes if axis[1] == 1)
    large = [axis for axis in axes if axis[1] > 1]
    found: dict[tuple[object, ...], tuple[tuple[str, int], ...]] = {}
    for order in itertools.permutations(large):
        mesh = Mesh(small + order)
        placements = [axis_factors(mesh, (name,), cluster) for name, _ in large]
        key = tuple((placed.factors, placed.concurrent) for placed in placements)
        found.setdefault(key, small + order)
    return tuple(found.values())
