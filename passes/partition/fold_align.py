"""Choose where a layer begins: number the chains so that operands come from the same layer.

A chain's numbers may be shifted. Operations that repeat at the same distance in the same part of
the text (the forward pass, the backward pass, an optimizer's update) are kept in blocks of that
length, so that layers stay in the order of the text; a part may choose where its blocks begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pai.passes.partition.fold_graph import Ints

SWEEPS = 4
TURNS = np.arange(-2, 3)


@dataclass(frozen=True)
class Part:
    """Chains that shift together, each by its block when the first block begins at some place.

    Args:
        chains: their numbers.
        places: the places of their middle members in the text.
        stride: how far one layer's member is from the last layer's; 0 for a single chain.
    """

    chains: Ints
    places: Ints
    stride: int

    def choices(self) -> Ints:
        """Return possible shifts, a column for each choice."""
        if not self.stride:
            return TURNS[None, :]
        begins = self.places[None, :]
        blocks = (self.places[:, None] - begins) // abs(self.stride) * np.sign(self.stride)
        out: Ints = (blocks[:, :, None] + TURNS).reshape(len(self.places), -1)
        return out


def align(count: int, links: Ints, members: Sequence[tuple[int, int, int]]) -> Ints:
    """Return a shift per chain that makes the distances of operands short.

    Args:
        count: the number of chains.
        links: rows (user, source, layers from the user's to the source's).
        members: per chain, the places in the text of the members in three middle layers.
    """
    shifts = np.zeros(count, np.int64)
    by_chain: list[list[int]] = [[] for _ in range(count)]
    for row, (user, source, _) in enumerate(links.tolist()):
        if user != source:
            by_chain[user].append(row)
            by_chain[source].append(row)
    parts = _parts(members)
    local = np.full(count, -1, np.int64)
    for _ in range(SWEEPS):
        before = shifts.copy()
        for part in parts:
            rows = sorted({row for chain in part.chains.tolist() for row in by_chain[chain]})
            if rows:
                local[part.chains] = np.arange(len(part.chains))
                shifts[part.chains] = _choose(part, links[rows], shifts, local)
                local[part.chains] = -1
        if np.array_equal(before, shifts):
            break
    return shifts


def _choose(part: Part, links: Ints, shifts: Ints, local: Ints) -> Ints:
    """Return the shifts of a part's chains that make the sum of distances least."""
    choices = part.choices() + (0 if part.stride else shifts[part.chains[0]])
    user, source, distance = links.T

    def side(chain: Ints) -> Ints:
        own = local[chain]
        return np.where(own[:, None] >= 0, choices[own], shifts[chain][:, None])

    cost = np.abs(distance[:, None] + side(source) - side(user)).sum(axis=0)
    moved = (choices != shifts[part.chains][:, None]).sum(axis=0)
    best = np.lexsort((moved, cost))[0]
    out: Ints = choices[:, best]
    return out


def _parts(members: Sequence[tuple[int, int, int]]) -> list[Part]:
    """Return the parts, largest first."""
    strides: dict[int, list[tuple[int, int]]] = {}
    out: list[Part] = []
    for number, (before, here, after) in enumerate(members):
        if before >= 0 and here - before == after - here:
            strides.setdefault(here - before, []).append((here, number))
        else:
            out.append(Part(np.array([number]), np.array([here]), 0))
    for stride, found in strides.items():
        places, numbers = np.array(sorted(found), np.int64).T
        ends = np.flatnonzero(np.diff(places) > 2 * abs(stride)) + 1
        for chains, at in zip(np.split(numbers, ends), np.split(places, ends), strict=True):
            out.append(Part(chains, at, stride))
    return sorted(out, key=lambda part: -len(part.chains))
