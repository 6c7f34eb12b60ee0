"""What launchers tell a process about itself, known before the processes are connected.

torchrun, accelerate and this project's own `--gpus` (tulu/commands/launch.py) set RANK, WORLD_SIZE and their kin, which
torch reads. srun has names of its own, which `take_names_from_srun` translates.
"""

import atexit
import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from tulu.errors import RecipeError

LAUNCHER = "TULU_LAUNCHER"
"""The variable that holds the process id of the `tulu ... --gpus N` that started this process as one of its ranks."""
REPORTS = "TULU_REPORTS"
"""The variable that holds the folder in which a rank says why it failed."""
FIRST_PORT, PORTS = 20_000, 10_000
"""Where the ranks of a Slurm job meet: a port that follows from the number of the job."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a process to stop: Ctrl-C, a scheduler, a terminal that is closed."""
_PR_SET_PDEATHSIG = 1
"""prctl: the signal that a process gets when its parent ends (linux/prctl.h)."""
_LOOK_EVERY = 1.0
"""Seconds between two looks at the parent where the kernel has no such signal."""


def world_size() -> int:
    """How many processes train together; 1 where no launcher started several. Raises RecipeError."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdigit() or int(text) < 1:
        raise RecipeError(f"WORLD_SIZE={text!r}: should be a whole number of processes; unset it or launch with --gpus N")
    return int(text)


def is_main_process() -> bool:
    """Whether this process speaks for all: the one of rank 0, or the only one."""
    return rank() == 0


def rank() -> int:
    """The number of this process among those that train together."""
    text = os.environ.get("RANK", "0")
    return int(text) if text.isdigit() else 0


def is_launched() -> bool:
    """Whether `--gpus` of another process started this one, which has checked the recipe and holds the lock of the run."""
    return LAUNCHER in os.environ


def to_launch(count: int | None, said: str = "--gpus", in_ray: bool = False) -> int:
    """How many processes are to be started: 0 where this one trains alone or a launcher started it already.

    `said` is where that number stands. Ray starts a single one as well, because its GPU may be on another node. Raises
    RecipeError where a launcher started another number.
    """
    started, is_one_of_them = world_size(), "RANK" in os.environ
    if count is None or (count == started and (is_one_of_them or not in_ray)):
        return 0
    if started > 1 or is_one_of_them:
        already = "1 process" if started == 1 else f"{started} processes"
        raise RecipeError(
            f"{said} {count}: a launcher (torchrun, srun, accelerate) started {already} already, of which this is one; "
            f"leave {said} out, or start {count} there"
        )
    return count


def end_with_the_launcher() -> None:
    """Have the kernel kill this rank when the process that launched it dies, however it dies."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None:
        return
    end_with_the_parent()
    if os.getppid() != int(launcher):  # It died before the line above. A process of this rank's own is no rank either.
        raise SystemExit(1)


def end_with_the_parent() -> None:
    """Have this process killed when its parent ends, however that ends: by the kernel, or on macOS by a thread that looks."""
    prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="tulu-parent", daemon=True).start()


@contextmanager
def handling(stop: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """While the context lasts, a signal to stop calls this. Under nohup, which lets SIGHUP be ignored, it stays ignored."""
    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    before = {number: signal.signal(number, stop) for number in STOPS if number not in ignored}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """End one of several ranks as soon as the body has ended, without the slow end of Python itself; alone this does nothing.

    The threads that carry what ranks tell each other let go of tensors, for which they need Python. A thread that asks for it
    while Python is ending is ended in the middle of that, and with it, by SIGABRT, the process whose work is done. What the body
    registers for the end still runs.
    """
    status: list[str | int | None] = [1]
    # The last of what runs at the end is what was registered first.
    atexit.register(_leave, status)
    try:
        yield
        status[0] = 0
    except SystemExit as end:
        status[0] = end.code
        raise


def _leave(status: list[str | int | None]) -> None:
    if _is_rank():
        sys.stdout.flush()
        sys.stderr.flush()
        # A text was printed, as Python does with that of a SystemExit.
        os._exit(1 if isinstance(status[0], str) else status[0] or 0)


def _is_rank() -> bool:
    """Whether this process is one of several. A WORLD_SIZE that says nothing was refused before."""
    text = os.environ.get("WORLD_SIZE", "1")
    return text.isdigit() and int(text) > 1


def take_names_from_srun() -> None:
    """Set the names that torch reads where srun started this process as one of several and nobody set them."""
    os.environ.update(names_from_srun(os.environ))


def names_from_srun(environment: Mapping[str, str]) -> dict[str, str]:
    """RANK and its kin as srun tells them; empty where it started no process beside this one, or RANK is there already.

    A batch script that asked for several tasks is itself one process: it belongs to no step of its job.
    """
    in_batch_script = "SLURM_JOB_ID" in environment and not {"SLURM_STEP_ID", "SLURM_STEPID"} & environment.keys()
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1" if in_batch_script else environment.get("SLURM_NTASKS", "1"))
    if "RANK" in environment or "SLURM_PROCID" not in environment or not tasks.isdigit() or int(tasks) < 2:
        return {}
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or "localhost"
    job = environment.get("SLURM_JOB_ID", "0")
    # With --gpus-per-task=1 every task sees one GPU alone, which is number 0 to it.
    sees_one = re.fullmatch(r"[^,]+", environment.get("CUDA_VISIBLE_DEVICES", "")) is not None
    names = {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": tasks,
        "LOCAL_RANK": "0" if sees_one else environment.get("SLURM_LOCALID", "0"),
        "MASTER_ADDR": first_host(nodes),
        "MASTER_PORT": str(FIRST_PORT + int(job) % PORTS if job.isdigit() else FIRST_PORT),
    }
    return {name: value for name, value in names.items() if name not in environment}


def first_host(nodes: str) -> str:
    """The first host of a Slurm list: gpu-007 of `gpu-[007-010,12],login`, and rack1-node2 of `rack[1-2]-node[2,4]`."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes.strip())
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first.group()) if first else "localhost"
