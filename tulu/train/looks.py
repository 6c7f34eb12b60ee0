"""Looks at how training goes: the loss on rows that are not trained on, and whatever else a stage asks its model.

A look follows every `eval_every` steps and the last one. It costs nothing in between, and leaves no trace in the run: random
states are as before, the model is in evaluation mode only meanwhile, so a run with looks ends with the weights of one without.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

import numpy
import torch

from tulu.losses import Metrics, exact_dtype
from tulu.model.batch import Batch
from tulu.model.dropout import evaluating
from tulu.train.agreement import SAY_AFTER
from tulu.train.optimizer import Learner
from tulu.train.run import Run
from tulu.train.step import Normaliser, Objective
from tulu.types import Group

log = logging.getLogger("tulu")

B = TypeVar("B", bound=Batch)

PREFIX = "eval/"
"""What stands before the names of the figures of a look."""
CHUNK = 512
"""Rows that are packed at a time."""
SHOWN = 3
"""Sample answers that a look shows."""
SHOWN_LETTERS = 400
"""Most letters of a prompt or an answer that are shown; the file has all of it."""


@dataclass(frozen=True)
class SampleAnswer:
    """What the model answers to one prompt at a look: a row of samples/step-000040.jsonl."""

    task: str
    id: str
    prompt: str
    answer: str
    score: float | None = None
    """None where nothing scores it, or the scorer failed."""
    detail: str = ""
    """Why there is no score."""
    finish: str = ""
    expected: str = ""


@dataclass(frozen=True)
class Seen:
    """What a look found."""

    figures: Mapping[str, float] = field(default_factory=dict)
    answers: Sequence[SampleAnswer] = ()


Look = Callable[[int], Seen]
"""Looks at the model as it is after a step. Every process calls it; what the main process gets is what counts."""


class Looks:
    """All that is looked at in one run."""

    def __init__(self, run: Run, looks: Sequence[Look]) -> None:
        self.run, self.looks = run, looks

    def after(self, step: int, last: bool) -> dict[str, float]:
        """The figures after a step, {} where no look is due; every process must call this."""
        every = self.run.section.eval_every
        if not self.looks or every is None or (step % every and not last):
            return {}
        began = time.monotonic()
        figures: dict[str, float] = {}
        answers: list[SampleAnswer] = []
        with undisturbed(self.run.parallel.device), told_if_long(f"the look of {self.run.job.stage} after step {step}"):
            for look in self.looks:
                seen = look(step)
                figures |= seen.figures
                answers += seen.answers
        found = {f"{PREFIX}{name}": value for name, value in figures.items()}
        if self.run.parallel.is_main:
            self._show(step, found, answers)
        return {**found, f"{PREFIX}seconds": time.monotonic() - began}

    def _show(self, step: int, figures: Mapping[str, float], answers: Sequence[SampleAnswer]) -> None:
        """Log the figures and the first answers of each task, and write down all answers."""
        shown = "  ".join(f"{name} {value:.3g}" for name, value in figures.items())
        log.info("%s after step %d: %s", self.run.job.stage, step, shown or "sample answers")
        of_task: dict[str, list[SampleAnswer]] = {}
        for answer in answers:
            of_task.setdefault(answer.task, []).append(answer)
        first = [answer for task in of_task.values() for answer in task[:SHOWN]]
        for answer in first:
            log.info("%s", told(answer))
        if answers:
            self.run.samples(step, [asdict(answer) for answer in answers], [asdict(answer) for answer in first])


def told(answer: SampleAnswer) -> str:
    """A sample answer as a terminal shows it."""
    score = f"score {answer.score:g}" if answer.score is not None else f"no score: {answer.detail}" if answer.detail else ""
    cut = "did not stop" if answer.finish == "length" else ""
    notes = ", ".join(note for note in (score, f"expected {_short(answer.expected, 80)}" if answer.expected else "", cut) if note)
    heading = f"{answer.task}, {answer.id}" + (f" ({notes})" if notes else "")
    return f"{heading}\n{_indented('prompt', answer.prompt)}\n{_indented('answer', answer.answer)}"


def _indented(name: str, text: str) -> str:
    lines = _short(text, SHOWN_LETTERS).splitlines() or [""]
    return "\n".join(f"  {name if place == 0 else '':6} | {line}" for place, line in enumerate(lines))


def _short(text: str, most: int) -> str:
    """The beginning and the end of a text, without letters that a terminal obeys."""
    printable = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text.strip())
    return printable if len(printable) <= most else f"{printable[: most // 2]} … {printable[-most // 2 :]}"


@contextmanager
def told_if_long(what: str) -> Iterator[None]:
    """Say what takes its time, and since when, once it has lasted some seconds."""
    since = time.strftime("%H:%M:%S")
    late = threading.Timer(SAY_AFTER, log.info, ("waiting for %s since %s", what, since))
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Give every random state back as it was."""
    python, numbers = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        numpy.random.set_state(numbers)


def spread(rows: Sequence[Group], most: int) -> list[Group]:
    """At most so many of the rows, spread evenly over all of them, so that every source of a mix has its share."""
    count = min(most, len(rows))
    return [rows[place * len(rows) // count] for place in range(count)]


@dataclass(frozen=True)
class HeldOutLoss(Generic[B]):
    """The loss on rows that are not trained on, with all that training measures of its own rows."""

    learner: Learner
    stage: Any
    groups: Sequence[Group]
    pack: Callable[[Sequence[Any], Any], list[B]]
    objective: Objective[B]
    normaliser: Normaliser[B]
    prepare: Callable[[Sequence[Group], Any], Sequence[Group]] | None = None

    def __call__(self, step: int) -> Seen:
        """Exact means over all rows and processes, whatever they are packed into."""
        parallel = self.learner.parallel
        sums: Metrics = {}
        total = torch.zeros(2, dtype=exact_dtype(parallel.device), device=parallel.device)
        with evaluating(self.learner.model.module):
            for first in range(0, len(self.groups), CHUNK):
                chunk = self.groups[first : first + CHUNK]
                rows = self.prepare(chunk, self.stage) if self.prepare else chunk
                spare = self.pack(rows[:1], self.stage)[0]
                for batch, is_own in parallel.level(self.pack(parallel.share(rows), self.stage), spare):
                    batch = batch.to(parallel.device)
                    loss, metrics = self.objective(batch)
                    if is_own:
                        total += torch.stack([loss.to(total), torch.as_tensor(self.normaliser(batch)).to(total)])
                        for name, (value, count) in metrics.items():
                            before = sums.get(name, (0.0, 0.0))
                            sums[name] = (before[0] + value, before[1] + count)
        names = parallel.names_of_all(sums)
        nothing = (torch.zeros((), device=parallel.device),) * 2
        parts = [number.to(total) for name in names for number in sums.get(name, nothing)]
        loss_sum, share, *numbers = parallel.add_up(torch.stack([*total, *parts])).tolist()
        pairs = zip(names, numbers[0::2], numbers[1::2], strict=True)
        return Seen({"loss": loss_sum / share, **{name: value / count for name, value, count in pairs if count}})
