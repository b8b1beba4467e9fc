"""Rules: which dimensions of an operation's operands and results go together.

A rule names *factors*, as an einsum does: a dimension is made of zero, one or more factors, major
to minor. All dimensions with a factor are split alike; a dimension without a factor has to be
whole on every device. A factor of no result is reduced over, and the operation's handler combines
the partial results.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pai.passes.partition.layout import Atoms, Grid, Layout

Factors = tuple[int, ...]


@dataclass
class Rule:
    """Factors of one operation.

    Args:
        sizes: size of each factor.
        even: factors that may only be split evenly.
        follow: factors split only where an operand is, for their shards fetch from each other.
        operands: per operand, per dimension, its factors.
        results: per result, per dimension, its factors.
    """

    sizes: list[int] = field(default_factory=list)
    even: set[int] = field(default_factory=set)
    follow: set[int] = field(default_factory=set)
    operands: list[list[Factors]] = field(default_factory=list)
    results: list[list[Factors]] = field(default_factory=list)

    def factor(self, size: int, *, even: bool = False) -> int:
        """Add a factor and return its number."""
        self.sizes.append(size)
        if even:
            self.even.add(len(self.sizes) - 1)
        return len(self.sizes) - 1

    def dims(self, shape: Iterable[int]) -> list[Factors]:
        """Return one new factor for each dimension of ``shape``."""
        return [(self.factor(size),) for size in shape]


def whole(rank: int) -> list[Factors]:
    """Return the dimensions of a tensor that every device needs whole."""
    return [()] * rank


@dataclass(frozen=True)
class Vote:
    """A tensor of the operation, as it is laid out around it."""

    dims: Sequence[Factors]
    layout: Layout
    weight: int
    is_result: bool = False


def assign(rule: Rule, grid: Grid, votes: Iterable[Vote]) -> list[Atoms]:
    """Choose the atoms that split each factor.

    Every tensor votes, with its bytes, for the atoms it is split by now; an atom splits one
    factor only, the heavier first.
    """
    counts: list[dict[Atoms, int]] = [{} for _ in rule.sizes]
    for vote in votes:
        for factors, atoms in zip(vote.dims, vote.layout, strict=True):
            for factor, share in _share(rule, grid, factors, atoms):
                if vote.is_result and factor in rule.follow:
                    continue
                counts[factor][share] = counts[factor].get(share, 0) + vote.weight
    out: list[Atoms] = [()] * len(rule.sizes)
    taken: set[int] = set()
    order = sorted(range(len(counts)), key=lambda f: -max(counts[f].values(), default=0))
    for factor in order:
        if not counts[factor]:
            continue
        best = max(counts[factor], key=lambda atoms: counts[factor][atoms])
        kept = _free_prefix(best, taken)
        if factor in rule.even:
            while rule.sizes[factor] % grid.count(kept):
                kept = kept[:-1]
        out[factor] = kept
        taken |= set(kept)
    _contiguous(rule, grid, out)
    return out


def layout_of(dims: Sequence[Factors], axes: Sequence[Atoms]) -> Layout:
    """Return the layout of a tensor whose dimensions have these factors."""
    return tuple(tuple(a for factor in factors for a in axes[factor]) for factors in dims)


def _share(rule: Rule, grid: Grid, factors: Factors, atoms: Atoms) -> list[tuple[int, Atoms]]:
    """Deal the atoms of a dimension out to its factors, major to minor."""
    if not atoms or not factors:
        return []
    if len(factors) == 1:
        return [(factors[0], atoms)]
    out: list[tuple[int, Atoms]] = []
    rest = atoms
    for factor in factors:
        taken: Atoms = ()
        while rest and rule.sizes[factor] % grid.count((*taken, rest[0])) == 0:
            taken, rest = (*taken, rest[0]), rest[1:]
        if taken:
            out.append((factor, taken))
        if grid.count(taken) != rule.sizes[factor]:
            break
    return out


def _free_prefix(atoms: Atoms, taken: set[int]) -> Atoms:
    for index, atom in enumerate(atoms):
        if atom in taken:
            return atoms[:index]
    return atoms


def _contiguous(rule: Rule, grid: Grid, axes: list[Atoms]) -> None:
    """Drop splits of minor factors whose major ones are not split to single elements."""
    changed = True
    while changed:
        changed = False
        for dims in (*rule.operands, *rule.results):
            for factors in dims:
                full = True
                for factor in factors:
                    if not full and axes[factor]:
                        axes[factor] = ()
                        changed = True
                    full = full and grid.count(axes[factor]) == rule.sizes[factor]
