"""solve_intra: the layouts of a program on a mesh that take the least modelled time and fit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from pai.dialects.mlir import ir
from pai.dialects.program import Role, Signature
from pai.passes.strategy.annotate import annotate, main_function
from pai.passes.strategy.intra.coster import Coster, charged, memory_bytes
from pai.passes.strategy.intra.descent import Descended, descend, refine
from pai.passes.strategy.intra.fold import fold_graph
from pai.passes.strategy.intra.graph import read_module
from pai.passes.strategy.intra.ilp import Limits
from pai.passes.strategy.intra.layouts import Constraint, Layouts, constrain, gathered_arguments
from pai.passes.strategy.intra.lower import Lowered, lower
from pai.passes.strategy.intra.memory import add_memory, least_bytes
from pai.passes.strategy.intra.merge import merge
from pai.passes.strategy.intra.prices import Prices
from pai.passes.strategy.intra.problem import State, steps
from pai.passes.strategy.intra.recompute import recompute_layers
from pai.passes.strategy.intra.tasks import Tasks
from pai.passes.strategy.plan import Plan, TensorLayout
from pai.passes.strategy.workload import Workload
from pai.runtime.errors import InfeasiblePlan
from pai.runtime.mesh import Mesh
from pai.runtime.topology import ClusterSpec

BINDING, TOLERANCE = 0.95, 1e-6
"""Part of the memory from which on recomputation is tried; what counts as not over the limit."""


@dataclass(frozen=True)
class IntraOptions:
    """How the search works.

    Args:
        fold: search one of the layers that repeat.
        orders: orders of the axes to try.
        refine_s: seconds for each program over several axes after them; 0 leaves them out, and
            then no gap is known for meshes of several axes.
        joint_states: most states of all nodes together for which all axes are solved at once;
            beyond, two at a time.
        prove: look for a tighter bound where the relaxation's is far away, for ``refine_s`` more.
        limits: of each program over one axis.
        microbatches: parts in which the batch is run: activations shrink, and what is gathered
            from storage is gathered for every part.
        recompute: ``none``, ``full``, or ``auto``: full where the memory binds and it is faster.
        fused: whether the kernels are those of accelerators: attention is one, and element-wise
            values are computed again instead of saved. Else the module counts as it is written.
        must_fit: raise when nothing fits the memory, instead of returning what exceeds it least.
    """

    fold: bool = True
    orders: int = 1
    refine_s: float = 20.0
    joint_states: int = 4000
    prove: bool = False
    limits: Limits = field(default_factory=Limits)
    microbatches: int = 1
    recompute: str = "auto"
    fused: bool = True
    must_fit: bool = True


@dataclass(frozen=True)
class IntraCollective:
    """Collectives of one kind over some mesh axes.

    Args:
        kind: all_reduce, all_gather, reduce_scatter, all_to_all.
        axes: mesh axes.
        count: how many of a step, all layers counted.
        num_bytes: of the larger side of one device's tensors, summed.
        seconds: modelled time, summed, before any is hidden.
        hidden: whether compute may hide them.
    """

    kind: str
    axes: tuple[str, ...]
    count: int
    num_bytes: int
    seconds: float
    hidden: bool


@dataclass(frozen=True)
class IntraSolution:
    """What the search found.

    Args:
        mesh: the mesh.
        arguments: (name, layout) of every argument, in order.
        constraints: layouts of values inside, where propagation alone would not get there.
        time_s: modelled seconds of a step.
        compute_s: the kernels' part.
        memory_bytes: most bytes of one device.
        memory: bytes by point of the step.
        collectives: what moves.
        recompute: ``none``, or ``full`` for the repeated layers.
        gap: how far ``time_s`` is above the proven bound at most, relative; None when no bound of
            the joint program is known.
        pair_gap: where the joint program is too large, the same for any two axes with the others
            as they are.
        timed_out: whether a time limit struck; then the result may differ from run to run.
        states: the solver's own form, per node.
        lowered: the solver's problem, without recomputation.
        prices: what it was solved with.
        parameters: the arguments that are parameters, by number.
    """

    mesh: Mesh
    arguments: tuple[tuple[str, TensorLayout], ...]
    constraints: tuple[Constraint, ...]
    time_s: float
    compute_s: float
    memory_bytes: int
    memory: tuple[tuple[str, int], ...]
    collectives: tuple[IntraCollective, ...]
    recompute: str
    gap: float | None
    pair_gap: float | None
    timed_out: bool
    states: tuple[State, ...] = field(repr=False)
    lowered: Lowered = field(repr=False, compare=False)
    prices: Prices = field(repr=False, compare=False)
    parameters: frozenset[int] = field(repr=False)

    def workload(self, microbatches: int = 1) -> Workload:
        """Return what one device does for one of ``microbatches`` parts of the batch."""
        coster = Coster(self.lowered.problem, self.prices)
        return Tasks(self.lowered, coster, self.states, self.parameters, microbatches).workload()


def solve_intra(
    module: ir.Module,
    signature: Signature,
    mesh: Mesh,
    cluster: ClusterSpec,
    memory_limit_bytes: float = math.inf,
    options: IntraOptions = IntraOptions(),
) -> IntraSolution:
    """Return layouts of a program on a mesh.

    Args:
        module: simplified; not changed.
        signature: its arguments and results; results that update arguments tell a training step.
        mesh: its axes; positions are device numbers of the cluster.
        cluster: devices and links.
        memory_limit_bytes: what one device may hold.
        options: how to search.

    Raises:
        InfeasiblePlan: when nothing fits the memory, unless ``options.must_fit`` is not set.
    """
    lowered = read_problem(module, signature, memory_limit_bytes, options)
    return solve_problem(lowered, signature, mesh, cluster, options)


def read_problem(
    module: ir.Module,
    signature: Signature,
    memory_limit_bytes: float,
    options: IntraOptions = IntraOptions(),
) -> Lowered:
    """Return the problem of a module; it can be solved for many meshes.

    Args:
        module: simplified; not changed, and to be kept while the problem is in use.
        signature: its arguments and results.
        memory_limit_bytes: what one device may hold.
        options: ``fold``, ``fused`` and ``microbatches`` count.
    """
    graph = read_module(main_function(module).operation, signature)
    merged = merge(fold_graph(graph, fold=options.fold))
    lowered = lower(merged, options.microbatches, fused=options.fused)
    add_memory(lowered, memory_limit_bytes, options.microbatches)
    return lowered


def solve_problem(
    lowered: Lowered,
    signature: Signature,
    mesh: Mesh,
    cluster: ClusterSpec,
    options: IntraOptions = IntraOptions(),
) -> IntraSolution:
    """Return layouts of the program of ``read_problem`` on a mesh; see ``solve_intra``."""
    prices = Prices(mesh, cluster)
    found = []
    limit = lowered.problem.limit
    again = recompute_layers(lowered) if options.recompute != "none" else None
    hopeless = least_bytes(lowered.problem, prices.sizes) > limit
    if again is None or (options.recompute == "auto" and not hopeless):
        found.append(_search(lowered, prices, options, "none"))
    if again is not None and (not found or found[0].used > BINDING * limit):
        found.append(_search(again, prices, options, "full"))
    best = min(found, key=lambda f: (f.used > limit * (1 + TOLERANCE), f.best.objective))
    if options.refine_s and len(mesh.axes) > 1:
        best = best.refined(options)
    if options.must_fit and best.used > limit * (1 + TOLERANCE):
        raise _infeasible(best.memory, limit, mesh)
    return _solution(best, lowered, signature, mesh)


@dataclass(frozen=True)
class _Found:
    lowered: Lowered
    coster: Coster
    best: Descended
    recompute: str

    @property
    def memory(self) -> dict[str, float]:
        return memory_bytes(self.coster, self.best.states)

    @property
    def used(self) -> float:
        return max(self.memory.values(), default=self.lowered.problem.fixed_bytes)

    def refined(self, options: IntraOptions) -> _Found:
        """Solve several axes at once."""
        limits = replace(options.limits, seconds=options.refine_s)
        problem = self.lowered.problem
        best = refine(
            problem, self.coster, self.best, limits, options.joint_states, prove=options.prove
        )
        return replace(self, best=best)


def _search(lowered: Lowered, prices: Prices, options: IntraOptions, recompute: str) -> _Found:
    """Solve axis by axis."""
    coster = Coster(lowered.problem, prices)
    best = descend(lowered.problem, coster, options.limits, options.orders)
    return _Found(lowered, coster, best, recompute)


def _solution(found: _Found, lowered: Lowered, signature: Signature, mesh: Mesh) -> IntraSolution:
    coster, states, objective = found.coster, found.best.states, found.best.objective
    layouts = Layouts(found.lowered, states, mesh)
    shardings = layouts.arguments([len(value.shape) for value in signature.arguments])
    gathered = gathered_arguments(found.lowered, states)
    gap, pair_gap = (
        None if bound is None else max(0.0, (objective - bound) / max(objective, 1e-12))
        for bound in (found.best.bound, found.best.pair_bound)
    )
    return IntraSolution(
        mesh=mesh,
        arguments=tuple(
            (value.name, TensorLayout(sharding, (int(n in gathered),) * len(sharding.dims)))
            for n, (value, sharding) in enumerate(zip(signature.arguments, shardings, strict=True))
        ),
        constraints=layouts.constraints(),
        time_s=objective,
        compute_s=sum(coster.node(n, state) for n, state in enumerate(states)),
        memory_bytes=int(found.used),
        memory=tuple((point, int(size)) for point, size in found.memory.items()),
        collectives=_collectives(coster, states, mesh),
        recompute=found.recompute,
        gap=gap,
        pair_gap=pair_gap,
        timed_out=found.best.timed_out,
        states=tuple(states),
        lowered=lowered,
        prices=coster.prices,
        parameters=frozenset(
            i for i, value in enumerate(signature.arguments) if value.role is Role.PARAMETER
        ),
    )


def apply_solution(module: ir.Module, solution: IntraSolution) -> None:
    """Write a solution's mesh, layouts and constraints into its simplified module, in place."""
    annotate(module, Plan(solution.mesh, solution.arguments))
    if solution.mesh.num_devices > 1:
        constrain(module, solution.constraints, solution.mesh)


