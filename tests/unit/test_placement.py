"""Placement of mesh axes: closed forms against counting, ports shared, uneven hosts, speed."""

import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pai.passes.strategy.hops import place_groups
from pai.passes.strategy.placement import axis_factors, axis_orders, collective_time
from pai.runtime.errors import InvalidSharding
from pai.runtime.mesh import AxisRef, Mesh
from pai.runtime.topology import ClusterSpec, DeviceSpec, HostSpec, LinkSpec, load_cluster

DEVICE = DeviceSpec("d", 1 << 30, 1e9, (("f32", 1e12),))
CHIP, NET = LinkSpec(1e-6, 1e11), LinkSpec(1e-5, 1e10)


def cluster_of(hosts, devices=8, *, ports=0, hosts_per_rack=0, racks_per_pod=0):
    net = LinkSpec(1e-5, 1e10, ports=ports)
    links = (("chip", CHIP), ("host", net), ("pod", LinkSpec(2e-5, 1e9, ports=ports)))
    return ClusterSpec(
        "c",
        (HostSpec(DEVICE, devices),) * hosts,
        links,
        hosts_per_rack=hosts_per_rack,
        racks_per_pod=racks_per_pod,
    )


def test_contiguous_and_strided():
    cluster, mesh = cluster_of(8), Mesh((("a", 8), ("b", 8)))
    inside, across = axis_factors(mesh, ("b",), cluster), axis_factors(mesh, ("a",), cluster)
    assert (inside.factors, inside.concurrent, inside.groups) == (
        (("chip", 8),),
        (("chip", 1),),
        8,
    )
    assert (across.factors, across.concurrent, across.groups) == (
        (("host", 8),),
        (("host", 8),),
        8,
    )
    ((hop,),) = across.shapes
    assert (hop.units, hop.outer_units, hop.ring_steps, hop.fan) == (8, 1, 7, 8)
    assert hop.rate == 1e10  # eight groups, eight ports
    both = axis_factors(mesh, ("a", "b"), cluster)
    assert both.factors == (("chip", 8), ("host", 8))
    assert [hop.rate for hop in both.shapes[0]] == [1e11, 8e10]
    assert [hop.ring_steps for hop in both.shapes[0]] == [56, 7]


def test_groups_share_the_ports_of_a_host():
    mesh = Mesh((("a", 4), ("b", 4), ("c", 2)))
    one = cluster_of(4, ports=1)
    ((hop,),) = axis_factors(mesh, ("a",), one).shapes
    assert (hop.concurrent, hop.rate) == (8, 1e10 / 8)
    chip, hop = axis_factors(mesh, ("a", "c"), one).shapes[0]
    assert (chip.rate, hop.concurrent, hop.members, hop.rate) == (1e11, 4, 2, 1e10 / 4)
    chip, hop = axis_factors(mesh, ("a", "b", "c"), one).shapes[0]
    assert (hop.concurrent, hop.rate) == (1, 1e10)
    # four ports for eight devices: two groups share one; a group of 2 a host has one in all
    four = cluster_of(4, ports=4)
    assert axis_factors(mesh, ("a",), four).shapes[0][0].rate == 5e9
    assert axis_factors(mesh, ("a", "c"), four).shapes[0][1].rate == 1e10
    # sixteen ports: a device has two
    assert axis_factors(mesh, ("a",), cluster_of(4, ports=16)).shapes[0][0].rate == 2e10


def test_a_lone_group_has_the_ports_of_its_devices_only():
    placed = place_groups([[0, 8, 16]], cluster_of(3))
    ((hop,),) = placed.shapes
    assert (placed.groups, hop.concurrent, hop.rate) == (1, 1, 1e10)
    assert place_groups([[0, 8], [3], []], cluster_of(3)).groups == 1


def test_racks_and_pods():
    cluster = cluster_of(32, devices=2, hosts_per_rack=4, racks_per_pod=2)
    mesh = Mesh((("x", 2), ("y", 4), ("z", 8)))  # z: a rack of 4 hosts, y: 4 racks, x: 2 halves
    assert axis_factors(mesh, ("z",), cluster).factors == (("chip", 2), ("host", 4))
    assert axis_factors(mesh, ("y",), cluster).factors == (("rack", 2), ("pod", 2))
    assert axis_factors(mesh, ("x",), cluster).factors == (("pod", 2),)
    everything = axis_factors(mesh, ("x", "y", "z"), cluster)
    assert everything.factors == (("chip", 2), ("host", 4), ("rack", 2), ("pod", 4))
    # leaving a pod: 8 hosts of 2 ports at 1 GB/s
    assert everything.shapes[0][-1].rate == 16e9
    # x: what leaves a host, a rack and a pod is shared by 2, 8 and 16 groups
    hops = axis_factors(mesh, ("x",), cluster).shapes[0]
    assert [(hop.level, hop.fan, hop.concurrent, hop.rate) for hop in hops] == [
        ("host", 1, 2, 1e10),
        ("rack", 1, 8, 1e10),
        ("pod", 2, 16, 1e9),
    ]


