"""A pool of grading processes that can be killed, with a deadline for every verdict.

One dispatcher thread owns all processes and talks to them over sockets. Callers get futures, so threads, asyncio and Ray
tasks use the pool in the same way. A process that misses a deadline is killed and replaced; its other tasks are given to
another process. The pools of the standard library cannot end one running task, which is why this one exists.
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
"""Most seconds that a new process may take to start, or to import a family of verifiers."""
_LIFETIME = 2000
"""The age at which a process is replaced, because sympy's caches grow without limit. A symbolic case counts 1."""
_LIGHT = 0.01
"""What any other case counts towards the age of its process."""
_CHUNK = 128
"""Most tasks that are sent to a process in one message."""
_FIRST_CHUNK = 32
"""Most tasks in a message while it is not known how long a verdict of their family takes."""
_CHUNK_SECONDS = 0.03
"""Seconds that the tasks of one message should take together."""
_TRANSFER_SECONDS = 5.0
"""Most seconds that a process may take to accept or deliver a message."""
_START_FAILURES = 3
"""Processes in a row that may fail to start before every waiting task fails."""
_TICK = 1.0 / os.sysconf("SC_CLK_TCK")
"""Seconds of the unit in which /proc counts CPU time."""


@dataclass(slots=True, eq=False)
class Task:
    """A case that waits for its verdict."""

    name: str
    mode: Mode
    case: Case
    future: "Future[Verdict]" = field(default_factory=Future)
    deaths: int = 0
    """Processes that ended by themselves while they graded it."""
    seconds: float = 0.0
    """Time from the start of grading to the verdict."""


@dataclass(slots=True, eq=False)
class _Process:
    """A grading process with its tasks and its deadline."""

    popen: "subprocess.Popen[bytes]"
    connection: socket.socket
    waiting: mmap.mmap
    """Shared memory of one byte: how many verdicts wait in the process to be sent. It is grading the task after those."""
    tasks: deque[Task] = field(default_factory=deque)
    """The tasks that it was sent and that have no verdict yet."""
    loaded: set[str] = field(default_factory=set)
    """The verifiers that it has imported."""
    ready: bool = False
    """Whether it has started."""
    started: float = 0.0
    """When it began the first of its tasks, a few milliseconds earlier or later, since it sends verdicts that often."""
    age: float = 0.0
    expires: float = 0.0
    """When it is killed unless it has sent a verdict."""
    cpu_before: float = 0.0
    """CPU seconds that it had used at `started`."""

    def under_way(self) -> Task:
        """The task that the process is grading."""
        return self.tasks[min(self.waiting[0], len(self.tasks) - 1)]

    def cpu(self) -> float:
        """The CPU seconds used so far, or 0 if the process is gone."""
        try:
            fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) * _TICK


