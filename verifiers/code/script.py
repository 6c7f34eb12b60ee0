"""Running a whole program in the sandbox, with its standard input and output."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tulu.verifiers.code.sandbox import LARGEST_OUTPUT, WALL_PER_CPU, Limits, Sandbox, SandboxGone, SandboxTimeout

_SHELL = 128
"""bubblewrap reports a signal as shells do: this plus the number of the signal."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a script printed, and how it ended: its exit code, or None where it was stopped."""

    text: bytes
    code: int | None
    detail: str
    seconds: float = 0.0


def run_script(source: str, stdin: bytes, cpu: float, limits: Limits) -> Output:
    """Runs a program on some input, its output capped at 1 MiB and its wall time at 2.5 times its CPU seconds."""
    began = time.monotonic()
    return replace(_run_script(source, stdin, cpu, limits), seconds=time.monotonic() - began)


def _run_script(source: str, stdin: bytes, cpu: float, limits: Limits) -> Output:
    wall = WALL_PER_CPU * cpu
    ends = time.monotonic() + wall + 1.0
    with Sandbox("script", limits, stdin) as sandbox:
        try:
            sandbox.send({"source": source, "cpu": cpu, "wall": wall}, wall)
            text = b"".join(_exchange(sandbox.process, stdin, ends))
            if len(text) > LARGEST_OUTPUT:
                return Output(b"", None, "output limit")
            code = sandbox.process.wait(max(0.1, ends - time.monotonic()))
        except (SandboxTimeout, subprocess.TimeoutExpired):
            return Output(b"", None, "time limit")
        except SandboxGone as fault:
            return Output(b"", None, str(fault))
        if code in (_SHELL + signal.SIGALRM, _SHELL + signal.SIGPROF, _SHELL + signal.SIGXCPU):
            return Output(b"", None, "time limit")
        return Output(text, code, sandbox.stderr_tail()[-300:] if code else "")


def _exchange(process: "subprocess.Popen[bytes]", stdin: bytes, ends: float) -> Iterator[bytes]:
    """Writes the input while it reads the output, up to the largest output; SandboxTimeout at the deadline."""
    assert process.stdin is not None
    assert process.stdout is not None
    source, target, unsent, total = process.stdout.fileno(), process.stdin.fileno(), memoryview(stdin), 0
    os.set_blocking(target, False)
    if not unsent:
        process.stdin.close()
    while total <= LARGEST_OUTPUT:
        readable, writable, _ = select.select([source], [target] if unsent else [], [], max(0.0, ends - time.monotonic()))
        if not readable and not writable:
            raise SandboxTimeout("no output")
        if writable:
            try:
                unsent = unsent[os.write(target, unsent[: 1 << 16]) :]
            except OSError:
                # A program may end without reading all of its input.
                unsent = unsent[:0]
            if not unsent:
                process.stdin.close()
        if readable:
            part = os.read(source, 1 << 16)
            if not part:
                return
            total += len(part)
            yield part
