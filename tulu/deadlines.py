"""The clock by which deadlines are counted: it stands still while this process does.

A process that is stopped (Ctrl-Z, SIGSTOP, a container that is frozen) and goes on later finds that hours have passed by every
other clock. What it waits for has not had these hours, or has answered long ago, and must not be taken for dead. A thread looks
at the time twice a second: where it came to no look for much longer, the process stood still, and those seconds do not count.
"""

import os
import threading
import time

LOOK_SECONDS = 0.5
"""How often the time is looked at."""
STILL_SECONDS = 5.0
"""Seconds without a look that are taken for a stop. A busy process is late by less; if it ever is not, deadlines end later."""


class RunningClock:
    """Seconds since some moment in which this process ran."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen = time.monotonic()
        self._still = 0.0
        """Seconds in which it stood still."""
        self._watched = False

    def now(self) -> float:
        """The time, which never goes back. Only differences between two of them mean anything, within one process."""
        with self._lock:
            if not self._watched:
                # Nobody looked until now.
                self._watched, self._seen = True, time.monotonic()
                threading.Thread(target=self._watch, name="deadlines", daemon=True).start()
            return self._look()

    def _look(self) -> float:
        now = time.monotonic()
        if (gap := now - self._seen) > STILL_SECONDS:
            self._still += gap - LOOK_SECONDS
        self._seen = now
        return now - self._still

    def _watch(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            with self._lock:
                self._look()


_clock = RunningClock()


def now() -> float:
    """The time on the clock of this process."""
    return _clock.now()


def _begin_again() -> None:
    """A forked child has no thread of its parent's, and perhaps a lock that nobody will open."""
    global _clock
    still, _clock = _clock._still, RunningClock()
    _clock._still = still


os.register_at_fork(after_in_child=_begin_again)
