"""Which segments of a model a pipeline stage holds: ``embedding, layer[0:12]`` as data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pai.runtime.errors import InvalidSharding

_RANGE = re.compile(r"([^\[\],]+?)(?:\[(\d+)(?::(\d+))?\])?")


@dataclass(frozen=True)
class SegmentRange:
    """Consecutive repetitions of one segment.

    Args:
        name: the segment.
        start: the first repetition, from 0.
        stop: one past the last; 0 says all there are.
    """

    name: str
    start: int = 0
    stop: int = 0

    def __str__(self) -> str:
        """Return ``layer[0:12]``, ``layer[3]`` or ``embedding``."""
        if not self.stop:
            return self.name
        one = self.stop == self.start + 1
        return f"{self.name}[{self.start}]" if one else f"{self.name}[{self.start}:{self.stop}]"


def parse_chunk(text: str) -> tuple[SegmentRange, ...]:
    """Return the segments that ``text`` names, separated by commas.

    Raises:
        InvalidSharding: for bad syntax or an empty range.
    """
    out = []
    for part in (piece.strip() for piece in text.split(",")):
        match = _RANGE.fullmatch(part)
        if match is None:
            hint = "write 'embedding', 'layer[3]' or 'layer[0:12]', separated by commas"
            raise InvalidSharding(f"'{part}' is no segment", hint=hint)
        start = int(match[2] or 0)
        stop = int(match[3]) if match[3] else start + 1 if match[2] else 0
        if stop and stop <= start:
            raise InvalidSharding(
                f"'{part}' is empty", hint="the second number is one past the end"
            )
        out.append(SegmentRange(match[1].strip(), start, stop))
    return tuple(out)


def chunk_to_text(ranges: Sequence[SegmentRange]) -> str:
    """Return what ``parse_chunk`` reads."""
    return ", ".join(map(str, ranges))


def check_order(chunks: Sequence[Sequence[SegmentRange]]) -> None:
    """Check that chunks, in the order of execution, leave out and repeat no repetition.

    Raises:
        InvalidSharding: naming the first segment that is out of order.
    """
    done: dict[str, int] = {}  # repetitions so far; -1: all there are
    last = ""
    for part in (part for chunk in chunks for part in chunk):
        before = done.get(part.name, 0)
        if before == -1 or (before and part.name != last):
            raise InvalidSharding(f"segment '{part.name}' comes back after others")
        if part.start != before:
            raise InvalidSharding(
                f"'{part}' follows {before} of '{part.name}'",
                hint=f"the next one starts at {before}",
            )
        done[part.name] = part.stop or -1
        last = part.name


def check_segments(
    chunks: Sequence[Sequence[SegmentRange]], segments: Sequence[tuple[str, int]]
) -> None:
    """Check that chunks hold exactly the segments of a model.

    Args:
        chunks: in the order of execution, as ``check_order`` accepts them.
        segments: (name, repetitions) of the model, first to last.

    Raises:
        InvalidSharding: naming the first segment that is unknown, left out or out of order.
    """
    repeats = dict(segments)
    given: dict[str, int] = {}
    for part in (part for chunk in chunks for part in chunk):
        if part.name not in repeats:
            known = ", ".join(f"{name} x{n}" if n > 1 else name for name, n in segments)
            what = f"the model has no segment '{part.name}'"
            raise InvalidSharding(what, hint=f"it has: {known}")
        given[part.name] = part.stop or repeats[part.name]
    for name, count in segments:
        if given.get(name, 0) != count:
            raise InvalidSharding(f"{given.get(name, 0)} of the {count} '{name}' are in a stage")
    if list(given) != [name for name, _ in segments]:
        order = ", ".join(name for name, _ in segments)
        raise InvalidSharding("the segments are out of order", hint=f"the model's order: {order}")
