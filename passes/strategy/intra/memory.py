"""What is in memory at the points of a step where most is: after the forward pass and at its end.

Between the two, what the forward pass saved shrinks while gradients grow. Saved are the values that
the backward pass reads, in the form it takes least to recompute them from: element-wise operations
of one large operand are done again from that operand, as fused kernels do, and attention scores
from queries and keys (Korthikanti et al., "Reducing Activation Recomputation", 2022, counts alike).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

from pai.passes.partition.fold_graph import RESULT_BITS
from pai.passes.strategy.intra.graph import Phase
from pai.passes.strategy.intra.lower import Lowered
from pai.passes.strategy.intra.problem import Held, Problem
from pai.passes.strategy.intra.rules import MOVING

SMALL = 8
"""An operand this many times smaller than another does not count when values are recomputed."""
FORWARD_END, UPDATE = "after the forward pass", "before the update"
_VIEWS = frozenset({"stablehlo.reshape", "stablehlo.optimization_barrier"})
_KEEPS = MOVING | {"stablehlo.convert"}


def add_memory(lowered: Lowered, limit: float, microbatches: int = 1) -> None:
    """Enter the points of memory into the problem.

    Args:
        lowered: the problem without memory.
        limit: bytes of one device.
        microbatches: parts in which the batch is run, one after the other.
    """
    problem = lowered.problem
    problem.limit = limit
    stored = problem.stored = argument_bytes(lowered)
    kept = [replace(h, num_bytes=h.num_bytes / microbatches) for _, h in saved(lowered)]
    problem.memory[FORWARD_END] = [*stored, *kept]
    gradients = gradient_bytes(lowered)
    if gradients:
        problem.memory[UPDATE] = [*stored, *gradients]


def held(lowered: Lowered, value: int, count: int) -> Held:
    """Return the bytes of ``count`` values like this one."""
    tensor = lowered.merged.tensors[value]
    factors = tuple(f for f in lowered.value_factors(value) if f >= 0)
    return Held(lowered.node_of(value), float(tensor.num_bytes * count), factors)


def argument_bytes(lowered: Lowered) -> list[Held]:
    """Return the bytes of arguments."""
    folded = lowered.merged.folded
    out = []
    for number, members in enumerate(folded.members):
        if members[0] < folded.graph.flow.arguments:
            out.append(held(lowered, number << RESULT_BITS, len(members)))
    return out


def gradient_bytes(lowered: Lowered) -> list[Held]:
    """Return the bytes of gradients by weights, as the update takes them."""
    return [
        held(lowered, link.target.value, link.count)
        for link in lowered.merged.links
        if link.result >= 0 and lowered.phase(link.reader) is Phase.WEIGHT
    ]


def saved(lowered: Lowered) -> list[tuple[int, Held]]:
    """Return what the forward pass saves for the backward pass, as (value, bytes)."""
    if lowered.saved is None:
        lowered.saved = _saved(lowered)
    return lowered.saved


def _saved(lowered: Lowered) -> list[tuple[int, Held]]:
    merged, folded = lowered.merged, lowered.merged.folded
    needed: set[int] = set()
    for number in range(len(folded.members)):
        node = folded.representative(number)
        if folded.graph.phase[node] is Phase.FORWARD or merged.light[number]:
            continue
        direct = number not in merged.merging
        for counter in folded.operands[number]:
            for value in counter:
                base, _ = merged.base(value)
                if _is_activation(lowered, base):
                    needed.add(_root(lowered, base, whole=not direct))
    return [
        (value, held(lowered, value, len(folded.members[value >> RESULT_BITS])))
        for value in sorted(needed)
        if merged.group(value) not in lowered.scores and merged.group(value) in lowered.clusters
    ]


def _is_activation(lowered: Lowered, value: int) -> bool:
    folded, merged = lowered.merged.folded, lowered.merged
    node = folded.representative(value >> RESULT_BITS)
    return (
        folded.graph.phase[node] is Phase.FORWARD
        and not merged.light[value >> RESULT_BITS]
        and not folded.graph.stored[node]
    )


def _root(lowered: Lowered, value: int, *, whole: bool) -> int:
    """Return what to save to have a value again.

    Args:
        lowered: the problem.
        value: what is read.
        whole: whether arithmetic may be done again, and not only movements.
    """
    merged, folded = lowered.merged, lowered.merged.folded
    while True:
        number = value >> RESULT_BITS
        name = lowered.name(number)
        allowed = name in _VIEWS
        if lowered.fused:
            allowed = name in _KEEPS or (whole and number in merged.merging)
        if not allowed or name == "stablehlo.reduce":
            return value
        operands: Counter[int] = Counter()
        for counter in folded.operands[number]:
            operands.update(merged.base(v)[0] for v in counter)
        sizes = {v: merged.tensors[v].num_bytes for v in operands if _is_activation(lowered, v)}
        largest = max(sizes.values(), default=0)
        big = [v for v, size in sizes.items() if size * SMALL > largest]
        if len(big) != 1 or largest > 2 * merged.tensors[value].num_bytes:
            return value
        value = big[0]


def boundaries(lowered: Lowered) -> list[tuple[int, Held]]:
    """Return what layers hand to each other in the forward pass, as (value, bytes)."""
    merged, folded = lowered.merged, lowered.merged.folded
    out = []
    for number in sorted(folded.crossing):
        value = number << RESULT_BITS
        if not merged.light[number] and merged.group(value) in lowered.clusters:
            out.append((value, held(lowered, value, len(folded.members[number]))))
    return out


def least_bytes(problem: Problem, axes: tuple[int, ...]) -> float:
    """Return bytes that one device holds at some point, whatever the states."""
    least = 0.0
    for point in problem.memory.values():
        by_node: dict[int, list[Held]] = defaultdict(list)
        for item in point:
            by_node[item.node].append(item)
        total = problem.fixed_bytes
        for number, items in by_node.items():
            node = problem.nodes[number]
            total += min(
                sum(item.bytes(node, state, axes) for item in items) for state in node.states(axes)
            )
        least = max(least, total)
    return least
