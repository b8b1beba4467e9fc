"""What a pass is, and the table that finds one by name."""

from __future__ import annotations

import dataclasses
import importlib
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from pai.dialects.mlir import ir, run_pipeline
from pai.passes.pipelines import split
from pai.passes.registry import REGISTRY
from pai.runtime.errors import PassFailure


@dataclass(frozen=True)
class Pass:
    """A rewrite of a module in place; the fields of a subclass are its options."""

    name: ClassVar[str] = ""

    def run(self, module: ir.Module) -> None:
        """Rewrite ``module`` in place; raises PassFailure or a more precise PaiError."""
        raise NotImplementedError


def find(name: str) -> type[Pass]:
    """Return the class of the pass called ``name``; raises PassFailure when there is none."""
    if name not in REGISTRY:
        raise PassFailure(f"unknown pass '{name}'", hint="pai-opt --list-passes shows all names")
    module_name, _, class_name = REGISTRY[name].partition(":")
    found: type[Pass] = getattr(importlib.import_module(module_name), class_name)
    return found


def create(name: str, options: dict[str, str] | None = None) -> Pass:
    """Return the pass called ``name`` with its options given as text.

    Raises:
        PassFailure: for an unknown pass, option, or option value.
    """
    cls = find(name)
    fields = {f.name.replace("_", "-"): f for f in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for key, text in (options or {}).items():
        if key not in fields:
            raise PassFailure(
                f"pass '{name}' has no option '{key}'",
                hint="its options: " + (", ".join(fields) or "none"),
            )
        values[fields[key].name] = _convert(name, key, text, str(fields[key].type))
    return cls(**values)


def _convert(name: str, key: str, text: str, kind: str) -> Any:
    try:
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        return {"int": int, "float": float}.get(kind, str)(text)
    except (KeyError, ValueError) as error:
        raise PassFailure(
            f"option '{key}' of pass '{name}' wants a {kind}, not '{text}'"
        ) from error


def parse_pipeline(text: str) -> list[tuple[str, dict[str, str]]]:
    """Split ``a,b{x=1 y=2},func.func(c)`` into (name, options) pairs; nested passes stay whole."""
    out: list[tuple[str, dict[str, str]]] = []
    for item in split(text):
        match = re.fullmatch(r"(pai-[\w-]+)(?:\{(.*)\})?", item, re.DOTALL)
        if match:
            pairs = (pair.partition("=") for pair in (match[2] or "").split())
            out.append((match[1], {key: value for key, _, value in pairs}))
        else:
            out.append((item, {}))
    return out


def run_passes(module: ir.Module, pipeline: str) -> None:
    """Run our passes and upstream ones, in one pipeline string, on ``module`` in place."""
    for name, options in parse_pipeline(pipeline):
        if name.startswith("pai-"):
            create(name, options).run(module)
        else:
            run_pipeline(module, name)
