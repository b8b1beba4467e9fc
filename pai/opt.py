"""``pai-opt``: run passes on MLIR text, for tests and for looking at what a pass does."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pai.dialects import pai
from pai.dialects.mlir import first_diagnostic, ir, parse, to_text
from pai.passes.base import find, run_passes
from pai.passes.pipelines import expand
from pai.passes.registry import REGISTRY
from pai.runtime.errors import InvalidModel, PaiError

INTERRUPTED = 130
INTERNAL_ERROR = 70
SEPARATOR = re.compile(r"(?m)^// -----[ \t]*\r?$\n?")


@dataclass(frozen=True)
class Chunk:
    """One module of the input.

    Args:
        text: the module, padded in front so that line numbers are those of the file.
        line: the first line of the module in the file, from 1.
    """

    text: str
    line: int


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``pai-opt`` and return its exit code; errors are one line on stderr."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except PaiError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("PAI_DEBUG"):
            raise
        return _fail(
            f"internal error in a pass: {type(error).__name__}: {str(error)[:300]}; "
            "set PAI_DEBUG=1 for the traceback",
            INTERNAL_ERROR,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pai-opt", description="Run passes on MLIR text and print the result."
    )
    parser.add_argument("file", nargs="?", default="-", help="input; - is standard input")
    parser.add_argument(
        "-p",
        "--pipeline",
        default="",
        help="passes, ours (pai-...) and upstream ones, or stage names such as simplify",
    )
    parser.add_argument("-o", "--output", default="-", help="output; - is standard output")
    parser.add_argument(
        "--split-input-file", action="store_true", help="handle modules between // ----- apart"
    )
    parser.add_argument(
        "--verify-diagnostics",
        action="store_true",
        help="check errors against comments: // expected-error @+1 {{part of the message}}",
    )
    parser.add_argument("--print-locations", action="store_true", help="print loc(...)")
    parser.add_argument("--list-passes", action="store_true", help="list our passes and leave")
    return parser


def _fail(message: str, code: int) -> int:
    print(f"pai-opt: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _run(arguments: argparse.Namespace) -> int:
    if arguments.list_passes:
        print("\n".join(f"{name:28} {summary}" for name, summary in pass_table()))
        return 0
    source, text = _read(arguments.file)
    chunks = split(text) if arguments.split_input_file else [Chunk(text, 1)]
    pipeline = expand(arguments.pipeline)
    if arguments.verify_diagnostics:
        # Imported here: only tests need it.
        from pai.opt_diagnostics import verify  # noqa: PLC0415

        return verify(chunks, pipeline, source)
    out = [transform(chunk.text, pipeline, source, arguments.print_locations) for chunk in chunks]
    _write(arguments.output, "// -----\n\n".join(out))
    return 0


def pass_table() -> Iterator[tuple[str, str]]:
    """Yield the name and the first docstring line of every pass."""
    for name in sorted(REGISTRY):
        yield name, (find(name).__doc__ or "").strip().splitlines()[0]


def split(text: str) -> list[Chunk]:
    """Split at lines ``// -----``; empty modules at the end are dropped."""
    chunks, start = [], 0
    ends = [*SEPARATOR.finditer(text), None]
    for end in ends:
        body = text[start : end.start() if end else len(text)]
        if body.strip():
            before = text.count("\n", 0, start)
            chunks.append(Chunk("\n" * before + body, before + 1))
        start = end.end() if end else len(text)
    return chunks


def transform(text: str, pipeline: str, source: str, locations: bool = False) -> str:
    """Parse a module, run the pipeline, verify, and return the module's text.

    Raises:
        PaiError: of a pass, with the location in the input where it is known.
    """
    module = parse(text, source)
    run_passes(module, pipeline)
    try:
        valid = module.operation.verify()
    except ir.MLIRError as error:
        message, place = first_diagnostic(error)
        raise InvalidModel(f"the result is not valid: {message}", place) from error
    if not valid:
        raise InvalidModel("the result is not valid", source)
    pai.verify(module)
    return to_text(module, locations=locations)


def _read(file: str) -> tuple[str, str]:
    if file == "-":
        return "<stdin>", sys.stdin.read()
    try:
        return file, Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidModel(f"cannot be read ({error})", file) from error


def _write(file: str, text: str) -> None:
    if file == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        Path(file).write_text(text)
    except OSError as error:
        raise PaiError(f"cannot be written ({error.strerror})", file) from error


if __name__ == "__main__":
    sys.exit(main())
