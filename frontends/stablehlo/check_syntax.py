"""Rewrite the ``check`` dialect's own syntax to the generic one, which needs no registration."""

from __future__ import annotations

import re

from pai.runtime.errors import InvalidModel

_START = re.compile(r"(?m)^(\s*)check\.(\w+)\b(?!\")")
_OPERAND = re.compile(r"[ \t]*(%[\w$.#-]+)[ \t]*,?")
_OPTION = re.compile(
    r",?[ \t]*(tolerance|max_ulp_difference|min_ulp_difference)[ \t]*=[ \t]*([-+\w.]+)"
    r"(?:[ \t]*:[ \t]*(?:f64|ui64))?"
)
_OPTION_TYPES = {"tolerance": "f64", "max_ulp_difference": "ui64", "min_ulp_difference": "ui64"}


def to_generic(text: str, source: str) -> str:
    """Return ``text`` with ``check.*`` statements in generic form; line numbers stay the same.

    Args:
        text: an MLIR module.
        source: file name for messages.

    Raises:
        InvalidModel: for a check statement that does not read as one.
    """
    out, position = [], 0
    for match in _START.finditer(text):
        if match.start() < position:
            continue
        out.append(text[position : match.start()])
        statement, position = _statement(text, match, source)
        out.append(match[1] + statement)
    out.append(text[position:])
    return "".join(out)


def _statement(text: str, match: re.Match[str], source: str) -> tuple[str, int]:
    """Return the generic statement, and where the text goes on."""
    name, position = match[2], match.end()
    operands: list[str] = []
    while found := _OPERAND.match(text, position):
        operands.append(found[1])
        position = found.end()
    attributes: list[str] = []
    types: list[str] = []
    if name.endswith("_const"):
        start = re.compile(r"\s*").match(text, position).end()  # type: ignore[union-attr]
        end = _attribute_end(text, start)
        value = text[start:end]
        attributes.append(f"value = {value}")
        types.append(value[value.rindex(" : ") + 3 :].strip())
        position = end
    while option := _OPTION.match(text, position):
        attributes.append(f"{option[1]} = {option[2]} : {_OPTION_TYPES[option[1]]}")
        position = option.end()
    line_end = text.find("\n", position)
    line_end = len(text) if line_end < 0 else line_end
    rest = text[position:line_end].partition("//")[0].strip()
    if rest.startswith(":"):
        types = [part.strip() for part in re.split(r",\s*(?=tensor)", rest[1:])]
    if not operands or not types:
        line = text.count("\n", 0, match.start()) + 1
        raise InvalidModel(f"cannot read this check.{name}", f"{source}:{line}")
    types += types[-1:] * (len(operands) - len(types))
    body = "{" + ", ".join(attributes) + "}"
    signature = ", ".join(types[: len(operands)])
    return f'"check.{name}"({", ".join(operands)}) {body} : ({signature}) -> ()', line_end


def _attribute_end(text: str, start: int) -> int:
    """Return the end of ``dense<...> : tensor<...>`` that starts at ``start``."""
    position = _balanced_end(text, text.index("<", start))
    return _balanced_end(text, text.index("<", position))


def _balanced_end(text: str, start: int) -> int:
    depth = 0
    for index in range(start, len(text)):
        if text[index] == "<":
            depth += 1
        elif text[index] == ">":
            depth -= 1
            if depth == 0:
                return index + 1
    return len(text)
