"""Partition: from one program for all devices to the program of each."""

from pai.passes.partition.partition import partition
from pai.passes.partition.report import CollectiveUse, LocalModule, PartitionReport, Replication

__all__ = ["CollectiveUse", "LocalModule", "PartitionReport", "Replication", "partition"]
