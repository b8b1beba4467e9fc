"""A quick estimate of a candidate, to decide which ones are worth partitioning.

It never touches the IR: the global program's kernels are read once, and a candidate scales them.
A kernel's arithmetic shrinks by the batch split and, where tensor parallelism reaches it, by the
model split; every row product and split table adds an all_reduce of its result; stored shards add
an all_gather of every parameter. Gradients are not seen, so the estimate only ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pai.dialects.mlir import ir
from pai.dialects.program import Role, Signature
from pai.passes.strategy.annotate import main_function
from pai.passes.strategy.candidates import Candidate
from pai.passes.strategy.collectives import Factors, group_seconds
from pai.passes.strategy.cost import Cost
from pai.passes.strategy.work import Kind, read_block, tensor_bytes
from pai.runtime.topology import ClusterSpec


@dataclass(frozen=True)
class Estimate:
    """A rough time (s) and memory (bytes of one device)."""

    time_s: float
    memory_bytes: int


@dataclass(frozen=True)
class _Kernel:
    position: int
    flop_seconds: float
    activation_seconds: float
    weight_seconds: float
    result_bytes: int


class Estimator:
    """Estimates candidates of one program on one cluster.

    Args:
        module: the global module.
        signature: its arguments and results.
        cluster: the devices.
        whole: the cost of the program on one device.
    """

    def __init__(
        self, module: ir.Module, signature: Signature, cluster: ClusterSpec, whole: Cost
    ) -> None:
        self.signature = signature
        self.cluster = cluster
        self.whole = whole
        self.bytes = whole.argument_bytes
        self.known: dict[range, Factors] = {}
        self.kernels = self._read(module)

    def _read(self, module: ir.Module) -> list[_Kernel]:
        work = read_block(main_function(module).regions[0].blocks[0])
        weights = {
            work.arguments[i]
            for i, value in enumerate(self.signature.arguments)
            if value.role is Role.PARAMETER
        }
        device = self.cluster.hosts[0].device
        out = []
        for node in work.nodes:
            if node.kind is Kind.HEAVY or (node.kind is Kind.FUSED and node.flops > 1 << 16):
                read = sum(size for value, size in node.reads if value not in weights)
                stored = sum(size for value, size in node.reads if value in weights)
                result = sum(tensor_bytes(r.type) for r in node.op.results)
                moved = read + result if node.kind is Kind.HEAVY else 0
                seconds = node.flops / device.flops(node.dtype)
                out.append(
                    _Kernel(
                        node.position,
                        seconds,
                        moved / device.bandwidth,
                        stored / device.bandwidth,
                        result,
                    )
                )
        return out

    def estimate(self, candidate: Candidate) -> Estimate:
        """Return the rough time and memory of ``candidate``."""
        share = 1.0
        if candidate.data > 1:
            share = math.ceil(candidate.extent / candidate.data) / candidate.extent
        tensor = candidate.tensor
        split = tensor.split if tensor else frozenset[int]()
        modes = {p.position: p.mode for p in tensor.products} if tensor else {}
        time = self.whole.overhead_s
        for kernel in self.kernels:
            parts = candidate.model if kernel.position in split else 1
            own_weight = parts if modes.get(kernel.position) else 1
            moved = kernel.activation_seconds * share / parts + kernel.weight_seconds / own_weight
            time += max(kernel.flop_seconds * share / parts, moved)
            if modes.get(kernel.position) in {"row", "vocabulary"}:
                time += self.reduce_seconds(int(kernel.result_bytes * share), candidate)
        return Estimate(
            time + self.gather_seconds(candidate), self.memory(candidate, share, bool(split))
        )

    def reduce_seconds(self, num_bytes: int, candidate: Candidate) -> float:
        """Return the time of an all_reduce over the model axis, the innermost one."""
        factors = self.factors(range(candidate.model))
        return group_seconds("all_reduce", num_bytes, factors, self.cluster)

    def gather_seconds(self, candidate: Candidate) -> float:
        """Return the time of gathering the parameters that are stored in shards."""
        if candidate.storage != "zero":
            return 0.0
        stride = candidate.mesh.num_devices // candidate.mesh.axes[0][1]
        factors = self.factors(range(0, candidate.mesh.num_devices, stride))
        dims = candidate.tensor.dims if candidate.tensor else {}
        layouts = dict(candidate.arguments)
        return sum(
            group_seconds(
                "all_gather",
                self.bytes[i] // (candidate.model if i in dims else 1),
                factors,
                self.cluster,
            )
            for i, value in enumerate(self.signature.arguments)
            if value.role is Role.PARAMETER and value.name in layouts
        )

    def factors(self, group: range) -> Factors:
        """Return the levels of a group of devices."""
        if group not in self.known:
            self.known[group] = self.cluster.split(group)
        return self.known[group]

    def memory(self, candidate: Candidate, share: float, split: bool) -> int:
        """Return the bytes of one device: arguments as laid out, results and temporaries scaled."""
        layouts = dict(candidate.arguments)
        total = 0.0
        for value, size in zip(self.signature.arguments, self.bytes, strict=True):
            if value.name in layouts:
                sharding = layouts[value.name].sharding
                parts = [sharding.num_shards(d, candidate.mesh) for d in range(len(value.shape))]
                total += size / math.prod(parts)
            else:
                total += size
        values = sum(self.whole.result_bytes) + self.whole.peak_temporary_bytes
        return int(total + values * share / (candidate.model if split else 1))
