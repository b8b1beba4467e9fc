"""Modelled time and memory of the program of one device.

Time is a roofline per kernel (S. Williams, A. Waterman, D. Patterson, "Roofline", CACM 52(4),
2009): ``max(flops / (peak · efficiency), bytes / (bandwidth · efficiency)) + launch overhead``,
plus α-β collectives (``collectives.py``); nothing overlaps. Operations other than products,
gathers, sorts and the like fuse with neighbours that the same kernels lead to, and such a group
moves only the bytes that enter and leave it. All constants are those of the cluster's devices and
links, with their sources in the profile; the slowest kind of device counts.

Memory is that of the package that would be made (``live.py``): buffers of fused kernels, shared and
overwritten where a package does so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pai.dialects.mlir import ir
from pai.passes.loops import trip_count
from pai.passes.schedule.schedule import donated_arguments
from pai.passes.strategy.collectives import collective_seconds
from pai.passes.strategy.live import live_bytes
from pai.passes.strategy.plan import CollectiveCost
from pai.passes.strategy.work import (
    BlockWork,
    Kind,
    Node,
    read_block,
    tensor_bytes,
)
from pai.runtime.mesh import Mesh
from pai.runtime.topology import LEVELS, ClusterSpec


@dataclass(frozen=True)
class Cost:
    """What one run of a local module costs one device; seconds, bytes, FLOPs.

    Args:
        time_s: the sum of the four parts below.
        compute_s: kernels bound by arithmetic.
        memory_bound_s: kernels bound by memory bandwidth.
        communication_s: collectives.
        overhead_s: launches.
        peak_temporary_bytes: most bytes of values alive at once, arguments and results apart, and
            constants in memory.
        fragmentation_bytes: gaps between them.
        argument_bytes: per argument.
        result_bytes: per result; 0 for one that lies in an argument's memory.
        flops: operations performed.
        kernels: kernels launched.
        collectives: by kind and group size.
    """

    compute_s: float = 0.0
    memory_bound_s: float = 0.0
    communication_s: float = 0.0
    overhead_s: float = 0.0
    peak_temporary_bytes: int = 0
    fragmentation_bytes: int = 0
    argument_bytes: tuple[int, ...] = ()
    result_bytes: tuple[int, ...] = ()
    flops: int = 0
    kernels: int = 0
    collectives: tuple[CollectiveCost, ...] = ()

    @property
    def time_s(self) -> float:
        """Seconds of one run."""
        return self.compute_s + self.memory_bound_s + self.communication_s + self.overhead_s


def cost_local_module(module: ir.Module, mesh: Mesh, cluster: ClusterSpec) -> Cost:
    """Return the cost of ``@main`` of a module of one device.

    Args:
        module: StableHLO with local shapes; collectives name groups of device numbers.
        mesh: the mesh whose device numbers the collectives use.
        cluster: the devices and links; device numbers are places in it.
    """
    functions = {ir.StringAttr(f.attributes["sym_name"]).value: f for f in module.body.operations
                 if f.operation.name == "func.func"}  # fmt: skip
    model = _Model(cluster, mesh, functions)
    main = functions["main"]
    total = model.block(main.regions[0].blocks[0])
    signature = ir.FunctionType(ir.TypeAttr(main.attributes["function_type"]).value)
    live = live_bytes(main.regions[0].blocks[0], donated_arguments(main))
    return Cost(
        compute_s=total.compute,
        memory_bound_s=total.memory_bound,
        communication_s=sum((use.seconds for use in total.collectives), 0.0),
        overhead_s=total.overhead,
        peak_temporary_bytes=live.temporary_bytes + live.constant_bytes,
        fragmentation_bytes=live.fragmentation_bytes,
        argument_bytes=tuple(map(tensor_bytes, signature.inputs)),
        result_bytes=tuple(
            0 if shared else tensor_bytes(kind)
            for kind, shared in zip(signature.results, live.in_place, strict=True)
        ),
        flops=total.flops,
        kernels=total.kernels,
        collectives=_summed(total.collectives),
    )


@dataclass
class _Total:
    """Running sums of a block."""

    compute: float = 0.0
    memory_bound: float = 0.0
    overhead: float = 0.0
    flops: int = 0
    kernels: int = 0
    collectives: tuple[CollectiveCost, ...] = ()

    def add(self, other: _Total, times: int = 1) -> None:
        self.compute += times * other.compute
        self.memory_bound += times * other.memory_bound
        self.overhead += times * other.overhead
        self.flops += times * other.flops
        self.kernels += times * other.kernels
        self.collectives += tuple(
            CollectiveCost(
                use.kind,
                use.group_size,
                use.count * times,
                use.bytes_per_device * times,
                use.seconds * times,
                use.level,
            )
            for use in other.collectives
        )


class _Model:
    def __init__(self, cluster: ClusterSpec, mesh: Mesh, functions: dict[str, ir.OpView]) -> None:
        self.cluster = cluster
        self.mesh = mesh
        self.functions = functions
        self.kinds = tuple({host.device for host in cluster.hosts})
        self.known: dict[tuple[str, int, str], CollectiveCost] = {}

    def block(self, block: ir.Block) -> _Total:
        work = read_block(block)
        groups = fused_groups(work)
        kept = materialised(work, groups)
        total = _Total()
        for members in groups:
            node = members[0]
            if node.kind is Kind.COLLECTIVE:
                total.collectives += (self.collective(node, work),)
            elif node.kind is Kind.CONTROL:
                total.add(self.control(node))
            else:
                self.kernel(members, work, kept, total)
        return total

    def kernel(self, members: list[Node], work: BlockWork, kept: set[int], total: _Total) -> None:
        flops = sum(node.flops for node in members)
        moved = _moved_bytes(members, work, kept)
        slowest = max(
            self.kinds, key=lambda d: max(flops / d.flops(members[0].dtype), moved / d.bandwidth)
        )
        compute, memory = flops / slowest.flops(members[0].dtype), moved / slowest.bandwidth
        if compute >= memory:
            total.compute += compute
        else:
            total.memory_bound += memory
        total.overhead += max(device.launch_overhead_s for device in self.kinds)
        total.flops += flops
        total.kernels += 1

    def collective(self, node: Node, work: BlockWork) -> CollectiveCost:
        kind = node.op.name.removeprefix("stablehlo.")
        operands = sum(tensor_bytes(value.type) for value in node.op.operands)
        size = max(operands, sum(work.num_bytes[w] for w in node.writes))
        permute = kind == "collective_permute"
        attr = node.op.attributes["source_target_pairs" if permute else "replica_groups"]
        key = (kind, size, str(attr))
        if key not in self.known:
            groups = [[d for d in row if d >= 0] for row in np.array(attr).tolist()]
            seconds = collective_seconds(kind, size, groups, self.cluster)
            group_size = max((len(group) for group in groups), default=1)
            level = self.outermost_level(groups)
            self.known[key] = CollectiveCost(kind, group_size, 1, size, seconds, level)
        return self.known[key]

    def outermost_level(self, groups: list[list[int]]) -> str:
        """Return the outermost level of links that a group crosses; "" when none does."""
        factors = {self.cluster.split(group) for group in groups if len(group) > 1}
        crossed = {level for split in factors for level, _ in split}
        return max(crossed, key=LEVELS.index, default="")

    def control(self, node: Node) -> _Total:
        total = _Total()
        if node.op.name == "func.call":
            callee = self.functions[ir.FlatSymbolRefAttr(node.op.attributes["callee"]).value]
            return self.block(callee.regions[0].blocks[0])
        inner = [self.block(region.blocks[0]) for region in node.op.regions]
        if node.op.name == "stablehlo.while":
            times = trip_count(node.op)
            total.add(inner[0], times + 1)
            total.add(inner[1], times)
        else:  # the dearest branch counts
            total.add(max(inner, key=lambda part: part.compute + part.memory_bound + part.overhead))
        return total


def fused_groups(work: BlockWork) -> list[list[Node]]:
    """Return the nodes as kernels: fused neighbours of one level together, the rest alone."""
    parent: dict[int, int] = {}

    def find(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    maker = {w: node for node in work.nodes for w in node.writes}
    for node in work.nodes:
        parent[node.position] = node.position
        if node.kind is Kind.FUSED:
            for value, _ in node.reads:
                other = maker.get(value)
                if other and other.kind is Kind.FUSED and other.level == node.level:
                    parent[find(node.position)] = find(other.position)
    groups: dict[int, list[Node]] = defaultdict(list)
    for node in work.nodes:
        groups[find(node.position)].append(node)
    return list(groups.values())


def materialised(work: BlockWork, groups: list[list[Node]]) -> set[int]:
    """Return the value ids that are written to memory: those that another kernel reads."""
    home = {w: i for i, members in enumerate(groups) for node in members for w in node.writes}
    kept = set(work.results)
    for i, members in enumerate(groups):
        for node in members:
            kept.update(value for value, _ in node.reads if home.get(value) != i)
            if node.kind is not Kind.FUSED:
                kept.update(node.writes)
    return kept


def _moved_bytes(members: list[Node], work: BlockWork, kept: set[int]) -> int:
    """Bytes that enter and leave a kernel; an updated operand is touched where it changes."""
    op = members[0].op
    if op.name == "stablehlo.dynamic_update_slice":
        return 2 * tensor_bytes(op.operands[1].type)
    if op.name == "stablehlo.scatter":
        return 3 * tensor_bytes(op.operands[len(op.operands) - 1].type)
    own = {w for node in members for w in node.writes}
    reads: dict[int, int] = {}
    for node in members:
        for value, size in node.reads:
            if value not in own:
                reads[value] = max(reads.get(value, 0), size)
    return sum(reads.values()) + sum(work.num_bytes[w] for w in own & kept)


def _summed(uses: Sequence[CollectiveCost]) -> tuple[CollectiveCost, ...]:
    by_key: dict[tuple[str, int, str], list[CollectiveCost]] = defaultdict(list)
    for use in uses:
        by_key[use.kind, use.group_size, use.level].append(use)
    return tuple(
        CollectiveCost(
            kind,
            size,
            sum(use.count for use in found),
            sum(use.bytes_per_device for use in found),
            sum(use.seconds for use in found),
            level,
        )
        for (kind, size, level), found in sorted(by_key.items())
    )
