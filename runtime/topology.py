"""ClusterSpec: the devices a program is compiled for, and the links between them, as plain data."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pai.runtime.errors import InvalidCluster

LEVELS = ("chip", "host", "rack", "pod")


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
class InSwitch:
    """Reduction inside the switches of a level (NVLink SHARP, SHARP of InfiniBand switches).

    Args:
        efficiency: part of the link's bandwidth that a large all_reduce keeps busy.
        latency_s: time of one all_reduce without its bytes.
    """

    efficiency: float
    latency_s: float


@dataclass(frozen=True)
class LinkSpec:
    """The links of one level.

    Args:
        latency_s: time of one message without its bytes (the α of α-β models).
        bandwidth: bytes/s of one port, each way.
        efficiency: part of ``bandwidth`` that large collectives reach.
        source: where the numbers are from.
        ring_latency_s: α of one step of a ring; None is ``latency_s``.
        tree_latency_s: α of one step of a tree; None is ``latency_s``.
        setup_s: time to start a collective that goes no further than this level.
        fill_s: τ of ``√(τ · transfer time)``, what a pipeline of pieces loses while it fills
            and drains with pieces of the best size.
        ports: ports of one host (its network cards), which all its devices share; 0 is one for
            each device. Not for the level ``chip``, where every device has its own.
        group_bandwidth: (size, bytes/s of a device) pairs for groups of at most that many devices
            of a host, where they are wired to each other and not to a switch.
        in_switch: reduction inside the switches; None where there is none.
    """

    latency_s: float
    bandwidth: float
    efficiency: float = 1.0
    source: str = ""
    ring_latency_s: float | None = None
    tree_latency_s: float | None = None
    setup_s: float = 0.0
    fill_s: float = 0.0
    ports: int = 0
    group_bandwidth: tuple[tuple[int, float], ...] = ()
    in_switch: InSwitch | None = None

    @property
    def rate(self) -> float:
        """The bandwidth reached on one port, in bytes/s."""
        return self.bandwidth * self.efficiency

    @property
    def ring_step_s(self) -> float:
        """Time of one step of a ring without its bytes."""
        return self.latency_s if self.ring_latency_s is None else self.ring_latency_s

    @property
    def tree_step_s(self) -> float:
        """Time of one step of a tree without its bytes."""
        return self.latency_s if self.tree_latency_s is None else self.tree_latency_s

    def rate_among(self, devices: int) -> float:
        """Return the bytes/s that each of ``devices`` devices of one host reaches among them."""
        wired = [rate for size, rate in self.group_bandwidth if size >= devices]
        return min([self.bandwidth, *wired]) * self.efficiency


@dataclass(frozen=True)
class HostSpec:
    """One host.

    Args:
        device: its kind of device.
        devices: how many.
        links: (level, link) pairs where it differs from the cluster: ``chip``, ``host``.
    """

    device: DeviceSpec
    devices: int
    links: tuple[tuple[str, LinkSpec], ...] = ()


@dataclass(frozen=True)
class ClusterSpec:
    """Hosts with their devices, and the links between them.

    Devices are numbered host by host. The level of a link says what it connects: ``chip`` the
    devices of one host, ``host`` the hosts of one rack (or of one rail group: the hosts under one
    set of leaf switches), ``rack`` the racks of one pod, ``pod`` the pods. A level that is left
    out is as the one inside it. The bandwidth of an outer level is a port's share of it: a fabric
    that is oversubscribed 7:1 between pods has a seventh of the port's rate at ``pod``.

    Args:
        name: profile name or file.
        hosts: the hosts, which may differ.
        links: (level, link) pairs, in the order of ``LEVELS``.
        hosts_per_rack: hosts of one rack; 0 puts all hosts in one.
        scale: whether the last kind of host may be repeated to reach more devices.
        racks_per_pod: racks of one pod; 0 puts all racks in one.
    """

    name: str
    hosts: tuple[HostSpec, ...]
    links: tuple[tuple[str, LinkSpec], ...]
    hosts_per_rack: int = 0
    scale: bool = False
    description: str = field(default="", compare=False)
    racks_per_pod: int = 0

    def __hash__(self) -> int:
        """Return a hash that is computed once: thousands of hosts would take milliseconds."""
        return self._hash

    def __eq__(self, other: object) -> bool:
        """Compare host kinds instead of thousands of hosts."""
        if self is other or not isinstance(other, ClusterSpec):
            return self is other
        return self._hash == other._hash and self._identity == other._identity

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self._identity)

    @functools.cached_property
    def _identity(self) -> tuple[object, ...]:
        shape = (self.hosts_per_rack, self.racks_per_pod, self.scale)
        return (self.name, self.distinct_hosts, self.host_kinds, self.links, shape)

    @functools.cached_property
    def num_devices(self) -> int:
        """The number of devices."""
        return sum(host.devices for host in self.hosts)

    @functools.cached_property
    def devices(self) -> tuple[DeviceSpec, ...]:
        """The device kinds by device number."""
        return tuple(host.device for host in self.hosts for _ in range(host.devices))

    @property
    def memory_bytes(self) -> int:
        """The memory of the smallest device: every device runs the same program."""
        return min(host.device.memory_bytes for host in self.distinct_hosts)

    @functools.cached_property
    def host_numbers(self) -> tuple[int, ...]:
        """The host number by device number."""
        return tuple(i for i, host in enumerate(self.hosts) for _ in range(host.devices))

    @functools.cached_property
    def host_kinds(self) -> tuple[int, ...]:
        """The place of each host in ``distinct_hosts``."""
        numbers = {host: i for i, host in enumerate(self.distinct_hosts)}
        by_id = {id(host): numbers[host] for host in {id(h): h for h in self.hosts}.values()}
        return tuple(by_id[id(host)] for host in self.hosts)

    @functools.cached_property
    def distinct_hosts(self) -> tuple[HostSpec, ...]:
        """Every kind of host once, in order."""
        return tuple(dict.fromkeys({id(host): host for host in self.hosts}.values()))

    @property
    def is_uniform(self) -> bool:
        """Whether all hosts are alike."""
        return len(self.distinct_hosts) == 1

    def rack_of(self, host: int) -> int:
        """Return the rack number of a host number."""
        return host // self.hosts_per_rack if self.hosts_per_rack else 0

    def pod_of(self, host: int) -> int:
        """Return the pod number of a host number."""
        return self.rack_of(host) // self.racks_per_pod if self.racks_per_pod else 0

    def link(self, level: str, host: HostSpec | None = None) -> LinkSpec:
        """Return the link of ``level``, or of the nearest level inside it that is given.

        Args:
            level: of ``LEVELS``.
            host: the host at whose end it is; None for what the cluster says.
        """
        given = dict(self.links) | dict(host.links if host else ())
        inner = [name for name in LEVELS[: LEVELS.index(level) + 1] if name in given]
        return given[inner[-1]] if inner else next(iter(given.values()))

    def split(self, group: Sequence[int]) -> tuple[tuple[str, int], ...]:
        """Return the (level, size) factors of a group of devices, innermost first.

        A group that does not fill its hosts evenly is one ring over the outermost level it
        crosses; factors of size 1 are left out.
        """
        units = [(d, h := self.host_numbers[d], self.rack_of(h), self.pod_of(h)) for d in group]
        distinct = [len({unit[level] for unit in units}) for level in range(len(LEVELS))]
        counts = [Counter(level) for level in zip(*units, strict=True)]
        if any(len(set(count.values())) > 1 for count in counts):
            outermost = max(level for level, number in enumerate(distinct) if number > 1)
            return ((LEVELS[outermost], len(group)),)
        sizes = [a // b for a, b in zip(distinct, [*distinct[1:], 1], strict=True)]
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
                part = dataclasses.replace(host, devices=left) if left < host.devices else host
                kept.append(part)
                left -= host.devices
        return dataclasses.replace(self, hosts=tuple(kept))


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
