"""Running a whole program in the sandbox, with its standard input and output."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tulu.verifiers.code.messages import SandboxGone, SandboxSpent, SandboxTimeout
from tulu.verifiers.code.sandbox import LARGEST_OUTPUT, WALL_PER_CPU, Limits, Sandbox

_SHELL = 128
"""bubblewrap reports a signal as shells do: this plus the number of the signal."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a script printed, and how it ended: its exit code, or None where it was stopped."""

    text: bytes
    code: int | None
    detail: str
    seconds: float = 0.0
    starved: bool = False
    """Whether its time was up although it had CPU time left: the machine may have been busy."""
    spent: bool = False
    """Whether its sandbox was ended because it used too much."""


def run_script(source: str, stdin: bytes, cpu: float, limits: Limits, most_seconds: float = float("inf")) -> Output:
    """Runs a program on some input, its output capped, and its wall time at 2.5 times its CPU seconds or less."""
    with Sandbox("script", limits, stdin) as sandbox:
        # The start of a sandbox is no time of the program.
        sandbox.grant(cpu)
        began = time.monotonic()
        output = _run(sandbox, source, cpu, min(WALL_PER_CPU * cpu, most_seconds))
        late = output.code is None and output.detail == "time limit"
        starved = late and sandbox.left() > 0 and sandbox.was_kept_waiting()
        return replace(output, seconds=time.monotonic() - began, starved=starved)


def _run(sandbox: Sandbox, source: str, cpu: float, wall: float) -> Output:
    ends = time.monotonic() + wall + 1.0
    try:
        sandbox.send({"source": source, "cpu": cpu, "wall": wall}, wall)
        text = b"".join(_output(sandbox, ends))
        if len(text) > LARGEST_OUTPUT:
            return Output(b"", None, "output limit")
        code = sandbox.process.wait(max(0.1, ends - time.monotonic()))
    except (SandboxTimeout, subprocess.TimeoutExpired):
        return Output(b"", None, "time limit")
    except SandboxGone as fault:
        return Output(b"", None, str(fault))
    except SandboxSpent as fault:
        return Output(b"", None, str(fault), spent=True)
    if code in (_SHELL + signal.SIGALRM, _SHELL + signal.SIGPROF, _SHELL + signal.SIGXCPU):
        return Output(b"", None, "time limit")
    return Output(text, code, sandbox.stderr_tail()[-300:] if code else "")


def _output(sandbox: Sandbox, ends: float) -> Iterator[bytes]:
    """What the program prints, up to the largest output; SandboxTimeout at the deadline."""
    assert sandbox.process.stdout is not None
    source, total = sandbox.process.stdout.fileno(), 0
    while total <= LARGEST_OUTPUT:
        if not sandbox.wait([source], [], ends):
            raise SandboxTimeout("no output")
        part = os.read(source, 1 << 20)
        if not part:
            return
        total += len(part)
        yield part
