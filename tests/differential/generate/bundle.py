"""Several modules run as one, so that XLA compiles once for many small programs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from generate.oracle import sayable
from pai.compiler.reference import QUICK_COMPILE, run_reference_spmd

_MAIN = re.compile(r"func\.func (?:public )?@main\(")
_SYMBOL = re.compile(r"@([\w.$-]+)")


@dataclass(frozen=True)
class Job:
    """A module and, per device, its arguments."""

    text: str
    inputs: list[list[np.ndarray]]
    kinds: tuple[list[str], list[str]]  # types of arguments and of results


def run_jobs(jobs: Sequence[Job]) -> list[list[list[np.ndarray]] | str]:
    """Run jobs on the same number of devices; return the results per device, or what XLA said.

    A bundle that XLA refuses is split until the refused module stands alone.
    """
    if not jobs:
        return []
    try:
        return list(_run(jobs))
    except Exception:
        if len(jobs) == 1:
            return [_alone(jobs[0])]
    half = len(jobs) // 2
    return run_jobs(jobs[:half]) + run_jobs(jobs[half:])


def _alone(job: Job) -> list[list[np.ndarray]] | str:
    """Run a job with XLA's usual options, which run some programs that the quick ones do not."""
    try:
        return _run([job], {})[0]
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _run(
    jobs: Sequence[Job], options: Mapping[str, bool | int | str] = QUICK_COMPILE
) -> list[list[list[np.ndarray]]]:
    devices = range(len(jobs[0].inputs))
    inputs = [[a for job in jobs for a in job.inputs[device]] for device in devices]
    flat = run_reference_spmd(merge(jobs), inputs, options)
    out, at = [], 0
    for job in jobs:
        end = at + len(job.kinds[1])
        out.append([results[at:end] for results in flat])
        at = end
    return out


def merge(jobs: Sequence[Job]) -> str:
    """Return one module whose main calls the mains of all jobs."""
    bodies, parameters, calls, returned, types = [], [], [], [], []
    for index, job in enumerate(jobs):
        inputs, outputs = job.kinds
        bodies.append(_renamed(sayable(job.text), f"j{index}_"))
        names = [f"%a{index}_{k}" for k in range(len(inputs))]
        parameters += [f"{name}: {kind}" for name, kind in zip(names, inputs, strict=True)]
        calls.append(
            f"%r{index}:{len(outputs)} = func.call @j{index}_main({', '.join(names)})"
            f" : ({', '.join(inputs)}) -> ({', '.join(outputs)})"
        )
        returned += [f"%r{index}#{k}" for k in range(len(outputs))]
        types += outputs
    return (
        "module {\n" + "\n".join(bodies) + "\nfunc.func public @main("
        f"{', '.join(parameters)}) -> ({', '.join(types)}) {{\n" + "\n".join(calls) + "\n"
        f"return {', '.join(returned)} : {', '.join(types)}\n}}\n}}\n"
    )


def _renamed(text: str, prefix: str) -> str:
    """Return what stands in a module, its functions private and renamed."""
    names = set(re.findall(r"func\.func (?:public |private )?@([\w.$-]+)", text))
    text = _SYMBOL.sub(lambda m: f"@{prefix}{m[1]}" if m[1] in names else m[0], text)
    text = re.sub(r"func\.func (?:public |private )?@", "func.func private @", text)
    if text.startswith("module"):
        text = text[text.index("\n") : text.rindex("}")]
    return text
