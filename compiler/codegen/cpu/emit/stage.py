"""Operations with loop nests of their own, and what they need from the kernel around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pai.compiler.codegen.cpu.emit.graph import Node

if TYPE_CHECKING:
    from pai.compiler.codegen.cpu.emit.kernel import StageContext

Write = Callable[["StageContext", Node], None]


@dataclass(frozen=True)
class StageRule:
    """How one operation becomes a stage.

    Args:
        emit: writes the loops; all results are stored when it returns.
        rows: how many leading result dimensions an outer loop may fix.
        last: whether the last result dimension may be cut into ranges (``StageContext.range``).
    """

    emit: Write
    rows: Callable[[Node], int]
    last: Callable[[Node], bool] = lambda node: False


STAGES: dict[str, StageRule] = {}


def stage_rule(
    name: str,
    rows: Callable[[Node], int] = lambda node: 0,
    last: Callable[[Node], bool] = lambda node: False,
) -> Callable[[Write], Write]:
    """Register the loops of an operation."""

    def register(function: Write) -> Write:
        STAGES[name] = StageRule(function, rows, last)
        return function

    return register
