"""Draw cases, run them, judge them.

A case is a program, a mesh, a sharding for each argument, and a mode, all drawn from the case's
family and number. Four cases in a row share a program and differ in the rest.

Modes: ``shardy`` is the whole path, `partition()`. ``raw`` puts a random sharding on every value,
which propagation would not do, so that the localizer meets layouts that do not fit each other;
``tidy`` is raw with the collectives optimized after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from random import Random
from typing import Any

import numpy as np
from harness import compare, device_arguments, localize_raw, lower, prepare, unshard

from generate.bundle import Job, run_jobs
from generate.draw import Family, Program, chance
from generate.layouts import draw_mesh, draw_pieces, draw_sharding
from pai.dialects.mlir import context, func, ir, parse, run_pipeline, to_text
from pai.passes.base import run_passes
from pai.passes.partition.partition import CLEAN_UP, partition
from pai.passes.partition.report import LocalModule
from pai.passes.pipelines import COLLECTIVES
from pai.runtime.errors import PaiError, PassFailure
from pai.runtime.mesh import Mesh, Sharding

LAYOUTS_PER_PROGRAM = 4
DRAWS = 40
# What JAX raises when drawn attributes do not fit together: draw again.
NO_PROGRAM = (ValueError, TypeError, IndexError, NotImplementedError)


@dataclass(frozen=True)
class Lowered:
    """A program as text, its arguments and what one device makes of it.

    ``again`` counts the draws before it that were no program, or had only empty results or NaN.
    """

    program: Program
    text: str
    kinds: tuple[list[str], list[str]]
    expected: list[np.ndarray] = field(default_factory=list)
    fault: str = ""
    again: int = 0


@dataclass(frozen=True)
class Setting:
    """How a program is laid out."""

    mesh: Mesh
    arguments: list[Sharding | None]
    results: list[Sharding | None]
    open_dims: list[bool]
    mode: str
    seed: int

    def sharding(self, rank: int, pick: Random) -> Sharding:
        """Return some sharding for a value in the middle."""
        return draw_sharding(pick, self.mesh, list(draw_pieces(Random(self.seed), self.mesh)), rank)


@dataclass
class Verdict:
    """What became of a case.

    ``right``; ``wrong`` (other values than on one device); ``crashed`` (anything but an answer or
    a clear refusal); ``refused`` (an error that says why); ``oracle`` (XLA could not run it).
    """

    family: str
    number: int
    status: str
    detail: str = ""
    mode: str = ""
    gathered: list[str] = field(default_factory=list)
    again: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)


def draw_programs(family: str, draw: Family, indices: Sequence[int]) -> list[Lowered]:
    """Return programs of a family, run on one device; drawn again while they say nothing.

    Raises:
        RuntimeError: when draw after draw is no program, or has only empty results or NaN.
    """
    out: dict[int, Lowered] = {}
    attempts = dict.fromkeys(indices, 0)
    while attempts:
        drawn = {index: _valid(family, draw, index, attempts) for index in attempts}
        for index, lowered in zip(drawn, with_reference(list(drawn.values())), strict=True):
            attempts[index] += 1
            if lowered.fault or speaks(lowered.expected):
                out[index] = replace(lowered, again=attempts[index] - 1)
                del attempts[index]
    return [out[index] for index in indices]


def _valid(family: str, draw: Family, index: int, attempts: dict[int, int]) -> Lowered:
    """Draw until JAX takes the attributes."""
    why = ""
    while attempts[index] < DRAWS:
        try:
            return lower_program(draw(Random(f"{family} {index} {attempts[index]}")))
        except NO_PROGRAM as error:
            why = f"{type(error).__name__}: {error}"
            attempts[index] += 1
    raise RuntimeError(f"{family} {index}: {DRAWS} draws gave no program; the last: {why}")


def lower_program(program: Program) -> Lowered:
    """Lower a drawn program to text."""
    text = program.function
    if not isinstance(text, str):
        text = lower(text, program.arguments)
    if program.rewrite:
        text = program.rewrite(text)
    return Lowered(program, text, kinds_of(parse(text, "generated", context())))


def kinds_of(module: ir.Module) -> tuple[list[str], list[str]]:
    """Return the types of main's arguments and results."""
    main = main_of(module)
    kind = ir.FunctionType(ir.TypeAttr(main.attributes["function_type"]).value)
    return [str(t) for t in kind.inputs], [str(t) for t in kind.results]


def main_of(module: ir.Module) -> ir.OpView:
    """Return the function called main."""
    return next(
        op
        for op in module.body.operations
        if isinstance(op, func.FuncOp) and ir.StringAttr(op.attributes["sym_name"]).value == "main"
    )


def with_reference(programs: Sequence[Lowered]) -> list[Lowered]:
    """Run programs on one device, but those that bring their results."""
    run = [p for p in programs if p.program.expected is None]
    answers = iter(run_jobs([Job(p.text, [list(p.program.arguments)], p.kinds) for p in run]))
    out = []
    for lowered in programs:
        known = lowered.program.expected
        answer = [list(known)] if known is not None else next(answers)
        if isinstance(answer, str):
            out.append(replace(lowered, fault=answer))
        else:
            out.append(replace(lowered, expected=answer[0]))
    return out


def speaks(results: Sequence[np.ndarray]) -> bool:
    """Whether some result has an element that is a number."""
    return any(
        a.size and not (a.dtype.kind not in "biu" and np.isnan(a.astype(np.complex128)).all())
        for a in results
    )


