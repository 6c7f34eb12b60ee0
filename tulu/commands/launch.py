"""`--gpus N`: this process starts N ranks of the same command, hears how they do, and ends as they end.

It imports nothing heavy and trains nothing. Rank 0 writes to the terminal by itself; what another rank writes to stderr is
passed on with its number in front. The first rank that fails ends the others, and one message says why. The ranks live in
process groups of their own, so that a Ctrl-C reaches them once, from here; when this process dies, the kernel ends them.
`attend` does the same for ranks that Ray started on other machines (tulu/commands/ray_launch.py).
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import IO, Protocol

from tulu.commands.reports import Report, read_reports
from tulu.config.cores import cores
from tulu.config.gpus import count_gpus
from tulu.config.processes import LAUNCHER, REPORTS, STOPS, handling
from tulu.errors import RecipeError, TuluError

POLL = 0.1
"""Seconds between two looks at the ranks."""
HOLD = 3.0
"""Seconds for which a line of stderr is held back: if the rank dies of it, the line belongs to the one message."""
TO_FOLLOW, TO_CLOSE = 8.0, 10.0
"""Seconds in which the other ranks may end by themselves, and then after a SIGTERM, once one has failed."""
TAIL = 30
"""Most lines of stderr or of a traceback in the message."""
INTERRUPTED = 130
"""The exit code of a rank that was asked to stop."""
_MEMORY = "as the kernel does where memory runs out: lower row_tokens, set gradient_checkpointing, or shard over more ranks"


class RanksFailed(TuluError):
    """One rank or several failed; the exit code is that of the first."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Attended(Protocol):
    """A rank as its launcher sees it, wherever it runs."""

    number: int
    tail: deque[str]
    """The last lines that it wrote to stderr."""
    waiting: deque[tuple[float, str]]
    """Lines that are not passed on yet, with the time at which they came."""
    was_ended: bool
    """Whether it was ended from here because another rank had failed."""
    lost: str
    """Why nothing is known of its end; empty where its exit code says all."""

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""

    @property
    def signal(self) -> Callable[..., None]:
        """Sends a signal to the rank, or with `whole_group` also to every process that it started."""

    def close(self) -> None:
        """Wait until it is gone and everything that it wrote is read."""


class Rank:
    """One started process, and the last of what it wrote to stderr."""

    lost = ""

    def __init__(self, number: int, command: Sequence[str], environment: Mapping[str, str], own_terminal: bool = True) -> None:
        """`own_terminal` lets rank 0 write to the terminal of this process by itself; else what it writes is kept here."""
        self.number = number
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.waiting: deque[tuple[float, str]] = deque()
        self.was_ended = False
        self.said: deque[str] = deque()
        """What rank 0 wrote to stdout, if it has no terminal."""
        first, own_terminal = number == 0, own_terminal and number == 0
        self.process = subprocess.Popen(
            command,
            env={**environment, "RANK": str(number)},
            stdin=subprocess.DEVNULL,
            stdout=None if own_terminal else subprocess.PIPE if first else subprocess.DEVNULL,
            stderr=None if own_terminal else subprocess.PIPE,
            process_group=0,
        )
        pipes = {self.process.stdout: self._take_said, self.process.stderr: self._take_error}
        self._readers = [Thread(target=_read, args=(pipe, take), daemon=True) for pipe, take in pipes.items() if pipe is not None]
        for reader in self._readers:
            reader.start()

    def _take_said(self, line: str) -> None:
        self.said.append(line)

    def _take_error(self, line: str) -> None:
        self.tail.append(line)
        self.waiting.append((time.monotonic(), line))

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self.process.poll()

    def signal(self, number: int, whole_group: bool = False) -> None:
        """Send a signal to the rank, or also to every process that it started."""
        with suppress(ProcessLookupError):
            if whole_group:
                os.killpg(self.process.pid, number)
            elif self.process.returncode is None:
                self.process.send_signal(number)

    def close(self) -> None:
        """Wait until it is gone and everything that it wrote is read."""
        if self.process.wait():
            # What a rank that failed has started may outlive it, and keep memory and the pipe.
            self.signal(signal.SIGKILL, whole_group=True)
        for reader in self._readers:
            reader.join(timeout=1.0)


