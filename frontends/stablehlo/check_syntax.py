"""Rewrite the ``check`` dialect's own syntax to the generic one, which needs no registration."""

from __future__ import annotations

import re

from pai.runtime.errors import InvalidModel

_START = re.compile(r"(?m)^(\s*)check\.(\w+)\b(?!\")")
_OPERAND = re.compile(r"[ \t]*(%[\w$.#-]+)[ \t]*,?")
_CONSTANT = re.compile(r"\s*(?=dense\w*\s*<)")
_OPTION = re.compile(
    r",?[ \t]*(tolerance|max_ulp_difference|min_ulp_difference)[ \t]*=[ \t]*([-+\w.]+)"
    r"(?:[ \t]*:[ \t]*(?:f64|ui64))?"
)
_DICTIONARY = re.compile(r"[ \t]*\{([^}]*)\}")
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
    attributes: list[str] = []
    types: list[str] = []
    while found := _OPERAND.match(text, position):
        operands.append(found[1])
        position = found.end()
    if constant := _CONSTANT.match(text, position):
        position = _attribute_end(text, constant.end())
        value = text[constant.end() : position]
        attributes.append(f"value = {value}")
        types.append(value.rpartition(":")[2].strip())
    while option := _OPTION.match(text, position):
        attributes.append(f"{option[1]} = {option[2]} : {_OPTION_TYPES[option[1]]}")
        position = option.end()
    if dictionary := _DICTIONARY.match(text, position):
        attributes.append(dictionary[1])
        position = dictionary.end()
    line_end = _find(text, "\n", position)
    rest = text[position:line_end].partition("//")[0].strip()
    if rest.startswith(":"):
        types = [part.strip() for part in re.split(r",\s*(?=tensor)", rest[1:])]
    if not operands or not types:
        line = text.count("\n", 0, match.start()) + 1
        raise InvalidModel(f"cannot read this check.{name}", f"{source}:{line}")
    types += types[-1:] * (len(operands) - len(types))
    signature = ", ".join(types[: len(operands)])
    head = f'"check.{name}"({", ".join(operands)})'
    return f"{head} {{{', '.join(attributes)}}} : ({signature}) -> ()", line_end


def _find(text: str, what: str, start: int) -> int:
    """Return where ``what`` begins, or the end of the text."""
    position = text.find(what, start)
    return len(text) if position < 0 else position


def _attribute_end(text: str, start: int) -> int:
    """Return the end of ``dense<...> : tensor<...>`` that starts at ``start``."""
    position = _balanced_end(text, _find(text, "<", start))
    return _balanced_end(text, _find(text, "<", position))


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
