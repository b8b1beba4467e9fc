"""What partitioning returns: the local module and an account of what it cost."""

from __future__ import annotations

from dataclasses import dataclass

from pai.dialects.mlir import ir
from pai.runtime.mesh import Mesh, Sharding


@dataclass(frozen=True)
class CollectiveUse:
    """Collectives of one kind over groups of one size.

    Args:
        kind: all_reduce, all_gather, reduce_scatter, all_to_all, collective_permute.
        count: how many one run starts; a loop that counts to a constant counts as often as it
            runs, another one once.
        bytes_per_device: bytes of their results on one device, summed.
        group_size: devices that take part in each group; 0 for a collective_permute.
        moved_bytes: bytes that one device sends, on average, with bandwidth-optimal algorithms
            (`traffic.moved`), summed.
    """

    kind: str
    count: int
    bytes_per_device: int
    group_size: int
    moved_bytes: int = 0


@dataclass(frozen=True)
class Replication:
    """An operand that had to be gathered because the operation has no sharded form here.

    Args:
        op: operation name.
        location: MLIR location, the user's own line or node.
        extra_bytes: bytes each device holds beyond its shard.
    """

    op: str
    location: str
    extra_bytes: int


@dataclass(frozen=True)
class PartitionReport:
    """The account of one partitioning."""

    collectives: tuple[CollectiveUse, ...] = ()
    replicated: tuple[Replication, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LocalModule:
    """The program of one device and how the global tensors are laid over the mesh.

    Args:
        module: StableHLO on local shapes with collectives; no sdy attributes.
        mesh: the devices.
        argument_shardings: per argument of ``@main``; uneven dimensions are padded with zeros.
        result_shardings: per result; values in a padded tail mean nothing.
        report: collectives, replications and notes.
    """

    module: ir.Module
    mesh: Mesh
    argument_shardings: tuple[Sharding, ...]
    result_shardings: tuple[Sharding, ...]
    report: PartitionReport = PartitionReport()
