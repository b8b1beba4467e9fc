"""Fusion: the local module becomes kernels and calls of them."""

from pai.passes.fuse.fusion import Fuse, FusionReport, fuse

__all__ = ["Fuse", "FusionReport", "fuse"]
