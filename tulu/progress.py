"""A progress bar with the figures that matter on a terminal, and a line now and then in a log."""

import logging
import math
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

log = logging.getLogger("tulu")

SHOWN = ("loss", "nll", "accuracy", "reward", "solved", "kl")
"""Metrics worth a place in the bar, in this order."""
LOG_EVERY = 15.0
"""Seconds between lines where there is no terminal."""


class Progress:
    """How far a stage is, how fast it goes and how well it does."""

    def __init__(self, name: str, total: int, done: int, shown: bool) -> None:
        self.name, self.total, self.done = name, total, done
        self.shown = shown
        self.on_terminal = shown and sys.stderr.isatty()
        self._spoke = -math.inf
        self._bar = Bar(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not self.on_terminal,
        )

    def __enter__(self) -> Self:
        self._bar.start()
        self._task = self._bar.add_task(self.name, total=self.total, completed=self.done, figures="")
        return self

    def update(self, step: int, metrics: Mapping[str, float], tokens_per_second: float | None = None) -> None:
        """After a step."""
        figures = "  ".join(f"{name} {metrics[name]:.3g}" for name in SHOWN if name in metrics)
        if tokens_per_second is not None:
            figures += f"  {tokens_per_second:,.0f} tok/s"
        self._bar.update(self._task, completed=step, figures=figures)
        if self.shown and not self.on_terminal and (time.monotonic() - self._spoke > LOG_EVERY or step == self.total):
            self._spoke = time.monotonic()
            log.info("%s %d/%d  %s", self.name, step, self.total, figures)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()