def test_sub_axes():
    cluster, mesh = cluster_of(4), Mesh((("x", 16), ("y", 2)))
    assert axis_factors(mesh, (AxisRef("x", 1, 4),), cluster).factors == (("host", 4),)
    assert axis_factors(mesh, (AxisRef("x", 4, 4),), cluster).factors == (("chip", 4),)
    assert axis_factors(mesh, ("x",), cluster).factors == (("chip", 4), ("host", 4))


def test_no_axes_and_axes_of_size_one():
    placed = axis_factors(Mesh((("x", 1), ("y", 8))), ("x",), cluster_of(1))
    assert (placed.groups, placed.size, placed.shapes) == (8, 1, ())
    assert collective_time("all_reduce", 1e9, Mesh((("y", 8),)), (), cluster_of(1)) == 0.0


def test_wrong_axes_and_meshes_are_named():
    with pytest.raises(InvalidSharding, match="has no axis 'z'"):
        axis_factors(Mesh((("x", 8),)), ("z",), cluster_of(1))
    with pytest.raises(InvalidSharding, match="more devices than the cluster's 8"):
        axis_factors(Mesh((("x", 16),)), ("x",), cluster_of(1))


def mixed():
    """Eight fast devices with eight ports; four slow ones behind one port of a tenth the rate."""
    slow = HostSpec(
        DEVICE,
        4,
        (("chip", LinkSpec(1e-6, 2e10)), ("host", LinkSpec(3e-5, 1e9, ports=1))),
    )
    return ClusterSpec("mixed", (HostSpec(DEVICE, 8), slow), (("chip", CHIP), ("host", NET)))


def test_hosts_that_differ():
    placed = place_groups([[0, 1, 2, 3], [8, 9, 10, 11]], mixed())
    assert [[hop.rate for hop in shape] for shape in placed.shapes] == [[1e11], [2e10]]
    # one group over everything: the slow host's links are its bound on both levels
    (shape,) = place_groups([range(12)], mixed()).shapes
    assert [hop.rate for hop in shape] == [2e10, 1e9]
    assert [hop.ring_steps for hop in shape] == [10, 1]
    assert shape[1].link.latency_s == 3e-5
    # four groups of one device a host share the slow host's only port
    pairs = [[i, 8 + i] for i in range(4)]
    ((hop,),) = place_groups(pairs, mixed()).shapes
    assert (hop.concurrent, hop.rate) == (4, 2.5e8)
    time_ = collective_time("all_reduce", 1e9, Mesh((("x", 12),)), ("x",), mixed())
    assert time_ == pytest.approx(1.0, rel=1e-3)  # a tree: the bytes once through 1 GB/s


def test_groups_that_fill_their_hosts_unevenly():
    placed = axis_factors(Mesh((("x", 3), ("y", 4))), ("x",), cluster_of(2))
    assert {shape[-1].level for shape in placed.shapes} == {"host"}
    (shape,) = place_groups([[0, 1, 2, 8]], cluster_of(2)).shapes
    assert [(hop.level, hop.ring_steps) for hop in shape] == [("chip", 2), ("host", 1)]


@st.composite
def placements(draw):
    """A uniform cluster, a mesh over some or all of it in some order, and some of its axes."""
    cluster = cluster_of(
        draw(st.sampled_from([2, 3, 4, 6, 8])),
        draw(st.sampled_from([1, 2, 3, 4, 8])),
        ports=draw(st.integers(0, 3)),
        hosts_per_rack=draw(st.sampled_from([0, 1, 2, 3])),
        racks_per_pod=draw(st.sampled_from([0, 2])),
    )
    left, sizes = cluster.num_devices, []
    while left > 1 and len(sizes) < 4:
        size = draw(st.sampled_from([n for n in range(1, left + 1) if left % n == 0]))
        sizes.append(size)
        left //= size
    names = [f"x{i}" for i in range(len(sizes))]
    mesh = Mesh(tuple(zip(names, sizes, strict=True)))
    kind = draw(st.sampled_from(["row-major", "transposed", "random"]))
    ids = np.arange(mesh.num_devices)
    if kind == "transposed":
        order = draw(st.permutations(range(len(sizes))))
        ids = ids.reshape([sizes[i] for i in order]).transpose(np.argsort(order)).reshape(-1)
    elif kind == "random":
        ids = np.array(draw(st.permutations(ids.tolist())))
    mesh = Mesh(mesh.axes, tuple(ids.tolist()))
    return cluster, mesh, tuple(draw(st.sets(st.sampled_from(names)))) if names else ()


