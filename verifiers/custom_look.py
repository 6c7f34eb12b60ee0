"""The process in which a file of the user's is looked at, and its golds are checked, before anything is graded by it.

A file may do anything while it is imported: hang, end its process, print, seed, change folders or signals. It is imported as
graders will import it, within the same limits, and never in the process that runs the command.

    ("look", name, working folder) -> whether its file has a `check`
    ("check", name, gold)          -> why the gold is refused, or an empty text

Each answer comes as ("ok", value), or ("refused", why).
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
import time
from functools import cache
from typing import Any, NoReturn

from tulu import deadlines
from tulu.children import LOADING_SECONDS, MEMORY_MB, begin, end, leave, receive, send, start
from tulu.errors import RecipeError
from tulu.user_code import content_digest
from tulu.verifiers.custom_function import own_file, own_function

_EXIT_SECONDS = 0.5
"""Seconds that a process which closed its connection is given to end."""
_IDLE_SECONDS = 60.0
"""Seconds without a question after which the process ends: what a file imports may be large, and a run is long."""


class Looking:
    """The parent's side. One process looks at all files, so that two which cannot stand beside each other are refused."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: tuple[socket.socket, subprocess.Popen[bytes]] | None = None
        self._answered = 0.0
        """When the process last gave an answer."""
        self._seen: dict[str, tuple[str, bool]] = {}
        """What the process has imported: of each name the content of its files, and whether there is a `check`."""

    def has_check(self, name: str) -> bool:
        """Whether a verifier's file has a `check`. RecipeError where the verifier cannot be used."""
        with self._lock:
            return self._look(name)

    def objection(self, name: str, gold: Any) -> str:
        """Why a verifier's `check` refuses a ground truth, or an empty text. RecipeError where it gives no answer."""
        with self._lock:
            has_check = self._seen[name][1] if name in self._seen else self._look(name)
            return str(self._ask(name, ("check", name, gold), "check of a ground truth")) if has_check else ""

    def _look(self, name: str) -> bool:
        content = content_digest(own_file(name))
        if name in self._seen and self._seen[name][0] != content:
            self._stop()
        if name not in self._seen:
            self._seen[name] = content, self._ask(name, ("look", name, os.getcwd()), "import")
        return self._seen[name][1]

    def _ask(self, name: str, order: tuple[Any, ...], what: str) -> Any:
        if self._child is not None and time.monotonic() - self._answered > _IDLE_SECONDS / 2:
            # It ends soon, if it has not already.
            self._stop()
        if self._child is None:
            self._child = _started()
        connection, file = self._child[0], own_file(name)
        try:
            connection.settimeout(LOADING_SECONDS)
            send(connection, order)
            _await_answer(connection)
            status, value = receive(connection)
        except TimeoutError:
            self._stop()
            raise RecipeError(f"verifier {name!r}: the {what} of {file} takes longer than {LOADING_SECONDS:g} s") from None
        # Besides an end of the process, only what a file wrote into the connection itself is no answer.
        except Exception as fault:
            code = self._stop()
            cure = "see what it printed above; let it end no program"
            raise RecipeError(f"verifier {name!r}: the {what} of {file} ended its process (exit code {code}); {cure}") from fault
        except BaseException:
            # Ctrl-C may come while a file hangs, whose process would go on.
            self._stop()
            raise
        self._answered = time.monotonic()
        if status == "refused":
            raise RecipeError(value)
        return value

    def _stop(self) -> int | None:
        """End the process; its exit code, where it ended by itself."""
        if self._child is None:
            return None
        connection, process = self._child
        connection.close()
        self._child, self._seen = None, {}
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_EXIT_SECONDS)
        code = process.poll()
        end(process)
        return code


def _started() -> "tuple[socket.socket, subprocess.Popen[bytes]]":
    connection, child_end = socket.socketpair()
    with child_end:
        program = f"from tulu.verifiers.custom_look import main; main(*handed, {_IDLE_SECONDS})"
        return connection, start(program, child_end.fileno())


def _await_answer(connection: socket.socket) -> None:
    """Wait for an answer to begin. Raises TimeoutError after LOADING_SECONDS in which this process ran."""
    until = deadlines.now() + LOADING_SECONDS
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    while not poll.poll(1000 * max(0.0, until - deadlines.now())):
        if deadlines.now() >= until:
            raise TimeoutError


@cache
def _looking_of(_pid: int) -> Looking:
    return Looking()


def looking() -> Looking:
    """The one of this process; a fork has another."""
    return _looking_of(os.getpid())


def _answer(order: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        if order[0] == "look":
            # Another file may have changed it.
            os.chdir(order[2])
        own = own_function(order[1])
        return "ok", own.check is not None if order[0] == "look" else own.objection(order[2])
    except RecipeError as error:
        return "refused", str(error)


def main(descriptor: int, idle_seconds: float) -> NoReturn:
    """Serve on this socket until the parent closes it, or asks nothing for so long."""
    begin(MEMORY_MB)
    own = os.getpid()
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(EOFError, OSError):
        connection.settimeout(idle_seconds)
        while True:
            order = receive(connection)
            # If the parent dies while a file hangs, only this timer ends the process.
            signal.setitimer(signal.ITIMER_REAL, LOADING_SECONDS + 10)
            answer = _answer(order)
            signal.setitimer(signal.ITIMER_REAL, 0)
            # Code that forks comes back in both processes.
            if os.getpid() != own:
                os._exit(0)
            send(connection, answer)
    leave()