def _collectives(coster: Coster, states: list[State], mesh: Mesh) -> tuple[IntraCollective, ...]:
    total: dict[tuple[str, tuple[int, ...], bool], list[float]] = {}
    for edge, _ in charged(coster, states):
        p, q = edge.source_spec(states[edge.source]), edge.target_spec(states[edge.target])
        for step in steps(edge, p, q, coster.prices.sizes):
            entry = total.setdefault((step.kind, step.axes, edge.hidden), [0, 0, 0])
            seconds = coster.prices.collective(step.kind, step.num_bytes, step.axes)
            for i, amount in enumerate((1, step.num_bytes, seconds)):
                entry[i] += edge.count * amount
    return tuple(
        IntraCollective(
            kind, tuple(mesh.axes[a][0] for a in axes), int(count), int(size), seconds, hidden
        )
        for (kind, axes, hidden), (count, size, seconds) in sorted(total.items())
    )


def _infeasible(memory: dict[str, float], limit: float, mesh: Mesh) -> InfeasiblePlan:
    point = max(memory, key=lambda p: memory[p])
    return InfeasiblePlan(
        f"no layout on the mesh {mesh} fits: {memory[point] / 1e9:.1f} GB {point}, of "
        f"{limit / 1e9:.1f} GB a device",
        hint="use more devices, more microbatches or recomputation",
    )
