"""One optimizer step for every stage: losses are sums, and the one division by a global count happens here."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from tulu.losses import Loss, Metrics
from tulu.model.batch import Batch
from tulu.train.optimizer import Learner

B = TypeVar("B", bound=Batch)

Objective = Callable[[B], Loss]
"""The loss of a batch, as a sum."""
Normaliser = Callable[[B], float]
"""The share of a batch in the number that a step's loss is divided by."""


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
    """
    parallel = learner.parallel
    total = parallel.total(sum(normaliser(batch) for batch in batches))
    rows = list(parallel.level(batches, spare))
    sums: Metrics = {}
    loss_sum = 0.0
    for index, (batch, is_own) in enumerate(rows, 1):
        loss, metrics = objective(batch.to(parallel.device))
        parallel.backward(loss * ((1.0 if is_own else 0.0) / total), last=index == len(rows))
        if is_own:
            loss_sum += float(loss.detach())
            for name, (value, count) in metrics.items():
                before = sums.get(name, (0.0, 0.0))
                sums[name] = (before[0] + value, before[1] + count)
    norm = parallel.finish_step(learner.model.module, learner.optimizer)
    return {"loss": parallel.total(loss_sum) / total, "gradient_norm": norm, **parallel.means(sums)}
