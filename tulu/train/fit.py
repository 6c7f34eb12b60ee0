"""The training loop of the stages whose data is fixed: base models, SFT, DPO and reward models."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tulu.config.schema import TrainStage
from tulu.data.mixing import order
from tulu.model.batch import Batch, pack
from tulu.progress import Progress
from tulu.train.optimizer import Learner, learning_rate, total_steps
from tulu.train.run import Run
from tulu.train.step import Normaliser, Objective, step
from tulu.types import Group

B = TypeVar("B", bound=Batch)


@dataclass(frozen=True)
class TrainingRows(Generic[B]):
    """The groups that a stage trains on. They are read when a step draws them, so memory does not grow with their number."""

    count: int
    read: Callable[[Sequence[int]], Sequence[Group]]
    """The groups at these places of the data; every process reads those of a whole step."""
    pack: Callable[[Sequence[Any]], list[B]]
    """Groups as `read` gives them to the stage's batches; every process packs its share of a step."""


def rows_of_groups(groups: Sequence[Group], stage: TrainStage) -> TrainingRows[Batch]:
    """Groups that are trained on as they are."""
    return TrainingRows(len(groups), lambda places: [groups[place] for place in places], lambda drawn: pack_whole(drawn, stage))


def pack_whole(groups: Sequence[Group], stage: TrainStage) -> list[Batch]:
    """Packed rows; the completions of a group stay together, as pairwise losses need."""
    most = max((len(group.completions) for group in groups), default=1)
    return pack(groups, stage.row_tokens, stage.micro_batch * most, split=False)


def draw(rows: int, stage: TrainStage, step: int) -> list[int]:
    """The rows of one step: the next `batch` of an order that is a function of seed and epoch alone."""
    first, last = step * stage.batch, (step + 1) * stage.batch
    if stage.steps is None:
        last = min(last, max(stage.batch, round(rows * (stage.epochs or 1.0))))
    return [int(order(rows, stage.seed, position // rows)[position % rows]) for position in range(first, last)]


def fit(
    learner: Learner, rows: TrainingRows[B], objective: Objective[B], normaliser: Normaliser[B], stage: TrainStage, run: Run
) -> None:
    """Train from where the run stands to its last step."""
    total = total_steps(stage, rows.count)
    parallel = learner.parallel
    with run.interruptible(), Progress(run.job.stage, total, run.step, parallel.is_main) as progress:
        for index in range(run.step, total):
            began = time.monotonic()
            rate = learning_rate(stage, index, total)
            learner.set_learning_rate(rate)
            groups = rows.read(draw(rows.count, stage, index))
            batches = rows.pack(parallel.share(groups))
            metrics = step(learner, batches, objective, normaliser, spare=rows.pack(groups[:1])[0])
            tokens = parallel.total(sum(batch.n_tokens for batch in batches))
            seconds = time.monotonic() - began
            run.step = index + 1
            timing = {"sequences": len(groups), "tokens": tokens, "seconds": seconds}
            run.log(run.step, {**metrics, "learning_rate": rate, **timing})
            run.journal("trained", step=run.step, rows=[group.id for group in groups])
            progress.update(run.step, metrics, tokens / seconds)
            run.end_step(run.step == total)
