"""A progress bar for work that takes long enough to wonder about."""

from collections.abc import Iterable, Iterator
from time import monotonic
from typing import TypeVar

T = TypeVar("T")

_PATIENCE = 1.0
"""Seconds before a bar appears."""


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items, with a bar on a terminal's stderr once they have taken a second; nothing where there is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield from items
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=console, transient=True)
    started, task, shown = monotonic(), progress.add_task(what, total=total), False
    try:
        for done, item in enumerate(items):
            if not shown and monotonic() - started > _PATIENCE:
                progress.start()
                shown = True
            if shown and done % 100 == 0:
                progress.update(task, completed=done)
            yield item
    finally:
        progress.stop()
