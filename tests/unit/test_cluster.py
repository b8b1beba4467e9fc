import csv
from pathlib import Path

import pytest

from pai.passes.strategy.collectives import collective_seconds
from pai.runtime.errors import InvalidCluster
from pai.runtime.topology import ClusterSpec, load_cluster
from pai.runtime.topology_toml import cluster_from_toml, profile_names

ROOT = Path(__file__).resolve().parents[2]

GOOD = """
name = "two kinds"
hosts_per_rack = 2

[device.big]
memory = 1000
memory_bandwidth = 1e9
peak_flops = { f32 = 1e9, bf16 = 4e9 }
compute_efficiency = 0.5

[device.small]
memory = 400
memory_bandwidth = 5e8
peak_flops = { f32 = 5e8 }

[[host]]
device = "big"
devices = 2
count = 3

[[host]]
device = "small"
devices = 2

[link.chip]
latency = 1e-6
bandwidth = 1e9

[link.host]
latency = 1e-5
bandwidth = 1e8
efficiency = 0.5
"""


def test_a_file_with_different_hosts():
    cluster = cluster_from_toml(GOOD, "c.toml")
    assert cluster.num_devices == 8
    assert cluster.memory_bytes == 400
    assert [d.kind for d in cluster.devices] == ["big"] * 6 + ["small"] * 2
    assert cluster.devices[0].flops("bf16") == 2e9
    assert cluster.devices[6].flops("bf16") == 5e8  # no rate of its own: as f32
    assert cluster.link("host").rate == 5e7
    assert cluster.link("rack") == cluster.link("host")


def test_groups_split_by_level():
    cluster = cluster_from_toml(GOOD, "c.toml")
    assert cluster.split(range(2)) == (("chip", 2),)
    assert cluster.split([0, 2]) == (("host", 2),)
    assert cluster.split(range(8)) == (("chip", 2), ("host", 2), ("rack", 2))
    assert cluster.split([0, 4]) == (("rack", 2),)
    assert cluster.split([0, 1, 2]) == (("host", 3),)  # uneven: one ring
    assert cluster.split([0, 1, 2, 4]) == (("rack", 4),)


def test_take_cuts_and_scales():
    dgx = load_cluster("h100-sxm", 20)
    assert [host.devices for host in dgx.hosts] == [8, 8, 4]
    assert load_cluster("h100-sxm").num_devices == 8
    assert load_cluster("", 3).num_devices == 3
    fixed = cluster_from_toml(GOOD, "c.toml")
    assert fixed.take(3).num_devices == 3
    with pytest.raises(InvalidCluster, match="9 devices were asked for but it has 8"):
        fixed.take(9)


@pytest.mark.parametrize("number", [0, -4])
def test_no_devices(number):
    with pytest.raises(InvalidCluster, match="--devices"):
        load_cluster("cpu", number)


def test_every_profile_loads_with_sources():
    assert {"a100-40g-sxm", "a100-80g-sxm", "h100-sxm", "h200-sxm", "v100-32g", "cpu"} <= set(
        profile_names()
    )
    for name in profile_names():
        cluster = load_cluster(name, 64)
        assert cluster.name == name
        assert cluster.num_devices == 64
        assert all(host.device.source for host in cluster.hosts)
        assert all(link.source for _, link in cluster.links)


def test_unknown_profile_lists_the_known():
    with pytest.raises(InvalidCluster, match=r"no cluster profile 'a10'.*a100-80g-sxm"):
        load_cluster("a10")
    with pytest.raises(InvalidCluster, match=r"missing\.toml"):
        load_cluster("missing.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("memory = 1000", "memroy = 1000", r"c\.toml:5: key 'device\.big\.memory' is missing"),
        (
            "memory = 400",
            "memory = -400",
            r"c\.toml:12: .*'device\.small\.memory' must be at least",
        ),
        ("memory = 400", "memory = true", r"c\.toml:12: .*must be an integer, not True"),
        ("memory = 400", 'memory = "x"', r"c\.toml:12: .*must be an integer, not 'x'"),
        ("latency = 1e-6", "latency = nan", r"c\.toml:26: .*'link\.chip\.latency'"),
        (
            "latency = 1e-6",
            "latency = 1e-6\nspeed = 3",
            r"c\.toml:27: key 'link\.chip\.speed' is unk",
        ),
        ("efficiency = 0.5\n\n[device", "efficiency = 2\n\n[device", r"must be at most 1"),
        ("{ f32 = 5e8 }", "{ bf16 = 5e8 }", r"'device\.small\.peak_flops\.f32' is missing"),
        (
            "bf16 = 4e9",
            "float16 = 4e9",
            r"'device\.big\.peak_flops\.float16' is not an element type",
        ),
        ('device = "small"', 'device = "tiny"', r"c\.toml:22: key 'host\.1\.device' names the unk"),
        ("[link.host]", "[link.moon]", r"c\.toml:29: key 'link\.moon' is not a level here"),
        ("hosts_per_rack = 2", "racks = 2", r"c\.toml:3: key 'racks' is unknown"),
        ("name =", "name", r"c\.toml:2: not valid TOML: .*line 2"),
        ("count = 3", "count = 0", r"must be at least 1"),
    ],
)
def test_wrong_entries_name_file_and_key(old, new, message):
    assert old in GOOD
    with pytest.raises(InvalidCluster, match=message):
        cluster_from_toml(GOOD.replace(old, new), "c.toml")


def test_a_cluster_without_hosts_or_links():
    start = GOOD[: GOOD.index("[[host]]")]
    with pytest.raises(InvalidCluster, match="'host' is missing"):
        cluster_from_toml(start, "c.toml")
    with pytest.raises(InvalidCluster, match="'link' is missing"):
        cluster_from_toml(GOOD[: GOOD.index("[link")], "c.toml")


def published_all_reduces():
    path = ROOT / "benchmarks" / "data" / "published" / "nccl.csv"
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row["collective"] == "all_reduce"]
    assert len(rows) >= 15
    return rows


def test_all_reduce_model_holds_against_published_runs():
    """Half the rows within 12 %, none off by more than a factor of two."""
    ratios = []
    for row in published_all_reduces():
        name = {"a100-80g": "a100-80g-sxm", "b200": "b200-sxm"}[row["gpu"]]
        devices = int(row["nodes"]) * int(row["gpus_per_node"])
        size = int(row["bytes"])
        measured = 2 * (devices - 1) / devices * size / (float(row["busbw_GBps"]) * 1e9)
        cluster: ClusterSpec = load_cluster(name, devices)
        ratios.append(collective_seconds("all_reduce", size, [range(devices)], cluster) / measured)
    errors = sorted(abs(ratio - 1) for ratio in ratios)
    assert errors[len(errors) // 2] < 0.12
    assert errors[-1] <= 0.51
