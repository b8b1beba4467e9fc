"""How long a collective takes: α-β formulas over the hops of its groups.

A collective is a pipeline through all levels at once, so its bytes take as long as on the slowest
level, while the steps of all levels add up::

    time = setup + Σ steps · α + max over levels of (T + √(τ · T)),    T = volume / rate

``volume`` is what the members inside one unit (one device for ``chip``, the devices of one host
for ``host``, …) send across the level, and ``rate`` their share of its ports (``hops.py``).
``√(τ · T)`` is what a pipeline loses that cuts its message into pieces of the best size
(P. Sanders, J. Speck, J. L. Träff, "Two-tree algorithms for full bandwidth broadcast, reduction
and scan", Parallel Computing 35, 2009), so that bandwidth rises slowly with the message. With N
devices in a group and B bytes:

    algorithm                           volume                    steps
    all_gather, reduce_scatter (ring)   (N-1)/N · B               N-1
    all_reduce (ring)                   2(N-1)/N · B              2(N-1)
    all_reduce (tree)                   2B; B between two hosts   2⌈log2 n⌉ at each level
    all_reduce (in-switch)              (1 + 1/n)B in the host    one, at each level that has it
    all_to_all (pairwise)               B times the peers outside  N-1
    all_to_all (Bruck)                  B/2 · ⌈log2 n⌉ a device   ⌈log2 n⌉ at each level
    broadcast (tree)                    B                         ⌈log2 n⌉ at each level
    collective_permute                  B, of one device          1

Rings, trees and exchanges: R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of Collective
Communication Operations in MPICH", IJHPCA 19(1), 2005. In the switch, each of n devices reads its
n-th of the sum (all send theirs once) and sends it to the others through the switch: B + B/n each
way (B. Klenk et al., "An In-Network Architecture for Accelerating Shared-Memory Multiprocessor
Collectives", ISCA 2020). The fastest algorithm counts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from pai.passes.strategy.hops import Hop, place_groups, regular_hops, send_time
from pai.runtime.errors import PassFailure
from pai.runtime.topology import LEVELS, ClusterSpec

Factors = tuple[tuple[str, int], ...]
Hops = tuple[Hop, ...]


def collective_seconds(
    kind: str, num_bytes: int, groups: Sequence[Sequence[int]], cluster: ClusterSpec
) -> float:
    """Return the time of one collective: that of its slowest group.

    Args:
        kind: StableHLO's name without the dialect: ``all_reduce``, ``all_gather``, ….
        num_bytes: bytes of the tensor on one device, the larger of operand and result.
        groups: device numbers of each group, which all run at once; (source, target) pairs of a
            collective_permute.
        cluster: the devices and links.

    Raises:
        PassFailure: for a kind without a formula.
    """
    if kind == "collective_permute":
        return _pairs_seconds(num_bytes, groups, cluster)
    shapes = place_groups(groups, cluster).shapes
    return max((shape_seconds(kind, num_bytes, hops) for hops in shapes), default=0.0)


def _pairs_seconds(num_bytes: float, pairs: Sequence[Sequence[int]], cluster: ClusterSpec) -> float:
    """Return the time of the slowest of messages that are all sent at once."""
    host = cluster.host_numbers
    across = [(src, dst) for src, dst in pairs if host[src] != host[dst]]
    leaving, entering = Counter(host[src] for src, _ in across), Counter(host[d] for _, d in across)
    times = {
        (host[src], host[dst]): send_time(
            num_bytes, src, dst, cluster, max(leaving[host[src]], entering[host[dst]], 1)
        )
        for src, dst in pairs
        if src != dst
    }
    return max(times.values(), default=0.0)


def group_seconds(kind: str, num_bytes: float, factors: Factors, cluster: ClusterSpec) -> float:
    """Return the time of a collective of one group, given as ``ClusterSpec.split`` returns it.

    All other devices are taken to run the same in groups like it; of hosts that differ, the
    slowest kind counts.
    """
    sizes = dict(factors)
    inside = [1]
    for level in LEVELS:
        inside.append(inside[-1] * sizes.get(level, 1))
    return max(
        shape_seconds(kind, num_bytes, regular_hops(inside, None, cluster, host))
        for host in cluster.distinct_hosts
    )


def shape_seconds(kind: str, num_bytes: float, hops: Hops) -> float:
    """Return the time of a collective of a group that lies as ``hops`` say; none is one device.

    Raises:
        PassFailure: for a kind without a formula.
    """
    if kind not in _FORMULAS:
        raise PassFailure(f"there is no cost formula for the collective '{kind}'")
    return _FORMULAS[kind](num_bytes, hops) if hops else 0.0


def _pipeline(hops: Hops, steps_s: float, transfers: Sequence[float]) -> float:
    """Return setup, steps, and the slowest hop's transfer with the filling of its pipeline."""
    filled = (t + math.sqrt(hop.link.fill_s * t) for hop, t in zip(hops, transfers, strict=True))
    return max(hop.link.setup_s for hop in hops) + steps_s + max(filled)


