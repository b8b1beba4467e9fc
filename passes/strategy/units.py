"""Times, sizes and their differences as text for people."""

from __future__ import annotations

from collections.abc import Callable


def bytes_text(num_bytes: float) -> str:
    """Return a size for people: ``3.2 GiB``."""
    for unit, scale in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes:.0f} B"


def seconds_text(seconds: float) -> str:
    """Return a time for people: ``3.2 ms``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def signed(value: float, text: Callable[[float], str]) -> str:
    """Return a difference with its sign: ``+3.2 ms``."""
    return ("+" if value >= 0 else "-") + text(abs(value))


def percent_text(value: float, base: float) -> str:
    """Return by how much ``value`` differs from ``base``: ``-7%``, ``+0.3%``."""
    if not base:
        return "new"
    change = value / base - 1
    if abs(change) < 0.0005:
        return "0%"
    return f"{change:+.1%}" if abs(change) < 0.0095 else f"{change:+.0%}"
