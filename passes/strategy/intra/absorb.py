"""Fewer clusters: those that only serve one other are laid out as it is."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pai.passes.strategy.intra.merge import Link, Merged


def absorb(out: Merged, stored: set[int]) -> None:
    """Unify clusters that only serve one other.

    These are statistics of a normalization, reduced from a cluster and broadcast back into it, and
    moments, read and replaced by one update.
    """
    for _ in range(8):
        links: dict[int, list[Link]] = defaultdict(list)
        for link in out.links:
            for end, other in ((link.source, link.target), (link.target, link.source)):
                if end.value >= 0 and (
                    other.heavy >= 0 or out.group(other.value) != out.group(end.value)
                ):
                    links[out.group(end.value)].append(link)
        roots = {out.group(value) for value in stored}
        changed = False
        for group, found in sorted(links.items()):
            changed |= _absorb_group(out, group, found, group in roots)
        if not changed:
            return


def _absorb_group(out: Merged, group: int, links: list[Link], stored: bool) -> bool:
    others = set()
    for link in links:
        if link.source.heavy >= 0 or link.target.heavy >= 0:
            return False
        others |= {out.group(link.source.value), out.group(link.target.value)} - {group}
    if len(others) != 1:
        return False
    leaving = [link for link in links if out.group(link.source.value) == group]
    if stored:
        whole = all(
            len(link.tensor.shape) == len(out.tensors[link.target.value].shape) for link in leaving
        )
    else:
        whole = any(link.place >= 0 and not link.summed for link in leaving)
    if not leaving or not whole:
        return False
    for link in leaving:
        if link.summed:
            continue
        for a, b in zip(link.source.dims, link.target.dims, strict=True):
            if a >= 0 and b >= 0:
                out.dims.join(a, b)
        out.values.join(out.index[link.source.value], out.index[link.target.value])
    return True