def _all_gather(num_bytes: float, hops: Hops, times: int = 1) -> float:
    steps = times * sum(hop.ring_steps * hop.link.ring_step_s for hop in hops)
    devices = hops[0].units
    volume = times * (devices - 1) / devices * num_bytes
    return _pipeline(hops, steps, [volume / hop.rate for hop in hops])


def _all_reduce(num_bytes: float, hops: Hops) -> float:
    times = [_all_gather(num_bytes, hops, 2), _tree(num_bytes, hops, in_switch=False)]
    if any(hop.link.in_switch for hop in hops):
        times.append(_tree(num_bytes, hops, in_switch=True))
    return min(times)


def _tree(num_bytes: float, hops: Hops, *, in_switch: bool) -> float:
    """Return the time of a tree; with ``in_switch`` the levels that can reduce in the switch."""
    steps, transfers = 0.0, []
    for hop in hops:
        switch = hop.link.in_switch if in_switch else None
        if switch is None:
            steps += 2 * _depth(hop) * hop.link.tree_step_s
            transfers.append((1 if hop.units == _PAIR else 2) * num_bytes / hop.rate)
        else:
            own = 1 / hop.fan if hop.level == "chip" else 0
            rate = hop.rate / hop.link.efficiency * switch.efficiency
            steps += switch.latency_s
            transfers.append((1 + own) * num_bytes / rate)
    return _pipeline(hops, steps, transfers)


_PAIR = 2


def _depth(hop: Hop) -> int:
    return math.ceil(math.log2(hop.fan))


def _all_to_all(num_bytes: float, hops: Hops) -> float:
    devices = hops[0].units
    pairwise, bruck, shares, halves = 0.0, 0.0, [], []
    for hop in hops:
        outside = hop.fan - 1 if hop.level == "chip" else devices - hop.members
        pairwise += hop.members * (hop.fan - 1) * hop.link.latency_s
        bruck += _depth(hop) * hop.link.latency_s
        shares.append(hop.members * outside / devices * num_bytes / hop.rate)
        halves.append(hop.members * _depth(hop) / 2 * num_bytes / hop.rate)
    return min(_pipeline(hops, pairwise, shares), _pipeline(hops, bruck, halves))


def _broadcast(num_bytes: float, hops: Hops) -> float:
    steps = sum(_depth(hop) * hop.link.tree_step_s for hop in hops)
    return _pipeline(hops, steps, [num_bytes / hop.rate for hop in hops])


def _permute(num_bytes: float, hops: Hops) -> float:
    """Every device sends to the next: one of those in a unit sends across the level."""
    last = hops[-1]
    if last.level == "chip":
        return last.link.latency_s + num_bytes / last.link.rate_among(2)
    rates = [min(hop.rate, hop.link.rate) for hop in hops if hop.level != "chip"]
    return last.link.latency_s + num_bytes / min(rates)


_FORMULAS = {
    "all_reduce": _all_reduce,
    "all_gather": _all_gather,
    "reduce_scatter": _all_gather,
    "all_to_all": _all_to_all,
    "collective_broadcast": _broadcast,
    "collective_permute": _permute,
}
