"""The other end of a grading process: reads cases from a socket, answers each with a verdict.

Started by tulu/workers.py as a fresh interpreter, never forked and never through multiprocessing, which would run the
caller's main module again. It imports verifiers only, no torch.
"""

import os
import pickle
import resource
import signal
import socket
import struct
import sys
from typing import Any, NoReturn

from tulu.errors import TuluError
from tulu.types import Verdict
from tulu.verifiers.contract import Case, Mode, OverBudget, Verifier, judged
from tulu.verifiers.registry import find

_HEADER = struct.Struct("<I")


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


def _over_budget(_signal: int, _frame: Any) -> NoReturn:
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


def serve(connection: socket.socket, deadline: float) -> None:
    """Grades until the parent hangs up.

    Says None once it is ready, and once a family not used before is loaded. Takes lists of (name, mode, case) and answers a
    verdict for each.
    """
    send(connection, None)
    signal.signal(signal.SIGPROF, _over_budget)
    loaded: set[str] = set()
    while True:
        for name, mode, case in receive(connection):
            # Should the parent die while a verdict hangs in C code, the kernel ends this process; nobody else would.
            signal.setitimer(signal.ITIMER_REAL, 0)
            try:
                verifier = find(name)
                if name not in loaded:
                    if verifier.warm is not None:
                        verifier.warm()
                    loaded.add(name)
                    send(connection, None)
                signal.setitimer(signal.ITIMER_REAL, 4 * (verifier.deadline or deadline) + 10)
                verdict = _graded(verifier, mode, case)
            except (TuluError, ImportError) as fault:
                verdict = Verdict(None, "error", str(fault))
            send(connection, verdict)
        signal.setitimer(signal.ITIMER_REAL, 0)


def main(descriptor: int, memory_mb: int, deadline: float) -> None:
    """Limits this process, then serves; standard output goes to standard error, for verifiers that print."""
    memory = memory_mb << 20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Ctrl-C reaches the whole process group; the parent decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with socket.socket(fileno=descriptor) as connection:
        try:
            serve(connection, deadline)
        except (EOFError, ConnectionError):
            return
