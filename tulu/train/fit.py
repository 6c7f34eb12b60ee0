"""The training loop of the stages whose data is fixed: base models, SFT, DPO and reward models."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from tulu.config.schema import TrainStage
from tulu.config.training import TokenBatched
from tulu.data.mixing import order
from tulu.model.batch import Batch
from tulu.model.batch import pack as pack_batches
from tulu.model.parallel import Parallel
from tulu.progress import Progress
from tulu.train.held_out import lengths_of
from tulu.train.looks import HeldOutLoss, Look, Looks, spread
from tulu.train.optimizer import Learner, learning_rate, total_steps
from tulu.train.prefetch import ahead
from tulu.train.run import Run
from tulu.train.step import Normaliser, Objective, step
from tulu.train.token_batches import TokenBatches
from tulu.types import Group

B = TypeVar("B", bound=Batch)


def pack_whole(groups: Sequence[Group], stage: TrainStage) -> list[Batch]:
    """Packed rows; the completions of a group stay together, as pairwise losses need."""
    most = max((len(group.completions) for group in groups), default=1)
    return pack_batches(groups, stage.row_limit, stage.micro_batch * most, split=False)


def draw(rows: int, stage: TrainStage, step: int) -> list[int]:
    """The rows of one step: the next `batch` of an order that is a function of seed and epoch alone."""
    first, last = step * stage.batch, (step + 1) * stage.batch
    if stage.steps is None:
        last = min(last, max(stage.batch, round(rows * (stage.epochs or 1.0))))
    return [int(order(rows, stage.seed, position // rows)[position % rows]) for position in range(first, last)]


class Draws(Protocol):
    """Which rows a step draws, a function of the step alone, and how many steps there are."""

    steps: int

    def draw(self, step: int) -> list[int]:
        """The rows of a step."""


class SequenceBatches:
    """The rows of every step of a stage whose batch counts sequences or pairs."""

    def __init__(self, rows: int, stage: TrainStage) -> None:
        self.steps = total_steps(stage, rows)
        self._rows, self._stage = rows, stage

    def draw(self, step: int) -> list[int]:
        """The rows of a step."""
        return draw(self._rows, self._stage, step)


def draws_of(groups: Sequence[Group], stage: TrainStage) -> Draws:
    """How the steps of a stage draw from these groups."""
    if not isinstance(stage, TokenBatched) or stage.batch_tokens is None:
        return SequenceBatches(len(groups), stage)
    lengths = lengths_of(groups)
    if lengths is None:
        lengths = np.array([group.n_tokens for group in groups], np.int64)
    return TokenBatches(lengths, stage)


def fit(
    learner: Learner,
    run: Run,
    groups: Sequence[Group],
    pack: Callable[[Sequence[Any], Any], list[B]],
    objective: Objective[B],
    normaliser: Normaliser[B],
    prepare: Callable[[Sequence[Group], Any], Sequence[Group]] | None = None,
    held_out: Sequence[Group] = (),
    looks: Sequence[Look] = (),
) -> None:
    """Train from where the run stands to its last step.

    `groups` are read when a step draws them, so memory need not grow with their number. `prepare(groups, stage)` is called
    with those of a whole step, in every process alike; `pack(groups, stage)` makes the batches of a process's share. A thread
    does all that for the next step while the device is busy with the present one. The loss of `held_out` rows, which are in no
    step, is measured where a look is due (train/looks.py), and so is what `looks` find besides.
    """
    stage: TrainStage = run.section
    parallel = learner.parallel
    watched = spread(held_out, stage.eval_rows) if held_out else []
    measured_too = [HeldOutLoss(learner, stage, watched, pack, objective, normaliser, prepare)] if watched else []
    seen = Looks(run, [*measured_too, *looks])
    draws = draws_of(groups, stage)
    total = draws.steps
    ready = partial(make_ready, groups, draws, pack, normaliser, prepare, stage, parallel)
    with (
        run.interruptible(),
        Progress(run.job.stage, total, run.step, parallel.is_main) as progress,
        ahead(ready, range(run.step, total), parallel.device) as steps,
    ):
        for index in range(run.step, total):
            began = time.monotonic()
            rate = learning_rate(stage, index, total)
            learner.set_learning_rate(rate)
            with parallel.clock.part("data"):
                rows = next(steps)
            metrics = step(learner, rows.batches, objective, normaliser, rows.spare, rows.shares)
            tokens = parallel.total(sum(batch.n_tokens for batch in rows.batches))
            seconds = time.monotonic() - began
            run.step = index + 1
            measured = learner.meter.read(seconds)
            timing = {"sequences": len(rows.ids), "tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds}
            metrics = {**metrics, "learning_rate": rate, **seen.after(run.step, run.step == total)}
            run.log(run.step, {**metrics, **timing, **measured})
            run.journal("trained", step=run.step, rows=rows.ids)
            progress.update(run.step, metrics, tokens / seconds, measured["mfu"])
            run.end_step(run.step == total)


@dataclass(frozen=True)
class Ready(Generic[B]):
    """What a process trains on in one step, on its device."""

    ids: list[str]
    """The rows that all processes draw."""
    batches: list[B]
    shares: list[float]
    """Each batch's share in the number that the loss is divided by."""
    spare: B | None
    """A batch for a process that has fewer than the others; None where there is no other."""


def make_ready(
    groups: Sequence[Group],
    draws: Draws,
    pack: Callable[[Sequence[Any], Any], list[B]],
    normaliser: Normaliser[B],
    prepare: Callable[[Sequence[Group], Any], Sequence[Group]] | None,
    stage: TrainStage,
    parallel: Parallel,
    index: int,
) -> Ready[B]:
    """The rows of a step, drawn, packed and on their way to the device; nothing here depends on steps before."""
    drawn: Sequence[Group] = [groups[place] for place in draws.draw(index)]
    drawn = prepare(drawn, stage) if prepare else drawn
    batches = pack(parallel.share(drawn), stage)
    # They are counted here, because a device would have to be waited for.
    shares = [float(normaliser(batch)) for batch in batches]
    spare = pack(drawn[:1], stage)[0].to(parallel.device) if parallel.world > 1 else None
    return Ready([group.id for group in drawn], [batch.to(parallel.device) for batch in batches], shares, spare)
