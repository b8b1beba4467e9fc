"""Plans for serving: the latency of a request, throughput at a latency bound, fewest devices.

A program is one request (or one step of decoding) for the batch that it has; its parameters and its
states, the key-value cache among them, are in the memory of every plan. Throughput is that of
independent copies: with n devices a copy, N devices run ⌊N/n⌋ of them, each as fast as one
alone. The bound keeps copies from becoming too slow.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from pai.dialects.mlir import ir
from pai.dialects.program import Role, Signature
from pai.passes.strategy.plan import OBJECTIVES, Alternative, Plan
from pai.passes.strategy.plan_zero import is_training
from pai.passes.strategy.search import choose_plan
from pai.passes.strategy.units import bytes_text, seconds_text
from pai.runtime.errors import InfeasiblePlan, InvalidInput
from pai.runtime.topology import ClusterSpec

FURTHER = 2
"""How many larger copies are tried behind the first that serves. Devices that share the work of a
copy do it in no less device time together, so that larger copies win only where the smaller ones
divide the program badly."""

Search = Callable[[ir.Module, Signature, ClusterSpec], Plan]


@dataclass(frozen=True)
class Goal:
    """What a plan is chosen for.

    Args:
        objective: ``latency``: the least time of one run, a training step or a request;
            ``throughput``: most runs a second of independent copies; ``devices``: the fewest
            devices that fit one copy.
        max_latency_s: most seconds of one run; None is any.
    """

    objective: str = "latency"
    max_latency_s: float | None = None

    def __post_init__(self) -> None:
        """Reject unknown objectives and bounds that nothing can meet."""
        if self.objective not in OBJECTIVES:
            raise InvalidInput(
                f"there is no objective '{self.objective}'",
                "--objective",
                f"one of {', '.join(OBJECTIVES)}",
            )
        if self.max_latency_s is not None and not self.max_latency_s > 0:
            raise InvalidInput("a latency bound has to be positive", "--max-latency")


def choose_for(
    goal: Goal,
    module: ir.Module,
    signature: Signature,
    cluster: ClusterSpec,
    search: Search = choose_plan,
) -> Plan:
    """Return the plan that serves ``goal`` best.

    Args:
        goal: objective and latency bound.
        module: the simplified global module; not changed.
        signature: its arguments and results.
        cluster: the devices there are.
        search: finds the fastest plan of one copy on the devices of a cluster.

    Raises:
        InfeasiblePlan: when nothing fits the memory, or nothing that fits is fast enough.
        InvalidInput: for the throughput of a training step, whose copies would not agree.
    """
    if goal.objective == "latency":
        plan = search(module, signature, cluster)
        require_latency(plan, goal.max_latency_s)
        return plan
    if goal.objective == "throughput" and is_training(signature):
        raise InvalidInput(
            "throughput counts independent copies, but the program is a training step",
            "--objective",
            "leave the objective out: the search splits the batch over the devices",
        )
    counts = list(_counts(goal, cluster))
    trials = _trials(goal, module, signature, cluster, search, counts)
    return _best(goal, trials, cluster)


def require_latency(plan: Plan, max_latency_s: float | None) -> None:
    """Check a plan against a latency bound; raises InfeasiblePlan."""
    if max_latency_s is not None and plan.predicted.time_s > max_latency_s:
        raise InfeasiblePlan(_too_slow(plan, max_latency_s), plan.cluster, _FASTER)


_FASTER = "use more or faster devices, a smaller batch, or a looser bound"


def _too_slow(plan: Plan, bound: float) -> str:
    return (
        f"the fastest plan that fits ('{plan.strategy}') takes "
        f"{seconds_text(plan.predicted.time_s)} a run, more than {seconds_text(bound)}"
    )


@dataclass(frozen=True)
class _Trial:
    """One copy on some devices: a plan, or why there is none."""

    devices: int
    copies: int
    plan: Plan | None
    reason: str = ""

    @property
    def name(self) -> str:
        copies = f"{self.copies} copies on " if self.copies > 1 else ""
        devices = f"{self.devices} devices" if self.devices > 1 else "1 device"
        return f"{copies}{devices}" + (" each" if self.copies > 1 else "")

    @property
    def rate(self) -> float:
        """Runs a second of all copies."""
        return self.copies / self.plan.predicted.time_s if self.plan else 0.0


def _counts(goal: Goal, cluster: ClusterSpec) -> Iterator[int]:
    """Yield devices of a copy: divisors for throughput; for fewest, all of a host, then hosts."""
    total, host = cluster.num_devices, cluster.hosts[0].devices
    if goal.objective == "throughput":
        yield from (n for n in range(1, total + 1) if total % n == 0)
        return
    yield from range(1, min(host, total) + 1)
    yield from range(2 * host, total + 1, host)
    if total > host and total % host:
        yield total


def _trials(
    goal: Goal,
    module: ir.Module,
    signature: Signature,
    cluster: ClusterSpec,
    search: Search,
    counts: list[int],
) -> list[_Trial]:
    """Return a trial of each count; the fewest devices stop at the first that serves."""
    out = []
    least = stored_bytes(signature)
    for count in counts:
        copies = cluster.num_devices // count if goal.objective == "throughput" else 1
        if count < counts[-1] and least > count * cluster.memory_bytes:
            room = bytes_text(count * cluster.memory_bytes)
            reason = f"parameters and state alone are {bytes_text(least)} of {room}"
            out.append(_Trial(count, copies, None, reason))
            continue
        trial = _try(goal, count, copies, search, module, signature, cluster)
        out.append(trial)
        serving = sum(trial.plan is not None for trial in out)
        if serving > (FURTHER if goal.objective == "throughput" else 0):
            break
    return out


def _try(
    goal: Goal,
    count: int,
    copies: int,
    search: Search,
    module: ir.Module,
    signature: Signature,
    cluster: ClusterSpec,
) -> _Trial:
    """Return the plan of a copy on the slowest of the places where a copy runs."""
    slowest: Plan | None = None
    for place in _places(cluster, count, copies):
        try:
            plan = search(module, signature, place)
        except InfeasiblePlan as error:
            return _Trial(count, copies, None, error.what)
        if slowest is None or plan.predicted.time_s > slowest.predicted.time_s:
            slowest = plan
    if slowest is not None and slowest.predicted.memory_bytes > cluster.memory_bytes:
        need, have = slowest.predicted.memory_bytes, cluster.memory_bytes
        reason = f"the slowest copy needs {bytes_text(need)} of {bytes_text(have)}"
        return _Trial(count, copies, None, reason)
    if slowest is not None and slowest.predicted.time_s > (goal.max_latency_s or math.inf):
        time, bound = slowest.predicted.time_s, goal.max_latency_s or 0.0
        reason = f"a run takes {seconds_text(time)}, more than {seconds_text(bound)}"
        return _Trial(count, copies, None, reason)
    return _Trial(count, copies, slowest)


def _places(cluster: ClusterSpec, count: int, copies: int) -> list[ClusterSpec]:
    """Return the distinct groups of ``count`` devices on which copies run."""
    first = cluster.take(count)
    if len({host.device for host in cluster.hosts}) == 1:
        return [first]
    devices = [(i, host) for i, host in enumerate(cluster.hosts) for _ in range(host.devices)]
    out = []
    for copy in range(copies):
        part = devices[copy * count : (copy + 1) * count]
        sizes = Counter(number for number, _ in part)
        hosts = tuple(replace(host, devices=sizes[number]) for number, host in dict(part).items())
        place = replace(cluster, hosts=hosts)
        if place not in out:
            out.append(place)
    return out


def stored_bytes(signature: Signature) -> int:
    """Return the bytes of parameters and states, each stored once."""
    return sum(
        value.num_bytes
        for value in signature.arguments
        if value.role in {Role.PARAMETER, Role.STATE}
    )


def _best(goal: Goal, trials: list[_Trial], cluster: ClusterSpec) -> Plan:
    """Return the plan of the best trial, with the other trials as its first alternatives."""
    serving = [(trial, trial.plan) for trial in trials if trial.plan is not None]
    if not serving:
        last = trials[-1]
        raise InfeasiblePlan(
            f"no number of devices up to {last.devices} serves; {last.reason}",
            cluster.name,
            _FASTER,
        )
    best, plan = max(serving, key=lambda pair: (pair[0].rate, -pair[0].devices))
    others = tuple(
        Alternative(
            trial.name,
            trial.reason or f"{trial.rate / best.rate:.2f} times the throughput",
            trial.plan.predicted.time_s if trial.plan else None,
            trial.plan.predicted.memory_bytes if trial.plan else None,
        )
        for trial in trials
        if trial is not best
    )
    return replace(
        plan,
        objective=goal.objective,
        replicas=best.copies,
        cluster=cluster.name,
        alternatives=others + plan.alternatives,
    )
