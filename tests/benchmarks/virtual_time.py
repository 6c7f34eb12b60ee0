"""Time that passes only where everybody sleeps, so that a loop of minutes is measured in seconds and to the last digit."""

import threading
import time
from heapq import heappop, heappush

from benchmarks.sleeping_fleet import Clock
from tulu.rollout.stream import Stream


class VirtualClock(Clock):
    """The time of a stream and its learner.

    Three can be at work: the learner, the stream's thread and the threads that grade. The stream's thread is the one that waits
    for engines; when it does, time goes on to what comes first, as soon as nobody else is at work.
    """

    def __init__(self) -> None:
        self.time = 0.0
        self.stream: Stream | None = None
        self._wakes: float | None = None
        """Until when the learner sleeps."""
        self._awake = threading.Event()
        self._graders: list[tuple[float, int, threading.Event]] = []
        """A heap: until when the threads that grade sleep."""

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        """The learner works, or a grader; during a sync the stream's thread stands still and cannot move the time."""
        if threading.current_thread().name.startswith("grading"):
            awake = threading.Event()
            heappush(self._graders, (self.time + seconds, threading.get_ident(), awake))
            assert awake.wait(60), "time stands still"
            return
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
        deadline = time.monotonic() + 60
        while not self._learner_rests() or len(self._graders) < len(pump._grading):
            if self.stream._wanted.is_set() or self.stream._ended.is_set() or any(one.done() for _, one in pump._grading):
                return False
            assert time.monotonic() < deadline, "the learner neither works nor waits"
            time.sleep(0.0001)
        if self._graders and self._graders[0][0] <= min(until, self._wakes or until):
            wakes, _, awake = heappop(self._graders)
            # During a sync time went on without them.
            self.time = max(self.time, wakes)
            awake.set()
            return False
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
