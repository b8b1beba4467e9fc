"""Which ONNX operators are covered, and how: writes docs/onnx-coverage.md.

Run ``python -m benchmarks.onnx_coverage`` after adding an operator.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from pai.frontends.onnx import ops
from pai.frontends.onnx.registry import registered

PAGE = Path(__file__).resolve().parent.parent / "docs" / "onnx-coverage.md"
_LOADED = ops.__all__
_DOMAINS = ("", "ai.onnx.preview.training", "ai.onnx.ml")


def rows(domain: str) -> list[tuple[str, str, str]]:
    """Return (operator, how it is covered, schema versions) of a domain, sorted by name."""
    table = registered()
    history: dict[str, list[onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == domain:
            history.setdefault(schema.name, []).append(schema)
    found = []
    for name, schemas in sorted(history.items()):
        newest = max(schemas, key=lambda schema: schema.since_version)
        if (domain, name) in table:
            how = "lowered"
        elif newest.has_function or newest.has_context_dependent_function:
            how = "by its function body"
        else:
            how = "no"
        versions = ", ".join(str(schema.since_version) for schema in sorted(schemas, key=_since))
        found.append((name, how, versions))
    return found


def _since(schema: onnx.defs.OpSchema) -> int:
    return int(schema.since_version)


def page() -> str:
    """Return the page's text."""
    lines = [
        "# ONNX operators",
        "",
        "Written by `python -m benchmarks.onnx_coverage`; do not edit. *Lowered* operators have a",
        "handler in `frontends/onnx/ops/`; the others run by the function body that ONNX defines,",
        "or are refused with the name of the node. Opsets 1 to "
        f"{onnx.defs.onnx_opset_version()} are read.",
    ]
    for domain in _DOMAINS:
        table = rows(domain)
        covered = sum(how != "no" for _, how, _ in table)
        lines += [
            "",
            f"## {domain or 'ai.onnx'}: {covered} of {len(table)}",
            "",
            "| operator | covered | schema versions |",
            "|---|---|---|",
            *(f"| {name} | {how} | {versions} |" for name, how, versions in table),
        ]
    others: dict[str, list[str]] = {}
    for domain, name in registered():
        if domain not in _DOMAINS:
            others.setdefault(domain, []).append(name)
    for domain, names in sorted(others.items()):
        lines += ["", f"## {domain}: {len(names)} lowered", "", ", ".join(sorted(names))]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
