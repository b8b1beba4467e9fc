"""Write docs/passes.md from the docstrings of the registered passes.

``python tools/gen_passes_doc.py`` writes the page; ``--check`` only says whether it is up to date.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from pathlib import Path

from pai.passes.base import find
from pai.passes.pipelines import STAGES
from pai.passes.registry import REGISTRY

PAGE = Path(__file__).resolve().parent.parent / "docs" / "passes.md"
HEAD = """# Passes

Written by `tools/gen_passes_doc.py` from the docstrings; edit those. Run a pass on MLIR text with
`pai-opt FILE -p "name{option=value},..."`; upstream passes may stand in the same pipeline.

"""


def page() -> str:
    """Return the text of docs/passes.md."""
    stages = "\n".join(
        f"- `{stage}`: " + ", ".join(f"`{item}`" for item in pipeline.split(","))
        for stage, pipeline in STAGES.items()
    )
    sections = [_section(name) for name in sorted(REGISTRY)]
    return f"{HEAD}## Stages\n\n{stages}\n\n" + "\n".join(sections)


def _section(name: str) -> str:
    cls = find(name)
    lines = [f"## {name}", "", _as_markdown(inspect.getdoc(cls) or "")]
    options = [field for field in dataclasses.fields(cls) if field.init]
    if options:
        lines += ["", "| option | type | default |", "|---|---|---|"]
        lines += [
            f"| `{field.name.replace('_', '-')}` | {field.type} | `{field.default}` |"
            for field in options
        ]
    return "\n".join(lines) + "\n"


def _as_markdown(doc: str) -> str:
    """Turn ``::`` blocks into fenced ones, and double backquotes into single ones."""
    out: list[str] = []
    in_block = False
    lines = doc.replace("``", "`").splitlines()
    for index, line in enumerate(lines):
        if in_block and line and not line.startswith(" "):
            while out and not out[-1]:
                out.pop()
            out += ["```", ""]
            in_block = False
        if line.endswith("::") and not in_block:
            out += [line[:-1], "", "```mlir"]
            in_block = True
        elif in_block:
            if line or (out[-1] != "```mlir" and any(lines[index:])):
                out.append(line.removeprefix("    "))
        else:
            out.append(line)
    return "\n".join([*out, "```"] if in_block else out)


def main(argv: list[str]) -> int:
    """Write the page, or check it; return the exit code."""
    text = page()
    if "--check" in argv:
        if not PAGE.exists() or PAGE.read_text() != text:
            print("docs/passes.md is out of date: run python tools/gen_passes_doc.py")
            return 1
        return 0
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
