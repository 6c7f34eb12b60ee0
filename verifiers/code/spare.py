"""A fresh sandbox for every program; the next one can be started ahead, while the last one is in use."""

from tulu.verifiers.code.sandbox import Limits, Sandbox

_spare: dict[str, Sandbox] = {}
"""The sandbox of each role that was started ahead; empty where none was."""
_ahead = False


def keep_spare() -> None:
    """From now on, the next program's sandbox starts while one is in use, because most of a start is waiting for the kernel.

    This is only for a process that starts all its sandboxes in the main thread: a sandbox ends with the thread that started it.
    """
    global _ahead
    _ahead = True
    _spare.setdefault("program", Sandbox("program", Limits()))


def take_sandbox(role: str, limits: Limits) -> Sandbox:
    """A sandbox for one program or its tests, in which nothing ran before; started ahead where it could be."""
    if not _ahead or limits != Limits():
        return Sandbox(role, limits)
    sandbox = _spare.pop(role, None)
    if sandbox is not None and sandbox.process.poll() is not None:
        sandbox.close()
        sandbox = None
    if sandbox is None:
        sandbox = Sandbox(role, limits)
    _spare[role] = Sandbox(role, limits)
    return sandbox
