"""choose_plan: model the candidate layouts of a program and take the fastest that fits.

Every candidate gets a quick estimate (``estimate.py``). The plain baselines (replicated, all
devices on the batch, all on the weights, all storage) are then propagated and partitioned for
real, and the cost of the *local* module counts, so that what propagation and the partitioner add
is paid for. The others follow, the most promising first: by their estimate times the error that
the estimate made on the last candidate of the same family, until none promises to win. A
candidate that cannot be partitioned is an alternative with its reason. Last come the solutions of
the integer program over the module's operations (``solved.py``), on one axis and on two. The chosen
plan is never modelled worse than any other that fits.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pai.dialects.mlir import ir, parse, to_text
from pai.dialects.program import Role, Signature
from pai.dialects.sdy import mesh_from_module
from pai.passes.partition import LocalModule, partition
from pai.passes.strategy.annotate import has_shardings, user_shardings
from pai.passes.strategy.candidates import (
    Candidate,
    enumerate_candidates,
    user_mesh_candidates,
)
from pai.passes.strategy.cost import Cost, cost_local_module
from pai.passes.strategy.estimate import Estimate, Estimator
from pai.passes.strategy.explain import largest, why_lost
from pai.passes.strategy.feasible import nearest_changes
from pai.passes.strategy.plan import Alternative, Plan, Prediction
from pai.passes.strategy.plan_values import apply_plan
from pai.passes.strategy.solved import solved_candidates
from pai.passes.strategy.units import bytes_text
from pai.runtime.errors import InfeasiblePlan, InvalidSharding, PaiError
from pai.runtime.mesh import Mesh
from pai.runtime.topology import ClusterSpec


@dataclass(frozen=True)
class SearchOptions:
    """How much the search may do.

    Args:
        operations: operations to partition in all, over the candidates besides the baselines.
        fewest: candidates besides the baselines that may be modelled however large the program.
        most: candidates besides the baselines that may be modelled at most.
        slack: a candidate is tried while it promises at most this multiple of the best time.
    """

    operations: int = 8000
    fewest: int = 2
    most: int = 8
    slack: float = 2.0


def choose_plan(
    module: ir.Module,
    signature: Signature,
    cluster: ClusterSpec,
    *,
    options: SearchOptions = SearchOptions(),
) -> Plan:
    """Return the plan with the least modelled time among those that fit the devices' memory.

    Args:
        module: the simplified global module; not changed. Shardings it brings are kept.
        signature: names, roles and types of its arguments and results.
        cluster: the devices.
        options: how much to try.

    Raises:
        InfeasiblePlan: when nothing fits; names what takes the memory and what would help.
        InvalidSharding: when the model's own mesh has another number of devices.
    """
    search = _Search(module, signature, cluster)
    candidates = search.candidates()
    estimates = {c.name: search.estimator.estimate(c) for c in candidates}
    search.model(_baselines(candidates, estimates))
    size = sum(1 for f in module.body.operations for r in f.regions for b in r for _ in b)
    for _ in range(max(options.fewest, min(options.most, options.operations // max(size, 1)))):
        promising = search.most_promising(candidates, estimates, options.slack)
        if promising is None:
            break
        search.model([promising])
    for candidate, estimate in search.solved():
        candidates.append(candidate)
        estimates[candidate.name] = estimate
        search.model([candidate])
    if not search.fitting():
        # The quick estimates misjudged the memory: try those that should need least.
        by_memory = sorted(candidates, key=lambda c: (estimates[c.name].memory_bytes, c.name))
        search.model([c for c in by_memory if c.name not in search.tried][: max(options.fewest, 3)])
    return search.choose(candidates, estimates)


def partition_copy(module: ir.Module, plan: Plan) -> LocalModule:
    """Return the program of one device under a plan's layouts; ``module`` is not changed."""
    with module.context:
        text = to_text(module, locations=bool(plan.values))
        copy = parse(text, ctx=module.context)
    apply_plan(copy, plan)
    return partition(copy, plan.mesh)


def predict_plan(
    plan: Plan, module: ir.Module, signature: Signature, cluster: ClusterSpec
) -> Prediction:
    """Return the modelled cost of a plan's layouts after propagation and partitioning.

    Args:
        plan: mesh and layouts; its pipeline is left out.
        module: the simplified global module; not changed.
        signature: its arguments and results.
        cluster: the devices.
    """
    return _Search(module, signature, cluster).predict(plan)


