"""A JSON text read as strictly as a TOML one: wrong entries become errors with file and line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pai.runtime.topology_table import Document, Table

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')
_Path = tuple[str | int, ...]


@dataclass(frozen=True)
class JsonDocument(Document):
    """One JSON text whose root is an object."""

    def root(self) -> Table:
        """Parse the text; raises ``error`` with the line when it is no JSON object."""
        try:
            data = json.loads(self.text)
        except json.JSONDecodeError as error:
            where = f"{self.where}:{error.lineno}"
            raise self.error(f"not valid JSON: {error.msg}", where, "correct the syntax") from error
        if not isinstance(data, dict):
            raise self.error("not a JSON object", f"{self.where}:1", "write { … } around the keys")
        return Table(data, self, ())

    def line_of(self, path: _Path) -> int:
        """Return the line (from 1) of a key, or of the nearest one around it; 0 when none."""
        best, length = 0, 0
        for found, line in self._keys():
            if found == path[: len(found)] and len(found) > length:
                best, length = line, len(found)
        return best

    def _keys(self) -> Iterator[tuple[_Path, int]]:
        """Yield the path and line of every key and list entry, in the order of the text."""
        stack: list[str | int] = []
        kinds: list[str] = []
        key = ""
        for match in _TOKEN.finditer(self.text):
            token = match[0]
            line = self.text.count("\n", 0, match.start()) + 1
            if kinds and kinds[-1] == "[" and token not in ",]" and isinstance(stack[-1], int):
                yield tuple(stack), line
            if token in "{[":
                kinds.append(token)
                stack.append("" if token == "{" else 0)
            elif token in "}]":
                kinds.pop()
                stack.pop()
            elif token == ":":
                stack[-1] = json.loads(key)
                yield tuple(stack), line
            elif token == "," and isinstance(stack[-1], int):
                stack[-1] += 1
            else:
                key = token
