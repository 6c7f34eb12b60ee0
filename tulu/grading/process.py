"""One grading process: its start, the tasks that it was sent, its clock, and its end."""

import contextlib
import mmap
import os
import socket
import subprocess
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from tulu import deadlines
from tulu.children import LOADING_SECONDS, end, send, start
from tulu.grading.task import Task
from tulu.grading.worker import OVER_LIMIT, cpu_limit
from tulu.types import Verdict
from tulu.verifiers.custom import known_everywhere
from tulu.verifiers.registry import find

_TRANSFER_SECONDS = 5.0
"""Most seconds that a process may take to accept or deliver a message."""
_EXIT_SECONDS = 0.5
"""Seconds that a process which closed its connection is given to end."""
_TICK = 1.0 / os.sysconf("SC_CLK_TCK")
"""Seconds of the unit in which /proc counts CPU time."""


def _shared_file() -> int:
    """The descriptor of a file without a name that two processes may map; in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("waiting")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Process:
    """A grading process with its tasks and its deadline."""

    def __init__(self, memory_mb: int, deadline: float) -> None:
        """Start the process; its first message says that it is ready."""
        self.deadline = deadline
        self.connection, worker_end = socket.socketpair()
        shared = _shared_file()
        os.ftruncate(shared, 1)
        self._waiting = mmap.mmap(shared, 1)
        """Shared memory of one byte: how many verdicts wait in the process to be sent. It is grading the task after those."""
        with worker_end:
            program = f"from tulu.grading.worker import main; main(*handed, {memory_mb}, {deadline})"
            self.popen = start(program, worker_end.fileno(), shared)
        os.close(shared)
        # A stopped process must not stop the dispatcher, and with it the verdicts of all callers.
        self.connection.settimeout(_TRANSFER_SECONDS)
        self.tasks: deque[Task] = deque()
        """The tasks that it was sent and that have no verdict yet."""
        self.loaded: set[str] = set()
        """The verifiers that it has imported."""
        self.ready = False
        """Whether it has started."""
        self.started = 0.0
        """When it began the first of its tasks, a few milliseconds earlier or later, since it sends verdicts that often."""
        self.age = 0.0
        self.expires = deadlines.now() + LOADING_SECONDS
        """When it is killed unless it has sent a verdict."""
        self._cpu_before = 0.0
        """CPU seconds that it had used at `started`."""

    def send(self, tasks: Sequence[Task], attempt: int) -> None:
        """Give it tasks for their next attempt, at least the given one. Raises OSError if it does not take them."""
        for task in tasks:
            task.attempt = max(task.attempt, attempt)
        self.tasks.extend(tasks)
        self.restart_clock()
        # What one verifier does to the working folder is not the next one's.
        names = {name: known_everywhere(name) for name in {task.name for task in tasks}}
        cases = [(names[task.name], task.mode, replace(task.case, attempt=task.attempt)) for task in tasks]
        send(self.connection, cases)

    def under_way(self) -> Task:
        """The task that the process is grading."""
        return self.tasks[min(self._waiting[0], len(self.tasks) - 1)]

    def restart_clock(self) -> None:
        """Count the deadline of the first task from now on."""
        if self.tasks:
            task = self.tasks[0]
            self.started = deadlines.now()
            verifier = find(task.name)
            deadline = verifier.deadline or self.deadline
            self.expires = self.started + (deadline if task.name in self.loaded else LOADING_SECONDS)
            self._cpu_before = self._cpu()

    def overdue_verdict(self, task: Task) -> Verdict:
        """The verdict on a task that is still being graded at its deadline."""
        verifier = find(task.name)
        if self._cpu() - self._cpu_before >= cpu_limit(verifier, self.deadline) and task.name in self.loaded:
            # It computes in code that no signal interrupts, so its own CPU limit could not end it.
            return Verdict(None, "timeout", OVER_LIMIT)
        # The machine gave it too little time, or it waited for something.
        return Verdict(None, "timeout", f"no verdict within {verifier.deadline or self.deadline:g} s")

    def _cpu(self) -> float:
        """The CPU seconds used so far, or 0 if the process is gone."""
        try:
            fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) * _TICK
        except OSError:
            pass
        try:
            # A system without /proc, such as macOS, is asked in a slower way.
            times = psutil.Process(self.popen.pid).cpu_times()
            return float(times.user + times.system)
        except psutil.Error:
            return 0.0

    def exit_code(self) -> int | None:
        """The exit code of a process that closed its connection; None where it does not end soon."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.popen.wait(_EXIT_SECONDS)
        return None

    def kill(self) -> None:
        """End the process with what it has started, and wait until it is gone."""
        self.connection.close()
        self._waiting.close()
        end(self.popen)
