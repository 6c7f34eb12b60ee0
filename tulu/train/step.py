"""One step for every stage, and the loop of the stages whose data is fixed: SFT, DPO, reward models, base models."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import nn

from tulu.config.schema import TrainStage
from tulu.data.datasets import order
from tulu.losses import Loss, Metrics
from tulu.model.batch import Batch, pack
from tulu.model.parallel import Parallel
from tulu.progress import Progress
from tulu.train.run import Run
from tulu.types import Group

Objective = Callable[[Batch], Loss]
"""The loss of a batch, as a sum."""
Normaliser = Callable[[Batch], float]
"""What a batch adds to the number that a step's loss is divided by."""


class Trainable(Protocol):
    """What a learner trains: a policy, a reward model."""

    runner: nn.Module

    @property
    def module(self) -> nn.Module:
        """What is sharded, wrapped and checkpointed."""


class Learner:
    """A model with its optimizer, set up on this process among the others."""

    def __init__(self, model: Trainable, stage: TrainStage, parallel: Parallel) -> None:
        self.model = model
        self.parallel = parallel
        trained = [parameter for parameter in model.module.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            trained,
            lr=stage.learning_rate,
            betas=(stage.adam_beta1, stage.adam_beta2),
            eps=stage.adam_epsilon,
            weight_decay=stage.weight_decay,
            fused=not parallel.deepspeed,
        )
        model.runner, self.optimizer = parallel.prepare(model.module, optimizer)

    def set_learning_rate(self, rate: float) -> None:
        """For the next step."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate


def tokens_trained(batch: Batch) -> float:
    """Normalise by trained tokens."""
    return float(batch.n_trained)


def completions(batch: Batch) -> float:
    """Normalise by completions."""
    return float(batch.n_completions)


def pairs(batch: Batch) -> float:
    """Normalise by pairs: completions come as chosen, rejected, chosen, rejected."""
    return batch.n_completions / 2


def step(
    learner: Learner, batches: Sequence[Batch], objective: Objective, normaliser: Normaliser, spare: Batch | None = None
) -> dict[str, float]:
    """One optimizer step over batches of any number and size; returns exact means over all of them and all processes.

    The sum of the objective is divided once, by the normaliser's total over all batches and processes, so neither
    packing nor micro-batches nor ranks change the gradient. Processes must run equally many forward passes when
    weights are sharded: one that has fewer rows repeats `spare` at weight 0.
    """
    parallel = learner.parallel
    total = parallel.total(sum(normaliser(batch) for batch in batches))
    rows = parallel.largest(len(batches))
    sums: Metrics = {}
    loss_sum = 0.0
    for index in range(rows):
        own = index < len(batches)
        batch = batches[index] if own else spare
        if batch is None:
            raise ValueError("a process without a row of its own needs a spare one")
        loss, metrics = objective(batch.to(parallel.device))
        parallel.backward(loss * ((1.0 if own else 0.0) / total), last=index == rows - 1)
        if own:
            loss_sum += float(loss.detach())
            for name, (value, count) in metrics.items():
                before = sums.get(name, (0.0, 0.0))
                sums[name] = (before[0] + value, before[1] + count)
    norm = parallel.finish_step(learner.model.module, learner.optimizer)
    return {"loss": parallel.total(loss_sum) / total, "gradient_norm": norm, **parallel.means(sums)}


def learning_rate(stage: TrainStage, step: int, total: int) -> float:
    """The rate of step 0 … total-1: a linear warm-up from 0, then the schedule (as transformers.get_scheduler)."""
    warmup = int(stage.warmup * total)
    if step < warmup:
        return stage.learning_rate * step / warmup
    progress = (step - warmup) / max(1, total - warmup)
    shapes = {"constant": 1.0, "linear": 1.0 - progress, "cosine": 0.5 * (1.0 + math.cos(math.pi * progress))}
    return stage.learning_rate * shapes[stage.schedule]


def total_steps(stage: TrainStage, rows: int) -> int:
    """Optimizer steps of a stage over a mix of so many rows."""
    return stage.steps or max(1, math.ceil(round(rows * (stage.epochs or 1.0)) / stage.batch))


def draw(groups: Sequence[Group], stage: TrainStage, step: int) -> list[Group]:
    """The groups of one step: the next `batch` of an order that is a function of seed and epoch alone."""
    rows = len(groups)
    first, last = step * stage.batch, (step + 1) * stage.batch
    if stage.steps is None:
        last = min(last, max(stage.batch, round(rows * (stage.epochs or 1.0))))
    return [groups[order(rows, stage.seed, position // rows)[position % rows]] for position in range(first, last)]


def fit(
    learner: Learner,
    groups: Sequence[Group],
    objective: Objective,
    normaliser: Normaliser,
    stage: TrainStage,
    run: Run,
    prepare: Callable[[list[Group]], list[Group]] = list,
) -> None:
    """Train from where the run stands to its last step; `prepare` sees a step's groups before they are packed."""
    total = total_steps(stage, len(groups))
    parallel = learner.parallel
    with run.interruptible(), Progress(run.job.stage, total, run.step, parallel.is_main) as progress:
        for index in range(run.step, total):
            began = time.monotonic()
            rate = learning_rate(stage, index, total)
            learner.set_learning_rate(rate)
            chosen = prepare(draw(groups, stage, index))
            batches = rows_of(parallel.share(chosen), stage)
            metrics = step(learner, batches, objective, normaliser, spare=rows_of(chosen[:1], stage)[0])
            tokens = parallel.total(sum(batch.n_tokens for batch in batches))
            seconds = time.monotonic() - began
            run.step = index + 1
            run.log(run.step, {**metrics, "learning_rate": rate, "sequences": len(chosen), "tokens": tokens, "seconds": seconds})
            run.journal("trained", step=run.step, rows=[group.id for group in chosen])
            progress.update(run.step, metrics, tokens / seconds)
            if run.due(run.step, run.step == total):
                run.save(run.step)
            run.stop_if_interrupted(run.step)


def rows_of(groups: Sequence[Group], stage: TrainStage) -> list[Batch]:
    """Packed rows; the completions of a group stay together, as pairwise losses need."""
    most = max((len(group.completions) for group in groups), default=1)
    return pack(groups, stage.row_tokens, stage.micro_batch * most, split=False)
