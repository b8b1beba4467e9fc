"""What the processor of this machine can do, in LLVM's names; imports nothing of the compiler."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

_SAME = (
    *("sse", "sse2", "ssse3", "cx16", "popcnt", "avx", "avx2", "bmi2", "f16c", "fma", "movbe"),
    *("xsave", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512ifma"),
    "avx512vbmi",
)
# Linux's name in /proc/cpuinfo to LLVM's name of the feature (where they are the same: itself).
_LINUX_TO_LLVM: dict[str, str] = {
    "pni": "sse3",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "lahf_lm": "sahf",
    "bmi1": "bmi",
    "abm": "lzcnt",
    "avx_vnni": "avxvnni",
    "avx512_vnni": "avx512vnni",
    "avx512_bf16": "avx512bf16",
    "avx512_fp16": "avx512fp16",
    "avx512_vbmi2": "avx512vbmi2",
    "avx512_bitalg": "avx512bitalg",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "amx_tile": "amx-tile",
    "amx_int8": "amx-int8",
    "amx_bf16": "amx-bf16",
} | {name: name for name in _SAME}


@functools.cache
def host_features() -> frozenset[str]:
    """Return the features of this processor that kernels may ask for, by LLVM's names.

    Empty on a machine that is not x86-64 Linux.
    """
    path = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not path.exists():
        return frozenset()
    for line in path.read_text().splitlines():
        if line.startswith("flags"):
            flags = line.partition(":")[2].split()
            return frozenset(_LINUX_TO_LLVM[flag] for flag in flags if flag in _LINUX_TO_LLVM)
    return frozenset()


def missing_features(needed: tuple[str, ...] | list[str]) -> list[str]:
    """Return those of ``needed`` (LLVM's names) that this processor lacks, sorted."""
    return sorted(set(needed) - host_features())
