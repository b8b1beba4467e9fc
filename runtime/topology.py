"""ClusterSpec: the devices a program is compiled for, and the links between them, as plain data."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pai.runtime.errors import InvalidCluster

LEVELS = ("chip", "host", "rack")


@dataclass(frozen=True)
class DeviceSpec:
    """One kind of device.

    Args:
        kind: name, unique in the cluster.
        memory_bytes: memory a program may use.
        memory_bandwidth: peak, in bytes/s.
        peak_flops: (MLIR element type, FLOP/s) pairs of dense matrix products; ``f32`` is required.
        compute_efficiency: part of the peak that large matrix products reach.
        memory_efficiency: part of the peak bandwidth that streaming kernels reach.
        launch_overhead_s: time from one kernel to the next when they do no work.
        source: where the numbers are from.
    """

    kind: str
    memory_bytes: int
    memory_bandwidth: float
    peak_flops: tuple[tuple[str, float], ...]
    compute_efficiency: float = 1.0
    memory_efficiency: float = 1.0
    launch_overhead_s: float = 0.0
    source: str = ""

    def flops(self, dtype: str) -> float:
        """Return the FLOP/s reached on ``dtype``; types without a rate of their own run as f32."""
        rates = dict(self.peak_flops)
        return rates.get(dtype, rates["f32"]) * self.compute_efficiency

    @property
    def bandwidth(self) -> float:
        """The memory bandwidth reached, in bytes/s."""
        return self.memory_bandwidth * self.memory_efficiency


@dataclass(frozen=True)
class LinkSpec:
    """The links of one level.

    Args:
        latency_s: time of one step of a collective without its bytes (the α of α-β models).
        bandwidth: bytes/s that one device sends while it receives as much.
        efficiency: part of ``bandwidth`` that large collectives reach.
        source: where the numbers are from.
    """

    latency_s: float
    bandwidth: float
    efficiency: float = 1.0
    source: str = ""

    @property
    def rate(self) -> float:
        """The bandwidth reached, in bytes/s."""
        return self.bandwidth * self.efficiency


@dataclass(frozen=True)
class HostSpec:
    """One host: ``devices`` devices of one kind."""

    device: DeviceSpec
    devices: int


@dataclass(frozen=True)
class ClusterSpec:
    """Hosts with their devices, and the links between them.

    Devices are numbered host by host. The level of a link says what it connects: ``chip`` the
    devices of one host, ``host`` the hosts of one rack, ``rack`` the racks. A level that is left
    out is as the one inside it.

    Args:
        name: profile name or file.
        hosts: the hosts, which may differ.
        links: (level, link) pairs, in the order of ``LEVELS``.
        hosts_per_rack: hosts of one rack; 0 puts all hosts in one.
        scale: whether the last kind of host may be repeated to reach more devices.
    """

    name: str
    hosts: tuple[HostSpec, ...]
    links: tuple[tuple[str, LinkSpec], ...]
    hosts_per_rack: int = 0
    scale: bool = False
    description: str = field(default="", compare=False)

    @property
    def num_devices(self) -> int:
        """The number of devices."""
        return sum(host.devices for host in self.hosts)

    @property
    def devices(self) -> tuple[DeviceSpec, ...]:
        """The device kinds by device number."""
        return tuple(host.device for host in self.hosts for _ in range(host.devices))

    @property
    def memory_bytes(self) -> int:
        """The memory of the smallest device: every device runs the same program."""
        return min(host.device.memory_bytes for host in self.hosts)

    @functools.cached_property
    def host_numbers(self) -> tuple[int, ...]:
        """The host number by device number."""
        return tuple(i for i, host in enumerate(self.hosts) for _ in range(host.devices))

    def link(self, level: str) -> LinkSpec:
        """Return the link of ``level``, or of the nearest level inside it that is given."""
        given = dict(self.links)
        inner = [name for name in LEVELS[: LEVELS.index(level) + 1] if name in given]
        return given[inner[-1]] if inner else self.links[0][1]

    def split(self, group: Sequence[int]) -> tuple[tuple[str, int], ...]:
        """Return the (level, size) factors of a group of devices, innermost first.

        A group that does not fill its hosts evenly is one ring over the outermost level it
        crosses; factors of size 1 are left out.
        """
        hosts = [self.host_numbers[device] for device in group]
        racks = [host // self.hosts_per_rack if self.hosts_per_rack else 0 for host in hosts]
        on_host, in_rack = Counter(hosts), Counter(dict(zip(hosts, racks, strict=True)).values())
        num_hosts, num_racks = len(on_host), len(in_rack)
        if len(set(on_host.values())) > 1 or len(set(in_rack.values())) > 1:
            return (("rack" if num_racks > 1 else "host", len(group)),)
        sizes = (len(group) // num_hosts, num_hosts // num_racks, num_racks)
        return tuple((level, n) for level, n in zip(LEVELS, sizes, strict=True) if n > 1)

    def take(self, num_devices: int) -> ClusterSpec:
        """Return the cluster of the first ``num_devices`` devices.

        Raises:
            InvalidCluster: when there are too few and ``scale`` is not set.
        """
        if num_devices < 1:
            raise InvalidCluster(
                f"{num_devices} devices cannot run anything", "--devices", "give a number from 1 up"
            )
        missing = num_devices - self.num_devices
        hosts = list(self.hosts)
        if missing > 0 and not self.scale:
            raise InvalidCluster(
                f"{num_devices} devices were asked for but it has {self.num_devices}",
                self.name,
                "ask for fewer, add [[host]] entries, or set scale = true",
            )
        if missing > 0:
            hosts += [hosts[-1]] * math.ceil(missing / hosts[-1].devices)
        kept: list[HostSpec] = []
        left = num_devices
        for host in hosts:
            if left > 0:
                kept.append(HostSpec(host.device, min(left, host.devices)))
                left -= host.devices
        return ClusterSpec(
            self.name, tuple(kept), self.links, self.hosts_per_rack, self.scale, self.description
        )


def load_cluster(name_or_path: str, num_devices: int | None = None) -> ClusterSpec:
    """Return a built-in profile or the cluster of a TOML file, cut or scaled to ``num_devices``.

    Args:
        name_or_path: a profile name (``profile_names()``), or a path that ends in ``.toml``;
            "" is the profile ``cpu``.
        num_devices: number of devices; None takes the file's own.

    Raises:
        InvalidCluster: for an unknown name, a wrong entry, or a wrong number of devices.
    """
    from pai.runtime.topology_toml import read_cluster  # noqa: PLC0415 (it imports this module)

    cluster = read_cluster(name_or_path or "cpu")
    return cluster if num_devices is None else cluster.take(num_devices)
