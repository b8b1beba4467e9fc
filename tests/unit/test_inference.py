from dataclasses import replace

import pytest

from pai.dialects.mlir import parse
from pai.dialects.program import Role, Signature, Value
from pai.passes.strategy.auto_shard import signature_of
from pai.passes.strategy.inference import Goal, choose_for, stored_bytes
from pai.passes.strategy.plan import Plan, Prediction
from pai.passes.strategy.plan_zero import is_training
from pai.runtime.errors import InfeasiblePlan, InvalidInput
from pai.runtime.mesh import Mesh
from pai.runtime.topology import HostSpec, load_cluster

GIB = 1 << 30


def program(*arguments, results=()):
    return Signature(
        tuple(Value(name, role, "bf16", shape) for name, role, shape in arguments),
        tuple(Value(f"out{i}", Role.OUTPUT, "bf16", shape, updates)
              for i, (shape, updates) in enumerate(results)),
    )  # fmt: skip


SERVING = program(
    ("x", Role.INPUT, (8, 1)),
    ("w", Role.PARAMETER, (GIB, 30)),  # 60 GiB of bf16
    ("cache", Role.STATE, (8, GIB)),  # 16 GiB
    results=[((8, 1), ""), ((8, GIB), "cache")],
)


def fake(seconds, needs=lambda n: 76 * GIB / n):
    """Return a search that needs what ``needs`` says and takes ``seconds`` of n devices."""

    def search(module, signature, cluster):
        n = cluster.num_devices
        if needs(n) > cluster.memory_bytes:
            raise InfeasiblePlan(f"{n} devices are too few")
        predicted = Prediction(time_s=seconds(n), parameter_bytes=int(needs(n)))
        return Plan(Mesh((("model", n),)), strategy=f"model={n}", predicted=predicted)

    return search


def choose(goal, search, devices=8, profile="a100-40g-sxm", signature=SERVING):
    return choose_for(goal, None, signature, load_cluster(profile, devices), search)


def test_weights_and_the_cache_are_counted():
    assert stored_bytes(SERVING) == 76 * GIB


def test_throughput_takes_as_many_copies_as_fit():
    plan = choose(Goal("throughput"), fake(lambda n: 0.1 / n**0.5))
    assert (plan.mesh.num_devices, plan.replicas, plan.objective) == (2, 4, "throughput")
    first, *rest = plan.alternatives
    assert first.name == "8 copies on 1 device each"
    assert "parameters and state alone are 76.0 GiB of 40.0 GiB" in first.reason
    assert [other.reason for other in rest] == [
        "0.71 times the throughput", "0.50 times the throughput",
    ]  # fmt: skip


def test_throughput_at_a_latency_bound_gives_copies_more_devices():
    plan = choose(Goal("throughput", 0.06), fake(lambda n: 0.1 / n**0.5))
    assert (plan.mesh.num_devices, plan.replicas) == (4, 2)
    assert any("a run takes 70.7 ms, more than 60 ms" in a.reason for a in plan.alternatives)
    with pytest.raises(
        InfeasiblePlan, match=r"no number of devices up to 8 serves.*more than 1 ms"
    ):
        choose(Goal("throughput", 0.001), fake(lambda n: 0.1 / n**0.5))


def test_perfect_scaling_prefers_the_larger_throughput_of_superlinear_copies():
    plan = choose(Goal("throughput"), fake(lambda n: 1 / n**1.5))
    assert (plan.mesh.num_devices, plan.replicas) == (8, 1)


def test_fewest_devices():
    plan = choose(Goal("devices"), fake(lambda n: 1 / n))
    assert (plan.mesh.num_devices, plan.replicas, plan.objective) == (2, 1, "devices")
    plan = choose(Goal("devices", 0.26), fake(lambda n: 1 / n))
    assert plan.mesh.num_devices == 4
    needs = fake(lambda n: 1.0, lambda n: 900 * GIB / n)
    assert choose(Goal("devices"), needs, devices=64).mesh.num_devices == 24  # whole hosts


def test_latency():
    assert choose(Goal(), fake(lambda n: 1 / n)).mesh.num_devices == 8
    with pytest.raises(InfeasiblePlan, match=r"takes 125 ms a run, more than 100 ms"):
        choose(Goal("latency", 0.1), fake(lambda n: 1 / n))


def test_copies_on_unlike_hosts_run_as_fast_as_the_slowest():
    fast = load_cluster("a100-40g-sxm", 8)
    slow = replace(fast.hosts[0].device, kind="slow", memory_bandwidth=1.0)
    cluster = replace(fast, hosts=(fast.hosts[0], HostSpec(slow, 8)))

    def search(module, signature, cluster):
        slowest = min(host.device.memory_bandwidth for host in cluster.hosts)
        seconds = 3.0 if slowest == 1.0 else 1.0
        predicted = Prediction(time_s=seconds / cluster.num_devices, parameter_bytes=GIB)
        return Plan(Mesh((("model", cluster.num_devices),)), predicted=predicted)

    plan = choose_for(Goal("throughput", 0.5), None, SERVING, cluster, search)
    assert plan.predicted.time_s == 3 / 8
    assert (plan.mesh.num_devices, plan.replicas) == (8, 2)


def test_a_training_step_has_no_copies():
    training = program(
        ("x", Role.INPUT, (8, 4)),
        ("w", Role.PARAMETER, (4, 4)),
        ("m", Role.STATE, (4, 4)),
        results=[((4, 4), "m")],
    )
    assert is_training(training)
    assert not is_training(SERVING)
    with pytest.raises(InvalidInput, match="training step"):
        choose(Goal("throughput"), fake(lambda n: 1.0), signature=training)


@pytest.mark.parametrize("goal", [("speed", None), ("latency", 0.0), ("latency", float("nan"))])
def test_goals_that_mean_nothing(goal):
    with pytest.raises(InvalidInput):
        Goal(*goal)


def test_a_decoding_step_end_to_end():
    x, w, cache = "tensor<8x4096xbf16>", "tensor<4096x4096xbf16>", "tensor<8x2048x4096xbf16>"
    module = parse(f"""module {{
      func.func @main(%x: {x} {{pai.name = "x", pai.role = "input"}},
                      %w: {w} {{pai.name = "w", pai.role = "parameter"}},
                      %c: {cache} {{pai.name = "cache", pai.role = "state"}})
          -> tensor<8x2048xbf16> {{
        %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : ({x}, {w}) -> {x}
        %1 = stablehlo.dot_general %0, %c, batching_dims = [0] x [0], contracting_dims = [1] x [2]
            : ({x}, {cache}) -> tensor<8x2048xbf16>
        return %1 : tensor<8x2048xbf16>
      }}
    }}""")
    cluster = load_cluster("h100-sxm", 8)
    plan = choose_for(Goal("throughput"), module, signature_of(module), cluster)
    assert plan.replicas * plan.num_devices == 8
    assert plan.predicted.state_bytes == 8 * 2048 * 4096 * 2 // plan.mesh.num_devices
    fewest = choose_for(Goal("devices"), module, signature_of(module), cluster)
    assert fewest.num_devices == 1
