"""Whole programs in the sandbox: input in, output out, both bounded."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tulu.verifiers.code.sandbox import OUTPUT, WALL, Limits, Sandbox, SandboxGone, SandboxTimeout

_SHELL = 128
"""bubblewrap reports a signal as shells do."""


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
    wall = WALL * cpu
    ends = time.monotonic() + wall + 1.0
    with Sandbox("script", limits, stdin) as sandbox:
        try:
            sandbox.send({"source": source, "cpu": cpu, "wall": wall}, wall)
            text = b"".join(_exchange(sandbox.process, stdin, ends))
            if len(text) > OUTPUT:
                return Output(b"", None, "output limit")
            code = sandbox.process.wait(max(0.1, ends - time.monotonic()))
        except (SandboxTimeout, subprocess.TimeoutExpired):
            return Output(b"", None, "time limit")
        except SandboxGone as fault:
            return Output(b"", None, str(fault))
        if code in (_SHELL + signal.SIGALRM, _SHELL + signal.SIGPROF, _SHELL + signal.SIGXCPU):
            return Output(b"", None, "time limit")
        return Output(text, code, sandbox.said()[-300:] if code else "")


def _exchange(process: "subprocess.Popen[bytes]", stdin: bytes, ends: float) -> Iterator[bytes]:
    """Feeds the input while it reads the output; SandboxTimeout at the deadline, and no more than the cap."""
    assert process.stdin is not None
    assert process.stdout is not None
    source, target, left, total = process.stdout.fileno(), process.stdin.fileno(), memoryview(stdin), 0
    os.set_blocking(target, False)
    if not left:
        process.stdin.close()
    while total <= OUTPUT:
        readable, writable, _ = select.select([source], [target] if left else [], [], max(0.0, ends - time.monotonic()))
        if not readable and not writable:
            raise SandboxTimeout("no output")
        if writable:
            try:
                left = left[os.write(target, left[: 1 << 16]) :]
            except OSError:
                # A program need not read its input to the end.
                left = left[:0]
            if not left:
                process.stdin.close()
        if readable:
            part = os.read(source, 1 << 16)
            if not part:
                return
            total += len(part)
            yield part
