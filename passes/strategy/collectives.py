"""How long a collective takes: α-β formulas over the levels of a cluster.

A group is split into factors, innermost level first (``ClusterSpec.split``): the devices inside a
host, the hosts inside a rack, the racks. A collective works level by level, so that the outer and
slower links carry only what the inner ones could not reduce. Formulas of one level are those of
R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of Collective Communication Operations in
MPICH", IJHPCA 19(1), 2005; with n devices, latency α a step, and B bytes at rate r:

    all_gather, reduce_scatter (ring)   (n-1)α + (n-1)/n · B/r
    all_reduce (ring)                   2(n-1)α + 2(n-1)/n · B/r
    all_reduce (tree)                   2⌈log2 n⌉α + 2·B/r
    all_to_all (pairwise)               (n-1)α + (n-1)/n · B/r
    broadcast (tree)                    ⌈log2 n⌉α + B/r
    collective_permute                  α + B/r
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pai.runtime.errors import PassFailure
from pai.runtime.topology import ClusterSpec, LinkSpec

Factors = tuple[tuple[str, int], ...]


def collective_seconds(
    kind: str, num_bytes: int, groups: Sequence[Sequence[int]], cluster: ClusterSpec
) -> float:
    """Return the time of one collective: that of its slowest group.

    Args:
        kind: StableHLO's name without the dialect: ``all_reduce``, ``all_gather``, ….
        num_bytes: bytes of the tensor on one device, the larger of operand and result.
        groups: device numbers of each group; (source, target) pairs of a collective_permute.
        cluster: the devices and links.

    Raises:
        PassFailure: for a kind without a formula.
    """
    factors = {cluster.split(group) for group in groups if len(group) > 1}
    return max((group_seconds(kind, num_bytes, f, cluster) for f in factors), default=0.0)


def group_seconds(kind: str, num_bytes: int, factors: Factors, cluster: ClusterSpec) -> float:
    """Return the time of a collective of one group, given as ``ClusterSpec.split`` returns it."""
    if kind not in _FORMULAS:
        raise PassFailure(f"there is no cost formula for the collective '{kind}'")
    return _FORMULAS[kind](num_bytes, factors, cluster)


def _all_gather(num_bytes: float, factors: Factors, cluster: ClusterSpec) -> float:
    """Time from the outermost level inwards: the inner levels carry what the outer ones brought."""
    total = 0.0
    for level, n in factors:
        link = cluster.link(level)
        total += (n - 1) * link.latency_s + (n - 1) / n * num_bytes / link.rate
        num_bytes /= n
    return total


def _all_reduce(num_bytes: float, factors: Factors, cluster: ClusterSpec) -> float:
    """reduce_scatter inside, all_reduce of the part outside, all_gather inside."""
    total = 0.0
    for level, n in factors:
        total += min(
            _ring(num_bytes, n, cluster.link(level)), _tree(num_bytes, n, cluster.link(level))
        )
        num_bytes /= n
    return total


def _ring(num_bytes: float, n: int, link: LinkSpec) -> float:
    return 2 * (n - 1) * link.latency_s + 2 * (n - 1) / n * num_bytes / link.rate


def _tree(num_bytes: float, n: int, link: LinkSpec) -> float:
    return 2 * math.ceil(math.log2(n)) * link.latency_s + 2 * num_bytes / link.rate


def _all_to_all(num_bytes: float, factors: Factors, cluster: ClusterSpec) -> float:
    """Every level carries the share of the bytes whose peers lie across it."""
    everyone = math.prod(n for _, n in factors)
    total, inside = 0.0, 1
    for level, n in factors:
        peers, link = inside * (n - 1), cluster.link(level)
        total += peers * link.latency_s + peers / everyone * num_bytes / link.rate
        inside *= n
    return total


def _broadcast(num_bytes: float, factors: Factors, cluster: ClusterSpec) -> float:
    total = 0.0
    for level, n in factors:
        link = cluster.link(level)
        total += math.ceil(math.log2(n)) * link.latency_s + num_bytes / link.rate
    return total


def _permute(num_bytes: float, factors: Factors, cluster: ClusterSpec) -> float:
    link = cluster.link(factors[-1][0])
    return link.latency_s + num_bytes / link.rate


_FORMULAS = {
    "all_reduce": _all_reduce,
    "all_gather": _all_gather,
    "reduce_scatter": _all_gather,
    "all_to_all": _all_to_all,
    "collective_broadcast": _broadcast,
    "collective_permute": _permute,
}
