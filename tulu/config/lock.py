"""One command at a time in a folder: a lock that says who holds it, and that nobody has to clear after a crash.

Two commands that train in one folder would delete each other's files. The lock is taken before torch is imported, so that the
second one is told at once. It is a POSIX record lock on a small file beside the folder: the kernel gives it back when its
process ends, however that ends. Such a lock belongs to one process and not to its children, so workers that outlive a killed
run do not hold it; a flock would stay with them. Over NFS it holds between machines.

A process must not open the file of a lock that it holds anywhere else: closing any descriptor of the file gives the lock back.
"""

import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from tulu.config.processes import is_launched, is_main_process
from tulu.errors import InUseError
from tulu.files import no_place

log = logging.getLogger("tulu")

_TAKEN = (errno.EACCES, errno.EAGAIN)
"""What POSIX says of a lock that somebody else holds."""
_TRIES = 100
"""How often a folder is made again that others take away, before it is one that cannot be made, as below /proc."""
_PATIENCE = 0.5
"""Seconds in which an owner that has just taken a lock must have written its name."""
_held: set[Path] = set()
"""The files that this process has locked. The system would lock them for it again, and give them back with the first of both."""


@dataclass(frozen=True)
class Owner:
    """The process that the user started, which torchrun may be."""

    pid: int
    host: str
    since: str

    @classmethod
    def this(cls) -> "Owner":
        """This process, or the launcher that started it as one of several."""
        pid = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else os.getpid()
        return cls(pid, socket.gethostname(), datetime.now().astimezone().isoformat(" ", "seconds"))

    @property
    def is_gone(self) -> bool:
        """Whether this is a process of this machine that has ended."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
        return False


def holder(folder: Path) -> Owner | None:
    """Who holds the lock beside a folder, by its file; None where nobody does, or where who did is gone.

    The lock itself is not tried: whoever tries it holds it for a moment, and would refuse a command that starts then.
    """
    file = lock_of(folder)
    if file in _held:
        return Owner.this()
    try:
        owner = Owner(**json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return None if owner.is_gone else owner


def lock_of(folder: Path) -> Path:
    """The file of the lock beside a folder, the same by whatever links the folder is reached."""
    place = folder.resolve()
    return place.with_name(f".{place.name}.lock")


@contextmanager
def only_user(*folders: Path, inside: bool = False) -> Iterator[None]:
    """While the context lasts, no other command that asks for one of the folders gets it.

    The lock lies beside a folder, where starting over does not delete it, or with `inside` within one that is never deleted,
    such as --out, whose parent may be read-only. Of several ranks the main process holds it for all, or the process that
    launched them (`--gpus`). Raises InUseError.
    """
    with ExitStack() as stack:
        for folder in folders if is_main_process() and not is_launched() else ():
            file = folder / ".lock" if inside else lock_of(folder)
            stack.enter_context(_locked(file.resolve(), folder))
        yield


@contextmanager
def _locked(file: Path, folder: Path) -> Iterator[None]:
    if file in _held:
        yield
        return
    made = [parent for parent in file.parents if not parent.exists()]
    descriptor = _acquire(file, folder)
    _held.add(file)
    owner = os.getpid()
    try:
        yield
    finally:
        # A process that was forked in between has no lock to give back.
        if os.getpid() == owner:
            _held.discard(file)
            # The name goes before the lock does, so that whoever opened the file meanwhile sees that it is no longer the one.
            with suppress(OSError):
                file.unlink()
            os.close(descriptor)
            with suppress(OSError):
                for parent in made:
                    parent.rmdir()


def _acquire(file: Path, folder: Path) -> int:
    """The descriptor of the locked file, which holds the name of its owner. Raises InUseError.

    RecipeError where there can be no such file.
    """
    tries = 0
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            tries += 1
            if isinstance(error, FileNotFoundError) and tries < _TRIES:
                # Another command ended, and took the folder that it had made away with it.
                continue
            raise no_place(folder, error) from error
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                try:
                    raise InUseError(_describe(descriptor, folder)) from None
                finally:
                    os.close(descriptor)
            log.warning("%s: this file system has no locks (%s); start no second command in %s", file, error.strerror, folder)
        if _is_the_file(descriptor, file):
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(Owner.this())).encode(), 0)
            return descriptor
        os.close(descriptor)


def _is_the_file(descriptor: int, file: Path) -> bool:
    """Whether the open file still has its name: the command that held it may have removed it since it was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except FileNotFoundError:
        return False


def _describe(descriptor: int, folder: Path) -> str:
    """Who holds the lock, and what to do."""
    deadline = time.monotonic() + _PATIENCE
    owner = _read(descriptor)
    # What stands there may still be the name of one that died, until the new owner has written its own.
    while (owner is None or owner.is_gone) and time.monotonic() < deadline:
        time.sleep(0.01)
        owner = _read(descriptor)
    who = "another command" if owner is None else f"pid {owner.pid} on {owner.host} since {owner.since}"
    return f"{folder}: in use by {who}\nWait for it or stop it, or work elsewhere: name=NAME for a run, --runs or --out."


def _read(descriptor: int) -> Owner | None:
    try:
        return Owner(**json.loads(os.pread(descriptor, 4096, 0)))
    except (OSError, ValueError, TypeError):
        return None
