"""The parent's side of environments: a nursery that starts them, and one process for each episode, with deadlines."""

import contextlib
import select
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tulu import deadlines
from tulu.children import receive, send, start
from tulu.environments.authoring import Description
from tulu.errors import RecipeError, TuluError
from tulu.user_code import content_digest

_START_SECONDS = 300.0
"""Most seconds that importing an environment, or describing it, may take."""
_FORK_SECONDS = 20.0
"""Most seconds that the start or the end of an episode may take on a busy machine."""
Call = tuple[str, Mapping[str, Any]]
"""Name and arguments of a call."""


class Failed(Exception):
    """An environment raised, ended or answered nothing; its episode has no score."""

    late = False


class Late(Failed):
    """An environment missed a deadline."""

    late = True


class EpisodeProcess:
    """The process of one episode. One thread at a time may ask it; `kill` may come from any other."""

    def __init__(self, nursery: "Nursery", connection: socket.socket, pid: int) -> None:
        self._nursery, self._connection, self.pid = nursery, connection, pid
        self._ended = threading.Event()

    def reset(self, row: Mapping[str, Any], seconds: float) -> str | None:
        """Begin with a row; the text for the user's message, if there is one."""
        text: str | None = self._ask(("reset", dict(row)), deadlines.now() + seconds, f"reset: nothing within {seconds:g} s")
        return text

    def call(self, calls: Sequence[Call], call_seconds: float, turn_seconds: float) -> list[str]:
        """The results of a turn's calls, in the order of the calls, whichever ends first."""
        self._send(("call", [(name, dict(arguments)) for name, arguments in calls]))
        results: dict[int, str] = {}
        turn_end = deadlines.now() + turn_seconds
        while len(results) < len(calls):
            waited = next(number for number in range(len(calls)) if number not in results)
            # Tools that run together end themselves at call_seconds, with a result that says so.
            call_end = deadlines.now() + call_seconds + (1.0 if len(calls) > 1 else 0.0)
            over = f"the calls of a turn took longer than {turn_seconds:g} s"
            late = over if turn_end <= call_end else f"{calls[waited][0]}: no result within {call_seconds:g} s"
            number, text = self._receive(min(call_end, turn_end), late)
            results[number] = text
        return [results[number] for number in range(len(calls))]

    def reply(self, turn: Mapping[str, Any], seconds: float) -> list[dict[str, Any]] | None:
        """Give a turn of the policy to an environment that drives; what is said then, or None where the episode is over."""
        late = f"nothing was said within {seconds:g} s of a turn"
        further: list[dict[str, Any]] | None = self._ask(("reply", dict(turn)), deadlines.now() + seconds, late)
        return further

    def stop(self, seconds: float) -> None:
        """Refuse an environment that drives a further turn, and let it score what there is."""
        self._ask(("stop",), deadlines.now() + seconds, f"no score within {seconds:g} s of the last turn")

    def reward(self, seconds: float) -> float | None:
        """What the environment scores the episode with; None if it says that it has no score."""
        late = f"get_reward: nothing within {seconds:g} s"
        reward: float | None = self._ask(("reward",), deadlines.now() + seconds, late)
        return reward

    def kill(self) -> None:
        """End the process, whatever it does."""
        if not self._ended.is_set():
            self._ended.set()
            with contextlib.suppress(OSError):
                # This wakes a thread that waits for an answer.
                self._connection.shutdown(socket.SHUT_RDWR)
            self._nursery.end(self.pid)
            self._connection.close()

    def _ask(self, order: Any, until: float, late: str) -> Any:
        self._send(order)
        return self._receive(until, late)

    def _send(self, order: Any) -> None:
        try:
            self._connection.settimeout(_FORK_SECONDS)
            send(self._connection, order)
        except OSError as fault:
            self.kill()
            raise Failed(f"the environment's process is gone ({type(fault).__name__})") from fault

    def _receive(self, until: float, late: str) -> Any:
        try:
            self._await(until)
            self._connection.settimeout(max(0.001, until - deadlines.now()))
            status, value = receive(self._connection)
        except TimeoutError:
            self.kill()
            raise Late(late) from None
        except (EOFError, OSError):
            self.kill()
            raise Failed("the environment's process ended") from None
        # Only what an environment wrote into the connection itself is no message.
        except Exception as fault:
            self.kill()
            raise Failed(f"what the environment's process sent is no answer ({type(fault).__name__})") from fault
        if status != "ok":
            raise Failed(value)
        return value

    def _await(self, until: float) -> None:
        """Wait for an answer to begin. Raises TimeoutError at that time."""
        # A socket's own limit would be over while this process is stopped.
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        while not poll.poll(1000 * max(0.0, until - deadlines.now())):
            if deadlines.now() >= until:
                raise TimeoutError


