"""The other end of a grading process: reads cases from a socket, answers each with a verdict.

Started by tulu/grading/pool.py as a fresh interpreter, never forked and never through multiprocessing, which would run the
caller's main module again. It imports verifiers only, no torch.
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
from tulu.verifiers.contract import Case, Mode, OverBudget, Verifier, judged
from tulu.verifiers.registry import find

_HEADER = struct.Struct("<I")
SPENT = "spent"
_WAITING = 64
"""Most verdicts that wait for a message."""
_FLUSH_SECONDS = 0.004


def send(connection: socket.socket, message: Any) -> None:
    """One pickled message, its length before it."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    connection.sendall(_HEADER.pack(len(data)) + data)


def receive(connection: socket.socket) -> Any:
    """The next message; EOFError where the other side has gone."""
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


_struck = threading.Event()
"""Set once a verdict was cut short: libraries are left in the midst of something, and every later verdict could be wrong."""


def _over_budget(_signal: int, _frame: Any) -> NoReturn:
    _struck.set()
    raise OverBudget("costs more CPU than an answer is granted")


def _graded(verifier: Verifier, mode: Mode, case: Case) -> Verdict:
    """The verdict within the CPU limit; the timer fires again and again, should a library swallow the exception."""
    if verifier.cpu_seconds is None:
        return judged(verifier.grade(mode), case)
    try:
        signal.setitimer(signal.ITIMER_PROF, verifier.cpu_seconds, 0.25)
        verdict = judged(verifier.grade(mode), case)
        signal.setitimer(signal.ITIMER_PROF, 0)
        return verdict
    except OverBudget as fault:
        signal.setitimer(signal.ITIMER_PROF, 0)
        return Verdict(0.0, detail=str(fault))


class _Outbox:
    """Verdicts on their way to the parent: a few milliseconds' worth goes in one message, as a message costs more than one.

    How many wait stands in shared memory, so that the parent knows which case is under way should this process hang.
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
            # The count first: what the parent has been told of no longer waits.
            self._waiting[0] = 0
            send(self._connection, self._verdicts)
            self._verdicts = []
        self._sent = time.monotonic()


def serve(connection: socket.socket, deadline: float, waiting: mmap.mmap) -> None:
    """Grades until the parent hangs up.

    Says None once it is ready, and once a family not used before is loaded. Takes lists of (name, mode, case) and answers lists
    of (verdict, seconds), in order. After a verdict that was cut short it says SPENT, and is not to be used again.
    """
    send(connection, None)
    signal.signal(signal.SIGPROF, _over_budget)
    loaded: set[str] = set()
    outbox, last = _Outbox(connection, waiting), ""
    while True:
        for name, mode, case in receive(connection):
            if name != last:
                # One family at a time: its deadline is the one that the parent's clock holds.
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
                # Should the parent die while a verdict hangs in C code, the kernel ends this process; nobody else would.
                signal.setitimer(signal.ITIMER_REAL, 4 * (verifier.deadline or deadline) + 10)
                verdict = _graded(verifier, mode, case)
            except (TuluError, ImportError) as fault:
                verdict = Verdict(None, "error", str(fault))
            outbox.add(verdict, time.monotonic() - began)
            if _struck.is_set():
                outbox.flush()
                send(connection, SPENT)
                return
        outbox.flush()
        signal.setitimer(signal.ITIMER_REAL, 0)


def main(descriptor: int, shared: int, memory_mb: int, deadline: float) -> None:
    """Limits this process, then serves; standard output goes to standard error, for verifiers that print."""
    memory = memory_mb << 20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Ctrl-C reaches the whole process group; the parent decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with socket.socket(fileno=descriptor) as connection, mmap.mmap(shared, 1) as waiting:
        try:
            serve(connection, deadline, waiting)
        except (EOFError, ConnectionError):
            return
