"""A bubblewrap sandbox for untrusted programs: its own user, process, network and mount namespaces, seccomp and hard limits.

It starts with an empty environment, because what bubblewrap's `--clearenv` hides still stands in /proc/1/environ. Where the
parent is not root, it becomes nobody in a new user namespace. Where the parent is root, it makes the namespaces as root, so that
it can show the program an interpreter from a folder that is closed to others; the child then takes a user id that no other
sandbox has, because the process limit does not hold for root and is shared by all processes of a user.
docs/verifiers.md says what the sandbox stops and what it does not.
"""

import contextlib
import itertools
import json
import marshal
import os
import platform
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tulu.errors import RecipeError
from tulu.verifiers.code.seccomp import seccomp_filter

NOBODY = 65534
_FIRST_USER = 1 << 30
"""The lowest user id that a sandbox takes."""
_USERS_PER_PROCESS = 64
_INSIDE = "/python"
"""The folder of the interpreter inside the sandbox, unless it lies in /usr."""
UNSAFE = "TULU_UNSAFE_LOCAL"
"""Environment variable that allows programs to run without a sandbox."""
LARGEST_OUTPUT = 1 << 20
"""Bytes that a program may print."""
_SCRATCH = 32 << 20
"""Bytes of the folder that a program may write to."""
_STDERR_TAIL = 4096
_CHILD_FILES = ("sandbox_values.py", "sandbox_child.py")
_BOOT = "import marshal\nfor part in marshal.loads(open({}, 'rb').read()): exec(part)"
_END_SECONDS = 5.0
"""Seconds to wait for the end of a killed sandbox."""
WALL_PER_CPU = 2.5
"""Wall seconds for each CPU second of a limit: enough for a busy machine, but not for a program that sleeps."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use; a program that needs more fails its tests."""

    cpu: int = 30
    """CPU seconds of all tests together."""
    memory: int = 512 << 20
    """Bytes of address space of each process."""
    processes: int = 16
    """Processes and threads."""
    file: int = 8 << 20
    """Bytes of each file."""


class SandboxGone(Exception):
    """The process inside has ended, or sent what is no message."""


class SandboxTimeout(Exception):
    """No answer within the deadline."""


@lru_cache(maxsize=1)
def _child_code() -> bytes:
    """The child as bytecode, because compiling it would cost every sandbox milliseconds; the interpreter inside is the same."""
    texts = [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in _CHILD_FILES]
    return marshal.dumps([compile(text, "sandbox", "exec", optimize=2) for text in texts])


@lru_cache(maxsize=1)
def _seccomp() -> bytes | None:
    return seccomp_filter(platform.machine())


@lru_cache(maxsize=2)
def _interpreter(inside: bool) -> tuple[Path, Path]:
    """The path of the interpreter, as seen inside the sandbox or outside, and the folder that it lies in; never of a virtual
    environment.
    """
    prefix = Path(sys.base_prefix).resolve()
    shown = Path(_INSIDE) if inside and not prefix.is_relative_to("/usr") else prefix
    return shown / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}", prefix


@lru_cache(maxsize=1)
def _mounts() -> tuple[str, ...]:
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in ("lib", "lib32", "lib64", "bin"):
        path = Path("/", name)
        if path.is_symlink():
            arguments += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            arguments += ["--ro-bind", str(path), str(path)]
    _, prefix = _interpreter(True)
    if not prefix.is_relative_to("/usr"):
        arguments += ["--ro-bind", str(prefix), _INSIDE]
    # The loader reads here where a libpython outside the default folders lies.
    return (*arguments, "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache")


