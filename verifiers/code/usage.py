"""What a sandbox uses, as its parent sees it: CPU time and memory of all its processes, and its scratch folder.

A program can switch off the clocks and limits of its own process, or spread over several; nothing here depends on it.
"""

import contextlib
import ctypes
import errno
import os
import time
from functools import lru_cache
from pathlib import Path

_TICK = 1.0 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
MOST_FILES = 4096
"""Files and folders that a program may make."""
MOST_MEMORY = 768 << 20
"""Bytes of memory that all processes of a sandbox may hold together."""
CHECK_SECONDS = 0.05
"""How often a sandbox that is waited for is looked at."""
_FSPICK, _FSCONFIG = 433, 431
"""Numbers of system calls that are the same on all architectures."""
_SET_STRING, _RECONFIGURE = 1, 7
"""Commands of fsconfig (linux/mount.h)."""
_EMPTY_PATH_FLAGS = 1 | 4
"""FSPICK_CLOEXEC and FSPICK_NO_AUTOMOUNT."""


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _scratch(pid: int) -> str:
    """The scratch folder of a process in a sandbox, as its parent reaches it."""
    return os.path.join("/proc", str(pid), "root", "tmp")


def limit_files(pid: int) -> bool:
    """Bounds the number of files in the scratch folder of a process's sandbox; False where that is not allowed."""
    call = _libc().syscall
    picked = call(_FSPICK, -100, _scratch(pid).encode(), _EMPTY_PATH_FLAGS)
    if picked < 0:
        return False
    try:
        named = call(_FSCONFIG, picked, _SET_STRING, b"nr_inodes", str(MOST_FILES).encode(), 0) == 0
        return bool(named and call(_FSCONFIG, picked, _RECONFIGURE, None, None, 0) == 0)
    finally:
        os.close(picked)


class Usage:
    """The processes below the first process of a sandbox's process namespace, looked at again and again."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._own: dict[int, float] = {}
        """CPU seconds of each process ever seen, also of those that have ended."""
        self.seen = 0.0
        """CPU seconds when last looked at."""
        self.memory = 0
        """Bytes that they held when last looked at."""
        self.waited: float | None = 0.0
        """Seconds that those alive were ready to run and had to wait for a core; None where the kernel does not say."""
        self._looked = 0.0

    def files(self) -> int:
        """The number of files in the scratch folder; 0 where it cannot be seen."""
        with contextlib.suppress(OSError):
            state = os.statvfs(_scratch(self._first))
            return state.f_files - state.f_ffree if state.f_files else 0
        return 0

    def _wait_of(self, pid: int) -> float:
        try:
            return int(Path(f"/proc/{pid}/schedstat").read_bytes().split()[1]) / 1e9
        except (OSError, IndexError):
            if not Path("/proc/self/schedstat").exists():
                self.waited = None
            return 0.0

    def due(self) -> bool:
        """Whether it is time to look again."""
        return time.monotonic() - self._looked >= CHECK_SECONDS

    def cpu(self) -> float:
        """CPU seconds used so far by all processes, those that have ended included as far as anyone waited for them."""
        self._looked = time.monotonic()
        total, waited, memory, left = 0.0, 0.0, 0, [self._first]
        while left:
            pid = left.pop()
            try:
                fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
                for task in os.listdir(f"/proc/{pid}/task"):
                    left += map(int, Path(f"/proc/{pid}/task/{task}/children").read_bytes().split())
            except OSError as fault:
                if fault.errno in (errno.ENOENT, errno.ESRCH):
                    continue
                raise
            user, system, user_below, system_below = (int(field) * _TICK for field in fields[11:15])
            self._own[pid] = user + system
            total += user + system + user_below + system_below
            memory += int(fields[21]) * _PAGE
            waited += self._wait_of(pid)
        self.memory = memory
        if self.waited is not None:
            self.waited = waited
        self.seen = max(self.seen, total, sum(self._own.values()))
        return self.seen