def _read(pipe: IO[bytes], take: Callable[[str], None]) -> None:
    """Take every line that comes through a pipe."""
    for raw in pipe:
        take(raw.decode("utf-8", "replace").rstrip("\n"))


def rank_command(arguments: Sequence[str]) -> list[str]:
    """`tulu ARGUMENTS` by this process's own interpreter, which finds the package where this process found it."""
    # Python puts the working folder in front of the installed packages, unless it is told not to.
    with_folder = str(Path.cwd()) in sys.path
    return [sys.executable, *([] if with_folder else ["-P"]), "-m", "tulu", *arguments]


def launch(count: int, command: Sequence[str], said: str = "--gpus") -> None:
    """Run a command as so many ranks. Raises RanksFailed if one fails, KeyboardInterrupt if they were asked to stop.

    RecipeError where there are fewer GPUs. A machine without any trains as so many processes on its CPU.
    """
    if 0 < (present := count_gpus()) < count:
        raise RecipeError(f"{said} {count}: this process sees {present} (CUDA_VISIBLE_DEVICES, nvidia-smi -L); lower it")
    with tempfile.TemporaryDirectory(prefix="tulu-ranks-") as reports, reserved_port() as port:
        environment = {**os.environ, **_names(count, port), LAUNCHER: str(os.getpid()), REPORTS: reports}
        started = (Rank(number, command, {**environment, "LOCAL_RANK": str(number)}) for number in range(count))
        attend(started, lambda: read_reports(Path(reports)))


def attend(started: Iterator[Attended], reports: Callable[[], Sequence[Report]]) -> None:
    """Take the ranks as they are started, and stay until all have ended. Raises as `launch` does."""
    ranks: list[Attended] = []
    with _forwarded(ranks) as received:
        try:
            while not received and (rank := next(started, None)) is not None:
                ranks.append(rank)
            _watch(ranks)
        finally:
            _end(ranks)
    if received and all(_was_stopped(rank) for rank in ranks):
        raise KeyboardInterrupt
    if any(rank.exit_code for rank in ranks):
        raise _failure(ranks, reports())


