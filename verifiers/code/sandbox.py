"""A bubblewrap sandbox for untrusted programs: its own user, process, network and mount namespaces, seccomp and hard limits.

It starts with an empty environment, because what bubblewrap's `--clearenv` hides still stands in /proc/1/environ. Where the
parent is not root, it becomes nobody in a new user namespace. Where the parent is root, it makes the namespaces as root, so that
it can show the program an interpreter from a folder that is closed to others; the child then takes a user id that no other
sandbox has, because the process limit does not hold for root and is shared by all processes of a user.
docs/verifiers.md says what the sandbox stops and what it does not.
"""

import contextlib
import itertools
import marshal
import os
import platform
import re
import select
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tulu.errors import RecipeError
from tulu.verifiers.code import cgroups
from tulu.verifiers.code.boot import BOOT, child_code
from tulu.verifiers.code.bubblewrap import UNSAFE, command, interpreter, shared_library, unsafe
from tulu.verifiers.code.messages import (
    SandboxFault,
    SandboxGone,
    SandboxSpent,
    SandboxTimeout,
    file_with,
    parse,
    pipe,
)
from tulu.verifiers.code.seccomp import seccomp_filter
from tulu.verifiers.code.usage import CHECK_SECONDS, MOST_FILES, MOST_MEMORY, Usage, limit_files

_FIRST_USER = 1 << 30
"""The lowest user id that a sandbox takes."""
_USERS_PER_PROCESS = 64
LARGEST_OUTPUT = 16 << 20
"""Bytes that a program may print."""
LARGEST_MESSAGE = 32 << 20
"""Bytes of one message from a sandbox."""
_STDERR_TAIL = 4096
_START_SECONDS = 20.0
"""Seconds that the start of a sandbox may take on a busy machine; that is no fault of the program."""
_END_SECONDS = 5.0
"""Seconds to wait for the end of a killed sandbox."""
WALL_PER_CPU = 2.5
"""Wall seconds for each CPU second of a limit: enough for a busy machine, but not for a program that sleeps."""
_SHORT_WAIT = 0.1
"""Seconds that a program may have waited for a core and still be called one that sleeps."""
CPU_GRACE = 0.3
"""CPU seconds beyond its limit in which a program may still see to its own end."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use; a program that needs more fails its tests."""

    cpu: int = 30
    """CPU seconds of all tests together."""
    memory: int = 1 << 30
    """Bytes of address space of each process. What all of them hold together is bounded in usage.py."""
    processes: int = 16
    """Processes and threads."""
    file: int = 8 << 20
    """Bytes of each file."""


@lru_cache(maxsize=1)
def _bubblewrap() -> tuple[str, ...]:
    return command()


_sandbox_count = itertools.count()


def _next_user() -> int:
    """A user id that no other running sandbox has, for a child that starts as root; 0 for one that keeps its user."""
    if os.geteuid() != 0 or unsafe():
        return 0
    return _FIRST_USER + os.getpid() * _USERS_PER_PROCESS + next(_sandbox_count) % _USERS_PER_PROCESS


@lru_cache(maxsize=2)
def _probe(_unsafe: bool) -> None:
    if _unsafe:
        return
    _bubblewrap()
    try:
        with Sandbox("program", Limits()) as sandbox:
            sandbox.grant(10.0)
            answer = sandbox.ask({"call": "abs", "values": [-2], "keywords": ["d", []], "cpu": 10.0, "wall": 20.0}, 30.0)
    except (SandboxGone, SandboxTimeout, SandboxSpent, SandboxFault) as fault:
        raise RecipeError(
            f"the sandbox does not start here ({fault}): user namespaces may be switched off; "
            f"allow them, or use --unsafe-local ({UNSAFE}=1)"
        ) from fault
    if answer.get("value") != 2:
        raise RecipeError(f"the sandbox does not work here: it answered {answer}")


def require() -> None:
    """RecipeError unless programs can be run here: in a sandbox, or without one where the user allows it."""
    _probe(unsafe())