class Nursery:
    """The process that environments are forked from; another takes its place if it dies."""

    def __init__(self, source: str, options: Mapping[str, Any], call_seconds: float) -> None:
        """Start it. Raises RecipeError where the environment's class cannot be used."""
        self._given = (source, dict(options), call_seconds)
        self._content = _content(source)
        self._lock = threading.Lock()
        self._closed = False
        self._pids: set[int] = set()
        self._open()

    def start(self) -> EpisodeProcess:
        """A process for one episode. Raises TuluError where none starts."""
        with self._lock:
            for attempt in (1, 2):
                try:
                    return self._fork()
                except (OSError, EOFError) as fault:
                    if self._closed or attempt == 2:
                        raise TuluError(f"no process starts for an episode of {self._given[0]}: {fault}") from fault
                    self._stop()
                    self._reopen()
        raise AssertionError

    def end(self, pid: int) -> None:
        """End an episode's process."""
        with self._lock:
            # The episodes of a nursery that died ended with it, and another process may have their numbers by now.
            if pid in self._pids:
                self._pids.discard(pid)
                try:
                    self._ask(("end", pid), _FORK_SECONDS)
                except (OSError, EOFError):
                    # An answer that comes too late would be taken for that to the next order.
                    self._stop()

    def close(self) -> None:
        """End everything."""
        with self._lock:
            self._closed = True
            self._stop()

    def _open(self) -> None:
        self._control, worker_end = socket.socketpair()
        with worker_end:
            self.popen = start("from tulu.environments.worker import main; main(*handed)", worker_end.fileno())
        try:
            self._ask(self._given, _START_SECONDS)
        except RecipeError:
            self._stop()
            raise
        except TimeoutError:
            self._stop()
            raise RecipeError(f"env: {self._given[0]} is not imported within {_START_SECONDS:g} s") from None
        except (OSError, EOFError):
            self._stop()
            raise RecipeError(f"env: {self._given[0]}: the process that imports it ended; see its message above") from None

    def _reopen(self) -> None:
        if _content(source := self._given[0]) != self._content:
            text = f"{source}, or a file that it imports, is not what it was when its episodes began"
            raise TuluError(f"env: {text}; put it back, or begin a new run")
        try:
            self._open()
        except RecipeError as fault:
            raise TuluError(f"{fault}\nIt could be imported when the command began; was the file changed?") from fault

    def _stop(self) -> None:
        self._control.close()
        self._pids.clear()
        try:
            # It ends its episodes first.
            self.popen.wait(_FORK_SECONDS)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()

    def _fork(self) -> EpisodeProcess:
        connection, child_end = socket.socketpair()
        try:
            with child_end:
                self._control.settimeout(_FORK_SECONDS)
                send(self._control, ("start",))
                socket.send_fds(self._control, [b"."], [child_end.fileno()])
                pid = self._answer()
        except BaseException:
            connection.close()
            raise
        self._pids.add(pid)
        return EpisodeProcess(self, connection, pid)

    def _ask(self, order: Any, seconds: float) -> Any:
        self._control.settimeout(seconds)
        send(self._control, order)
        return self._answer()

    def _answer(self) -> Any:
        status, value = receive(self._control)
        if status == "refused":
            raise RecipeError(value)
        return value


def _content(source: str) -> str:
    """A digest of an environment's file and of those that it imports from beside itself; empty where it is in no file."""
    file = Path(source.partition(":")[0]).expanduser()
    return content_digest(file) if file.is_file() else ""


def describe(source: str, options: Mapping[str, Any]) -> Description:
    """The tools of an environment, asked in a process of its own. Raises RecipeError where it cannot be used."""
    nursery = Nursery(source, options, _START_SECONDS)
    try:
        description: Description = nursery._ask(("describe",), _START_SECONDS)
        return description
    except TimeoutError:
        raise RecipeError(f"env: {source} is not described within {_START_SECONDS:g} s") from None
    except (OSError, EOFError):
        raise RecipeError(f"env: {source}: the process that describes it ended; see its message above") from None
    finally:
        nursery.close()
