"""Progress on stderr, with a time estimate: a bar on a terminal, a line now and then elsewhere."""

import logging
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)

_LINE_EVERY = 30.0  # seconds between lines where there is no terminal


class Task:
    """One long piece of work, counted in units.

    Args:
        description: What is being done.
        total: Number of units.
    """

    def __init__(self, description: str, total: int) -> None:
        self._total = total
        self._done = 0
        self._description = description
        self._last_line = self._start = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(description, total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, description: str) -> None:
        """Change the description."""
        self._description = description
        self._bar.update(self._task, description=description)

    def advance(self, units: int = 1, *, free: bool = False) -> None:
        """Count units as done; `free` ones were there already and do not count for the estimate."""
        if free:
            self._total -= units
            self._bar.update(self._task, total=self._total)
            return
        self._done += units
        self._bar.update(self._task, advance=units)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line > _LINE_EVERY and self._done < self._total:
            self._last_line = now
            left = (now - self._start) / self._done * (self._total - self._done)
            logger.info("%s: %d of %d, about %.0f s left", self._description, self._done, self._total, left)
