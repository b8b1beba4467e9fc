"""Prices: seconds of kernels and collectives, the same that the rest of the cost model charges."""

from __future__ import annotations

from pai.passes.strategy.collectives import shape_seconds
from pai.passes.strategy.kernels import Kernels
from pai.passes.strategy.placement import Placement, axis_factors
from pai.passes.strategy.workload import Dot
from pai.runtime.mesh import Mesh
from pai.runtime.topology import ClusterSpec


class Prices:
    """Seconds on a mesh of a cluster; the slowest kind of device counts.

    Args:
        mesh: its axes' positions are device numbers of the cluster, row-major.
        cluster: devices and links.
    """

    def __init__(self, mesh: Mesh, cluster: ClusterSpec) -> None:
        self.mesh = mesh
        self.cluster = cluster
        self.sizes = tuple(size for _, size in mesh.axes)
        kinds = {host.device.kind: host.device for host in cluster.hosts}
        self.kernels = [Kernels.of(kinds[kind]) for kind in sorted(kinds)]
        self.contention = max(kernel.constants.contention for kernel in self.kernels)
        self.bandwidth = min(kernel.bandwidth for kernel in self.kernels)
        self._products: dict[tuple[int, int, int, int, str], float] = {}
        self._placements: dict[tuple[int, ...], Placement] = {}
        self._collectives: dict[tuple[str, float, tuple[int, ...]], float] = {}

    def product(self, m: int, n: int, k: int, batch: int, dtype: str) -> float:
        """Return the time of a matrix product with local sizes."""
        key = (m, n, k, batch, dtype)
        if key not in self._products:
            dot = Dot(m, n, k, batch, dtype)
            self._products[key] = max(kernel.dot(dot).total for kernel in self.kernels)
        return self._products[key]

    def fused(self, flops: float, dtype: str, *, backward: bool) -> float:
        """Return the time of one of attention's products when the scores stay on the chip.

        Backward, four products stand for the five that are computed (Dao et al., 2022).
        """
        if backward:
            return max(
                1.25 * flops / (k.peak(dtype) * k.constants.attention_backward)
                for k in self.kernels
            )
        return max(flops / (k.peak(dtype) * k.constants.attention_forward) for k in self.kernels)

    def stream(self, num_bytes: float) -> float:
        """Return the time of moving bytes to or from memory."""
        return num_bytes / self.bandwidth

    def collective(self, kind: str, num_bytes: float, axes: tuple[int, ...]) -> float:
        """Return the time of a collective over mesh axes, given by number."""
        key = (kind, num_bytes, axes)
        if key not in self._collectives:
            self._collectives[key] = max(
                (shape_seconds(kind, num_bytes, hops) for hops in self._placement(axes).shapes),
                default=0.0,
            )
        return self._collectives[key]

    def _placement(self, axes: tuple[int, ...]) -> Placement:
        if axes not in self._placements:
            names = [self.mesh.axes[axis][0] for axis in axes]
            self._placements[axes] = axis_factors(self.mesh, names, self.cluster)
        return self._placements[axes]
