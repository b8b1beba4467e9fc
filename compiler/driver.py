"""The main line: a model in, a package out, one function per stage, top to bottom."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from pai import frontends
from pai.compiler import package, report
from pai.compiler.codegen.cpu.compile import CompiledKernel, compile_kernels
from pai.compiler.codegen.cpu.target import CpuTarget, parse_target
from pai.compiler.options import STAGES, CompileOptions
from pai.dialects.mlir import ir, parse, to_text
from pai.dialects.program import Program
from pai.passes.base import run_passes
from pai.passes.fuse import FusionReport, fuse
from pai.passes.partition import LocalModule, partition
from pai.passes.pipelines import STAGES as PIPELINES
from pai.passes.schedule import ProgramCode, schedule
from pai.passes.strategy import choose_plan, load_plan
from pai.passes.strategy.inference import Goal, choose_for, require_latency
from pai.passes.strategy.plan import Plan, plan_to_toml
from pai.passes.strategy.plan_check import require_runnable
from pai.passes.strategy.plan_values import apply_plan
from pai.passes.strategy.plan_zero import expand_zero
from pai.passes.strategy.recost import with_insights
from pai.passes.strategy.step_plan import choose_any_plan
from pai.runtime.errors import PaiError
from pai.runtime.program import Call, walk
from pai.runtime.topology import ClusterSpec, load_cluster

T = TypeVar("T")
Progress = Callable[[str, float | None], None]  # (stage, None) at its start, (stage, s) at its end


@dataclass(frozen=True)
class Compilation:
    """Everything one compilation has made so far; a field is set by the stage that makes it.

    Args:
        options: the user's choices.
        model: what the user gave: a path, or a Program (whose module is changed in place).
        output: where the package goes; None when the last stage is not ``link``.
        target: the processor that kernels are made for.
        cluster: the devices.
        seconds: wall time of each finished stage.
        reference: text of the untouched imported module, for verification.
    """

    options: CompileOptions
    model: Path | Program
    output: Path | None
    target: CpuTarget
    cluster: ClusterSpec
    seconds: dict[str, float] = field(default_factory=dict)
    reference: str = ""
    _program: Program | None = None
    _plan: Plan | None = None
    _local: LocalModule | None = None
    _fusion: FusionReport | None = None
    _code: ProgramCode | None = None
    kernels: dict[str, CompiledKernel] = field(default_factory=dict)

    @property
    def program(self) -> Program:
        """The program as imported and simplified (stage ``import``)."""
        return _made(self._program, "import")

    @property
    def plan(self) -> Plan:
        """The chosen or given plan (stage ``strategy``)."""
        return _made(self._plan, "strategy")

    @property
    def local(self) -> LocalModule:
        """The module of one device (stage ``partition``; later stages rewrite it in place)."""
        return _made(self._local, "partition")

    @property
    def fusion(self) -> FusionReport:
        """What the fusion did (stage ``fuse``)."""
        return _made(self._fusion, "fuse")

    @property
    def code(self) -> ProgramCode:
        """The instruction list and buffers (stage ``link``)."""
        return _made(self._code, "link")

    @property
    def peak_bytes(self) -> int:
        """The largest resident memory of this process and of its largest ended child, in bytes."""
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        return 1024 * (own + child)

    @property
    def module(self) -> ir.Module:
        """The module that the last finished stage left."""
        return self._local.module if self._local is not None else self.program.module


def compile_model(
    model: str | os.PathLike[str] | Program,
    options: CompileOptions,
    output: Path | None = None,
    progress: Progress = lambda stage, seconds: None,
) -> Compilation:
    """Take ``model`` through every stage up to ``options.stop_after``.

    Args:
        model: path of a model file, or a Program (whose module is then changed in place).
        options: the user's choices.
        output: where the package goes; needed when the last stage is ``link``.
        progress: told when a stage starts and ends.

    Raises:
        PaiError: a subclass that names what is wrong, where, and what to do.
    """
    last = options.stop_after
    if output is None and last == "link":
        raise PaiError("no path for the package was given", hint="pass an output path (-o)")
    target = parse_target(options.target)
    default = None if options.cluster else 1
    cluster = load_cluster(options.cluster or "cpu", options.devices or default)
    source = model if isinstance(model, Program) else Path(model)
    state = Compilation(options, source, output, target, cluster)
    for stage in STAGES[: STAGES.index(last) + 1]:
        progress(stage, None)
        start = time.perf_counter()
        state = _STAGE_FUNCTIONS[stage](state)
        seconds = time.perf_counter() - start
        state = replace(state, seconds={**state.seconds, stage: seconds})
        progress(stage, seconds)
        if options.dump_dir is not None:
            _dump(options.dump_dir, stage, state.module)
    return state


def _import(state: Compilation) -> Compilation:
    model = state.model
    program = model if isinstance(model, Program) else frontends.load(model, state.options.shapes)
    if state.options.stop_after == STAGES[-1]:
        program.weights.require()
    return replace(state, _program=program, reference=to_text(program.module))


def _simplify(state: Compilation) -> Compilation:
    run_passes(state.program.module, PIPELINES["simplify"])
    return state


def _strategy(state: Compilation) -> Compilation:
    program, options = state.program, state.options
    goal = Goal(options.objective, options.max_latency_s)
    if options.plan is None:
        search = choose_plan if options.runnable else choose_any_plan
        plan = choose_for(goal, program.module, program.signature, state.cluster, search)
    else:
        plan = load_plan(options.plan, program.module, program.signature, state.cluster)
        require_latency(plan, goal.max_latency_s)
    plan = with_insights(plan, program.module, program.signature, state.cluster)
    return replace(state, _plan=plan)


def _partition(state: Compilation) -> Compilation:
    options = state.options
    require_runnable(state.plan, str(options.plan or ""))
    module = clone(state.program.module)
    apply_plan(module, expand_zero(state.plan, state.program.signature))
    local = partition(module, state.plan.mesh, strict=options.strict, dump_dir=options.dump_dir)
    return replace(state, _local=local)


def _fuse(state: Compilation) -> Compilation:
    return replace(state, _fusion=fuse(state.local.module))


def _codegen(state: Compilation) -> Compilation:
    options = state.options
    kernels = compile_kernels(
        state.local.module, state.target, jobs=options.jobs, use_cache=options.cache
    )
    return replace(state, kernels=kernels)


def _link(state: Compilation) -> Compilation:
    code = schedule(state.local.module)
    called = {step.kernel for step in walk(code.code) if isinstance(step, Call)}
    kernels = {name: kernel for name, kernel in state.kernels.items() if name in called}
    state = replace(state, _code=code, kernels=kernels)
    output = _made(state.output, "link")
    package.write_package(
        output,
        state.program,
        state.local,
        state.code,
        state.kernels,
        state.target,
        plan_to_toml(state.plan),
        report.package_facts(state),
        zip=output.suffix == ".zip",
    )
    return state


_STAGE_FUNCTIONS: dict[str, Callable[[Compilation], Compilation]] = {
    "import": _import,
    "simplify": _simplify,
    "strategy": _strategy,
    "partition": _partition,
    "fuse": _fuse,
    "codegen": _codegen,
    "link": _link,
}


def clone(module: ir.Module) -> ir.Module:
    """Return a copy of ``module`` in the same context."""
    with module.context:
        return parse(to_text(module, locations=True), ctx=module.context)


def _made(value: T | None, stage: str) -> T:
    if value is None:
        raise PaiError(f"this needs the stage '{stage}', which did not run", "--stop-after")
    return value


def _dump(folder: Path, stage: str, module: ir.Module) -> None:
    """Write the IR after ``stage`` to ``folder/<number>-<stage>.mlir``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{STAGES.index(stage)}-{stage}.mlir"
    path.write_text(to_text(module, locations=True))
