"""Each formula of passes/strategy/collectives.py against numbers worked out by hand."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pai.passes.strategy.collectives import collective_seconds, group_seconds
from pai.passes.strategy.hops import send_time
from pai.passes.strategy.placement import collective_time
from pai.runtime.errors import PassFailure
from pai.runtime.mesh import Mesh
from pai.runtime.topology import (
    ClusterSpec,
    DeviceSpec,
    HostSpec,
    InSwitch,
    LinkSpec,
    load_cluster,
)

DEVICE = DeviceSpec("d", 1 << 30, 1e9, (("f32", 1e12),))
HOST = list(range(4))
ALL = list(range(8))
KINDS = (
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "all_to_all",
    "collective_broadcast",
    "collective_permute",
)


def two_hosts(chip, host, devices=4, hosts=2):
    return ClusterSpec("c", (HostSpec(DEVICE, devices),) * hosts, (("chip", chip), ("host", host)))


PLAIN = two_hosts(LinkSpec(1e-3, 1e9), LinkSpec(1e-2, 1e8))


def seconds(kind, size, groups, cluster=PLAIN):
    return collective_seconds(kind, size, groups, cluster)


def test_ring_all_gather():
    assert seconds("all_gather", 4e6, [HOST]) == pytest.approx(3 * 1e-3 + 3 / 4 * 4e6 / 1e9)
    assert seconds("reduce_scatter", 4e6, [HOST]) == seconds("all_gather", 4e6, [HOST])
    # 8 devices: 6 steps inside the hosts and 1 between; 4 ports a host carry 7/8 of the bytes
    wide = 6 * 1e-3 + 1e-2 + 7 / 8 * 8e6 / 4e8
    assert seconds("all_gather", 8e6, [ALL]) == pytest.approx(wide)


def test_ring_and_tree_all_reduce():
    # large: a ring of 4; small: a tree of depth 2
    assert seconds("all_reduce", 4e9, [HOST]) == pytest.approx(6e-3 + 1.5 * 4e9 / 1e9)
    assert seconds("all_reduce", 4, [HOST]) == pytest.approx(4e-3 + 2 * 4 / 1e9)
    # between two hosts a tree sends its bytes once each way
    tree = 2 * (2e-3 + 1e-2) + 8e6 / 4e8
    assert seconds("all_reduce", 8e6, [ALL]) == pytest.approx(tree)


def test_ring_and_tree_have_latencies_of_their_own():
    chip = LinkSpec(1e-3, 1e9, ring_latency_s=2e-3, tree_latency_s=5e-3)
    cluster = two_hosts(chip, LinkSpec(1e-2, 1e8))
    assert seconds("all_gather", 4e6, [HOST], cluster) == pytest.approx(6e-3 + 3e-3)
    assert seconds("all_reduce", 4, [HOST], cluster) == pytest.approx(6 * 2e-3, rel=1e-4)
    assert seconds("collective_broadcast", 0, [HOST], cluster) == pytest.approx(2 * 5e-3)
    assert seconds("collective_permute", 0, [[0, 1]], cluster) == pytest.approx(1e-3)


def test_setup_and_fill():
    chip = LinkSpec(0.0, 1e9, setup_s=1e-2, fill_s=4e-3)
    cluster = two_hosts(chip, LinkSpec(0.0, 1e8, setup_s=5e-2, fill_s=9e-3))
    transfer = 3 / 4 * 4e6 / 1e9  # 3 ms
    expected = 1e-2 + transfer + math.sqrt(4e-3 * transfer)
    assert seconds("all_gather", 4e6, [HOST], cluster) == pytest.approx(expected)
    # across hosts the outer link's setup and, as the slower one, its fill
    transfer = 7 / 8 * 8e6 / 4e8
    expected = 5e-2 + transfer + math.sqrt(9e-3 * transfer)
    assert seconds("all_gather", 8e6, [ALL], cluster) == pytest.approx(expected)


def test_bandwidth_rises_slowly_with_the_message():
    cluster = load_cluster("b200-sxm")
    rates = [2**i / seconds("all_reduce", 2**i, [ALL], cluster) for i in range(20, 35)]
    assert rates == sorted(rates)
    assert rates[6] < 0.6 * rates[-1]  # 64 MiB: measured 401 of 846 GB/s
    assert rates[6] > 0.4 * rates[-1]


def test_in_switch_reduction_inside_a_host():
    chip = LinkSpec(1e-3, 1e9, efficiency=0.5, in_switch=InSwitch(0.8, 7e-3))
    cluster = two_hosts(chip, LinkSpec(1e-2, 1e8))
    # every device sends its bytes once and its quarter of the sum once: faster than a ring
    expected = 7e-3 + (1 + 1 / 4) * 8e9 / 0.8e9
    assert seconds("all_reduce", 8e9, [HOST], cluster) == pytest.approx(expected)
    assert expected < 6e-3 + 1.5 * 8e9 / 0.5e9
    # other collectives do not reduce
    assert seconds("all_gather", 8e9, [HOST], cluster) == pytest.approx(3e-3 + 0.75 * 8e9 / 0.5e9)


def test_in_switch_reduction_between_hosts():
    host = LinkSpec(1e-2, 1e8, in_switch=InSwitch(0.5, 2e-3))
    cluster = two_hosts(LinkSpec(1e-3, 1e12), host, hosts=4)
    wide = list(range(16))
    # a tree of depth 2 inside, the switch between: bytes once over 4 ports of 50 MB/s
    expected = 2 * 2e-3 + 2e-3 + 8e6 / 2e8
    assert seconds("all_reduce", 8e6, [wide], cluster) == pytest.approx(expected)


def test_in_switch_reduction_as_measured_on_h100():
    """NCCL issue 1455: 258, 265, 270, 273 GB/s of bytes/time with 5 to 8 GPUs; 4 as a ring."""
    cluster = load_cluster("h100-sxm")
    for devices, measured in ((5, 258e9), (6, 265e9), (7, 270e9), (8, 273e9)):
        rate = 4e9 / seconds("all_reduce", 4e9, [range(devices)], cluster)
        assert rate == pytest.approx(measured, rel=0.02)
    ring = 4e9 / seconds("all_reduce", 4e9, [range(4)], cluster) * 1.5
    assert ring == pytest.approx(367e9, rel=0.02)


def test_all_to_all():
    # pairs: 3 peers inside, 3/4 of the bytes; Bruck: 2 steps, half the bytes in each
    assert seconds("all_to_all", 4e9, [HOST]) == pytest.approx(3e-3 + 3 / 4 * 4e9 / 1e9)
    assert seconds("all_to_all", 4, [HOST]) == pytest.approx(2e-3 + 4 / 1e9)
    # 3 hosts of 4: 8 of 12 peers lie outside; 4 devices share 4 ports
    cluster = two_hosts(LinkSpec(1e-3, 1e9), LinkSpec(1e-2, 1e8), hosts=3)
    expected = 3e-3 + 8 * 1e-2 + 4 * 8 / 12 * 12e8 / 4e8
    assert seconds("all_to_all", 12e8, [range(12)], cluster) == pytest.approx(expected)


def test_broadcast():
    assert seconds("collective_broadcast", 4e6, [HOST]) == pytest.approx(2e-3 + 4e6 / 1e9)
    # all levels at once: 4 ports of 100 MB/s are slower than one device's 1 GB/s
    assert seconds("collective_broadcast", 4e6, [ALL]) == pytest.approx(1.2e-2 + 4e6 / 4e8)


def test_permutes_share_ports_of_the_sending_host():
    assert seconds("collective_permute", 4e6, [[0, 1], [1, 0]]) == pytest.approx(1e-3 + 4e-3)
    ring = [[i, (i + 1) % 8] for i in range(8)]  # one leaves each host and one enters
    assert seconds("collective_permute", 4e6, ring) == pytest.approx(1e-2 + 4e6 / 1e8)
    one_port = two_hosts(LinkSpec(1e-3, 1e9), LinkSpec(1e-2, 1e8, ports=1))
    swap = [[i, (i + 4) % 8] for i in range(8)]  # four leave each host through one port
    assert seconds("collective_permute", 4e6, swap, one_port) == pytest.approx(1e-2 + 4e6 / 2.5e7)
    assert seconds("collective_permute", 4e6, [[3, 3]]) == 0.0


def test_messages():
    assert send_time(4e6, 0, 3, PLAIN) == pytest.approx(1e-3 + 4e6 / 1e9)
    assert send_time(4e6, 0, 4, PLAIN) == pytest.approx(1e-2 + 4e6 / 1e8)
    assert send_time(4e6, 0, 4, PLAIN, concurrent=4) == send_time(4e6, 0, 4, PLAIN)  # 4 ports
    assert send_time(4e6, 0, 4, PLAIN, concurrent=8) == pytest.approx(1e-2 + 4e6 / 5e7)
    assert send_time(4e6, 5, 5, PLAIN) == 0.0


def test_a_message_between_pods_takes_the_narrowest_level():
    links = (
        ("chip", LinkSpec(1e-6, 1e9)),
        ("host", LinkSpec(1e-5, 1e8)),
        ("rack", LinkSpec(2e-5, 5e7)),
        ("pod", LinkSpec(3e-5, 8e7)),
    )
    hosts = (HostSpec(DEVICE, 2),) * 8
    cluster = ClusterSpec("c", hosts, links, hosts_per_rack=2, racks_per_pod=2)
    assert send_time(1e6, 0, 2, cluster) == pytest.approx(1e-5 + 1e6 / 1e8)
    assert send_time(1e6, 0, 4, cluster) == pytest.approx(2e-5 + 1e6 / 5e7 / 1)
    assert send_time(1e6, 0, 8, cluster) == pytest.approx(3e-5 + 1e6 / 5e7)


def test_groups_of_one_and_unknown_kinds():
    assert seconds("all_reduce", 4000, [[5]]) == 0.0
    assert seconds("all_reduce", 4000, []) == 0.0
    with pytest.raises(PassFailure, match="no cost formula for the collective 'all_bored'"):
        seconds("all_bored", 1, [HOST])


def test_factors_alone_assume_that_everybody_takes_part():
    mesh = Mesh((("a", 2), ("b", 4)))
    for kind in KINDS:
        strided = collective_time(kind, 1e6, mesh, ("a",), PLAIN)
        assert group_seconds(kind, 1e6, (("host", 2),), PLAIN) == pytest.approx(strided)
        inside = collective_time(kind, 1e6, mesh, ("b",), PLAIN)
        assert group_seconds(kind, 1e6, (("chip", 4),), PLAIN) == pytest.approx(inside)


def test_contiguous_and_strided_groups_as_published():
    """8-way all_reduce on 64 A100, of unknown size: 155.7 GB/s contiguous, 20.8 GB/s strided."""
    cluster, mesh = load_cluster("a100-80g-sxm", 64), Mesh((("hosts", 8), ("chips", 8)))

    def busbw(axis, size):
        return 1.75 * size / collective_time("all_reduce", size, mesh, (axis,), cluster)

    assert busbw("chips", 2**25) < 155.7e9 < busbw("chips", 2**27)
    assert busbw("hosts", 2**26) < 20.8e9 < busbw("hosts", 2**28)
    assert 6 < busbw("chips", 2**26) / busbw("hosts", 2**26) < 10  # published: 7.5


def test_small_groups_of_wired_hosts_reach_less():
    volta = load_cluster("v100-32g")
    rates = [volta.link("chip").rate_among(n) for n in (2, 3, 4, 5, 8)]
    assert rates == pytest.approx([0.8 * r for r in (25e9, 100e9, 100e9, 150e9, 150e9)])
    pair = seconds("all_gather", 8e9, [[0, 1]], volta)
    assert pair == pytest.approx(0.5 * 8e9 / (0.8 * 25e9), rel=0.05)
    mi300x = load_cluster("mi300x")
    assert send_time(4.8e9, 0, 1, mi300x) == pytest.approx(0.1, rel=1e-3)  # one link: 48 GB/s


times = st.floats(0, 1e-3)
rates = st.floats(1e6, 1e12)
sizes = st.integers(0, 1 << 34)
factors = st.floats(1, 100)


@st.composite
def links(draw, level):
    switch = draw(st.none() | st.builds(InSwitch, st.floats(0.1, 1), times))
    return LinkSpec(
        latency_s=draw(times),
        bandwidth=draw(rates),
        efficiency=draw(st.floats(0.1, 1)),
        ring_latency_s=draw(st.none() | times),
        tree_latency_s=draw(st.none() | times),
        setup_s=draw(times),
        fill_s=draw(times),
        ports=draw(st.integers(0, 9)) if level != "chip" else 0,
        in_switch=switch,
    )


@st.composite
def clusters(draw):
    devices, hosts = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from([2, 3, 4, 8]))
    levels = ("chip", "host", "rack", "pod")[: draw(st.integers(1, 4))]
    return ClusterSpec(
        "c",
        (HostSpec(DEVICE, devices),) * hosts,
        tuple((level, draw(links(level))) for level in levels),
        hosts_per_rack=2,
        racks_per_pod=2,
    )


@st.composite
def cases(draw):
    """A cluster, a mesh over all of it, some of its axes, a kind and a size."""
    cluster = draw(clusters())
    mesh = Mesh((("a", len(cluster.hosts)), ("b", cluster.hosts[0].devices)))
    axes = draw(st.sampled_from([("a",), ("b",), ("a", "b")]))
    return cluster, mesh, axes, draw(st.sampled_from(KINDS)), draw(sizes)


def changed(cluster, level, **change):
    """Return the cluster with another link at ``level``, given or not."""
    return dataclasses.replace(
        cluster,
        links=tuple(
            (name, dataclasses.replace(link, **change) if name == level else link)
            for name, link in cluster.links
        ),
    )


@given(cases(), st.data())
@settings(max_examples=200, deadline=None)
def test_more_bandwidth_is_never_slower(case, data):
    cluster, mesh, axes, kind, size = case
    level, link = data.draw(st.sampled_from(cluster.links))
    faster = changed(cluster, level, bandwidth=link.bandwidth * data.draw(factors))
    before = collective_time(kind, size, mesh, axes, cluster)
    assert collective_time(kind, size, mesh, axes, faster) <= before * (1 + 1e-12)


@given(cases(), st.data())
@settings(max_examples=200, deadline=None)
def test_more_latency_is_never_faster(case, data):
    cluster, mesh, axes, kind, size = case
    level, link = data.draw(st.sampled_from(cluster.links))
    field = data.draw(
        st.sampled_from(["latency_s", "setup_s", "fill_s", "ring_latency_s", "tree_latency_s"])
    )
    if getattr(link, field) is None:
        cluster = changed(cluster, level, **{field: link.latency_s})
        link = dict(cluster.links)[level]
    slower = changed(cluster, level, **{field: getattr(link, field) + data.draw(times)})
    before = collective_time(kind, size, mesh, axes, cluster)
    assert collective_time(kind, size, mesh, axes, slower) >= before * (1 - 1e-12)


@given(cases(), factors)
@settings(max_examples=200, deadline=None)
def test_more_bytes_are_never_faster(case, more):
    cluster, mesh, axes, kind, size = case
    before = collective_time(kind, size, mesh, axes, cluster)
    assert collective_time(kind, size * more, mesh, axes, cluster) >= before * (1 - 1e-12)


@given(clusters(), st.sampled_from(KINDS), sizes)
@settings(max_examples=200, deadline=None)
def test_a_group_inside_a_host_is_never_slower_than_one_across(cluster, kind, size):
    """As long as links inside are no slower than a device's share of those between hosts."""
    chip = dict(cluster.links)["chip"]
    host = dataclasses.replace(
        chip, latency_s=chip.latency_s * 2, bandwidth=chip.bandwidth / 2, in_switch=None
    )
    cluster = dataclasses.replace(
        cluster, hosts=(HostSpec(DEVICE, 4),) * 4, links=(("chip", chip), ("host", host))
    )
    mesh = Mesh((("across", 4), ("inside", 4)))
    inside = collective_time(kind, size, mesh, ("inside",), cluster)
    assert inside <= collective_time(kind, size, mesh, ("across",), cluster) * (1 + 1e-12)


