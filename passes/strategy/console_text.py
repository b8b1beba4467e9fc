"""Tables as plain text of a given width."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich.console import Console, RenderableType


def render(parts: Iterable[RenderableType], *, width: int, color: bool) -> str:
    """Return ``parts`` one below the other, without blanks at line ends.

    Args:
        parts: what rich can print.
        width: columns of the text.
        color: whether to write terminal colour codes.
    """
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        no_color=not color,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
    )
    for part in parts:
        console.print(part)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