@given(placements())
@settings(max_examples=300, deadline=None)
def test_closed_forms_agree_with_counting(case):
    cluster, mesh, axes = case
    groups = {}
    for device in range(mesh.num_devices):
        at = mesh.coordinates(device)
        groups.setdefault(tuple(at[name] for name, _ in mesh.axes if name not in axes), []).append(
            device
        )
    counted, placed = (
        place_groups(list(groups.values()), cluster),
        axis_factors(mesh, axes, cluster),
    )
    if placed.size == 1:
        assert counted.shapes == placed.shapes == ()
    else:
        assert (placed.groups, placed.size) == (counted.groups, counted.size)
        assert set(placed.shapes) == set(counted.shapes)
        assert dict(placed.concurrent) == dict(counted.concurrent)


def test_orders_that_lie_differently():
    cluster = cluster_of(8)
    orders = axis_orders((("data", 8), ("model", 8)), cluster)
    assert orders == ((("data", 8), ("model", 8)), (("model", 8), ("data", 8)))
    # inside one host every order is the same
    assert axis_orders((("data", 2), ("model", 4)), cluster_of(1)) == ((("data", 2), ("model", 4)),)
    three = axis_orders((("p", 2), ("one", 1), ("d", 4), ("m", 8)), cluster)
    assert three[0] == (("one", 1), ("p", 2), ("d", 4), ("m", 8))
    inner = {order[-1][0] for order in three}
    assert inner == {"p", "d", "m"}
    assert len(three) < 6


def test_sixteen_thousand_devices_take_milliseconds():
    cluster = load_cluster("h100-sxm", 16384)
    mesh = Mesh((("pipe", 16), ("data", 128), ("model", 8)))
    axis_factors(mesh, ("model",), cluster)  # compares all hosts once
    start = time.perf_counter()
    placed = [
        axis_factors(mesh, axes, cluster) for axes in (("data",), ("pipe",), ("pipe", "data"))
    ]
    assert time.perf_counter() - start < 0.02  # measured: 0.1 ms
    assert [p.factors for p in placed] == [(("host", n),) for n in (128, 16, 2048)]
    ids = np.arange(16384).reshape(8, 128, 16).transpose(2, 1, 0).reshape(-1)
    turned = Mesh(mesh.axes, tuple(ids.tolist()))
    start = time.perf_counter()
    assert axis_factors(turned, ("pipe",), cluster).factors == (("chip", 8), ("host", 2))
    assert time.perf_counter() - start < 0.1  # measured: 1 ms


def test_irregular_placements_of_sixteen_thousand_devices():
    """Pods of 3,072 do not fit axes of powers of two; hosts in any order are counted as well."""
    cluster = load_cluster("h100-llama3", 16384)
    mesh = Mesh((("pipe", 16), ("data", 128), ("model", 8)))
    start = time.perf_counter()
    assert axis_factors(mesh, ("model",), cluster).factors == (("chip", 8),)
    data, pipe = (axis_factors(mesh, (axis,), cluster) for axis in ("data", "pipe"))
    assert time.perf_counter() - start < 1  # measured: 50 ms
    assert {tuple(hop.level for hop in shape) for shape in data.shapes} == {("host", "rack")}
    assert {shape[-1].level for shape in pipe.shapes} == {"pod"}
    hosts = [list(range(i, i + 8)) for i in range(0, 16384, 8)]
    random.Random(0).shuffle(hosts)
    shuffled = Mesh(mesh.axes, tuple(device for host in hosts for device in host))
    start = time.perf_counter()
    assert axis_factors(shuffled, ("model",), cluster).factors == (("chip", 8),)
    assert axis_factors(shuffled, ("data",), cluster).shapes
    assert time.perf_counter() - start < 2  # measured: 70 ms
