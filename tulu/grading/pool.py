"""A pool of grading processes that can be killed, with a deadline for every verdict.

One dispatcher thread owns all processes and talks to them over sockets. Callers get futures, so threads, asyncio and Ray
tasks use the pool in the same way. A process that misses a deadline is killed and replaced; its other tasks are given to
another process. The pools of the standard library cannot end one running task, which is why this one exists.
"""

import select
import selectors
import signal
import socket
import threading
from collections import deque

from tulu import deadlines
from tulu.children import receive
from tulu.errors import TuluError
from tulu.grading.process import Process
from tulu.grading.task import Task, neutral_task
from tulu.grading.worker import OVER_LIMIT, SPENT
from tulu.types import Verdict
from tulu.verifiers.contract import Postponed
from tulu.verifiers.registry import find

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
_START_FAILURES = 3
"""Processes in a row that may fail to start before every waiting task fails."""


class Workers:
    """Grades cases in killable processes, which are started when they are first needed."""

    def __init__(self, count: int, deadline: float, memory_mb: int) -> None:
        self._count, self._deadline, self._memory_mb = count, deadline, memory_mb
        self._queue: deque[Task] = deque()
        self._late: deque[Task] = deque()
        """Tasks that their verifier postponed. They come when no other waits, and those of a third attempt when no other runs."""
        self._processes: list[Process] = []
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
            for process in list(self._processes):
                self._kill(process)
            with self._lock:
                self._closing = True
            self._fail_all("the grader was closed")

    def _feed(self) -> None:
        """Send waiting tasks to idle processes: a long queue in chunks, a short one task by task."""
        while self._queue or self._take_late():
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
            try:
                # With nothing else to do, a first attempt may take as long as a second.
                idle.send(chunk, 1 if self._queue else 2)
            except OSError:
                self._died(idle)

    def _take_late(self) -> bool:
        """Move the next postponed task to the queue, if its time has come. Return whether there is one."""
        busy = any(task.attempt < 3 for process in self._processes for task in process.tasks)
        task = next((task for task in self._late if task.attempt == 2 or not busy), None)
        if task is None:
            return False
        with self._lock:
            self._late.remove(task)
            self._queue.append(task)
        return True

    def _settle(self, task: Task, verdict: Verdict, seconds: float) -> None:
        """Give a task its verdict, or put it aside for another attempt if its verifier would rather be asked again."""
        if isinstance(verdict, Postponed) and task.attempt < 3:
            task.attempt += 1
            self._late.append(task)
        else:
            task.resolve(Verdict(verdict.score, verdict.status, verdict.detail), seconds)

    def _start(self) -> None:
        process = Process(self._memory_mb, self._deadline)
        self._processes.append(process)
        self._selector.register(process.connection, selectors.EVENT_READ, process)

    def _until_next_expiry(self) -> float | None:
        expiries = [process.expires for process in self._processes if process.tasks or not process.ready]
        return max(0.0, min(expiries) - deadlines.now()) if expiries else None

    def _take_verdicts(self, process: Process) -> None:
        try:
            message = receive(process.connection)
        # Besides an end of the process, only what a verifier wrote into the connection itself is no message.
        except Exception:  # noqa: BLE001
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
            task = process.tasks.popleft()
            settle = self._trace if verdict.detail == OVER_LIMIT and verdict.score is None else self._settle
            settle(task, verdict, seconds)
        process.restart_clock()
        if not process.tasks and process.age >= _LIFETIME:
            self._kill(process)

    def _expire(self) -> None:
        now = deadlines.now()
        for process in [entry for entry in self._processes if entry.expires <= now and (entry.tasks or not entry.ready)]:
            if not process.ready:
                self._died(process)
                continue
            if select.select([process.connection], [], [], 0)[0]:
                # Its verdict arrived while other processes were looked at.
                continue
            task = process.under_way()
            process.tasks.remove(task)
            verdict = process.overdue_verdict(task)
            self._kill(process)
            self._trace(task, verdict, now - process.started)

    def _died(self, process: Process) -> None:
        """Handle a process that ended by itself. The task that it was grading is tried once more, in another process."""
        task = process.under_way() if process.tasks else None
        code = process.exit_code()
        self._kill(process)
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
                # Only the kernel or a person kills; an answer that takes too much memory meets the limit of its process.
                settle = Task.resolve if code == -signal.SIGKILL else self._trace
                settle(task, verdict, deadlines.now() - process.started)

    def _trace(self, task: Task, verdict: Verdict, seconds: float) -> None:
        """Find out whether the answer is to blame for a verdict that was not reached, where that is not known yet."""
        neutral = neutral_task(task, verdict, seconds)
        if neutral is not None:
            with self._lock:
                self._queue.appendleft(neutral)

    def _kill(self, process: Process) -> None:
        """End a process, and put its tasks back to the front of the queue."""
        self._processes.remove(process)
        self._selector.unregister(process.connection)
        process.kill()
        with self._lock:
            self._queue.extendleft(reversed(process.tasks))

    def _fail_all(self, detail: str) -> None:
        with self._lock:
            left = [*self._queue, *self._late]
            self._queue.clear()
            self._late.clear()
        self._failures = 0
        for task in left:
            task.resolve(Verdict(None, "error", detail), 0.0)