def draw_setting(pick: Random, lowered: Lowered) -> Setting:
    """Draw mesh, shardings and mode."""
    mesh = lowered.program.mesh or draw_mesh(pick)
    seed = pick.randrange(2**32)
    pieces = draw_pieces(Random(seed), mesh)
    mode = pick.choice(["shardy", "shardy", "raw", "tidy"])
    if lowered.program.mesh:
        mode = "shardy"

    def some(rank: int, part: float) -> Sharding | None:
        return draw_sharding(pick, mesh, pieces, rank) if chance(pick, part) else None

    inputs, outputs = lowered.kinds
    arguments = [some(rank_of(kind), 0.85) for kind in inputs]
    results = [some(rank_of(kind), 0.2) for kind in outputs]
    if mode != "shardy":
        results = [some(rank_of(kind), 1.0) for kind in outputs]
    return Setting(mesh, arguments, results, [chance(pick, 0.3) for _ in inputs], mode, seed)


def rank_of(kind: str) -> int:
    """Return the rank of a tensor type's text, ``tensor<2x3xf32>``."""
    return kind.count("x") - kind.count("complex") if "<" in kind else 0


def localized(lowered: Lowered, setting: Setting) -> LocalModule:
    """Return the local program of a case."""
    module = prepare(
        lowered.text, setting.mesh, setting.arguments, setting.results, setting.open_dims
    )
    if setting.mode == "shardy":
        return partition(module, setting.mesh)
    pick = Random(setting.seed)
    local = localize_raw(module, setting.mesh, lambda rank: setting.sharding(rank, pick))
    if setting.mode == "tidy":
        run_pipeline(module, CLEAN_UP)
        run_passes(module, COLLECTIVES)
        run_pipeline(module, CLEAN_UP)
    return local


@dataclass
class Task:
    """A case on its way."""

    verdict: Verdict
    lowered: Lowered
    setting: Setting
    local: LocalModule | None = None
    job: Job | None = None


def start(family: str, number: int, lowered: Lowered, pick: Random) -> Task:
    """Lay a program out and partition it; a failure is the task's verdict already."""
    setting = draw_setting(pick, lowered)
    verdict = Verdict(family, number, "", mode=setting.mode, again=lowered.again)
    task = Task(verdict, lowered, setting)
    if lowered.fault:
        verdict.status, verdict.detail = "oracle", lowered.fault
        return task
    try:
        task.local = localized(lowered, setting)
        verdict.gathered = sorted({entry.op for entry in task.local.report.replicated})
        text = to_text(task.local.module)
        assert "sdy." not in text, "sdy attributes are left"
        inputs = device_arguments(task.local, lowered.program.arguments)
        kinds = kinds_of(task.local.module)
        task.job = Job(text, inputs, kinds)
    except PassFailure as error:
        verdict.status, verdict.detail = "crashed", str(error)
    except PaiError as error:
        verdict.status, verdict.detail = "refused", str(error)
    except Exception as error:
        verdict.status, verdict.detail = "crashed", f"{type(error).__name__}: {error}"
    return task


def finish(tasks: Sequence[Task]) -> None:
    """Run the local programs, those for equally many devices together, and judge them."""
    waiting: dict[int, list[Task]] = {}
    for task in tasks:
        if task.job:
            waiting.setdefault(len(task.job.inputs), []).append(task)
    for group in waiting.values():
        answers = run_jobs([task.job for task in group if task.job])
        for task, answer in zip(group, answers, strict=True):
            if isinstance(answer, str):
                task.verdict.status, task.verdict.detail = "oracle", answer
            else:
                judge(task, answer)


def judge(task: Task, per_device: Sequence[Sequence[np.ndarray]]) -> None:
    """Compare what the devices hold with the result of one device."""
    local, verdict = task.local, task.verdict
    assert local is not None
    verdict.status = "right"
    for index, want in enumerate(task.lowered.expected):
        parts = [np.asarray(results[index]) for results in per_device]
        try:
            got = unshard(parts, local.result_shardings[index], local.mesh, want.shape)
            compare(got, want, task.lowered.program.tolerance)
        except AssertionError as error:
            verdict.status = "wrong"
            verdict.detail = f"result {index}: {' '.join(str(error).split())[:400]}"
            return


def run_numbers(family: str, draw: Family, numbers: Sequence[int]) -> list[Verdict]:
    """Run cases of a family."""
    indices = sorted({n // LAYOUTS_PER_PROGRAM for n in numbers})
    programs = dict(zip(indices, draw_programs(family, draw, indices), strict=True))
    tasks = [
        start(family, n, programs[n // LAYOUTS_PER_PROGRAM], Random(f"{family} {n} layout"))
        for n in numbers
    ]
    finish(tasks)
    return [task.verdict for task in tasks]


def describe(family: str, draw: Family, number: int) -> str:
    """Return a case for a reader: note, arguments, layout, and the global program."""
    (lowered,) = draw_programs(family, draw, [number // LAYOUTS_PER_PROGRAM])
    setting = draw_setting(Random(f"{family} {number} layout"), lowered)
    lines = [f"{family} {number}: {lowered.program.note}", f"mode {setting.mode}"]
    lines += [f"mesh {setting.mesh.axes}", f"arguments {setting.arguments}"]
    lines += [f"results {setting.results}", lowered.text]
    return "\n".join(lines)
