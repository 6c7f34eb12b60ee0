"""Processes that grade, and that can be killed: a pool with a deadline for every verdict.

One dispatcher thread owns all processes and talks to them over sockets; callers get futures, so that threads, asyncio
and Ray tasks use it alike. A process that misses a deadline is killed and started afresh; what waited behind goes on.
"""

import contextlib
import json
import mmap
import os
import select
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from tulu.errors import TuluError
from tulu.grading.worker import SPENT, receive, send
from tulu.types import Verdict
from tulu.verifiers.contract import Case, Mode
from tulu.verifiers.registry import find

_BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from tulu.grading.worker import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]), {}, {})"
)
_LOADING_SECONDS = 120.0
"""Longest time a fresh process may take to import a family of verifiers."""
_LIFETIME = 2000
"""Symbolic cases after which a process is replaced: sympy's caches grow for ever."""
_LIGHT = 0.01
"""What any other case counts."""
_CHUNK, _FIRST_CHUNK = 128, 32
_CHUNK_SECONDS = 0.03
_TRANSFER_SECONDS = 5.0
_START_FAILURES = 3
_TICK = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(slots=True, eq=False)
class Task:
    """One case on its way to a verdict."""

    name: str
    mode: Mode
    case: Case
    future: "Future[Verdict]" = field(default_factory=Future)
    deaths: int = 0
    seconds: float = 0.0
    """From the moment a process took it up to its verdict."""


@dataclass(slots=True, eq=False)
class _Process:
    """A grading process, what it was given and until when the first of it may take."""

    popen: "subprocess.Popen[bytes]"
    connection: socket.socket
    waiting: mmap.mmap
    """How many verdicts wait in the process to be sent: the case after those is under way."""
    given: deque[Task] = field(default_factory=deque)
    loaded: set[str] = field(default_factory=set)
    ready: bool = False
    started: float = 0.0
    """When it took up the first of those, to within the few milliseconds after which it tells of verdicts."""
    age: float = 0.0
    expires: float = 0.0
    cpu_before: float = 0.0

    def under_way(self) -> Task:
        """The task that the process is at."""
        return self.given[min(self.waiting[0], len(self.given) - 1)]

    def cpu(self) -> float:
        """CPU seconds used so far; 0 where the process is gone."""
        try:
            fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) * _TICK


