"""A control group for a sandbox, where this process may make one: the kernel then bounds the memory of all its processes."""

import atexit
import contextlib
import itertools
import os
import shutil
from functools import lru_cache
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_count = itertools.count()
_free: list[Path] = []
"""Groups whose sandbox has ended; making one takes longer than using one again."""


@lru_cache(maxsize=1)
def _parent() -> Path | None:
    """The folder in which groups with a memory limit are made; None where there is none, or it cannot be written."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if "memory" in controllers.split(","):
            folder = _ROOT / "memory" / place.lstrip("/")
            folder = folder if folder.is_dir() else _ROOT / "memory"
        elif not controllers and (_ROOT / "cgroup.controllers").is_file():
            folder = _ROOT / place.lstrip("/")
            if "memory" not in _read(folder / "cgroup.subtree_control").split():
                continue
        else:
            continue
        if os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK):
            _remove_old(folder)
            atexit.register(_remove_old, folder)
            return folder
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def take(memory: int) -> Path | None:
    """A group without processes in which all together may hold so many bytes; None where groups cannot be made here."""
    parent = _parent()
    if parent is None:
        return None
    if _free:
        return _free.pop()
    group = parent / f"tulu-{os.getpid()}-{next(_count)}"
    try:
        group.mkdir()
        name = "memory.limit_in_bytes" if (group / "memory.limit_in_bytes").exists() else "memory.max"
        (group / name).write_text(str(memory))
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        return None
    return group


def _forget() -> None:
    """Begin anew in a forked process: two processes that reuse one group would share its memory."""
    _free.clear()
    _parent.cache_clear()


os.register_at_fork(after_in_child=_forget)


def give_back(group: Path) -> None:
    """Notes that a group's sandbox has ended."""
    if not _read(group / "cgroup.procs").strip():
        _free.append(group)


def _remove_old(parent: Path) -> None:
    """Removes the groups of processes that have ended; the kernel removes none by itself."""
    for group in parent.glob("tulu-*-*"):
        pid = group.name.split("-")[1]
        if pid == str(os.getpid()) or not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):
                group.rmdir()


def enter(group: Path) -> list[str]:
    """The beginning of a command that puts itself into a group before it goes on with the rest of the command."""
    shell = shutil.which("sh") or "/bin/sh"
    return [shell, "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs")]
