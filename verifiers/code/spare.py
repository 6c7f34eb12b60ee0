"""Sandboxes for programs, the next one of which may have been started while the last was in use."""

from tulu.verifiers.code.sandbox import Limits, Sandbox

_spare: list[Sandbox] = []
"""The next sandbox, started already; empty where none is kept."""


def keep_a_spare() -> None:
    """From now on the next program's sandbox starts while one is in use: a start is waiting, for the kernel, more than work.

    Only for a process that starts all of them in its main thread: they end with the thread that started them.
    """
    if not _spare:
        _spare.append(Sandbox("program", Limits()))


def program_sandbox(limits: Limits) -> Sandbox:
    """A fresh sandbox for one program; nothing ran in it before, whether it was started ahead or not."""
    if not _spare or limits != Limits():
        return Sandbox("program", limits)
    ready = _spare.pop()
    if ready.process.poll() is not None:
        ready.close()
        ready = Sandbox("program", limits)
    keep_a_spare()
    return ready
