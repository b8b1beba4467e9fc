"""Collective times of a mesh laid out on a cluster's hosts."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

from pai.passes.strategy.placement import collective_time, send_time
from pai.passes.strategy.step import Network
from pai.runtime.mesh import Mesh
from pai.runtime.topology import ClusterSpec, LinkSpec, load_cluster


@functools.cache
def network(profile: str, axes: tuple[tuple[str, int], ...], fabric: float = 1.0) -> Network:
    """Return the seconds of collectives over the axes of a mesh, given major to minor.

    The innermost axis lies on neighbouring devices; ``fabric`` multiplies the rate between hosts.
    """
    cluster = cluster_of(profile, math.prod(size for _, size in axes), fabric)
    mesh = Mesh(axes)

    @functools.cache
    def seconds(kind: str, num_bytes: float, names: tuple[str, ...]) -> float:
        if kind == "send":
            return _send(num_bytes, mesh, names[0], cluster)
        return collective_time(kind, num_bytes, mesh, names, cluster)

    return seconds


@functools.cache
def cluster_of(profile: str, devices: int, fabric: float = 1.0) -> ClusterSpec:
    """Return the first devices of a profile, whose hosts are linked ``fabric`` times as fast."""
    cluster = load_cluster(profile, devices)
    links = [
        (level, _faster(link, fabric if level != "chip" else 1)) for level, link in cluster.links
    ]
    return replace(cluster, links=tuple(links))


def _faster(link: LinkSpec, times: float) -> LinkSpec:
    return link if times == 1 else replace(link, bandwidth=link.bandwidth * times)


def _send(num_bytes: float, mesh: Mesh, axis: str, cluster: ClusterSpec) -> float:
    """Return the mean time of a message to the next position of an axis."""
    places = [name for name, _ in mesh.axes]
    stride = math.prod(size for _, size in mesh.axes[places.index(axis) + 1 :])
    together = min(stride, cluster.hosts[0].devices)
    times = [
        send_time(num_bytes, i * stride, (i + 1) * stride, cluster, together)
        for i in range(mesh.size(axis) - 1)
    ]
    return sum(times) / len(times)
