"""Two trainers that take turns: each in a process of its own, idle while the other works.

A worker sets up, says it is ready, and trains; after every optimizer step it calls `Pace.step`, which answers at the
end of a turn and blocks until the next one. So both run their own unbroken training loop, data loading and logging
included, and whatever else the machine does meets both alike.
"""

import os
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from tulu.errors import TuluError

Answer = TypeVar("Answer")
START = "spawn"
"""How a side's process begins: with imports of its own, so that its memory is its own."""
PATIENCE = 600.0
"""Seconds within which a worker must answer."""


@dataclass(frozen=True)
class Task:
    """What one side trains."""

    stage: str
    side: str
    material: Path
    scratch: Path
    """Where the side may write."""
    batch: int
    """Sequences, pairs or prompts of one optimizer step."""
    micro_batch: int
    """Sequences, pairs or completions of one forward pass."""
    row_tokens: int
    """Tokens of a packed row, where rows are packed."""
    padding_free: bool = False
    """Whether TRL lays a micro-batch into one row (SFT only)."""


@dataclass(frozen=True)
class Ready:
    """What a worker says before it trains."""

    tokens: Sequence[int]
    """Useful tokens of every optimizer step to come: those of all sequences, prompts included, without padding."""
    rss_mib: float
    """Resident memory before the first step: interpreter, libraries, rows, weights."""


@dataclass(frozen=True)
class Turn:
    """What a worker says after its turn."""

    seconds: float
    cpu_seconds: float
    losses: Sequence[float]
    peak_mib: float
    """Largest resident memory of the process so far."""


class Stop(Exception):
    """Nobody asks for another turn."""


@dataclass
class Pace:
    """A worker's end of the line."""

    line: Connection
    steps: int
    """Optimizer steps of a turn."""
    losses: list[float] = field(default_factory=list)
    began: tuple[float, float] = (0.0, 0.0)

    def ready(self, tokens: Sequence[int]) -> None:
        """Say what will be trained and wait for the first turn."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.line.send(Ready(tokens, pages * os.sysconf("SC_PAGE_SIZE") / 2**20))
        self._wait()

    def step(self, loss: float) -> None:
        """One optimizer step is done; raises Stop after the last turn."""
        self.losses.append(loss)
        if len(self.losses) < self.steps:
            return
        seconds, cpu = time.perf_counter() - self.began[0], time.process_time() - self.began[1]
        self.line.send(Turn(seconds, cpu, tuple(self.losses), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
        self.losses.clear()
        self._wait()

    def _wait(self) -> None:
        with suppress(EOFError):
            if self.line.recv():
                self.began = (time.perf_counter(), time.process_time())
                return
        raise Stop


Trainer = Callable[[Task, Pace], None]


class Worker:
    """A side in a process of its own, as the one who compares sees it."""

    def __init__(self, trainer: Trainer, task: Task, steps: int) -> None:
        self.side = task.side
        context: Any = get_context(START)
        self.line, other_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(trainer, task, other_end, steps), daemon=True)
        self.process.start()
        other_end.close()

    def ready(self) -> Ready:
        """Wait until the worker is set up."""
        return self._answer(Ready)

    def turn(self) -> Turn:
        """Let it train for one turn."""
        self.line.send(True)
        return self._answer(Turn)

    def _answer(self, kind: type[Answer]) -> Answer:
        try:
            if self.line.poll(PATIENCE):
                answer = self.line.recv()
                assert isinstance(answer, kind)
                return answer
        except EOFError as error:
            self.process.join(PATIENCE)  # until it has printed why
            raise TuluError(f"{self.side}: the worker died; its own message stands above") from error
        raise TuluError(f"{self.side}: no answer within {PATIENCE:.0f} seconds")

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            self.line.send(False)
            self.process.join(PATIENCE)
        self.process.kill()


def _serve(trainer: Trainer, task: Task, line: Connection, steps: int) -> None:
    # What both sides print as they train goes nowhere; errors still show.
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), line, suppress(Stop):
        trainer(task, Pace(line, steps))
