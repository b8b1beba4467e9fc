"""Cluster files: TOML in, ClusterSpec out, every wrong entry named.

::

    name = "two boxes"
    scale = false                 # may the last [[host]] be repeated to reach more devices?
    hosts_per_rack = 4            # optional
racks_per_pod = 16            # optional

    [device.a100]
    memory = 85899345920          # bytes
    memory_bandwidth = 2.039e12   # bytes/s
    peak_flops = { f32 = 19.5e12, bf16 = 312e12 }
    source = "data sheet"

    [[host]]
    device = "a100"
    devices = 8
    count = 2                     # optional: how many such hosts

    [host.link.host]              # optional: where this host differs from the cluster
    latency = 2e-5
    bandwidth = 3.125e9
    ports = 1

    [link.chip]                   # between the devices of a host
    latency = 5e-6                # s
    bandwidth = 300e9             # bytes/s a device, one direction
    efficiency = 0.8              # optional, like all that follows
    ring_latency = 4e-6           # s, one step of a ring
    tree_latency = 4e-6           # s, one step of a tree
    setup = 1e-5                  # s, to start a collective
    fill = 5e-5                   # s, the τ of LinkSpec.fill_s
    group_bandwidth = [[2, 50e9], [4, 100e9]]           # chip only: small groups reach less
    in_switch = { efficiency = 0.7, latency = 2e-5 }    # reduction inside the switches
    [link.host]                   # between hosts; also rack and pod
    latency = 2e-5
    bandwidth = 25e9              # of one port
    ports = 4                     # optional: network cards of a host; one a device otherwise
"""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path

from pai.runtime.dtypes import DTYPES
from pai.runtime.errors import InvalidCluster
from pai.runtime.topology import LEVELS, ClusterSpec, DeviceSpec, HostSpec, InSwitch, LinkSpec
from pai.runtime.topology_table import Document, Table