@lru_cache(maxsize=1)
def _bubblewrap() -> tuple[str, ...]:
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        raise RecipeError(
            "programs are only run in a sandbox, and bubblewrap is not installed: "
            f"apt install bubblewrap (or --unsafe-local, or {UNSAFE}=1)"
        )
    as_root = ("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")
    as_user = ("--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY), "--disable-userns", "--cap-drop", "ALL")
    return (
        bubblewrap,
        *(as_root if os.geteuid() == 0 else as_user),
        *(f"--unshare-{name}" for name in ("ipc", "pid", "net", "uts", "cgroup-try")),
        *("--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox"),
        *_mounts(),
        *("--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--size", str(_SCRATCH), "--tmpfs", "/tmp", "--chdir", "/tmp"),
        # Only the scratch folder can be written; /dev/shm would be memory without a bound.
        *("--remount-ro", "/dev", "--remount-ro", "/"),
    )


_sandbox_count = itertools.count()


def _next_user() -> int:
    """A user id that no other running sandbox has, for a child that starts as root; 0 for one that keeps its user."""
    if os.geteuid() != 0 or unsafe():
        return 0
    return _FIRST_USER + os.getpid() * _USERS_PER_PROCESS + next(_sandbox_count) % _USERS_PER_PROCESS


def unsafe() -> bool:
    """Whether programs may run without a sandbox."""
    return os.environ.get(UNSAFE) == "1"


@lru_cache(maxsize=2)
def _probe(_unsafe: bool) -> None:
    if _unsafe:
        return
    _bubblewrap()
    with Sandbox("program", Limits()) as sandbox:
        try:
            answer = sandbox.ask({"op": "evaluate", "source": "1 + 1", "modules": (), "cpu": 10.0, "wall": 20.0}, 30.0)
        except (SandboxGone, SandboxTimeout) as fault:
            raise RecipeError(
                f"the sandbox does not start here ({fault}): user namespaces may be switched off; "
                f"allow them, or use --unsafe-local ({UNSAFE}=1)"
            ) from fault
    if answer != {"value": 2}:
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
        with contextlib.ExitStack() as child_ends:
            commands, self._to = _pipe(child_ends, read=True)
            self._from, answers = _pipe(child_ends, read=False)
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115
            user = _next_user()
            numbers = (commands, answers, limits.cpu, limits.memory, limits.processes, limits.file, user)
            code = _pipe_with(child_ends, _child_code())
            inner = [str(_interpreter(not unsafe())[0]), "-I", "-S", "-B", "-c", _BOOT.format(code), role, *map(str, numbers)]
            descriptors = [commands, answers, code]
            outer: list[str] = []
            if unsafe():
                self._scratch = tempfile.TemporaryDirectory()
            else:
                self._info, info = _pipe(child_ends, read=False)
                descriptors.append(info)
                outer = [*_bubblewrap(), "--info-fd", str(info), *self._filter(child_ends, descriptors), "--"]
            self.process = subprocess.Popen(
                [*outer, *inner],
                env={},
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
                cwd=self._scratch.name if self._scratch else "/",
            )
            for stream in (self.process.stdin, self.process.stdout):
                if stream is not None and user:
                    # Opening /dev/stdin again needs the ownership of the pipe behind it.
                    os.fchown(stream.fileno(), user, user)

    @staticmethod
    def _filter(child_ends: contextlib.ExitStack, descriptors: list[int]) -> list[str]:
        program = _seccomp()
        if program is None:
            return []
        descriptors.append(_pipe_with(child_ends, program))
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
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        os.close(self._to)
        os.close(self._from)
        self._errors.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    def _kill_first(self) -> None:
        """Kills the first process of the process namespace, and with it all others; bubblewrap then reaps it and ends.

        Killing bubblewrap itself would leave the processes inside to the machine's init, which may not reap them.
        """
        if self._info is None:
            return
        ready = self.process.poll() is None and select.select([self._info], [], [], 0)[0]
        pid = re.search(rb'"child-pid": (\d+)', os.read(self._info, 4096)) if ready else None
        os.close(self._info)
        if pid is not None:
            with contextlib.suppress(OSError):
                ended = os.pidfd_open(self.process.pid)
                try:
                    os.kill(int(pid[1]), signal.SIGKILL)
                    select.select([ended], [], [], _END_SECONDS)
                finally:
                    os.close(ended)

    def stderr_tail(self) -> str:
        """The end of what the process wrote to standard error."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _STDERR_TAIL))
        return self._errors.read(_STDERR_TAIL).decode("utf-8", "replace").strip()

    def ask(self, command: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Sends a command and waits for its answer; SandboxGone or SandboxTimeout where none comes."""
        self.send(command, seconds)
        return self.receive(seconds)

    def send(self, message: dict[str, Any], seconds: float) -> None:
        """Writes one message; SandboxTimeout where the child does not read it before the deadline."""
        body, ends = marshal.dumps(message), time.monotonic() + seconds
        data = memoryview(len(body).to_bytes(4, "little") + body)
        os.set_blocking(self._to, False)
        while data:
            if not select.select([], [self._to], [], max(0.0, ends - time.monotonic()))[1]:
                raise SandboxTimeout("it does not read")
            try:
                data = data[os.write(self._to, data) :]
            except BlockingIOError:
                continue
            except OSError as fault:
                raise SandboxGone(self.stderr_tail() or "it ended") from fault

    def receive(self, seconds: float) -> dict[str, Any]:
        """The next message: one line of bounded length that is a JSON object, since it may come from a hostile program."""
        ends = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            if len(self._buffer) > 2 * LARGEST_OUTPUT:
                raise SandboxGone("it answers without end")
            if not select.select([self._from], [], [], max(0.0, ends - time.monotonic()))[0]:
                raise SandboxTimeout(f"no answer within {seconds:g} s")
            part = os.read(self._from, 1 << 16)
            if not part:
                raise SandboxGone(self.stderr_tail() or "it ended")
            self._buffer += part
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = bytearray(rest)
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as fault:
            raise SandboxGone("it answers nonsense") from fault
        if not isinstance(message, dict):
            raise SandboxGone("it answers nonsense")
        return message


def _pipe(child_ends: contextlib.ExitStack, read: bool) -> tuple[int, int]:
    """A pipe that the child reads or writes; its end for the child is closed here once the child has it."""
    source, target = os.pipe()
    child_ends.callback(os.close, source if read else target)
    return source, target


def _pipe_with(child_ends: contextlib.ExitStack, data: bytes) -> int:
    """A descriptor from which the child reads the given bytes, which must be few enough for a pipe to hold."""
    read, write = os.pipe()
    child_ends.callback(os.close, read)
    os.write(write, data)
    os.close(write)
    return read
