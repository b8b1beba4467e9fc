"""``pai-compile``: the command that turns a model into a package."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pai.runtime.errors import PackageError, PaiError

INTERRUPTED = 130
INTERNAL_ERROR = 70


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``pai-compile`` and return its exit code; errors are one line on stderr."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except PaiError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written", INTERRUPTED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(
            f"{where}{error.strerror or error}; free some space or choose another folder",
            PackageError.exit_code,
        )
    except Exception as error:
        if os.environ.get("PAI_DEBUG"):
            raise
        text = " ".join(str(error).split())[:300]
        return _fail(
            f"internal error in the compiler: {type(error).__name__}: {text}; "
            "set PAI_DEBUG=1 for the traceback and report it with the model",
            INTERNAL_ERROR,
        )


def _fail(message: str, code: int) -> int:
    print(f"pai-compile: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _run(arguments: argparse.Namespace) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's notes are not ours to print
    # Imported here so that --help and argument errors do not wait for the compiler stack.
    from pai.compiler.driver import compile_model  # noqa: PLC0415
    from pai.compiler.options import CompileOptions  # noqa: PLC0415
    from pai.compiler.progress import StageProgress  # noqa: PLC0415
    from pai.compiler.report import print_summary, summary  # noqa: PLC0415
    from pai.compiler.verify import verify_package  # noqa: PLC0415

    options = CompileOptions(
        devices=arguments.devices,
        cluster=arguments.cluster,
        target=arguments.target,
        shapes=tuple(arguments.shape),
        plan=arguments.plan,
        objective=arguments.objective,
        max_latency_s=None if arguments.max_latency is None else arguments.max_latency / 1e3,
        runnable=arguments.stop_after != "strategy",
        strict=arguments.strict,
        stop_after=arguments.stop_after,
        dump_dir=arguments.dump_dir,
        jobs=arguments.jobs,
        cache=not arguments.no_cache,
    )
    with StageProgress(quiet=arguments.json) as progress:
        state = compile_model(arguments.model, options, _output_path(arguments), progress)
        verification = None
        if arguments.verify and state.output is not None:
            with progress.step("verify"):
                verification = verify_package(state.program, state.reference, state.output)
    if arguments.json:
        print(json.dumps(summary(state, verification), indent=2))
    else:
        print_summary(state, verification, why=arguments.explain)
    return 0


def _output_path(arguments: argparse.Namespace) -> Path | None:
    if arguments.stop_after != "link":
        return None
    return arguments.output or Path(Path(arguments.model).stem + ".pai")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pai-compile",
        description="Turn a model into a package that runs on N devices.",
        epilog="Exit codes: 0 done, 2 wrong usage, 3-15 the kind of error named, 130 interrupted.",
    )
    # fmt: off
    add = parser.add_argument
    add("model", metavar="MODEL", help="ONNX file, or StableHLO module (text, bytecode, artifact)")
    add("-o", "--output", type=Path, metavar="OUT.pai",
        help="the package (default: the model's name with .pai); a name ending in .zip is one file")
    add("--devices", type=int, metavar="N", help="number of devices (default: the cluster's, or 1)")
    add("--cluster", default="", metavar="NAME|FILE.toml", help="built-in profile or cluster file")
    add("--target", default="cpu", help="cpu, or cpu:LEVEL (x86-64-v2, x86-64-v3, x86-64-v4, host)")
    add("--shape", action="append", default=[], metavar="DIM=N,... | INPUT:1,3,48,320",
        help="binds open dimensions, or fixes an input (INPUT:=VALUE); may be repeated")
    add("--plan", type=Path, metavar="FILE", help="use this plan file instead of searching")
    add("--objective", default="latency", choices=("latency", "throughput", "devices"),
        help="the least time of a run (default), most runs a second of copies, or fewest devices")
    add("--max-latency", type=float, metavar="MS", help="milliseconds that a run may take at most")
    add("--verify", action="store_true",
        help="run the package and compare it with XLA (and onnxruntime) on random inputs")
    add("--explain", action="store_true", help="say why the plan was chosen and what lost")
    add("--strict", action="store_true", help="refuse to replicate an operand for want of a rule")
    add("--stop-after", default="link", metavar="STAGE",
        help="import, simplify, strategy, partition, fuse, codegen or link")
    add("--dump-dir", type=Path, metavar="DIR", help="keep the IR after every stage")
    add("--jobs", type=int, default=2, metavar="N", help="processes that compile kernels")
    add("--no-cache", action="store_true", help="compile every kernel anew")
    add("--json", action="store_true", help="print the summary as JSON and nothing else")
    # fmt: on
    return parser


if __name__ == "__main__":
    sys.exit(main())
