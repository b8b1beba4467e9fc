"""Constants whose data lies in the resource section at the end of an MLIR file."""

from __future__ import annotations

import re

_SECTION = re.compile(r"\{-#.*?#-\}", re.DOTALL)
_BLOB = re.compile(r"([\w.$-]+|\"[^\"]*\")\s*:\s*\"0x([0-9A-Fa-f]*)\"")
_ALIGNMENT_DIGITS = 8  # a blob begins with its alignment as a 32-bit number


def inline_resources(text: str) -> str:
    """Replace ``dense_resource<name>`` by ``dense<"0x...">`` with the data of the resource."""
    section = _SECTION.search(text)
    if section is None or "dense_resource<" not in text:
        return text
    blobs = {name.strip('"'): data[_ALIGNMENT_DIGITS:] for name, data in _BLOB.findall(section[0])}

    def inline(match: re.Match[str]) -> str:
        data = blobs.get(match[1].strip('"'))
        return match[0] if data is None else f'dense<"0x{data}">'

    return re.sub(r"dense_resource<([^>]*)>", inline, text[: section.start()])