def _baselines(candidates: list[Candidate], estimates: dict[str, Estimate]) -> list[Candidate]:
    """Return the best-estimated plain layout of each family."""
    out: dict[tuple[bool, bool, str, bool], Candidate] = {}
    for candidate in sorted(candidates, key=lambda c: (estimates[c.name].time_s, c.name)):
        if candidate.is_baseline:
            out.setdefault(candidate.family, candidate)
    return list(out.values())


@dataclass
class _Search:
    """The candidates of one program, what they cost, and why some could not be modelled."""

    module: ir.Module
    signature: Signature
    cluster: ClusterSpec
    scored: dict[str, tuple[Candidate, Prediction]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.given = frozenset(user_shardings(self.module))
        self.mesh = mesh_from_module(self.module) if has_shardings(self.module) else None
        if self.mesh is not None and self.mesh.num_devices != self.cluster.num_devices:
            raise InvalidSharding(
                f"the model is sharded over a mesh of {self.mesh.num_devices} devices "
                f"{dict(self.mesh.axes)} but cluster '{self.cluster.name}' has "
                f"{self.cluster.num_devices}",
                hint=f"pass --devices {self.mesh.num_devices}",
            )
        self.whole = cost_local_module(self.module, Mesh(), self.cluster)
        self.estimator = Estimator(self.module, self.signature, self.cluster, self.whole)

    @property
    def tried(self) -> set[str]:
        return set(self.scored) | set(self.failed)

    def candidates(self) -> list[Candidate]:
        if self.cluster.num_devices == 1:
            return [Candidate("one device", Mesh(), ())]
        if self.mesh is not None:
            return user_mesh_candidates(self.module, self.signature, self.mesh, self.given)
        return enumerate_candidates(
            self.module, self.signature, self.cluster.num_devices, self.given
        )

    def solved(self) -> list[tuple[Candidate, Estimate]]:
        """Return the candidates of the integer program; none beside shardings of the user's."""
        if self.mesh is not None or self.cluster.num_devices == 1:
            return []
        return solved_candidates(self.module, self.signature, self.cluster)

    def model(self, candidates: list[Candidate]) -> None:
        """Model candidates in full; a failure is recorded, never raised."""
        for candidate in candidates:
            try:
                plan = Plan(candidate.mesh, candidate.arguments, values=candidate.values)
                self.scored[candidate.name] = (candidate, self.predict(plan))
            except PaiError as error:
                self.failed[candidate.name] = f"cannot be partitioned: {error.what}"

    def most_promising(
        self, candidates: list[Candidate], estimates: dict[str, Estimate], slack: float
    ) -> Candidate | None:
        """Return the untried candidate that is likeliest to win; None when none is likely to."""
        errors: dict[tuple[bool, bool, str, bool], float] = {}
        for name, (candidate, predicted) in self.scored.items():
            estimate = estimates[name].time_s
            errors[candidate.family] = predicted.time_s / estimate if estimate else 1.0

        def promise(candidate: Candidate) -> float:
            return estimates[candidate.name].time_s * errors.get(candidate.family, 1.0)

        best = min((p.time_s for _, p in self.fitting()), default=float("inf"))
        limit = self.cluster.memory_bytes
        rest = [
            c
            for c in candidates
            if c.name not in self.tried
            and estimates[c.name].memory_bytes <= limit
            and promise(c) <= slack * best
        ]
        return min(rest, key=lambda c: (promise(c), c.name), default=None)

    def predict(self, plan: Plan) -> Prediction:
        """Return the modelled cost of ``plan`` after propagation and partitioning."""
        if self.mesh is None and not (plan.arguments or plan.patterns or plan.values):
            return prediction_of(self.whole, self.signature)  # every device runs the whole program
        if plan.mesh.num_devices == 1:
            return prediction_of(self.whole, self.signature)
        local = partition_copy(self.module, plan)
        cost = cost_local_module(local.module, plan.mesh, self.cluster)
        return prediction_of(cost, self.signature)

    def fitting(self) -> list[tuple[Candidate, Prediction]]:
        limit = self.cluster.memory_bytes
        return [pair for pair in self.scored.values() if pair[1].memory_bytes <= limit]

    def choose(self, candidates: list[Candidate], estimates: dict[str, Estimate]) -> Plan:
        fitting = self.fitting()
        if not fitting:
            raise self.infeasible(candidates, estimates)
        order = [c.name for c in candidates]
        best, predicted = min(fitting, key=lambda pair: (
            pair[1].time_s, pair[1].memory_bytes, order.index(pair[0].name)
        ))  # fmt: skip
        return Plan(
            mesh=best.mesh,
            arguments=best.arguments,
            values=best.values,
            strategy=best.name,
            cluster=self.cluster.name,
            device_memory_bytes=self.cluster.memory_bytes,
            predicted=predicted,
            alternatives=self.alternatives(best, predicted, candidates, estimates),
        )

    def alternatives(
        self,
        best: Candidate,
        chosen: Prediction,
        candidates: list[Candidate],
        estimates: dict[str, Estimate],
    ) -> tuple[Alternative, ...]:
        """Return the losers: those that fit by time, then the rest."""
        modelled = [pair for pair in self.scored.values() if pair[0] is not best]
        modelled.sort(key=lambda pair: (
            pair[1].memory_bytes > self.cluster.memory_bytes, pair[1].time_s, pair[0].name
        ))  # fmt: skip
        out = [
            Alternative(
                candidate.name,
                why_lost(predicted, chosen, self.cluster.memory_bytes),
                predicted.time_s,
                predicted.memory_bytes,
            )
            for candidate, predicted in modelled
        ]
        out += [Alternative(name, reason) for name, reason in sorted(self.failed.items())]
        rest = [c for c in candidates if c.name not in self.tried]
        rest.sort(key=lambda c: (estimates[c.name].time_s, c.name))
        reference = estimates[best.name].time_s
        for candidate in rest[:10]:
            ratio = estimates[candidate.name].time_s / reference if reference else 1.0
            reason = f"first estimate only, {ratio:.2f} times that of the chosen plan"
            if estimates[candidate.name].memory_bytes > self.cluster.memory_bytes:
                reason += "; would not fit"
            out.append(Alternative(candidate.name, reason))
        return tuple(out)

    def infeasible(
        self, candidates: list[Candidate], estimates: dict[str, Estimate]
    ) -> InfeasiblePlan:
        """Return the error that names the binding constraint and the nearest change that helps."""
        limit = self.cluster.memory_bytes
        if not self.scored:
            name, reason = next(iter(self.failed.items()))
            return InfeasiblePlan(f"no layout can be partitioned; '{name}' {reason}")
        best, need = min(
            self.scored.values(), key=lambda pair: (pair[1].memory_bytes, pair[0].name)
        )
        return InfeasiblePlan(
            f"no plan fits: the smallest ('{best.name}') needs {bytes_text(need.memory_bytes)} "
            f"of {bytes_text(limit)} a device, most of it {largest(need)}",
            self.cluster.name,
            nearest_changes(need, self.signature, self.cluster, self.enough_devices(), best.data),
        )

    def enough_devices(self) -> int | None:
        """Return a number of devices on which a layout fits by estimate; None without one."""
        devices = self.cluster.num_devices
        for _ in range(8 if self.mesh is None else 0):
            devices *= 2
            wider = replace(self.cluster, scale=True).take(devices)
            estimator = Estimator(self.module, self.signature, wider, self.whole)
            found = enumerate_candidates(self.module, self.signature, devices, self.given)
            least = min(estimator.estimate(c).memory_bytes for c in found)
            if least <= self.cluster.memory_bytes:
                return devices
        return None


def prediction_of(cost: Cost, signature: Signature) -> Prediction:
    """Return ``cost`` with the memory by role of the arguments and results."""
    sizes = dict.fromkeys(Role, 0)
    for value, size in zip(signature.arguments, cost.argument_bytes, strict=True):
        sizes[value.role] += size
    return Prediction(
        time_s=cost.time_s,
        compute_s=cost.compute_s,
        memory_bound_s=cost.memory_bound_s,
        communication_s=cost.communication_s,
        overhead_s=cost.overhead_s,
        parameter_bytes=sizes[Role.PARAMETER],
        state_bytes=sizes[Role.STATE],
        input_bytes=sizes[Role.INPUT],
        output_bytes=sum(cost.result_bytes),
        temporary_bytes=cost.peak_temporary_bytes,
        fragmentation_bytes=cost.fragmentation_bytes,
        collectives=cost.collectives,
    )