def _names(count: int, port: int) -> dict[str, str]:
    """What torch reads, and each rank's share of the cores."""
    names = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    if "OMP_NUM_THREADS" not in os.environ:
        names["OMP_NUM_THREADS"] = str(max(1, cores() // count))
    return names


@contextmanager
def reserved_port() -> Iterator[int]:
    """A free port that nobody else is given while the context lasts; rank 0 alone can listen on it.

    A socket that is bound and does not listen keeps the port from everyone but those who ask to reuse it, as torch's store
    does.
    """
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as holder:
        if family == socket.AF_INET6:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("", 0))
        yield holder.getsockname()[1]


@contextmanager
def _forwarded(ranks: Sequence[Attended]) -> Iterator[list[int]]:
    """While the context lasts, Ctrl-C, SIGTERM and SIGHUP go to every rank, once each; from the third on the ranks are killed."""
    received: list[int] = []

    def forward(number: int, *_: object) -> None:
        if number == signal.SIGHUP and received:
            # Both the shell and the system tell that a terminal is closed.
            return
        received.append(number)
        for rank in ranks:
            if len(received) > 2:
                rank.signal(signal.SIGKILL, whole_group=True)
            else:
                rank.signal(number)

    with handling(forward):
        yield received


def _watch(ranks: Sequence[Attended]) -> None:
    """Return when all ranks have ended, or one has failed."""
    shown: set[str] = set()
    while True:
        codes = [rank.exit_code for rank in ranks]
        if any(codes) or None not in codes:
            return
        for rank in ranks:
            _pass_on(rank, time.monotonic() - HOLD, shown)
        time.sleep(POLL)


def _pass_on(rank: Attended, until: float, shown: set[str]) -> None:
    """Write the lines that came before `until`; one that another rank wrote as well is not repeated."""
    while rank.waiting and rank.waiting[0][0] <= until:
        _, line = rank.waiting.popleft()
        if line.strip() and line not in shown:
            shown.add(line)
            # Whoever read this may have gone (`2>&1 | head`), which is no reason to end the ranks.
            with suppress(OSError):
                print(f"[rank {rank.number}] {line}", file=sys.stderr, flush=True)


def _end(ranks: Sequence[Attended]) -> None:
    """End the ranks that still run: they may end by themselves, then after a SIGTERM, and then they are killed."""
    for number, patience in ((None, TO_FOLLOW), (signal.SIGTERM, TO_CLOSE), (signal.SIGKILL, None)):
        running = [rank for rank in ranks if rank.exit_code is None]
        for rank in running:
            if number is not None:
                rank.was_ended = True
                rank.signal(number, whole_group=number == signal.SIGKILL)
        until = time.monotonic() + patience if patience is not None else 0.0
        while any(rank.exit_code is None for rank in running) and time.monotonic() < until:
            time.sleep(POLL)
    for rank in ranks:
        rank.close()
    if sys.stderr.isatty():
        # A progress bar hides the cursor, and a rank that was killed could not show it again.
        print("\x1b[?25h", end="", file=sys.stderr, flush=True)


def _was_stopped(rank: Attended) -> bool:
    """Whether a rank ended because it was asked to, or had ended well before."""
    return rank.exit_code in (0, INTERRUPTED, *(-number for number in (*STOPS, signal.SIGKILL)))


def _failure(ranks: Sequence[Attended], reports: Sequence[Report]) -> RanksFailed:
    """The error that tells why the first rank failed: the first that says why, unless one that cannot say it died before."""
    said = {report.rank for report in reports}
    silent = [rank for rank in ranks if rank.exit_code and rank.number not in said and not rank.was_ended]
    if silent and (not reports or reports[0].echo):
        return _of_silent(silent[0], len(ranks))
    if not reports:
        return RanksFailed("the ranks were ended before one of them said why; run the same command again", 1)
    first = reports[0]
    where = f"rank {first.rank} of {len(ranks)}"
    if not first.details:
        # A mistake that other ranks meet as well is told as one process tells it.
        alike = sum(report.message == first.message for report in reports)
        return RanksFailed(first.message if alike > 1 else f"{where}: {first.message}", first.exit_code)
    return _with_tail(f"{where} failed: {first.message.splitlines()[0]}", first.details.rstrip().splitlines(), first.exit_code)


def _of_silent(rank: Attended, count: int) -> RanksFailed:
    """The error of a rank that died without a word: killed, crashed, or ended before it was under way."""
    code = rank.exit_code or 0
    where = f"rank {rank.number} of {count}"
    if rank.lost:
        return _with_tail(f"{where} is lost: {rank.lost}", list(rank.tail), 1)
    if code == -signal.SIGKILL:
        return _with_tail(f"{where} was killed (SIGKILL), {_MEMORY}", list(rank.tail), 1)
    if code < 0:
        return _with_tail(f"{where} died of {signal.Signals(-code).name}", list(rank.tail), 1)
    return _with_tail(f"{where} ended with exit code {code}", list(rank.tail), code)


def _with_tail(head: str, lines: Sequence[str], exit_code: int) -> RanksFailed:
    cure = "The other ranks were ended. Run the same command again: it resumes from the newest checkpoint, if there is one."
    return RanksFailed("\n".join([head, *(f"  {line}" for line in lines[-TAIL:]), cure]), exit_code)
