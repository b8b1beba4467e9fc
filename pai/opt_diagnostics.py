"""Compare the diagnostics of a run with the comments that announce them.

``// expected-error {{text}}`` on a line announces an error there whose message contains the text;
``@+2``, ``@-1``, ``@above`` and ``@below`` move the line, ``@unknown`` takes any place. The kinds
are error, warning and remark.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pai.dialects import pai
from pai.dialects.mlir import context, ir, parse
from pai.passes.base import run_passes
from pai.runtime.errors import PaiError

if TYPE_CHECKING:
    from pai.opt import Chunk

_EXPECTED = re.compile(
    r"//\s*expected-(error|warning|remark)\s*(?:@([+-]\d+|above|below|unknown))?\s*\{\{(.*?)\}\}"
)
_PLACE = re.compile(r":(\d+):\d+")


@dataclass(frozen=True)
class Diagnostic:
    """One diagnostic that came, or one that was announced.

    Args:
        kind: error, warning or remark.
        line: line in the file, or None for an unknown place.
        text: the message, or a part of it.
    """

    kind: str
    line: int | None
    text: str

    def __str__(self) -> str:
        """Return ``line 3: error: text``."""
        place = f"line {self.line}" if self.line else "unknown place"
        return f"{place}: {self.kind}: {self.text}"


def verify(chunks: Sequence[Chunk], pipeline: str, source: str) -> int:
    """Run the pipeline on each module and compare; return 0 when all agree, else 1.

    A difference is printed on standard error, one line each.
    """
    wrong: list[str] = []
    for chunk in chunks:
        came = collect(chunk.text, pipeline)
        wrong += compare(expected(chunk.text), came)
    for line in wrong:
        print(f"pai-opt: {source}: {line}", file=sys.stderr)
    return 1 if wrong else 0


def expected(text: str) -> list[Diagnostic]:
    """Return the diagnostics that the comments announce."""
    out = []
    for number, line in enumerate(text.splitlines(), 1):
        for kind, at, message in _EXPECTED.findall(line):
            shift = {"": 0, "above": -1, "below": 1}.get(at)
            if at == "unknown":
                out.append(Diagnostic(kind, None, message))
            else:
                out.append(
                    Diagnostic(kind, number + (int(at) if shift is None else shift), message)
                )
    return out


def collect(text: str, pipeline: str) -> list[Diagnostic]:
    """Parse and run; return every diagnostic, errors of our passes included."""
    ctx = context()
    came: list[Diagnostic] = []

    def note(diagnostic: ir.Diagnostic) -> bool:
        kind = str(diagnostic.severity).rpartition(".")[2].lower()
        came.append(Diagnostic(kind, _line(str(diagnostic.location)), diagnostic.message))
        return True

    handler = ctx.attach_diagnostic_handler(note)
    try:
        module = parse(text, "input", ctx)
        run_passes(module, pipeline)
        pai.verify(module)
    except PaiError as error:
        reported = getattr(error.__cause__, "error_diagnostics", [])
        came += [Diagnostic("error", _line(str(d.location)), d.message) for d in reported]
        if not reported:
            came.append(Diagnostic("error", _line(error.where), f"{error.what}; {error.hint}"))
    finally:
        handler.detach()
    return came


def _line(place: str) -> int | None:
    match = _PLACE.search(place)
    return int(match[1]) if match else None


def compare(announced: Sequence[Diagnostic], came: Sequence[Diagnostic]) -> list[str]:
    """Return one line for each diagnostic that is missing or was not announced."""
    left = list(came)
    wrong = []
    for wanted in announced:
        match = next((d for d in left if _fits(wanted, d)), None)
        if match is None:
            wrong.append(f"missing: {wanted}")
        else:
            left.remove(match)
    return wrong + [f"unexpected: {diagnostic}" for diagnostic in left]


def _fits(wanted: Diagnostic, came: Diagnostic) -> bool:
    same_place = wanted.line is None or wanted.line == came.line
    return same_place and wanted.kind == came.kind and wanted.text in came.text
