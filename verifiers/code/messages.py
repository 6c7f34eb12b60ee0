"""How the parent and a sandbox reach each other: descriptors, messages, and what can go wrong."""

import contextlib
import json
import os
from typing import Any


class SandboxGone(Exception):
    """The process inside has ended, or sent what is no message."""


class SandboxTimeout(Exception):
    """No answer within the deadline."""


class SandboxSpent(Exception):
    """Its processes have used more CPU time, memory or files than a program is granted, so it was ended."""


class SandboxFault(Exception):
    """The sandbox did not start: that is no fault of the program, so the sample is masked."""


def parse(line: bytes) -> dict[str, Any]:
    """A message of a sandbox; SandboxGone where it is none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as fault:
        raise SandboxGone("it answers nonsense") from fault
    if not isinstance(message, dict):
        raise SandboxGone("it answers nonsense")
    return message


def pipe(child_ends: contextlib.ExitStack, read: bool) -> tuple[int, int]:
    """A pipe that the child reads or writes; its end for the child is closed here once the child has it."""
    source, target = os.pipe()
    child_ends.callback(os.close, source if read else target)
    return source, target


def file_with(child_ends: contextlib.ExitStack, data: bytes) -> int:
    """A descriptor from which the child reads the given bytes; it is open for reading only."""
    memory = os.memfd_create("input")
    try:
        written = memoryview(data)
        while written:
            written = written[os.write(memory, written) :]
        read = os.open(f"/proc/self/fd/{memory}", os.O_RDONLY)
    finally:
        os.close(memory)
    child_ends.callback(os.close, read)
    return read