class Workers:
    """Grades cases in killable processes, started when first needed."""

    def __init__(self, count: int, deadline: float, memory_mb: int) -> None:
        self._count, self._deadline, self._memory_mb = count, deadline, memory_mb
        self._queue: deque[Task] = deque()
        self._processes: list[_Process] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._closing = False
        self._failures = 0
        self._pace: dict[str, float] = {}
        """Seconds that a verdict of each family took of late."""

    def submit(self, tasks: list[Task]) -> None:
        """Queues tasks; their futures get a verdict each, whatever happens."""
        with self._lock:
            if self._closing:
                raise TuluError("the grader is closed")
            self._queue.extend(tasks)
            if self._thread is None:
                self._selector.register(self._woken, selectors.EVENT_READ)
                self._thread = threading.Thread(target=self._dispatch, name="grading", daemon=True)
                self._thread.start()
        self._wake.send(b".")

    def close(self) -> None:
        """Kills every process; verdicts still awaited become status error."""
        with self._lock:
            self._closing = True
        if self._thread is not None:
            self._wake.send(b".")
            self._thread.join()
        for end in (self._wake, self._woken):
            end.close()
        self._selector.close()

    def pids(self) -> list[int]:
        """Process ids of the running workers."""
        return [process.popen.pid for process in list(self._processes)]

    def _dispatch(self) -> None:
        try:
            while not self._closing:
                self._feed()
                for key, _ in self._selector.select(self._until_next_expiry()):
                    if key.data is None:
                        self._woken.recv(4096)
                    else:
                        self._read(key.data)
                self._expire()
        finally:
            self._abandon()

    def _abandon(self) -> None:
        for process in list(self._processes):
            self._kill(process)
        with self._lock:
            self._closing = True
        self._fail_all("the grader was closed")

    def _feed(self) -> None:
        """Gives waiting tasks to idle processes; a long queue in chunks, a short one one by one."""
        while self._queue:
            idle = next((process for process in self._processes if process.ready and not process.given), None)
            if idle is None:
                starting = sum(not process.ready for process in self._processes)
                if len(self._processes) >= self._count or starting >= len(self._queue):
                    return
                self._start()
                continue
            # As many as take a few hundredths of a second: fewer messages for cheap ones, nobody waits behind costly ones.
            pace = self._pace.get(self._queue[0].name, _CHUNK_SECONDS / _FIRST_CHUNK)
            size = max(1, min(_CHUNK, int(_CHUNK_SECONDS / pace), len(self._queue) // (2 * self._count)))
            with self._lock:
                chunk = [self._queue.popleft() for _ in range(size)]
            idle.given.extend(chunk)
            self._restart_clock(idle)
            try:
                send(idle.connection, [(task.name, task.mode, task.case) for task in chunk])
            except OSError:
                self._died(idle)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        shared = os.memfd_create("waiting")
        os.ftruncate(shared, 1)
        waiting = mmap.mmap(shared, 1)
        with theirs:
            # A thread of numerical libraries per worker would only fight for the same cores.
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
            boot = _BOOT.format(self._memory_mb, self._deadline)
            popen = subprocess.Popen(
                [sys.executable, "-c", boot, json.dumps(sys.path), str(theirs.fileno()), str(shared)],
                pass_fds=[theirs.fileno(), shared],
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        os.close(shared)
        # A stopped process must not stop the dispatcher, and with it everyone's verdicts.
        ours.settimeout(_TRANSFER_SECONDS)
        process = _Process(popen, ours, waiting, expires=time.monotonic() + _LOADING_SECONDS)
        self._processes.append(process)
        self._selector.register(ours, selectors.EVENT_READ, process)

    def _restart_clock(self, process: _Process) -> None:
        if process.given:
            task = process.given[0]
            process.started = time.monotonic()
            verifier = find(task.name)
            deadline = verifier.deadline or self._deadline
            process.expires = process.started + (deadline if task.name in process.loaded else _LOADING_SECONDS)
            # Read only where it decides: /proc costs as much as a cheap verdict.
            process.cpu_before = process.cpu() if verifier.cpu_seconds else 0.0

    def _until_next_expiry(self) -> float | None:
        expiries = [process.expires for process in self._processes if process.given or not process.ready]
        return max(0.0, min(expiries) - time.monotonic()) if expiries else None

    def _read(self, process: _Process) -> None:
        try:
            answer = receive(process.connection)
        except (OSError, EOFError):
            self._died(process)
            return
        if not process.ready:
            process.ready, self._failures = True, 0
            return
        if answer == SPENT:
            self._kill(process)
            return
        process.loaded.add(process.given[0].name)
        name = process.given[0].name
        weight = 1 if find(name).cpu_seconds else _LIGHT
        for verdict, seconds in answer or ():
            process.age += weight
            self._pace[name] = 0.9 * self._pace.get(name, seconds) + 0.1 * seconds + 1e-6
            _resolve(process.given.popleft(), verdict, seconds)
        self._restart_clock(process)
        if not process.given and process.age >= _LIFETIME:
            self._kill(process)

    def _expire(self) -> None:
        now = time.monotonic()
        for process in [entry for entry in self._processes if entry.expires <= now and (entry.given or not entry.ready)]:
            if not process.ready:
                self._died(process)
                continue
            if select.select([process.connection], [], [], 0)[0]:
                # Its verdict came while others were looked at.
                continue
            task = process.under_way()
            process.given.remove(task)
            verifier, used = find(task.name), process.cpu() - process.cpu_before
            granted = verifier.cpu_seconds
            self._kill(process)
            if granted is not None and used >= granted and task.name in process.loaded:
                # Stuck where no signal reaches, computing what the completion asked for.
                verdict = Verdict(0.0, detail="costs more CPU than an answer is granted")
            else:
                verdict = Verdict(None, "timeout", f"no verdict within {verifier.deadline or self._deadline:g} s")
            _resolve(task, verdict, now - process.started)

    def _died(self, process: _Process) -> None:
        """A process that ended by itself: the task it was at is tried once more, elsewhere."""
        task = process.under_way() if process.given else None
        self._kill(process)
        code = process.popen.returncode
        if not process.ready:
            self._failures += 1
            if self._failures >= _START_FAILURES:
                self._fail_all(f"grading processes cannot start (exit code {code}); see standard error")
        elif task is not None:
            task.deaths += 1
            if task.deaths > 1:
                with self._lock:
                    self._queue.remove(task)
                verdict = Verdict(None, "error", f"the grading process died twice (exit code {code})")
                _resolve(task, verdict, time.monotonic() - process.started)

    def _kill(self, process: _Process) -> None:
        """Ends a process; what it was given waits again, first in line."""
        self._processes.remove(process)
        self._selector.unregister(process.connection)
        process.connection.close()
        process.waiting.close()
        with contextlib.suppress(ProcessLookupError):
            process.popen.kill()
        process.popen.wait()
        with self._lock:
            self._queue.extendleft(reversed(process.given))

    def _fail_all(self, detail: str) -> None:
        with self._lock:
            left = list(self._queue)
            self._queue.clear()
        self._failures = 0
        for task in left:
            _resolve(task, Verdict(None, "error", detail), 0.0)


def _resolve(task: Task, verdict: Verdict, seconds: float) -> None:
    task.seconds = seconds
    # A caller that was cancelled has no use for its verdict.
    if task.future.set_running_or_notify_cancel():
        task.future.set_result(verdict)
