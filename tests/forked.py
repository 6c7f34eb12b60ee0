"""Processes that are forked from one which has imported everything: their imports would take most of the time of a small run.

Each is a process like any other: it has its own memory, environment, signals and exit code. What must not find torch imported,
or how processes are launched, is tested with a new interpreter instead.
"""

import atexit
import gc
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from tulu.commands.launch import reserved_port

PRELOADED = [
    "accelerate.utils.deepspeed",
    "datasets",
    "deepspeed.runtime.engine",
    # It compiles a function as it is imported, which imports torch's compiler.
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "peft",
    "tests.rollout.group_member",
    "transformers.models.auto.modeling_auto",
    "tulu.cli",
    "tulu.evaluation.evaluate",
    "tulu.model.fully_sharded",
    "tulu.model.made_up",
    "tulu.reward_models.training",
    "tulu.stages.dpo",
    "tulu.stages.pipeline",
    "tulu.stages.rlvr",
    "tulu.stages.sft",
]
ROOT = Path(__file__).resolve().parents[1]
GRACE = 90.0
"""Seconds in which the other ranks end after one of them died."""


@cache
def context() -> ForkServerContext:
    """What starts such processes; the one that they are forked from starts with the first of them."""
    import torch

    made = get_context("forkserver")
    made.set_forkserver_preload(PRELOADED)
    cache = tempfile.mkdtemp(prefix="tulu-tests-")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    own = {
        # Libraries read these as they are imported. No model of a user's cache may be found.
        **({} if torch.cuda.is_available() else {"DS_ACCELERATOR": "cpu"}),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": cache,
        "OMP_NUM_THREADS": "1",
    }
    before = dict(os.environ)
    os.environ.update(own)
    try:
        from multiprocessing import forkserver

        forkserver.ensure_running()
    finally:
        for name in own:
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]
    return made


class Forked:
    """Such a process, with the methods of a subprocess.Popen that tests call."""

    def __init__(self, process: ForkServerProcess) -> None:
        self.process = process
        process.start()
        # One that a failing test left is not waited for.
        atexit.register(self.kill)
        assert process.pid is not None
        self.pid = process.pid

    def poll(self) -> int | None:
        """The exit code, which is negative after a signal; None while it runs."""
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code once it has ended; TimeoutError where it takes longer than that."""
        self.process.join(timeout)
        code = self.process.exitcode
        if code is None:
            raise TimeoutError(f"process {self.pid} runs longer than {timeout} s")
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def start(
    target: Callable[..., object], *arguments: Any, output: Path, environment: Mapping[str, str], folder: Path | None = None
) -> Forked:
    """Begin a process that calls `target`, in this environment and this folder; what it prints goes into a file."""
    settings = (dict(environment), output, folder or Path.cwd(), target, arguments)
    return Forked(context().Process(target=_child, args=settings))


def leave_imports_alone() -> None:
    """Let the garbage collector, which DeepSpeed calls often, not look through what was imported before the fork."""
    gc.freeze()


def _child(environment: dict[str, str], output: Path, folder: Path, target: Callable[..., object], arguments: Any) -> None:
    leave_imports_alone()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if "torch" in sys.modules and "OMP_NUM_THREADS" in environment:
        # It was read when torch was imported.
        sys.modules["torch"].set_num_threads(int(environment["OMP_NUM_THREADS"]))
    log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.flush()
        os.dup2(log, descriptor)
    try:
        target(*arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # What multiprocessing leaves out at the end of a process.
        atexit._run_exitfuncs()


def command(*arguments: str, output: Path, environment: Mapping[str, str], script: str | None = None) -> Forked:
    """Begin a process that does what `python -m tulu ARGUMENTS` does, or what a script with these arguments does."""
    return start(_command, arguments, script, output=output, environment=environment)


def _command(arguments: Sequence[str], script: str | None) -> None:
    sys.argv = ["tulu", *arguments]
    if script is None:
        from tulu.cli import main

        main()
    else:
        exec(script, {"__name__": "__main__"})


def ranks(module: str, world: int, *arguments: Any, folder: Path, patience: float) -> None:
    """Let so many ranks call a module's `main` and wait for them; AssertionError with what they said if one fails."""
    with reserved_port() as port:
        _ranks(module, world, arguments, folder, patience, port)


def _ranks(module: str, world: int, arguments: Sequence[Any], folder: Path, patience: float, port: int) -> None:
    logs = [folder / f"rank-{rank}.log" for rank in range(world)]
    started = []
    for rank, log in enumerate(logs):
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
        own = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", **{key: str(n) for key, n in numbers.items()}}
        started.append(start(_main_of, module, arguments, output=log, environment=own, folder=ROOT))
    deadline = time.monotonic() + patience
    try:
        while None in (codes := [process.poll() for process in started]):
            if any(codes):
                deadline = min(deadline, time.monotonic() + GRACE)
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
    finally:
        for process in started:
            process.kill()
            process.wait(GRACE)
    said = "\n".join(f"{log.name}: …{log.read_text()[-4000:]}" for log in logs if log.is_file())
    assert [process.poll() for process in started] == [0] * world, said


def _main_of(module: str, arguments: Sequence[Any]) -> None:
    from tulu.config.processes import leaving_at_once

    with leaving_at_once():
        importlib.import_module(module).main(*arguments)
