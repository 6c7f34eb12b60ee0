"""A fresh sandbox for every program; the next one can be started ahead, while the last one is in use."""

from tulu.verifiers.code.sandbox import Limits, Sandbox

_spare: list[Sandbox] = []
"""The sandbox that was started ahead; empty where none was."""


def keep_spare() -> None:
    """From now on, the next program's sandbox starts while one is in use, because most of a start is waiting for the kernel.

    This is only for a process that starts all its sandboxes in the main thread: a sandbox ends with the thread that started it.
    """
    if not _spare:
        _spare.append(Sandbox("program", Limits()))


def take_sandbox(limits: Limits) -> Sandbox:
    """A sandbox for one program, in which nothing ran before; started ahead where it could be."""
    if not _spare or limits != Limits():
        return Sandbox("program", limits)
    sandbox = _spare.pop()
    if sandbox.process.poll() is not None:
        sandbox.close()
        sandbox = Sandbox("program", limits)
    keep_spare()
    return sandbox
