"""The actor that starts one rank on the place that Ray gave it, and tells what it hears of it (tulu/commands/ray_launch.py).

The rank is a process of its own, because it handles signals, ends with exit codes and is to be killed with all that it started.
It dies with this actor: the kernel sees to that (`end_with_the_launcher`).
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tulu.commands.launch import Rank, reserved_port
from tulu.commands.reports import Report, read_reports
from tulu.config.cores import cores
from tulu.config.processes import LAUNCHER, REPORTS
from tulu.errors import RecipeError

LOOK_SECONDS = 0.05
"""How often the actor looks whether its rank said something or ended."""


@dataclass(frozen=True)
class Place:
    """Where an actor is."""

    node: str
    address: str
    """The node's, as other nodes reach it."""
    cores: int
    gpus: str
    """CUDA_VISIBLE_DEVICES as Ray set it for the actor: its GPU, or empty."""


@dataclass(frozen=True)
class Heard:
    """What a rank has said since it was asked last."""

    said: Sequence[str]
    """Lines on stdout, of rank 0 alone."""
    errors: Sequence[str]
    """Lines on stderr."""
    exit_code: int | None
    report: Report | None = None
    """Why it failed, if it could say so."""
    report_age: float = 0.0
    """Seconds since it said that."""


class Learner:
    """One rank. `ps` shows its actor as `ray::Learner`, and the rank itself as the command that it is."""

    def __init__(self) -> None:
        self.rank: Rank | None = None
        self.lasting = ExitStack()
        self.reports = Path(self.lasting.enter_context(tempfile.TemporaryDirectory(prefix="tulu-rank-")))

    def place(self) -> Place:
        """Where it is."""
        import ray

        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        return Place(ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address(), cores(), gpus)

    def reserve(self) -> int:
        """A port of this node at which the ranks can meet."""
        return self.lasting.enter_context(reserved_port())

    def start(self, number: int, command: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
        """Start the rank in that folder. Raises RecipeError where this node has no such folder."""
        try:
            os.chdir(folder)
        except OSError as error:
            node = environment.get("HOSTNAME", os.uname().nodename)
            raise RecipeError(
                f"node {node}: {folder}: {error.strerror}; start the command in a folder that all nodes of the cluster share"
            ) from None
        # Ray blocks Ctrl-C in its processes, and what they start would inherit that.
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        own = {LAUNCHER: str(os.getpid()), REPORTS: str(self.reports)}
        # Every node has an interpreter of its own, with this package in it.
        self.rank = Rank(number, [sys.executable, *command[1:]], {**environment, **own}, own_terminal=False)

    def hear(self, patience: float) -> Heard:
        """What the rank has said; waits at most so long for something."""
        assert self.rank is not None, "the rank was started"
        until = time.monotonic() + patience
        while not self.rank.waiting and not self.rank.said and self.rank.exit_code is None and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
        code = self.rank.exit_code
        if code is not None:
            self.rank.close()
        said = [self.rank.said.popleft() for _ in range(len(self.rank.said))]
        errors = [self.rank.waiting.popleft()[1] for _ in range(len(self.rank.waiting))]
        report = next(iter(read_reports(self.reports)), None) if code else None
        return Heard(said, errors, code, report, time.monotonic() - report.seconds if report else 0.0)

    def signal(self, number: int, whole_group: bool) -> None:
        """Send a signal to the rank, or also to every process that it started."""
        if self.rank is not None:
            self.rank.signal(number, whole_group)
