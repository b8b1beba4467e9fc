"""``pai-plan``: compare, show and check plan files, and list what they can name."""

from __future__ import annotations

import argparse
import json
import os
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pai.runtime.errors import InfeasiblePlan, InvalidCluster, InvalidSharding, PaiError

if TYPE_CHECKING:
    from pai.compiler.driver import Compilation
    from pai.passes.strategy.plan import Plan

SAME, DIFFERENT, TROUBLE = 0, 1, 2
INTERRUPTED = 130
PLAIN_WIDTH = 140  # columns of a page that is not for a terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``pai-plan`` and return its exit code; errors are one line on stderr."""
    arguments = _parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's notes are not ours to print
    try:
        return int(arguments.run(arguments))
    except (PaiError, OSError, zipfile.BadZipFile) as error:
        return _fail(str(error), TROUBLE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return TROUBLE
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except Exception as error:
        if os.environ.get("PAI_DEBUG"):
            raise
        text = " ".join(str(error).split())[:300]
        return _fail(
            f"internal error: {type(error).__name__}: {text}; set PAI_DEBUG=1 for the traceback",
            TROUBLE,
        )


def _fail(message: str, code: int) -> int:
    print(f"pai-plan: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _read(path: Path) -> Plan:
    # Imported here so that --help and wrong usage do not wait for the compiler stack.
    from pai.passes.strategy.plan import parse_plan, read_plan  # noqa: PLC0415

    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as package:
            return parse_plan(package.read("plan.toml").decode(), f"{path}/plan.toml").plan
    return read_plan(path / "plan.toml" if path.is_dir() else path).plan


def _page() -> dict[str, Any]:
    """Return width and color of what is printed."""
    terminal = sys.stdout.isatty()
    return {"width": Console().width if terminal else PLAIN_WIDTH, "color": terminal}


def _diff(arguments: argparse.Namespace) -> int:
    from pai.passes.strategy.plan_diff import diff_plans  # noqa: PLC0415
    from pai.passes.strategy.plan_diff_text import diff_to_json, diff_to_text  # noqa: PLC0415

    diff = diff_plans(_read(arguments.before), _read(arguments.after))
    if arguments.json:
        print(json.dumps(diff_to_json(diff), indent=2))
    elif diff.differs:
        before, after = str(arguments.before), str(arguments.after)
        print(diff_to_text(diff, before, after, **_page()), end="")
    return DIFFERENT if diff.differs else SAME


def _show(arguments: argparse.Namespace) -> int:
    plan = _read(arguments.plan)
    if arguments.json:
        print(plan.to_json(), end="")
    else:
        print(plan.explain(**_page()), end="")
    return SAME


def _trace(arguments: argparse.Namespace) -> int:
    from pai.passes.strategy.pipeline.trace import write_trace  # noqa: PLC0415
    from pai.passes.strategy.plan_trace import simulated  # noqa: PLC0415

    plan = _read(arguments.plan)
    course = simulated(plan)
    write_trace(arguments.output, course, plan.strategy)
    facts = {"seconds": course.total, "bubble_fraction": course.bubble_fraction}
    if arguments.json:
        print(json.dumps(facts, indent=2))
    else:
        print(f"{arguments.output}: {course.total:.4g} s, {course.bubble_fraction:.0%} bubble")
    return SAME


def _check(arguments: argparse.Namespace) -> int:
    given = _read(arguments.plan)
    try:
        plan = _load(arguments, given).plan
    except (InvalidSharding, InvalidCluster, InfeasiblePlan) as error:
        if arguments.json:
            facts = {"fits": False, "where": error.where, "what": error.what, "hint": error.hint}
            print(json.dumps(facts, indent=2))
            return DIFFERENT
        return _fail(str(error), DIFFERENT)
    cannot_run = _why_not_runnable(plan)
    if arguments.json:
        facts = {"fits": True, "runnable": not cannot_run, "why_not_runnable": cannot_run}
        print(json.dumps(facts | {"plan": json.loads(plan.to_json())}, indent=2))
        return SAME
    if arguments.explain:
        print(plan.explain(**_page()), end="")
    else:
        from pai.passes.strategy.explain import headline  # noqa: PLC0415

        print("\n".join(headline(plan)))
    print(f"note: {cannot_run}" if cannot_run else "the plan fits the model and the cluster")
    return SAME


def _load(arguments: argparse.Namespace, given: Plan) -> Compilation:
    from pai.compiler.driver import compile_model  # noqa: PLC0415
    from pai.compiler.options import CompileOptions  # noqa: PLC0415
    from pai.compiler.progress import StageProgress  # noqa: PLC0415

    path = arguments.plan / "plan.toml" if arguments.plan.is_dir() else arguments.plan
    options = CompileOptions(
        devices=arguments.devices or given.num_devices * given.replicas,
        cluster=arguments.cluster or given.cluster,
        shapes=tuple(arguments.shape),
        plan=path,
        stop_after="strategy",
    )
    with StageProgress(quiet=arguments.json) as progress:
        return compile_model(arguments.model, options, None, progress)


def _values(arguments: argparse.Namespace) -> int:
    from pai.compiler.driver import compile_model  # noqa: PLC0415
    from pai.compiler.options import CompileOptions  # noqa: PLC0415
    from pai.passes.strategy.plan_values import value_types  # noqa: PLC0415

    options = CompileOptions(shapes=tuple(arguments.shape), stop_after="simplify")
    found = value_types(compile_model(arguments.model, options).program.module)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(f"{key}  {shape}" for key, shape in found.items()))
    return SAME


def _why_not_runnable(plan: Plan) -> str:
    from pai.passes.strategy.plan_check import require_runnable  # noqa: PLC0415

    try:
        require_runnable(plan)
    except PaiError as error:
        return error.what
    return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pai-plan",
        description="Compare, show and check plan files; a package stands for the plan inside it.",
        epilog="Exit codes: 0 same or fits, 1 differs or does not fit, 2 trouble, 130 interrupted.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    diff = _command(commands, "diff", _diff, "say what differs between two plans")
    diff.add_argument("before", type=Path, metavar="A.toml")
    diff.add_argument("after", type=Path, metavar="B.toml")
    show = _command(commands, "show", _show, "say what a plan file says, without its model")
    show.add_argument("plan", type=Path, metavar="PLAN.toml")
    check = _command(commands, "check", _check, "hold a plan to a model and a cluster, and cost it")
    add = check.add_argument
    add("plan", type=Path, metavar="PLAN.toml")
    add("model", metavar="MODEL", help="ONNX file, or StableHLO module")
    add("--cluster", default="", metavar="NAME|FILE.toml", help="default: the one in the plan")
    add("--devices", type=int, metavar="N", help="default: those of the plan")
    add("--shape", action="append", default=[], metavar="DIM=N,...", help="binds open dimensions")
    add("--explain", action="store_true", help="say why, and what other choices would cost")
    trace = _command(commands, "trace", _trace, "write a plan's step as a Chrome trace (Perfetto)")
    trace.add_argument("plan", type=Path, metavar="PLAN.toml")
    trace.add_argument("-o", "--output", type=Path, default=Path("step.json"), metavar="FILE.json")
    values = _command(
        commands, "values", _values, "list the values that [values] of a plan can name"
    )
    values.add_argument("model", metavar="MODEL", help="ONNX file, or StableHLO module")
    values.add_argument("--shape", action="append", default=[], metavar="DIM=N,...",
                        help="binds open dimensions")  # fmt: skip
    return parser


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    return parser


if __name__ == "__main__":
    sys.exit(main())
