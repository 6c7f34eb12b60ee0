"""Time that passes only where everybody sleeps, so that a loop of minutes is measured in seconds and to the last digit."""

import threading
import time
from concurrent.futures import wait as finish

from benchmarks.sleeping_fleet import Clock
from tulu.rollout.stream import Stream


class VirtualClock(Clock):
    """The time of a stream and its learner.

    Three can be at work: the learner, the stream's thread and the threads that grade. The stream's thread is the one that waits
    for engines; when it does, time goes on to what comes first, as soon as nobody else is at work. Graders take no time.
    """

    def __init__(self) -> None:
        self.time = 0.0
        self.stream: Stream | None = None
        self._wakes: float | None = None
        """Until when the learner sleeps."""
        self._awake = threading.Event()

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        """The learner works; during a sync the stream's thread stands still and cannot move the time."""
        if self.stream is None or self.stream._turn.locked() or not seconds:
            self.time += seconds
            return
        self._awake.clear()
        self._wakes = self.time + seconds
        assert self._awake.wait(60), "time stands still"

    def wait(self, until: float) -> bool:
        if self.stream is None:
            self.time = until
            return True
        pump = self.stream.pump
        assert pump is not None
        if pump._grading:
            finish([future for _, future in pump._grading])
            return False
        deadline = time.monotonic() + 60
        while not self._learner_rests():
            if self.stream._wanted.is_set() or self.stream._ended.is_set():
                return False
            assert time.monotonic() < deadline, "the learner neither works nor waits"
            time.sleep(0.0001)
        if self._wakes is not None and self._wakes <= until:
            self.time, self._wakes = self._wakes, None
            self._awake.set()
            return False
        self.time = until
        return True

    def _learner_rests(self) -> bool:
        """Whether it sleeps, or waits for the stream's thread to tell that something moved."""
        assert self.stream is not None
        moved = self.stream._moved
        return self._wakes is not None or (not moved.is_set() and bool(moved._cond._waiters))  # type: ignore[attr-defined]
