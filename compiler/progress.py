"""Progress of the stages: a live table on a terminal, one plain line per stage otherwise."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.status import Status


class StageProgress:
    """Says on stderr which stage runs and, when it is done, how long it took.

    Args:
        quiet: say nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self._status: Status | None = None

    def __call__(self, stage: str, seconds: float | None) -> None:
        """Note that ``stage`` starts (seconds is None) or has taken ``seconds``."""
        self._stop()
        if seconds is not None:
            self.console.print(f"{stage:<10} {seconds:8.2f} s")
        elif self.console.is_terminal:
            self._status = self.console.status(stage)
            self._status.start()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show a step that is not a stage of the compiler, such as the verification."""
        self(name, None)
        start = time.perf_counter()
        yield
        self(name, time.perf_counter() - start)

    def __enter__(self) -> StageProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
