"""The program of a grading process: it reads cases from a socket and answers each with a verdict.

tulu/grading/process.py starts it as a new interpreter. It is never forked, and not started by multiprocessing, which would run
the caller's main module again. It imports only verifiers and no torch.
"""

import mmap
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import threading
import time
from typing import Any, NoReturn

from tulu.errors import TuluError
from tulu.types import Verdict
from tulu.verifiers.contract import Case, Mode, OverBudget, Verifier, grade_safely
from tulu.verifiers.registry import find

_HEADER = struct.Struct("<I")
"""The length of a message in bytes, which is sent before it."""
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


def send(connection: socket.socket, message: Any) -> None:
    """Send one pickled message after its length.

    A socket is used because a connection of multiprocessing has no time-out, and a stopped process would block its parent.
    """
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    connection.sendall(_HEADER.pack(len(data)) + data)


def receive(connection: socket.socket) -> Any:
    """Wait for the next message. Raises EOFError if the other side is gone."""
    (length,) = _HEADER.unpack(_exactly(connection, _HEADER.size))
    return pickle.loads(_exactly(connection, length))


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = connection.recv(min(count - len(data), 1 << 20))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


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
        self._connection, self._waiting = connection, waiting
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
            send(self._connection, self._verdicts)
            self._verdicts = []
        self._sent = time.monotonic()


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
                    send(connection, None)
                    began = time.monotonic()
                # If the parent dies while a verdict hangs in C code, only this timer ends the process.
                signal.setitimer(signal.ITIMER_REAL, 4 * (verifier.deadline or deadline) + 10)
                verdict = _grade(verifier, mode, case, deadline)
            except (TuluError, ImportError) as fault:
                verdict = Verdict(None, "error", str(fault))
            outbox.add(verdict, time.monotonic() - began)
            if _interrupted.is_set():
                outbox.flush()
                send(connection, SPENT)
                return
        outbox.flush()
        signal.setitimer(signal.ITIMER_REAL, 0)


def main(descriptor: int, shared: int, memory_mb: int, deadline: float) -> None:
    """Limit this process and serve. Verifiers that print do so to standard error.

    `descriptor` is the socket, `shared` the memory file of the number of waiting verdicts.
    """
    memory = memory_mb << 20
    if sys.platform != "darwin":
        # macOS has the name of this limit and refuses to set it.
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Ctrl-C reaches the whole process group, but the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with socket.socket(fileno=descriptor) as connection, mmap.mmap(shared, 1) as waiting:
        try:
            serve(connection, deadline, waiting)
        except (EOFError, ConnectionError):
            return
