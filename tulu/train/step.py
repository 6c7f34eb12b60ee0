"""One optimizer step for every stage: losses are sums, and the one division by a global count happens here."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from tulu.errors import TrainingError
from tulu.losses import Loss, Metrics
from tulu.model.batch import Batch
from tulu.model.parallel import Parallel
from tulu.train.optimizer import Learner

B = TypeVar("B", bound=Batch)

Objective = Callable[[B], Loss]
"""The loss of a batch, as a sum."""
Normaliser = Callable[[B], float]
"""The share of a batch in the number that a step's loss is divided by."""

NAMED = 8
"""Rows that a message names; of more it says how many there are."""


def count_tokens(batch: Batch) -> float:
    """Normalise by trained tokens."""
    return float(batch.n_trained)


def count_completions(batch: Batch) -> float:
    """Normalise by completions."""
    return float(batch.n_completions)


def step(
    learner: Learner, batches: Sequence[B], objective: Objective[B], normaliser: Normaliser[B], spare: B | None = None
) -> dict[str, float]:
    """One optimizer step over batches of any number and size; returns exact means over all of them and all processes.

    The sum of the objective is divided once, by the normaliser's total over all batches and processes, so neither
    packing nor micro-batches nor ranks change the gradient. Processes must run equally many forward passes when
    weights are sharded: one that has fewer rows repeats `spare` at weight 0.

    Raises TrainingError, in every process alike, where the loss or the norm of the gradients is not finite. The step is not
    taken then, and the message names the rows.
    """
    parallel = learner.parallel
    total = parallel.total(sum(normaliser(batch) for batch in batches))
    rows = list(parallel.level(batches, spare))
    sums: Metrics = {}
    losses: list[Tensor] = []
    for index, (batch, is_own) in enumerate(rows, 1):
        loss, metrics = objective(batch.to(parallel.device))
        parallel.backward(loss * ((1.0 if is_own else 0.0) / total), last=index == len(rows))
        if is_own:
            losses.append(loss.detach())
            for name, (value, count) in metrics.items():
                before = sums.get(name, (0.0, 0.0))
                sums[name] = (before[0] + value, before[1] + count)
    # Losses stay on the device until the step is about to be taken, so that no micro-batch waits for the one before.
    loss_sum = torch.stack(losses).double().sum() if losses else torch.zeros((), dtype=torch.float64, device=parallel.device)
    loss_total, norm = parallel.finish_step(learner.model.module, learner.optimizer, loss_sum)
    trained = [row for batch in batches for row in batch.id_C]
    if not math.isfinite(loss_total):
        bad = _culprits(parallel, batches, losses, objective, spare)
        named = _name_rows(parallel, bad, trained)
        raise TrainingError(f"the next step is not taken, its loss is {loss_total}: {named}")
    if not math.isfinite(norm) and parallel.skipped is None:
        named = _name_rows(parallel, trained, trained)
        raise TrainingError(f"the next step is not taken, its loss is finite, the norm of its gradients {norm}: {named}")
    skipped = {} if parallel.skipped is None else {"skipped_steps": float(parallel.skipped)}
    return {"loss": loss_total / total, "gradient_norm": norm, **skipped, **parallel.means(sums)}


def _culprits(
    parallel: Parallel, batches: Sequence[B], losses: Sequence[Tensor], objective: Objective[B], spare: B | None
) -> list[str]:
    """This process's rows whose loss is not finite, found by each group's loss alone; all of a batch where none is so alone."""
    own = [(batch, loss) for batch, loss in zip(batches, losses, strict=True) if not math.isfinite(float(loss))]
    alone = [(place, batch.alone(group)) for place, (batch, _) in enumerate(own) for group in sorted(dict(batch.index_C))]
    found: dict[int, list[str]] = {}
    places = iter([place for place, _ in alone])
    with torch.no_grad():
        # Every process runs equally many forward passes here too, because sharded weights need it.
        for batch, is_own in parallel.level([batch for _, batch in alone], spare if spare is not None else _first(batches)):
            loss = float(objective(batch.to(parallel.device))[0])
            if is_own:
                place = next(places)
                if not math.isfinite(loss):
                    found.setdefault(place, []).extend(batch.id_C)
    return [row for place, (batch, _) in enumerate(own) for row in found.get(place, batch.id_C)]


def _first(batches: Sequence[B]) -> B | None:
    return batches[0] if batches else None


def _name_rows(parallel: Parallel, own: Sequence[str], trained: Sequence[str]) -> str:
    """Of the rows that all processes trained on, those of all processes in words; every process must call this."""
    parts = parallel.exchange((list(own), list(trained)))
    rows = list(dict.fromkeys(row for part, _ in parts for row in part))
    listed = ", ".join(rows[:NAMED]) + (f" and {len(rows) - NAMED} more" if len(rows) > NAMED else "")
    every = len(rows) > 1 and len(rows) == len({row for _, part in parts for row in part})
    return f"{'all its rows:' if every else 'row' if len(rows) == 1 else 'rows'} {listed}"