class Workers:
    """Grades cases in killable processes, which are started when they are first needed."""

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
        """Recent average of the seconds that a verdict of each verifier takes."""

    def submit(self, tasks: list[Task]) -> None:
        """Queue tasks. Each of their futures gets a verdict, whatever happens."""
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
        """Kill every process. Verdicts that are still awaited get the status error."""
        with self._lock:
            self._closing = True
        if self._thread is not None:
            self._wake.send(b".")
            self._thread.join()
        for end in (self._wake, self._woken):
            end.close()
        self._selector.close()

    def pids(self) -> list[int]:
        """The process ids of the running workers."""
        return [process.popen.pid for process in list(self._processes)]

    def _dispatch(self) -> None:
        try:
            while not self._closing:
                self._feed()
                for key, _ in self._selector.select(self._until_next_expiry()):
                    if key.data is None:
                        self._woken.recv(4096)
                    else:
                        self._take_verdicts(key.data)
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
        """Send waiting tasks to idle processes: a long queue in chunks, a short one task by task."""
        while self._queue:
            idle = next((process for process in self._processes if process.ready and not process.tasks), None)
            if idle is None:
                starting = sum(not process.ready for process in self._processes)
                if len(self._processes) >= self._count or starting >= len(self._queue):
                    return
                self._start()
                continue
            # A message holds a few hundredths of a second of work: cheap tasks share one, and none waits long behind costly ones.
            pace = self._pace.get(self._queue[0].name, _CHUNK_SECONDS / _FIRST_CHUNK)
            size = max(1, min(_CHUNK, int(_CHUNK_SECONDS / pace), len(self._queue) // (2 * self._count)))
            with self._lock:
                chunk = [self._queue.popleft() for _ in range(size)]
            idle.tasks.extend(chunk)
            self._restart_clock(idle)
            try:
                send(idle.connection, [(task.name, task.mode, task.case) for task in chunk])
            except OSError:
                self._died(idle)

    def _start(self) -> None:
        our_end, worker_end = socket.socketpair()
        shared = os.memfd_create("waiting")
        os.ftruncate(shared, 1)
        waiting = mmap.mmap(shared, 1)
        with worker_end:
            # With several numerical threads each, the workers would only compete for the same cores.
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
            boot = _BOOT.format(self._memory_mb, self._deadline)
            popen = subprocess.Popen(
                [sys.executable, "-c", boot, json.dumps(sys.path), str(worker_end.fileno()), str(shared)],
                pass_fds=[worker_end.fileno(), shared],
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        os.close(shared)
        # A stopped process must not stop the dispatcher, and with it the verdicts of all callers.
        our_end.settimeout(_TRANSFER_SECONDS)
        process = _Process(popen, our_end, waiting, expires=time.monotonic() + _LOADING_SECONDS)
        self._processes.append(process)
        self._selector.register(our_end, selectors.EVENT_READ, process)

    def _restart_clock(self, process: _Process) -> None:
        if process.tasks:
            task = process.tasks[0]
            process.started = time.monotonic()
            verifier = find(task.name)
            deadline = verifier.deadline or self._deadline
            process.expires = process.started + (deadline if task.name in process.loaded else _LOADING_SECONDS)
            # Reading /proc takes as long as a cheap verdict, so it is read only where a CPU limit needs it.
            process.cpu_before = process.cpu() if verifier.cpu_seconds else 0.0

    def _until_next_expiry(self) -> float | None:
        expiries = [process.expires for process in self._processes if process.tasks or not process.ready]
        return max(0.0, min(expiries) - time.monotonic()) if expiries else None

    def _take_verdicts(self, process: _Process) -> None:
        try:
            message = receive(process.connection)
        except (OSError, EOFError):
            self._died(process)
            return
        if not process.ready:
            process.ready, self._failures = True, 0
            return
        if message == SPENT:
            self._kill(process)
            return
        name = process.tasks[0].name
        process.loaded.add(name)
        weight = 1 if find(name).cpu_seconds else _LIGHT
        for verdict, seconds in message or ():
            process.age += weight
            self._pace[name] = 0.9 * self._pace.get(name, seconds) + 0.1 * seconds + 1e-6
            _resolve(process.tasks.popleft(), verdict, seconds)
        self._restart_clock(process)
        if not process.tasks and process.age >= _LIFETIME:
            self._kill(process)

    def _expire(self) -> None:
        now = time.monotonic()
        for process in [entry for entry in self._processes if entry.expires <= now and (entry.tasks or not entry.ready)]:
            if not process.ready:
                self._died(process)
                continue
            if select.select([process.connection], [], [], 0)[0]:
                # Its verdict arrived while other processes were looked at.
                continue
            task = process.under_way()
            process.tasks.remove(task)
            verifier, used = find(task.name), process.cpu() - process.cpu_before
            granted = verifier.cpu_seconds
            self._kill(process)
            if granted is not None and used >= granted and task.name in process.loaded:
                # It computes in code that no signal interrupts, so its own CPU limit could not end it.
                verdict = Verdict(0.0, detail="costs more CPU than an answer is granted")
            else:
                verdict = Verdict(None, "timeout", f"no verdict within {verifier.deadline or self._deadline:g} s")
            _resolve(task, verdict, now - process.started)

    def _died(self, process: _Process) -> None:
        """Handle a process that ended by itself. The task that it was grading is tried once more, in another process."""
        task = process.under_way() if process.tasks else None
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
        """End a process, and put its tasks back to the front of the queue."""
        self._processes.remove(process)
        self._selector.unregister(process.connection)
        process.connection.close()
        process.waiting.close()
        with contextlib.suppress(ProcessLookupError):
            process.popen.kill()
        process.popen.wait()
        with self._lock:
            self._queue.extendleft(reversed(process.tasks))

    def _fail_all(self, detail: str) -> None:
        with self._lock:
            left = list(self._queue)
            self._queue.clear()
        self._failures = 0
        for task in left:
            _resolve(task, Verdict(None, "error", detail), 0.0)


def _resolve(task: Task, verdict: Verdict, seconds: float) -> None:
    task.seconds = seconds
    # A future that was cancelled takes no verdict.
    if task.future.set_running_or_notify_cancel():
        task.future.set_result(verdict)
