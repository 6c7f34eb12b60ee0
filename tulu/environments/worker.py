"""The program of the nursery: a process that has imported an environment's class, and forks one process for each episode.

A fork costs milliseconds where an interpreter with its imports costs seconds, and an episode that hangs or dies takes nothing
with it but itself. The nursery runs no code of episodes, so it has no threads when it forks, and imports no torch until
it describes the tools, which a nursery of its own does.

    nursery:  ("describe",) -> Description          ("start",) with a socket -> pid          ("end", pid) -> None
    episode:  ("reset", row) -> text | None         ("call", calls) -> (number, text) ...    ("reward",) -> float | None
    one that drives:                                ("reply", turn) -> messages | None       ("stop",) -> None

Each answer comes as ("ok", value), or ("failed", why); `RecipeError` of the class comes as ("refused", why).
"""

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from tulu.children import leave, receive, send
from tulu.config.processes import end_with_the_parent
from tulu.environments.answers import as_reward, told
from tulu.environments.authoring import Acting, check_options, describe, load_class
from tulu.environments.tasksets import TasksetPlay
from tulu.errors import RecipeError


def serve(control: socket.socket, source: str, options: dict[str, Any], call_seconds: float) -> None:
    """Answer the parent until it closes the connection; then end all episodes."""
    episodes: set[int] = set()
    try:
        environment = load_class(source)
        _prepare(environment, options)
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


def _prepare(environment: type, options: dict[str, Any]) -> None:
    """Do once, before the first fork, what every episode of ours needs. Raises RecipeError."""
    if not issubclass(environment, TasksetPlay):
        check_options(environment, options)
    # A class of the user's may have a method of that name for itself.
    for kind in environment.__mro__:
        if kind.__module__.startswith("tulu.environments.") and (prepare := vars(kind).get("_prepare")):
            prepare.__get__(None, environment)(**options)


def _end(pid: int) -> None:
    """Kill an episode and what it started. It is this process's child, whose number nobody else gets before it is waited for."""
    for process in (pid, *_descendants(pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started; servers of tools have sessions of their own."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in file.read_text().split()]
    return [one for child in found for one in (child, *_descendants(child))]


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
    acting: Acting | TasksetPlay | None = None
    own = os.getpid()

    def answer(status: str, value: Any) -> None:
        # Code that forks comes back in both processes, and the parent would take the second answer for that to its next order.
        if os.getpid() != own:
            os._exit(0)
        send(connection, (status, value))

    while True:
        try:
            order = receive(connection)
        except (EOFError, ConnectionError):
            return
        value: Any = None
        try:
            if order[0] == "reset":
                acting = environment() if issubclass(environment, TasksetPlay) else Acting(environment, options, call_seconds)
                value = acting.reset(order[1])
            elif order[0] == "call" and isinstance(acting, Acting):
                # Each result goes out when it is there, by which the parent sees which call hangs.
                acting.call(order[1], lambda number, text: answer("ok", (number, text)))
                continue
            elif order[0] == "reply" and isinstance(acting, TasksetPlay):
                value = acting.reply(order[1])
            elif order[0] == "stop" and isinstance(acting, TasksetPlay):
                acting.stop()
            elif acting is not None:
                value = as_reward(acting.reward())
            status = "ok"
        # The environment is the user's code: whatever it raises, SystemExit too, is told and ends its episode, not the run.
        except BaseException as fault:  # noqa: BLE001
            status, value = "failed", told(fault)[:500]
        try:
            answer(status, value)
        except ConnectionError:
            return


def main(descriptor: int) -> NoReturn:
    """Serve on this socket, whose first message says what."""
    # Ctrl-C reaches the whole process group, but the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # What an environment prints is seen at once: an episode's process is killed, and writes out nothing then.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    with socket.socket(fileno=descriptor) as control, contextlib.suppress(EOFError, ConnectionError):
        serve(control, *receive(control))
    leave()
