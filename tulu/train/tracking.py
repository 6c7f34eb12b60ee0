"""A thread for each tracker of a run, so that one whose server is slow, or that hangs, holds no step back.

One that fails in mid-run is told once and left out: what counts stands in the run's folder. One that does not start is an error,
since nothing is lost by that yet.
"""

import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tulu.errors import RecipeError
from tulu.train.trackers import TRACKERS, Row, RunFacts, Tracker

log = logging.getLogger("tulu")

START_SECONDS = 150.0
"""How long a tracker may take to start."""
END_SECONDS = 60.0
"""How long what was not sent yet is waited for at the end."""
MOST_WAITING = 10_000
"""Lines that wait for a tracker until further ones are left out."""


class Trackers:
    """The trackers of a run in its main process; none elsewhere."""

    def __init__(self) -> None:
        self._fed: list[Fed] = []

    def start(self, names: Sequence[str], facts: RunFacts) -> dict[str, str]:
        """Start these; returns by what a later session finds its runs again. Raises RecipeError where one does not start."""
        self._fed = [Fed(name) for name in names]
        for fed in self._fed:
            fed.start(partial(TRACKERS[fed.name], facts))
        failed = [f"{fed.name}: {fault}" for fed in self._fed if (fault := fed.fault_of_start())]
        if failed:
            self.close()
            cure = "Mend it, work offline (WANDB_MODE=offline), or set tracker=none; figures stand in metrics.jsonl in any case."
            raise RecipeError(f"tracker: cannot be started: {'; '.join(failed)}\n{cure}")
        return {fed.name: fed.tracker.id for fed in self._fed if fed.tracker is not None and fed.tracker.id is not None}

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """The figures of a step."""
        values = {name: float(value) for name, value in metrics.items() if value is not None}
        for fed in self._fed:
            fed.give(step, lambda tracker: tracker.figures(step, values))

    def table(self, step: int, rows: Sequence[Row]) -> None:
        """Sample answers of a step."""
        for fed in self._fed if rows else ():
            fed.give(step, lambda tracker: tracker.table(step, rows))

    def close(self) -> None:
        """Send what was not sent yet, as far as that does not take too long."""
        for fed in self._fed:
            fed.give(None, lambda tracker: tracker.close())
        for fed in self._fed:
            fed.end()
        self._fed = []


class Fed:
    """A tracker with the thread that feeds it. The thread is left behind where the tracker hangs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tracker: Tracker | None = None
        self._work: queue.Queue[tuple[int | None, Callable[[Tracker], None]] | None] = queue.Queue(MOST_WAITING)
        self._started, self._fault = threading.Event(), ""
        self._told = False
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)

    def start(self, make: Callable[[], Tracker]) -> None:
        """Begin to start the tracker, in its thread, because some of them belong to the thread that made them."""
        self._make = make
        self._thread.start()

    def fault_of_start(self) -> str:
        """Wait for the start; why it failed, empty if it did not."""
        if not self._started.wait(START_SECONDS):
            return f"it does not answer within {START_SECONDS:.0f} s"
        return self._fault

    def give(self, step: int | None, work: Callable[[Tracker], None]) -> None:
        """Have the thread do this, after what it was given before."""
        if not self._thread.is_alive():
            return
        try:
            self._work.put_nowait((step, work))
        except queue.Full:
            self._tell(step, f"{MOST_WAITING} lines wait for it, and further ones are left out")

    def end(self) -> None:
        """Wait for the thread, which ends behind all that it was given."""
        try:
            self._work.put_nowait(None)
        except queue.Full:
            self._tell(None, "it takes nothing more")
            return
        waiting = threading.Timer(10.0, log.info, ("waiting for tracker %s to send its last figures", self.name))
        waiting.daemon = True
        waiting.start()
        self._thread.join(END_SECONDS)
        waiting.cancel()
        if self._thread.is_alive():
            self._tell(None, f"it has not sent everything {END_SECONDS:.0f} s after the end")

    def _run(self) -> None:
        try:
            self.tracker = self._make()
        except BaseException as error:  # noqa: BLE001 - whatever a foreign package raises, SystemExit too
            self._fault = _reason(error)
            return
        finally:
            self._started.set()
        while (entry := self._work.get()) is not None:
            step, work = entry
            try:
                work(self.tracker)
            except BaseException as error:  # noqa: BLE001 - no tracker may end a run
                self._tell(step, _reason(error))
                return

    def _tell(self, step: int | None, reason: str) -> None:
        """Say once that the tracker is left out."""
        if not self._told:
            self._told = True
            when = "at the end" if step is None else f"at step {step}"
            left = "training goes on without it; metrics.jsonl has every figure"
            log.warning("tracker %s failed %s (%s): %s", self.name, when, reason, left)


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
