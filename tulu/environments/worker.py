"""The program of the nursery: a process that has imported an environment's class, and forks one process for each episode.

A fork costs milliseconds where an interpreter with its imports costs seconds, and an episode that hangs or dies takes nothing
with it but itself. The nursery runs no code of episodes, so it has no threads when it forks, and imports no torch until
it describes the tools, which a nursery of its own does.

    nursery:  ("describe",) -> Description          ("start",) with a socket -> pid          ("end", pid) -> None
    episode:  ("reset", row) -> text | None         ("call", calls) -> (number, text) ...    ("reward",) -> float | None

Each answer comes as ("ok", value), or ("failed", why); `RecipeError` of the class comes as ("refused", why).
"""

import contextlib
import os
import signal
import socket
import sys
from typing import Any, NoReturn

from tulu.config.processes import end_with_the_parent
from tulu.environments.authoring import Acting, describe, load_class
from tulu.errors import RecipeError
from tulu.grading.worker import receive, send


def serve(control: socket.socket, source: str, options: dict[str, Any], call_seconds: float) -> None:
    """Answer the parent until it closes the connection; then end all episodes."""
    episodes: set[int] = set()
    try:
        environment = load_class(source)
        send(control, ("ok", None))
        while True:
            order = receive(control)
            if order[0] == "describe":
                send(control, ("ok", describe(environment)))
            elif order[0] == "start":
                _, handed, *_ = socket.recv_fds(control, 1, 1)
                pid = _fork(control, handed[0], environment, options, call_seconds)
                episodes.add(pid)
                send(control, ("ok", pid))
            else:
                _end(order[1])
                episodes.discard(order[1])
                send(control, ("ok", None))
    except RecipeError as error:
        send(control, ("refused", str(error)))
    finally:
        for pid in episodes:
            _end(pid)


def _end(pid: int) -> None:
    """Kill an episode. It is this process's child, whose number nobody else gets before it is waited for."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _fork(control: socket.socket, descriptor: int, environment: type, options: dict[str, Any], call_seconds: float) -> int:
    pid = os.fork()
    if pid:
        os.close(descriptor)
        return pid
    code = 1
    try:
        control.close()
        # If the nursery dies while a tool hangs, nobody else could end this process.
        end_with_the_parent()
        with socket.socket(fileno=descriptor) as connection:
            _act(connection, environment, options, call_seconds)
        code = 0
    finally:
        # A child must not run what its parent has on the stack, which would end the other episodes.
        os._exit(code)


def _act(connection: socket.socket, environment: type, options: dict[str, Any], call_seconds: float) -> None:
    """One episode, until the parent closes the connection."""
    acting: Acting | None = None
    while True:
        try:
            order = receive(connection)
        except (EOFError, ConnectionError):
            return
        answers: list[tuple[str, Any]] = []
        try:
            if order[0] == "reset":
                acting = Acting(environment, options, call_seconds)
                answers.append(("ok", acting.reset(order[1])))
            elif order[0] == "call" and acting is not None:
                # Each result goes out when it is there, by which the parent sees which call hangs.
                acting.call(order[1], lambda number, text: send(connection, ("ok", (number, text))))
            elif acting is not None:
                answers.append(("ok", acting.reward()))
        # The environment is the user's code: whatever it raises is told and ends its episode, not the run.
        except Exception as fault:  # noqa: BLE001
            answers.append(("failed", f"{type(fault).__name__}: {fault}"[:500]))
        try:
            for answer in answers:
                send(connection, answer)
        except ConnectionError:
            return


def main(descriptor: int) -> NoReturn:
    """Serve on this socket, whose first message says what."""
    # Ctrl-C reaches the whole process group, but the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with socket.socket(fileno=descriptor) as control, contextlib.suppress(EOFError, ConnectionError):
        serve(control, *receive(control))
    # A user's module may have started threads that never end.
    sys.stderr.flush()
    os._exit(0)
