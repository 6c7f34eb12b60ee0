"""Processes for code that this one must not run itself: how they begin, what is sent to them, what limits them, how they end.

Each is a new interpreter. It is never forked, and not started by multiprocessing, which would run the caller's main module again.
"""

import contextlib
import json
import os
import pickle
import resource
import signal
import socket
import struct
import subprocess
import sys
from typing import Any, NoReturn

LOADING_SECONDS = 120.0
"""Most seconds that a process may take to start, or to import what grades."""
MEMORY_MB = 2048
"""Address space of a process that grades, where nothing else is said."""
_HEADER = struct.Struct("<I")
"""The length of a message in bytes, which is sent before it."""


def start(program: str, *descriptors: int) -> "subprocess.Popen[bytes]":
    """A new interpreter that runs `program`, in which `handed` are these descriptors. It finds modules where this one does."""
    boot = f"import sys, json; sys.path[:] = json.loads(sys.argv[1]); handed = [*map(int, sys.argv[2:])]; {program}"
    return subprocess.Popen(
        [sys.executable, "-c", boot, json.dumps(sys.path), *map(str, descriptors)],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        # With several numerical threads each, processes would only compete for the same cores.
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
    )


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process with what it has started, such as a program that its code waits for, and wait until it is gone."""
    # The command line imports this file, and most commands start no process.
    import psutil

    started: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.kill()
    for one in started:
        with contextlib.suppress(psutil.Error):
            one.kill()
    process.wait()


def begin(memory_mb: int) -> None:
    """What such a process does first: it limits its memory, and what is printed in it goes to standard error."""
    memory = memory_mb << 20
    if sys.platform != "darwin":
        # macOS has the name of this limit and refuses to set it.
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Ctrl-C reaches the whole process group, but the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # At once, too: a process that is killed would lose what it keeps back.
    sys.stdout = sys.stderr


def leave() -> NoReturn:
    """End this process at once: code of the user's may have started threads that never end."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


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
