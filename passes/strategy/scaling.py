"""A cluster with more of something, to ask the cost model what would help."""

from __future__ import annotations

from dataclasses import replace

from pai.runtime.topology import LEVELS, ClusterSpec, DeviceSpec, LinkSpec

INNER = LEVELS[0]


def scaled(
    cluster: ClusterSpec,
    *,
    memory: float = 1,
    flops: float = 1,
    bandwidth: float = 1,
    inner: float = 1,
    outer: float = 1,
) -> ClusterSpec:
    """Return ``cluster`` with every device or link faster or larger by a factor.

    Args:
        cluster: hosts and links.
        memory: factor of the devices' memory.
        flops: factor of the rates of all element types.
        bandwidth: factor of the devices' memory bandwidth.
        inner: factor of the bandwidth between the devices of a host.
        outer: factor of the bandwidth of all links beyond a host.
    """
    factors = {level: inner if level == INNER else outer for level in LEVELS}

    def device(kind: DeviceSpec) -> DeviceSpec:
        return replace(
            kind,
            memory_bytes=int(kind.memory_bytes * memory),
            memory_bandwidth=kind.memory_bandwidth * bandwidth,
            peak_flops=tuple((dtype, rate * flops) for dtype, rate in kind.peak_flops),
        )

    def wired(links: tuple[tuple[str, LinkSpec], ...]) -> tuple[tuple[str, LinkSpec], ...]:
        return tuple((level, _faster(link, factors[level])) for level, link in links)

    links = cluster.links
    if inner != outer and links:  # a level that is left out is as the one inside it
        links = tuple((level, cluster.link(level)) for level in LEVELS)
    kinds = {host: replace(host, device=device(host.device), links=wired(host.links))
             for host in dict.fromkeys(cluster.hosts)}  # fmt: skip
    return replace(cluster, hosts=tuple(kinds[host] for host in cluster.hosts), links=wired(links))


def _faster(link: LinkSpec, factor: float) -> LinkSpec:
    return replace(
        link,
        bandwidth=link.bandwidth * factor,
        group_bandwidth=tuple((size, rate * factor) for size, rate in link.group_bandwidth),
    )
