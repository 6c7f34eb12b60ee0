"""The program of a grading process: it reads cases from a socket and answers each with a verdict.

tulu/grading/process.py starts it. It imports only verifiers and no torch.
"""

import mmap
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from typing import Any, NoReturn

from tulu.children import begin, leave, receive, send
from tulu.errors import TuluError
from tulu.types import Verdict
from tulu.verifiers.contract import Case, Mode, OverBudget, Verifier, grade_safely
from tulu.verifiers.registry import find

CPU_SHARE, CPU_SECONDS = 0.75, 4.0
"""What a verdict may compute where its verifier names no limit of its own: a share of its deadline, and at most these seconds."""
OVER_LIMIT = "costs more CPU than an answer is granted"
"""The detail of a verdict that was cut short."""
SPENT = "spent"
"""The message of a process that must not be used again."""
_WAITING = 64
"""Most verdicts that are sent in one message."""
_FLUSH_SECONDS = 0.004
"""Seconds after which waiting verdicts are sent."""


_interrupted = threading.Event()
"""Set once a verdict was cut short. A library may be left in an inconsistent state, so that later verdicts could be wrong."""


def _over_budget(_signal: int, _frame: Any) -> NoReturn:
    _interrupted.set()
    raise OverBudget(OVER_LIMIT)


def cpu_limit(verifier: Verifier, deadline: float) -> float:
    """CPU seconds that a verdict may take: the verifier's own limit, else one that a free core reaches before the deadline."""
    return verifier.cpu_seconds or min(CPU_SECONDS, CPU_SHARE * (verifier.deadline or deadline))


def _grade(verifier: Verifier, mode: Mode, case: Case, deadline: float) -> Verdict:
    """Grade a case within its CPU limit. The timer fires repeatedly, because a library may swallow the first exception."""
    try:
        signal.setitimer(signal.ITIMER_PROF, cpu_limit(verifier, deadline), 0.25)
        verdict = grade_safely(verifier.grade(mode), case, traced=mode == "strict")
        signal.setitimer(signal.ITIMER_PROF, 0)
    except OverBudget as fault:
        signal.setitimer(signal.ITIMER_PROF, 0)
        verdict = Verdict(0.0, detail=str(fault))
    if _interrupted.is_set() and verifier.cpu_seconds is None:
        # The verifier names no limit, so that it may be slow on every answer; the pool finds out.
        return Verdict(None, "timeout", OVER_LIMIT)
    return verdict


class _Outbox:
    """Verdicts that wait to be sent to the parent. A message costs more than a cheap verdict, so several share one.

    Their number is in shared memory, so that the parent knows which case is being graded if this process hangs.
    """

    def __init__(self, connection: socket.socket, waiting: mmap.mmap) -> None:
        self._connection, self._waiting, self._pid = connection, waiting, os.getpid()
        self._verdicts: list[tuple[Verdict, float]] = []
        self._sent = time.monotonic()

    def add(self, verdict: Verdict, seconds: float) -> None:
        self._verdicts.append((verdict, seconds))
        self._waiting[0] = len(self._verdicts)
        if len(self._verdicts) == _WAITING or time.monotonic() - self._sent > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self._verdicts:
            # The number is reset before the verdicts are sent, because what the parent has received no longer waits.
            self._waiting[0] = 0
            self.tell(self._verdicts)
            self._verdicts = []
        self._sent = time.monotonic()

    def tell(self, message: Any) -> None:
        """Send a message at once."""
        # Code that forks comes back in both processes, and the parent would take the second answer for that to its next case.
        if os.getpid() != self._pid:
            os._exit(0)
        send(self._connection, message)


def serve(connection: socket.socket, deadline: float, waiting: mmap.mmap) -> None:
    """Grade cases until the parent closes the connection.

    It receives lists of (name, mode, case) and sends lists of (verdict, seconds), in the same order. It sends None once when
    it is ready and once after each verifier that it imports. After a verdict that was cut short it sends SPENT and returns.
    """
    send(connection, None)
    signal.signal(signal.SIGPROF, _over_budget)
    loaded: set[str] = set()
    outbox, last = _Outbox(connection, waiting), ""
    while True:
        for name, mode, case in receive(connection):
            if name != last:
                # Each message holds verdicts of one verifier, because the parent's clock runs with the deadline of one.
                outbox.flush()
                last = name
            began = time.monotonic()
            try:
                verifier = find(name)
                if name not in loaded:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    if verifier.warm is not None:
                        verifier.warm()
                    loaded.add(name)
                    outbox.tell(None)
                    began = time.monotonic()
                # If the parent dies while a verdict hangs in C code, only this timer ends the process.
                signal.setitimer(signal.ITIMER_REAL, 4 * (verifier.deadline or deadline) + 10)
                verdict = _grade(verifier, mode, case, deadline)
            except (TuluError, ImportError) as fault:
                verdict = Verdict(None, "error", str(fault))
            outbox.add(verdict, time.monotonic() - began)
            if _interrupted.is_set():
                outbox.flush()
                outbox.tell(SPENT)
                return
        outbox.flush()
        signal.setitimer(signal.ITIMER_REAL, 0)


def main(descriptor: int, shared: int, memory_mb: int, deadline: float) -> NoReturn:
    """Serve on a socket. `shared` is the memory file of the number of waiting verdicts."""
    begin(memory_mb)
    with socket.socket(fileno=descriptor) as connection, mmap.mmap(shared, 1) as waiting, suppress(EOFError, ConnectionError):
        serve(connection, deadline, waiting)
    leave()