class Sandbox:
    """One process in a sandbox of its own; leaving the context kills it and all that it started."""

    def __init__(self, role: str, limits: Limits, stdin: bytes | None = None) -> None:
        self._buffer = bytearray()
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._info: int | None = None
        self._first: int | None = None
        self._usage: Usage | None = None
        self._waited: float | None = None
        self._granted, self._ready, self._files_are_limited = 0.0, False, False
        self._group = None if unsafe() else cgroups.take(MOST_MEMORY)
        with contextlib.ExitStack() as child_ends:
            commands, self._to = pipe(child_ends, read=True)
            self._from, answers = pipe(child_ends, read=False)
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115
            user = _next_user()
            numbers = (commands, answers, limits.cpu, limits.memory, limits.processes, limits.file, user)
            code = file_with(child_ends, child_code(role))
            boot = BOOT.format(code)
            inner = [str(interpreter(not unsafe())), "-I", "-S", "-B", "-c", boot, role, *map(str, numbers)]
            descriptors = [commands, answers, code]
            outer: list[str] = []
            if unsafe():
                self._scratch = tempfile.TemporaryDirectory()
            else:
                self._info, info = pipe(child_ends, read=False)
                descriptors.append(info)
                group = cgroups.enter(self._group) if self._group else []
                outer = [*group, *_bubblewrap(), "--info-fd", str(info), *self._filter(child_ends, descriptors), "--"]
            self.process = subprocess.Popen(
                [*outer, *inner],
                env=shared_library() if unsafe() else {},
                pass_fds=descriptors,
                # A file, because programs ask for its size before they read it.
                stdin=subprocess.DEVNULL if stdin is None else file_with(child_ends, stdin),
                stdout=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
                cwd=self._scratch.name if self._scratch else "/",
            )
            if self.process.stdout is not None and user:
                # Opening /dev/stdout again needs the ownership of the pipe behind it.
                os.fchown(self.process.stdout.fileno(), user, user)

    @staticmethod
    def _filter(child_ends: contextlib.ExitStack, descriptors: list[int]) -> list[str]:
        program = seccomp_filter(platform.machine())
        if program is None:
            return []
        descriptors.append(file_with(child_ends, program))
        return ["--seccomp", str(descriptors[-1])]

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Kills the sandbox and everything in it, and waits until it is gone."""
        self._kill_first()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        os.close(self._to)
        os.close(self._from)
        self._errors.close()
        if self._group is not None:
            cgroups.give_back(self._group)
        if self._scratch is not None:
            self._scratch.cleanup()

    def _first_process(self) -> int | None:
        """The first process of the process namespace, the ancestor of all others; None where there is none."""
        if self._first is None and self._info is not None and select.select([self._info], [], [], 0)[0]:
            pid = re.search(rb'"child-pid": (\d+)', os.read(self._info, 4096))
            self._first = int(pid[1]) if pid else None
        return self._first

    def _kill_first(self) -> None:
        """Kills the first process of the process namespace, and with it all others; bubblewrap then reaps it and ends.

        Killing bubblewrap itself would leave the processes inside to the machine's init, which may not reap them.
        """
        if self._info is None:
            return
        pid = self._first_process() if self.process.poll() is None else None
        os.close(self._info)
        self._info = None
        if pid is not None:
            with contextlib.suppress(OSError):
                ended = os.pidfd_open(self.process.pid)
                try:
                    os.kill(pid, signal.SIGKILL)
                    select.select([ended], [], [], _END_SECONDS)
                finally:
                    os.close(ended)

    def wait_until_ready(self) -> None:
        """Waits until the interpreter inside is up, before any clock of a program runs; SandboxFault where it does not."""
        if self._ready:
            return
        try:
            self._read_line(_START_SECONDS)
        except (SandboxGone, SandboxTimeout) as fault:
            raise SandboxFault(f"the sandbox did not start: {fault}") from fault
        self._ready = True
        first = self.process.pid if unsafe() else self._first_process()
        if first is not None:
            self._usage = Usage(first)
            self._files_are_limited = not unsafe() and limit_files(first)

    def grant(self, seconds: float) -> None:
        """Grants CPU seconds from now on to all processes together; beyond them the sandbox is ended."""
        self.wait_until_ready()
        usage = self._usage
        if usage is not None:
            # Looking costs as much as a short test, so that what was seen a moment ago has to do.
            self._granted = (usage.cpu() if usage.due() else usage.seen) + seconds
            self._waited = usage.waited

    def cpu(self) -> float:
        """CPU seconds that all its processes have used so far; 0 where that cannot be seen."""
        return self._usage.cpu() if self._usage is not None else 0.0

    def left(self) -> float:
        """CPU seconds that are left of what it was granted."""
        return self._granted - self.cpu()

    def was_kept_waiting(self) -> bool:
        """Whether its processes had to wait for a core since the grant: a clock may have struck for that reason alone."""
        self.cpu()
        waited = self._usage.waited if self._usage is not None else None
        return waited is None or self._waited is None or waited - self._waited > _SHORT_WAIT

    def check(self) -> None:
        """Ends the sandbox with SandboxSpent where it has used more than it was granted."""
        usage = self._usage
        if usage is None or not usage.due():
            return
        used = usage.cpu()
        reason = "CPU time" if self._granted and used > self._granted + CPU_GRACE else ""
        if usage.memory > MOST_MEMORY and self._group is None:
            reason = "memory"
        if not self._files_are_limited and self._scratch is None and usage.files() > MOST_FILES:
            reason = "files"
        if reason:
            raise SandboxSpent(f"more {reason} than a program is granted")

    def stderr_tail(self) -> str:
        """The end of what the process wrote to standard error."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _STDERR_TAIL))
        return self._errors.read(_STDERR_TAIL).decode("utf-8", "replace").strip()

    def ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Sends a command and waits for its answer; SandboxGone, SandboxTimeout or SandboxSpent where none comes."""
        self.send(message, seconds)
        return self.receive(seconds)

    def send(self, message: dict[str, Any], seconds: float) -> None:
        """Writes one message; SandboxTimeout where the child does not read it before the deadline."""
        self.wait_until_ready()
        body, ends = marshal.dumps(message), time.monotonic() + seconds
        data = memoryview(len(body).to_bytes(4, "little") + body)
        os.set_blocking(self._to, False)
        while data:
            if not self.wait([], [self._to], ends):
                raise SandboxTimeout("it does not read")
            try:
                data = data[os.write(self._to, data) :]
            except BlockingIOError:
                continue
            except OSError as fault:
                raise SandboxGone(self.stderr_tail() or "it ended") from fault

    def wait(self, readable: list[int], writable: list[int], ends: float) -> bool:
        """Waits until a descriptor is ready, and looks at what the sandbox uses meanwhile; False at the deadline."""
        while True:
            left = ends - time.monotonic()
            if any(select.select(readable, writable, [], max(0.0, min(left, CHECK_SECONDS)))[:2]):
                return True
            if left <= 0:
                return False
            if self._ready:
                self.check()

    def _read_line(self, seconds: float) -> bytes:
        ends = time.monotonic() + seconds
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > LARGEST_MESSAGE:
                raise SandboxGone("it answers without end")
            if not self.wait([self._from], [], ends):
                raise SandboxTimeout(f"no answer within {seconds:g} s")
            part = os.read(self._from, 1 << 20)
            if not part:
                raise SandboxGone(self.stderr_tail() or "it ended")
            self._buffer += part
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def receive_line(self, seconds: float) -> bytes:
        """The next message as it came: one line of bounded length, which may come from a hostile program."""
        line = self._read_line(seconds)
        if self._ready:
            self.check()
        return line

    def receive(self, seconds: float) -> dict[str, Any]:
        """The next message, which is a JSON object."""
        return parse(self.receive_line(seconds))
