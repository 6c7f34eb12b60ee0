"""A pool of grading processes on any node of a Ray cluster: the body of a Ray actor. It imports neither Ray nor torch.

The main process of a learner calls `start`, `submit` for cases, and `report` all the time: which verdicts there are, and whether
the grader lives. Ray runs these calls side by side. The pool in here is that of a single machine (pool.py), so that what hangs,
dies or eats memory while it is graded meets the same limits on every node.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tulu.grading.pool import Workers
from tulu.grading.task import Task
from tulu.types import Verdict
from tulu.verifiers.contract import Case, Mode

GATHER_SECONDS = 0.01
"""How long a report waits for more after a verdict was reached."""


@dataclass(frozen=True)
class Numbered:
    """A case on its way to a grader, with the number under which its verdict comes back."""

    number: int
    verifier: str
    mode: Mode
    case: Case


@dataclass(frozen=True)
class Graded:
    """A verdict on its way back, and how long it took."""

    number: int
    verdict: Verdict
    seconds: float


class GradingNode:
    """Grades cases in processes of its own. It is asked from one thread, that of Ray's calls."""

    def __init__(self, workers: int, deadline: float, memory_mb: int, folder: str, paths: Sequence[str]) -> None:
        """`folder` and `paths` are the learner's working folder and `sys.path`, for what custom verifiers read and import."""
        self.pool = Workers(workers, deadline, memory_mb)
        self.graded: list[Graded] = []
        self.news = asyncio.Event()
        with suppress(OSError):
            # A node that has no such folder can still grade by the verifiers of this project.
            os.chdir(folder)
        sys.path += [path for path in paths if path not in sys.path and Path(path).exists()]

    async def start(self) -> int:
        """Answer as soon as this process is there; returns its id."""
        return os.getpid()

    async def submit(self, cases: Sequence[Numbered]) -> None:
        """Begin to grade these."""
        loop = asyncio.get_running_loop()
        tasks = []
        for one in cases:
            task = Task(one.verifier, one.mode, one.case)
            # The pool's thread reaches the verdict; everything else here happens in the thread of the loop.
            task.future.add_done_callback(
                lambda done, task=task, number=one.number: loop.call_soon_threadsafe(  # type: ignore[misc]
                    self._take, Graded(number, done.result(), task.seconds)
                )
            )
            tasks.append(task)
        self.pool.submit(tasks)

    async def report(self, patience: float) -> list[Graded]:
        """The verdicts since the last report, as soon as there are some or `patience` seconds have passed."""
        if not self.graded:
            self.news.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), patience)
                # Verdicts come close together, and one report is cheaper than several.
                await asyncio.sleep(GATHER_SECONDS)
        graded, self.graded = self.graded, []
        return graded

    def _take(self, graded: Graded) -> None:
        self.graded.append(graded)
        self.news.set()
