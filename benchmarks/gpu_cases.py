"""Cases that are tried one after the other within a time budget: each ends as ok, failed or skipped, and none stops the rest."""

import gc
import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any, Literal

import torch

Status = Literal["ok", "failed", "skipped"]
Figures = dict[str, Any]
HARD = 1.1
"""By how much more than its budget the whole may take before the case that runs is broken off."""


class Unsuitable(Exception):
    """A case cannot be tried here; the message says why. It counts as skipped."""


class Failed(Exception):
    """A check did not hold; the message says what was found. Its figures are kept."""

    def __init__(self, message: str, figures: Figures) -> None:
        super().__init__(message)
        self.figures = figures


class OverBudget(Exception):
    """The time is up while a case runs."""


@dataclass(frozen=True)
class Case:
    """Something to try."""

    name: str
    seconds: float
    """What it takes on one H100, roughly: it is not begun where less is left."""
    run: Callable[[], Figures]
    """Returns its figures; raises Failed, Unsuitable or whatever goes wrong."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case."""

    name: str
    status: Status
    seconds: float = 0.0
    note: str = ""
    """Why it failed or was skipped."""
    figures: Figures = field(default_factory=dict)
    log: tuple[str, ...] = ()
    """What the project said meanwhile, such as which kernels it took."""

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON takes them."""
        return asdict(self)


def try_all(cases: Sequence[Case], deadline: float, told: Callable[[Outcome], None]) -> list[Outcome]:
    """Try every case for which there is time before `deadline`, a time of time.monotonic(); each outcome is `told` at once."""
    outcomes = []
    for case in cases:
        left = deadline - time.monotonic()
        if left < case.seconds:
            outcome = Outcome(case.name, "skipped", note=f"needs about {case.seconds:.0f} s, {max(0.0, left):.0f} s are left")
        else:
            outcome = attempt(case, left * HARD)
        told(outcome)
        outcomes.append(outcome)
    return outcomes


def attempt(case: Case, patience: float) -> Outcome:
    """Try one case for at most so many seconds."""
    began = time.monotonic()
    heard: list[str] = []

    def ended(status: Status, note: str = "", figures: Figures | None = None) -> Outcome:
        seconds = round(time.monotonic() - began, 1)
        return Outcome(case.name, status, seconds, note, figures or {}, tuple(dict.fromkeys(heard)))

    try:
        with _at_most(patience), _hearing(heard):
            return ended("ok", figures=case.run())
    except Unsuitable as reason:
        return ended("skipped", str(reason))
    except Failed as failure:
        return ended("failed", str(failure), failure.figures)
    except Exception as error:  # noqa: BLE001  (one that goes wrong must not cost the others their turn)
        return ended("failed", f"{type(error).__name__}: {error}".strip())
    finally:
        # What the case left on the device must not count against the next one.
        if torch.cuda.is_available():
            gc.collect()
            torch.cuda.empty_cache()


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise OverBudget in this thread if the context lasts longer."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise OverBudget("broken off: the time is up")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _hearing(messages: list[str]) -> Iterator[None]:
    """Keep what the project logs while the context lasts."""
    log = logging.getLogger("tulu")
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
