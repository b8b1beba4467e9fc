"""Cluster files: TOML in, ClusterSpec out, every wrong entry named.

::

    name = "two boxes"
    scale = false                 # may the last [[host]] be repeated to reach more devices?
    hosts_per_rack = 4            # optional

    [device.a100]
    memory = 85899345920          # bytes
    memory_bandwidth = 2.039e12   # bytes/s
    peak_flops = { f32 = 19.5e12, bf16 = 312e12 }
    source = "data sheet"

    [[host]]
    device = "a100"
    devices = 8
    count = 2                     # optional: how many such hosts

    [link.chip]                   # between the devices of a host
    latency = 5e-6                # s
    bandwidth = 300e9             # bytes/s a device, one direction
    [link.host]                   # between hosts
    latency = 2e-5
    bandwidth = 25e9
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from pai.runtime.dtypes import DTYPES
from pai.runtime.errors import InvalidCluster
from pai.runtime.topology import LEVELS, ClusterSpec, DeviceSpec, HostSpec, LinkSpec
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
    cluster = ClusterSpec(
        name=top.text("name", Path(where).stem),
        hosts=hosts,
        links=_links(top, needed=sum(host.devices for host in hosts) > 1),
        hosts_per_rack=top.integer("hosts_per_rack", 0, least=0),
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


def _hosts(entry: Table, devices: dict[str, DeviceSpec]) -> list[HostSpec]:
    kind = entry.text("device")
    if kind not in devices:
        raise entry.error("device", f"names the unknown device '{kind}'", f"add [device.{kind}]")
    host = HostSpec(devices[kind], entry.integer("devices", least=1))
    count = entry.integer("count", 1, least=1)
    entry.finish()
    return [host] * count


def _links(top: Table, *, needed: bool) -> tuple[tuple[str, LinkSpec], ...]:
    needed = needed or top.boolean("scale", False)
    tables = top.tables("link", required=needed)
    if needed and not tables:
        raise top.error("link", "has no levels", f"add one of {', '.join(LEVELS)}")
    for level in tables:
        if level not in LEVELS:
            raise top.error(
                "link", f"has '{level}', which is not a level", f"one of {', '.join(LEVELS)}"
            )
    out = []
    for level in LEVELS:
        if level in tables:
            table = tables[level]
            link = LinkSpec(
                latency_s=table.number("latency", zero=True),
                bandwidth=table.number("bandwidth"),
                efficiency=table.number("efficiency", 1.0, most=1.0),
                source=table.text("source", ""),
            )
            table.finish()
            out.append((level, link))
    return tuple(out)
