"""How far some work is: a progress bar on a terminal, and a line in the log now and then where there is none."""

import logging
import math
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sized
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

log = logging.getLogger("tulu")

T = TypeVar("T")

SHOWN = ("loss", "nll", "accuracy", "reward", "solved", "kl")
"""Metrics that stand beside the bar, in this order."""
TROUBLES = ("truncated", "masked")
"""Shares that stand there too where they are not 0."""
LOOKED = ("eval/loss", "eval/accuracy")
"""What a look measured that stands there too, behind the accuracy on a task, until the next look."""
LOG_EVERY = 15.0
"""Seconds between two lines of a log."""
PATIENCE = 1.0
"""Seconds before a brief bar appears."""
SLOW = 5.0
"""How many times slower than the run's median a step must be to be told."""
SLOW_AFTER, SLOW_EVERY = 10, 60.0
"""Steps before the median says anything, and least seconds between two lines that a step was slow."""
WINDOW, LEAST_WINDOW, FALLEN = 25, 5, 0.7
"""Steps whose median is the speed of a run, a quarter of all within these bounds, and the share of the best median so far below
which it has fallen."""
REDRAW = 0.1
"""Seconds between two updates of a bar that follows items."""


class Progress:
    """A named count of what is done, with its speed and the metrics that matter."""

    def __init__(self, name: str, total: int | None, done: int = 0, shown: bool = True, brief: bool = False) -> None:
        """A bar that begins at `done` of `total`; `total` is None where nobody knows it.

        `shown` is false in processes that leave the bar to another one. A `brief` bar is for work that may be over in a
        moment: it appears only after a second, disappears at the end, and writes no line before LOG_EVERY seconds.
        """
        self.name, self.total, self.done = name, total, done
        self.shown, self.brief = shown, brief
        self.on_terminal = shown and sys.stderr.isatty()
        self._began = self._logged = self._told_slow = -math.inf
        self._speeds: deque[float] = deque(maxlen=1000)
        self._latest: deque[float] = deque(maxlen=WINDOW if total is None else max(LEAST_WINDOW, min(WINDOW, total // 4)))
        self._best, self._has_fallen = 0.0, False
        self._first, self._entered = done, math.inf
        self._looked: list[str] = []
        self._bar = Bar(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=brief,
            disable=not self.on_terminal,
        )

    def __enter__(self) -> Self:
        self._entered = time.monotonic()
        if self.brief:
            self._began = self._logged = self._entered
        else:
            self._bar.start()
        self._task = self._bar.add_task(self.name, total=self.total, completed=self.done, figures="")
        return self

    def update(
        self,
        done: int,
        metrics: Mapping[str, float] | None = None,
        tokens_per_second: float | None = None,
        mfu: float | None = None,
    ) -> None:
        """Show that so much is done, counted from the beginning of the work; `mfu` is the share of the device's best."""
        self.done = done
        if not self.shown:
            return
        shown = figures(metrics or {}) + self._looks(metrics or {})
        if metrics and "learning_rate" in metrics:
            shown.append(f"lr {metrics['learning_rate']:.2e}")
        if tokens_per_second is not None:
            self._tell_if_slow(tokens_per_second)
            self._tell_if_fallen(tokens_per_second)
            shown.append(f"{tokens_per_second:,.0f} tok/s")
        if mfu is not None:
            shown.append(f"{mfu:.0%} MFU")
        if not self.on_terminal:
            self._log([*shown, *self._left()])
            return
        self._bar.update(self._task, completed=done, figures="  ".join(shown))
        if self.brief and time.monotonic() - self._began > PATIENCE:
            self._bar.start()

    def _looks(self, metrics: Mapping[str, float]) -> list[str]:
        """What the latest look found."""
        names = [name for name in metrics if name in LOOKED or (name.startswith("eval/") and name.endswith("/accuracy"))]
        if names:
            self._looked = [f"{name} {metrics[name]:.3g}" for name in sorted(names, key=lambda name: name in LOOKED)]
        return self._looked

    def _left(self) -> list[str]:
        """How long the rest will take at the speed of this session, which a bar shows by itself."""
        done = self.done - self._first
        if self.brief or self.total is None or done <= 0 or self.done >= self.total:
            return []
        left = (time.monotonic() - self._entered) / done * (self.total - self.done)
        minutes, seconds = divmod(round(left), 60)
        hours, minutes = divmod(minutes, 60)
        return [f"ETA {hours:d}:{minutes:02d}:{seconds:02d}"]

    def _tell_if_fallen(self, speed: float) -> None:
        """Warn once that steps have become slower and stay so, which no single step says."""
        self._latest.append(speed)
        if len(self._latest) != self._latest.maxlen or self._has_fallen:
            return
        now = statistics.median(self._latest)
        self._best = max(self._best, now)
        if now < FALLEN * self._best:
            self._has_fallen = True
            log.warning(
                "%s: %s tokens/s over the last %d steps, after %s: is memory full, or the machine hot or shared? (nvidia-smi)",
                *(self.name, f"{now:,.0f}", len(self._latest), f"{self._best:,.0f}"),
            )

    def _tell_if_slow(self, speed: float) -> None:
        """Warn, now and then, that a step was far slower than the steps of this session usually are."""
        usual = statistics.median(self._speeds) if len(self._speeds) >= SLOW_AFTER else 0.0
        self._speeds.append(speed)
        now = time.monotonic()
        if speed * SLOW < usual and now - self._told_slow > SLOW_EVERY:
            self._told_slow = now
            log.warning(
                "%s: %s tokens/s in step %d, where %s are usual: does something else use this machine? (uptime, nvidia-smi)",
                *(self.name, f"{speed:,.0f}", self.done, f"{usual:,.0f}"),
            )

    def _log(self, shown: list[str]) -> None:
        """Write a line if the last one is long enough ago, or the work is done."""
        now = time.monotonic()
        if now - self._logged > LOG_EVERY or (self.done == self.total and not self.brief):
            self._logged = now
            count = str(self.done) if self.total is None else f"{self.done}/{self.total}"
            log.info("%s", "  ".join([f"{self.name} {count}", *shown]))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()


def figures(metrics: Mapping[str, float | None]) -> list[str]:
    """The metrics of a step that matter, in words: ["loss 0.12", "masked 0.03"]."""
    names = [name for name in SHOWN if metrics.get(name) is not None] + [name for name in TROUBLES if metrics.get(name)]
    return [f"{name} {metrics[name]:.3g}" for name in names]


def track(items: Iterable[T], description: str) -> Iterator[T]:
    """Yield the items, and show how many were used once they have taken a second."""
    total = len(items) if isinstance(items, Sized) else None
    updated = time.monotonic()
    with Progress(description, total, brief=True) as progress:
        for done, item in enumerate(items, 1):
            yield item
            if time.monotonic() - updated > REDRAW:
                progress.update(done)
                updated = time.monotonic()