@given(clusters(), st.sampled_from(KINDS), sizes, st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_more_ports_are_never_slower(cluster, kind, size, ports):
    mesh = Mesh((("a", len(cluster.hosts)), ("b", cluster.hosts[0].devices)))
    few = ClusterSpec("c", cluster.hosts, (*cluster.links[:1], ("host", LinkSpec(0, 1e9, ports=1))))
    many = dataclasses.replace(few, links=(*few.links[:1], ("host", LinkSpec(0, 1e9, ports=ports))))
    slow = collective_time(kind, size, mesh, ("a",), few)
    assert collective_time(kind, size, mesh, ("a",), many) <= slow * (1 + 1e-12)


def test_factors_alone_take_the_slowest_kind_of_host():
    slow = HostSpec(DEVICE, 4, (("host", LinkSpec(2e-2, 1e7, ports=1)),))
    links = (("chip", LinkSpec(1e-3, 1e9)), ("host", LinkSpec(1e-2, 1e8)))
    mixed = ClusterSpec("c", (HostSpec(DEVICE, 4), slow), links)
    expected = 2e-2 + 1 / 2 * 8e6 / (1e7 / 4)  # four groups share the one port
    assert group_seconds("all_gather", 8e6, (("host", 2),), mixed) == pytest.approx(expected)
