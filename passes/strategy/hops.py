"""Hops: the levels that a group of devices crosses, and its share of the ports on each.

Devices of a host talk over links of their own; what leaves a host goes through its ports, which
all groups with members there share: a group of 8 inside one host has the switch to itself, while
8 groups that take one device of each of 8 hosts get one port each.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pai.runtime.topology import LEVELS, ClusterSpec, HostSpec, LinkSpec


@dataclass(frozen=True)
class Hop:
    """One level of a group.

    Args:
        level: what kind of units the level connects: ``chip`` devices, ``host`` hosts, ….
        units: such units in the group (all devices for ``chip``, its hosts for ``host``).
        outer_units: units of the next level outwards: the group's hosts for ``chip``, ….
        members: devices of the group in one unit, at most.
        concurrent: groups that cross the level out of one unit at the same time.
        rate: bytes/s that the members of one unit together send across the level.
        link: the level's link; of hosts that differ, the one with the least rate.
    """

    level: str
    units: int
    outer_units: int
    members: int
    concurrent: int
    rate: float
    link: LinkSpec

    @property
    def ring_steps(self) -> int:
        """Steps of a ring through all devices of the group that cross this level."""
        return self.units - self.outer_units

    @property
    def fan(self) -> int:
        """Units that one unit of the next level outwards connects."""
        return -(-self.units // self.outer_units)


@dataclass(frozen=True)
class Placement:
    """How the groups of some mesh axes lie on a cluster.

    Args:
        groups: how many groups run the same collective at once.
        size: devices of one group.
        factors: (level, n) pairs of a group, innermost first, as ``ClusterSpec.split`` gives them.
        shapes: the different ways in which groups lie, each as its hops, innermost first.
    """

    groups: int
    size: int
    factors: tuple[tuple[str, int], ...]
    shapes: tuple[tuple[Hop, ...], ...]

    @property
    def concurrent(self) -> tuple[tuple[str, int], ...]:
        """(level, groups that share the ports of one unit of it) pairs, the most of any shape."""
        out: dict[str, int] = {}
        for hop in itertools.chain.from_iterable(self.shapes):
            out[hop.level] = max(out.get(hop.level, 0), hop.concurrent)
        return tuple(out.items())


def unit_sizes(cluster: ClusterSpec, of: HostSpec | None = None) -> tuple[int, ...]:
    """Return the devices in one unit of each level of a uniform cluster: device, host, rack, pod.

    What is not limited (racks of all hosts, say) has the size of the whole cluster.
    """
    host = (of or cluster.hosts[0]).devices
    rack = host * (cluster.hosts_per_rack or len(cluster.hosts))
    racks = -(-len(cluster.hosts) // cluster.hosts_per_rack) if cluster.hosts_per_rack else 1
    return (1, host, rack, rack * (cluster.racks_per_pod or racks))


def regular_hops(
    inside: Sequence[int], devices: int | None, cluster: ClusterSpec, of: HostSpec | None = None
) -> tuple[Hop, ...]:
    """Return the hops of groups that all lie alike on a cluster of equal hosts.

    Args:
        inside: members of a group in one device, host, rack, pod, and in all.
        devices: how many devices, from the first, take part; None is all there may be.
        cluster: the devices and links.
        of: the host that stands for all; None is the first.
    """
    size, host = inside[-1], of or cluster.hosts[0]
    hops = []
    for level, name in enumerate(LEVELS):
        if inside[level] == size or (level == 0 and inside[1] == 1):
            continue
        unit = unit_sizes(cluster, host)[level]
        concurrent = max(1, (unit if devices is None else min(unit, devices)) // inside[level])
        if level == 0:
            concurrent, rate = 1, cluster.link(name, host).rate_among(inside[1])
        else:
            rate = port_rate(cluster, name, host, inside[level], concurrent)
        hops.append(
            Hop(
                level=name,
                units=size // inside[level],
                outer_units=size // inside[level + 1],
                members=inside[level],
                concurrent=concurrent,
                rate=rate,
                link=cluster.link(name, host),
            )
        )
    return tuple(hops)


def port_rate(
    cluster: ClusterSpec, level: str, host: HostSpec, members: float, concurrent: float
) -> float:
    """Return the bytes/s that a group's ``members`` in one unit send out of it.

    ``concurrent`` groups share the ports; a device uses the ports nearest to it and no others.
    """
    link = cluster.link(level, host)
    ports = link.ports or host.devices
    hosts = {"host": 1, "rack": cluster.hosts_per_rack or 1}.get(level)
    if hosts is None:
        hosts = (cluster.hosts_per_rack or 1) * (cluster.racks_per_pod or 1)
    own = members * max(1.0, ports / host.devices)
    return min(own, hosts * ports / max(1.0, concurrent)) * link.rate


def place_groups(groups: Sequence[Sequence[int]], cluster: ClusterSpec) -> Placement:
    """Return how groups of devices, which run one collective at once, lie on ``cluster``.

    Args:
        groups: device numbers of each group.
        cluster: the devices and links.
    """
    groups = [group for group in groups if len(group) > 1]
    if not groups:
        return Placement(0, 1, (), ())
    crossing, codes = _census(groups, cluster)
    different: dict[bytes, Sequence[int]] = {}
    for group, code in zip(groups, codes, strict=True):
        different.setdefault(code.tobytes(), group)
    located = [_Located(group, cluster) for group in different.values()]
    widest = max(located, key=lambda group: len(group.counts[1]))
    return Placement(
        groups=len(groups),
        size=max(map(len, groups)),
        factors=cluster.split(tuple(widest.counts[0])),
        shapes=tuple(dict.fromkeys(group.hops(crossing) for group in located)),
    )


Crossing = dict[tuple[str, int], int]


def _census(
    groups: Sequence[Sequence[int]], cluster: ClusterSpec
) -> tuple[Crossing, list[NDArray[np.int64]]]:
    """Return how many groups leave each unit, and a code of each group's place.

    Groups with the same code have the same hops: it lists, sorted, for each device the kind of its
    host and, for its host, rack and pod, the members there and the groups that leave it.
    """
    lengths = [len(group) for group in groups]
    row = np.repeat(np.arange(len(groups)), lengths)
    host = np.asarray(cluster.host_numbers)[np.concatenate([np.asarray(g) for g in groups])]
    rack = host // cluster.hosts_per_rack if cluster.hosts_per_rack else np.zeros_like(host)
    pod = rack // cluster.racks_per_pod if cluster.racks_per_pod else np.zeros_like(rack)
    code = np.asarray(cluster.host_kinds)[host]
    crossing: Crossing = {}
    for name, unit in zip(LEVELS[1:], (host, rack, pod), strict=True):
        number = int(unit.max()) + 1
        pairs, place, members = np.unique(
            row * number + unit, return_inverse=True, return_counts=True
        )
        spread = np.bincount(pairs // number)
        leaving = np.bincount((pairs % number)[spread[pairs // number] > 1], minlength=number)
        crossing |= {(name, i): int(n) for i, n in enumerate(leaving)}
        for column in (members[place], leaving[unit]):
            code = np.unique(code * (int(column.max()) + 1) + column, return_inverse=True)[1]
    code = code[np.lexsort((code, row))]
    return crossing, np.split(code, np.cumsum(lengths)[:-1])


class _Located:
    """One group, counted by the units its devices are in."""

    def __init__(self, group: Sequence[int], cluster: ClusterSpec) -> None:
        self.cluster = cluster
        hosts = [cluster.host_numbers[device] for device in group]
        self.counts: list[Counter[int]] = [
            Counter(group),
            Counter(hosts),
            Counter(map(cluster.rack_of, hosts)),
            Counter(map(cluster.pod_of, hosts)),
            Counter({0: len(group)}),
        ]

    def hops(self, crossing: Crossing) -> tuple[Hop, ...]:
        """Return the hops; ``crossing`` counts the groups that leave each unit of each level."""
        out = []
        for i, name in enumerate(LEVELS):
            units, outer = self.counts[i], self.counts[i + 1]
            members = max(outer.values()) if i == 0 else max(units.values())
            if len(units) == 1 or (i == 0 and members == 1):
                continue
            host, rate = self._slowest(i, name, crossing)
            out.append(
                Hop(
                    level=name,
                    units=len(units),
                    outer_units=len(outer),
                    members=1 if i == 0 else members,
                    concurrent=1 if i == 0 else max(crossing[name, unit] for unit in units),
                    rate=rate,
                    link=self.cluster.link(name, host),
                )
            )
        return tuple(out)

    def _slowest(self, i: int, name: str, crossing: Crossing) -> tuple[HostSpec, float]:
        cluster = self.cluster
        rates = []
        for number, members in self.counts[1].items():
            host = cluster.hosts[number]
            if i == 0:
                rate = cluster.link(name, host).rate_among(members)
            else:
                unit = (number, cluster.rack_of(number), cluster.pod_of(number))[i - 1]
                count = self.counts[i][unit]
                rate = port_rate(cluster, name, host, count, crossing[name, unit])
            if i or members > 1:
                rates.append((host, rate))
        return min(rates, key=lambda pair: pair[1])


def send_time(
    num_bytes: float, src_device: int, dst_device: int, cluster: ClusterSpec, concurrent: int = 1
) -> float:
    """Return the seconds of sending ``num_bytes`` from one device to another.

    Args:
        num_bytes: size of the message.
        src_device: device number.
        dst_device: device number; the same one costs nothing.
        cluster: the devices and links.
        concurrent: how many such messages leave the host at the same time and share its ports.
    """
    if src_device == dst_device:
        return 0.0
    ends = [cluster.host_numbers[device] for device in (src_device, dst_device)]
    hosts = [cluster.hosts[number] for number in ends]
    if ends[0] == ends[1]:
        link = cluster.link("chip", hosts[0])
        return link.latency_s + num_bytes / link.rate_among(2)
    last = 1 + (cluster.rack_of(ends[0]) != cluster.rack_of(ends[1]))
    last += cluster.pod_of(ends[0]) != cluster.pod_of(ends[1])
    levels = LEVELS[1 : last + 1]
    rate = min(port_rate(cluster, level, host, 1, concurrent) for level in levels for host in hosts)
    latency = max(cluster.link(levels[-1], host).latency_s for host in hosts)
    return latency + num_bytes / rate
