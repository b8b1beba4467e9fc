"""Reading TOML tables strictly: every wrong, missing or unknown key becomes a precise error."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass, field
from typing import Any

from pai.runtime.errors import PaiError

REQUIRED = object()
_PART = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)"""
_KEY = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")


@dataclass(frozen=True)
class Document:
    """One TOML text: where it is from, and which error its entries raise."""

    text: str
    where: str
    error: type[PaiError]

    def root(self) -> Table:
        """Parse the text; raises ``error`` with the line when it is not TOML."""
        try:
            return Table(tomllib.loads(self.text), self, ())
        except tomllib.TOMLDecodeError as error:
            line = re.search(r"at line (\d+)", str(error))
            where = f"{self.where}:{line[1]}" if line else self.where
            raise self.error(f"not valid TOML: {error}", where, "correct the syntax") from error

    def line_of(self, path: tuple[str | int, ...]) -> int:
        """Return the line (from 1) of a key, or of the nearest table around it; 0 when none."""
        best, length = 0, 0
        section: tuple[str | int, ...] = ()
        counts: dict[tuple[str | int, ...], int] = {}
        for number, line in enumerate(self.text.splitlines(), 1):
            header = re.match(r"\s*\[\[?(.+?)\]\]?\s*(#.*)?$", line)
            if header:
                section = _inside(_header(header[1]), counts)
                if line.lstrip().startswith("[["):
                    counts[section] = counts.get(section, -1) + 1
                    section = (*section, counts[section])
                found = section
            elif (match := _KEY.match(line)) is not None:
                found = (*section, *_header(match[1]))
            else:
                continue
            if found == path[: len(found)] and len(found) > length:
                best, length = number, len(found)
        return best


def _inside(
    section: tuple[str | int, ...], counts: dict[tuple[str | int, ...], int]
) -> tuple[str | int, ...]:
    """Return ``section`` with the number of the last entry of each array that it lies in."""
    for length in range(1, len(section)):
        if section[:length] in counts:
            section = (*section[:length], counts[section[:length]], *section[length:])
    return section


def _header(text: str) -> tuple[str | int, ...]:
    try:
        data: Any = tomllib.loads(f"[{text}]")
    except tomllib.TOMLDecodeError:
        return ()
    out: list[str] = []
    while isinstance(data, dict) and data:
        name, data = next(iter(data.items()))
        out.append(name)
    return tuple(out)


@dataclass
class Table:
    """A TOML table that knows its place and which of its keys were read."""

    data: dict[str, Any]
    document: Document
    path: tuple[str | int, ...]
    seen: set[str] = field(default_factory=set)

    def error(self, key: str, what: str, hint: str = "") -> PaiError:
        """Return the document's error about ``key`` of this table, with file and line."""
        path = (*self.path, key)
        line = self.document.line_of(path)
        where = f"{self.document.where}:{line}" if line else self.document.where
        name = ".".join(str(part) for part in path)
        return self.document.error(f"key '{name}' {what}", where, hint)

    def get(self, key: str, default: Any, kinds: tuple[type, ...], kind: str) -> Any:
        """Return the value of ``key`` after a check of its type."""
        self.seen.add(key)
        value = self.data.get(key, default)
        if value is REQUIRED:
            raise self.error(key, "is missing", f"add it: {kind}")
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise self.error(key, f"must be {kind}, not {value!r}")
        return value

    def text(self, key: str, default: Any = REQUIRED) -> str:
        """Return a string."""
        return str(self.get(key, default, (str,), "a string"))

    def texts(self, key: str, default: Any = REQUIRED) -> tuple[str, ...]:
        """Return a list of strings."""
        kind = "a list of strings"
        value = self.get(key, default, (list, tuple), kind)
        if not all(isinstance(item, str) for item in value):
            raise self.error(key, f"must be {kind}, not {value!r}")
        return tuple(value)

    def integers(self, key: str, default: Any = REQUIRED) -> tuple[int, ...]:
        """Return a list of whole numbers."""
        kind = "a list of whole numbers"
        value = self.get(key, default, (list, tuple), kind)
        if not all(isinstance(item, int) and not isinstance(item, bool) for item in value):
            raise self.error(key, f"must be {kind}, not {value!r}")
        return tuple(value)

    def boolean(self, key: str, default: Any = REQUIRED) -> bool:
        """Return true or false."""
        return bool(self.get(key, default, (bool,), "true or false"))

    def integer(self, key: str, default: Any = REQUIRED, *, least: int) -> int:
        """Return an integer that is at least ``least``."""
        value = self.get(key, default, (int,), "an integer")
        if value < least:
            raise self.error(key, f"must be at least {least}, not {value}")
        return int(value)

    def number(
        self, key: str, default: Any = REQUIRED, *, zero: bool = False, most: float = math.inf
    ) -> float:
        """Return a finite positive number of at most ``most``; ``zero`` allows 0."""
        value = float(self.get(key, default, (int, float), "a number"))
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            kind = "non-negative" if zero else "positive"
            raise self.error(key, f"must be a {kind} number, not {value:g}")
        if value > most:
            raise self.error(key, f"must be at most {most:g}, not {value:g}")
        return value

    def table(self, key: str, *, required: bool = True) -> Table:
        """Return the table ``key``; an empty one when it is missing and not required."""
        data = self.get(key, REQUIRED if required else {}, (dict,), "a table")
        return Table(data, self.document, (*self.path, key))

    def tables(self, key: str, *, required: bool = True) -> dict[str, Table]:
        """Return the tables inside the table ``key``, by name."""
        outer = self.table(key, required=required)
        return {name: outer.table(name) for name in outer.data}

    def array(self, key: str, *, required: bool = True) -> list[Table]:
        """Return an array of tables."""
        kind = f"an array of tables ([[{key}]])"
        items = self.get(key, REQUIRED if required else [], (list,), kind)
        if not all(isinstance(item, dict) for item in items):
            raise self.error(key, f"must be {kind}")
        if required and not items:
            raise self.error(key, "is empty")
        return [Table(item, self.document, (*self.path, key, i)) for i, item in enumerate(items)]

    def finish(self) -> None:
        """Raise an error when the table has a key that nobody read."""
        unknown = sorted(set(self.data) - self.seen)
        if unknown:
            known = ", ".join(sorted(self.seen))
            raise self.error(unknown[0], "is unknown", f"known keys here: {known}")