def profile_names() -> tuple[str, ...]:
    """Return the names of the built-in profiles, sorted."""
    folder = resources.files("pai.runtime") / "profiles"
    return tuple(sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml")))


def read_cluster(name_or_path: str) -> ClusterSpec:
    """Return the cluster of a profile name or of a TOML file.

    Raises:
        InvalidCluster: when there is no such profile or file, or an entry is wrong.
    """
    if name_or_path in profile_names():
        text = (resources.files("pai.runtime") / "profiles" / f"{name_or_path}.toml").read_text()
        return cluster_from_toml(text, f"{name_or_path}.toml")
    path = Path(name_or_path)
    if path.suffix != ".toml" and not path.is_file():
        known = ", ".join(profile_names())
        raise InvalidCluster(
            f"there is no cluster profile '{name_or_path}'",
            "--cluster",
            f"known profiles: {known}; or give the path of a .toml file",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidCluster(f"cannot be read ({error})", str(path)) from error
    return cluster_from_toml(text, str(path))


def cluster_from_toml(text: str, where: str) -> ClusterSpec:
    """Return the cluster described by ``text``; ``where`` names it in messages.

    Raises:
        InvalidCluster: naming the file and the key.
    """
    top = Document(text, where, InvalidCluster).root()
    devices = {kind: _device(kind, table) for kind, table in top.tables("device").items()}
    hosts = tuple(host for entry in top.array("host") for host in _hosts(entry, devices))
    many = sum(host.devices for host in hosts) > 1
    cluster = ClusterSpec(
        name=top.text("name", Path(where).stem),
        hosts=hosts,
        links=_links(top, LEVELS, needed=many or top.boolean("scale", False)),
        hosts_per_rack=top.integer("hosts_per_rack", 0, least=0),
        racks_per_pod=_racks_per_pod(top),
        scale=top.boolean("scale", False),
        description=top.text("description", ""),
    )
    top.finish()
    return cluster


def _device(kind: str, table: Table) -> DeviceSpec:
    rates = table.table("peak_flops")
    for dtype in rates.data:
        if dtype not in DTYPES:
            raise rates.error(dtype, "is not an element type", f"one of {', '.join(DTYPES)}")
    rates.number("f32")
    spec = DeviceSpec(
        kind=kind,
        memory_bytes=table.integer("memory", least=1),
        memory_bandwidth=table.number("memory_bandwidth"),
        peak_flops=tuple((dtype, rates.number(dtype)) for dtype in rates.data),
        compute_efficiency=table.number("compute_efficiency", 1.0, most=1.0),
        memory_efficiency=table.number("memory_efficiency", 1.0, most=1.0),
        launch_overhead_s=table.number("launch_overhead", 0.0, zero=True),
        source=table.text("source", ""),
    )
    table.finish()
    return spec


def _racks_per_pod(top: Table) -> int:
    racks = top.integer("racks_per_pod", 0, least=0)
    if racks and not top.integer("hosts_per_rack", 0, least=0):
        raise top.error("racks_per_pod", "needs 'hosts_per_rack'", "say how large a rack is")
    return racks


def _hosts(entry: Table, devices: dict[str, DeviceSpec]) -> list[HostSpec]:
    kind = entry.text("device")
    if kind not in devices:
        raise entry.error("device", f"names the unknown device '{kind}'", f"add [device.{kind}]")
    number = entry.integer("devices", least=1)
    links = _links(entry, ("chip", "host"), needed=False)
    host = HostSpec(devices[kind], number, links)
    count = entry.integer("count", 1, least=1)
    entry.finish()
    return [host] * count


def _links(
    top: Table, levels: tuple[str, ...], *, needed: bool
) -> tuple[tuple[str, LinkSpec], ...]:
    outer = top.table("link", required=needed)
    if needed and not outer.data:
        raise top.error("link", "has no levels", f"add one of {', '.join(levels)}")
    for level in outer.data:
        if level not in levels:
            raise outer.error(level, "is not a level here", f"one of {', '.join(levels)}")
    return tuple(
        (level, _link(outer.table(level), level)) for level in levels if level in outer.data
    )


def _link(table: Table, level: str) -> LinkSpec:
    link = LinkSpec(
        latency_s=table.number("latency", zero=True),
        bandwidth=table.number("bandwidth"),
        efficiency=table.number("efficiency", 1.0, most=1.0),
        source=table.text("source", ""),
        ring_latency_s=_optional_time(table, "ring_latency"),
        tree_latency_s=_optional_time(table, "tree_latency"),
        setup_s=table.number("setup", 0.0, zero=True),
        fill_s=table.number("fill", 0.0, zero=True),
        ports=table.integer("ports", 0, least=1) if "ports" in table.data else 0,
        group_bandwidth=_group_bandwidth(table),
        in_switch=_in_switch(table),
    )
    if level == "chip" and link.ports:
        raise table.error("ports", "is for links between hosts", "remove it")
    if level != "chip" and link.group_bandwidth:
        raise table.error("group_bandwidth", "is for the links inside a host", "remove it")
    table.finish()
    return link


def _optional_time(table: Table, key: str) -> float | None:
    return table.number(key, zero=True) if key in table.data else None


def _group_bandwidth(table: Table) -> tuple[tuple[int, float], ...]:
    pairs = table.get("group_bandwidth", [], (list,), "a list of [devices, bytes/s] pairs")
    for pair in pairs:
        numbers = isinstance(pair, list) and len(pair) == 2
        if not numbers or not all(isinstance(x, int | float) and 0 < x < math.inf for x in pair):
            raise table.error("group_bandwidth", f"has {pair!r}, which is no [devices, bytes/s]")
    sizes, rates = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if sizes != sorted(set(sizes)) or rates != sorted(rates):
        raise table.error("group_bandwidth", "must grow: sizes and bytes/s", "sort the pairs")
    return tuple((int(size), float(rate)) for size, rate in pairs)


def _in_switch(table: Table) -> InSwitch | None:
    if "in_switch" not in table.data:
        return None
    inner = table.table("in_switch")
    out = InSwitch(inner.number("efficiency", most=1.0), inner.number("latency", zero=True))
    inner.finish()
    return out
