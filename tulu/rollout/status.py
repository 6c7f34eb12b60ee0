"""Where a run stands, for people: no wait is silent, and `tulu rlvr --status` reads what a run writes every few seconds.

A wait is told to the log once it has lasted 10 seconds, with whom it is for and since when, and again each time that it has
lasted twice as long. A thread of its own does that, so that it is told even of a call that does not return.
"""

import json
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tulu.files import finite, write_atomic

log = logging.getLogger("tulu")

FILE = "status.json"
TELL_AFTER = 10.0
"""Seconds after which a wait is told."""
WRITE_EVERY = 3.0
"""Seconds between two versions of the file."""
LOOK_EVERY = 0.5
"""Seconds between two looks at the waits."""

Text = Callable[[], str]


@dataclass
class Wait:
    """Something that is waited for."""

    whom: str | Text
    tell_after: float = TELL_AFTER
    since: float = field(default_factory=time.time)
    """When that began, for people; somebody may set the clock meanwhile, so that it measures nothing."""
    began: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.began

    def text(self) -> str:
        """For whom, as it is now."""
        return self.whom if isinstance(self.whom, str) else self.whom()


class Status:
    """What one process does and waits for, told to its log and, in the main process, to a file."""

    def __init__(self, path: Path | None = None, tell_after: float = TELL_AFTER) -> None:
        """The file is `path`; None writes none."""
        self.path = path
        self.tell_after = tell_after
        self._facts: dict[str, Any] = {}
        self._sources: dict[str, Callable[[], Any]] = {}
        self._waits: dict[int, Wait] = {}
        self._began, self._written_at = time.time(), -math.inf
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def __enter__(self) -> "Status":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        self._ended.set()
        self._thread.join()
        self.say(state="ended" if kind is None else f"stopped: {kind.__name__}: {error}".splitlines()[0])
        self._write()

    def say(self, **facts: Any) -> None:
        """What the run does now; what was said before stays."""
        with self._lock:
            self._facts |= facts

    def ask(self, name: str, source: Callable[[], Any]) -> None:
        """Let the file hold under that name what `source` returns when it is written. It must not wait for anything."""
        with self._lock:
            self._sources[name] = source

    @contextmanager
    def waiting(self, whom: str | Text) -> Iterator[None]:
        """While the context lasts, this is waited for."""
        wait = Wait(whom, tell_after=self.tell_after)
        with self._lock:
            self._waits[id(wait)] = wait
        try:
            yield
        finally:
            with self._lock:
                del self._waits[id(wait)]

    def waits(self) -> list[tuple[str, float, float]]:
        """(for whom, since when, seconds so far) of all waits, the longest first."""
        with self._lock:
            waits = sorted(self._waits.values(), key=lambda wait: wait.began)
        return [(wait.text(), wait.since, wait.seconds()) for wait in waits]

    def _run(self) -> None:
        while not self._ended.wait(min(LOOK_EVERY, self.tell_after / 4)):
            self._tell()
            if time.monotonic() - self._written_at >= WRITE_EVERY:
                self._write()

    def _tell(self) -> None:
        with self._lock:
            due = [(wait, seconds) for wait in self._waits.values() if (seconds := wait.seconds()) >= wait.tell_after]
        for wait, seconds in due:
            wait.tell_after = 2 * seconds
            log.info("waiting for %s since %s (%.0f s)", wait.text(), _clock(wait.since), seconds)

    def _write(self) -> None:
        self._written_at = time.monotonic()
        if self.path is None:
            return
        with self._lock:
            facts, sources = dict(self._facts), dict(self._sources)
        facts |= {name: source() for name, source in sources.items()}
        waits = [{"for": whom, "since": since, "seconds": seconds} for whom, since, seconds in self.waits()]
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "began": self._began, "written": time.time()}
        try:
            write_atomic(self.path, json.dumps(finite({**owner, **facts, "waits": waits}), indent=2) + "\n")
        except OSError as error:
            # The run itself writes what it cannot do without, and says so where the disk refuses.
            log.debug("%s: not written (%s)", self.path, error)


def read_status(path: Path) -> dict[str, Any]:
    """What a run last wrote of itself. Raises OSError or ValueError where that cannot be read."""
    status = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(status, dict):
        raise ValueError(f"{type(status).__name__} where an object belongs")
    return status


def is_alive(status: Mapping[str, Any]) -> bool | None:
    """Whether the process that wrote a status still runs; None where it ran on another machine."""
    if status.get("host") != socket.gethostname():
        return None
    try:
        os.kill(int(status["pid"]), 0)
    except ProcessLookupError:
        return False
    except (OSError, KeyError, ValueError, TypeError):
        return None
    return True


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%H:%M:%S")
